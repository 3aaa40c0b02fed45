"""What a user may ask for in ``models.yaml``, and all that is wrong with one, said at once."""

from builder.spec.ensemble_parts import Ensemble, EnsembleStep
from builder.spec.models import ModelSpec, Root, Spec, read_spec
from builder.spec.parts import SOURCE_KINDS, Batch, Callable, Export, Instances, Warmup
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
    "Precision",
    "Root",
    "Spec",
    "Warmup",
    "read_spec",
]
