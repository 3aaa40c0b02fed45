"""What a user may ask for in ``models.yaml``, and all that is wrong with one, said at once."""

from builder.spec.ensemble_parts import Ensemble, EnsembleStep
from builder.spec.models import ModelSpec, Root, Spec, read_spec
from builder.spec.parts import SOURCE_KINDS, Callable, Export
from builder.spec.sequence_parts import Sequence, State
from builder.spec.serving_parts import Batch, Instances, QueuePolicy, Warmup
from builder.spec.tuning_parts import Optimization, TensorOptions
from builder.spec.variant_parts import Agreement, Engine, Load, Precision

__all__ = [
    "SOURCE_KINDS",
    "Agreement",
    "Batch",
    "Callable",
    "Engine",
    "Ensemble",
    "EnsembleStep",
    "Export",
    "Instances",
    "Load",
    "ModelSpec",
    "Optimization",
    "Precision",
    "QueuePolicy",
    "Root",
    "Sequence",
    "Spec",
    "State",
    "TensorOptions",
    "Warmup",
    "read_spec",
]
