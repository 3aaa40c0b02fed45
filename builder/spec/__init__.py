"""What a user may ask for in ``models.yaml``, and all that is wrong with one, said at once."""

from builder.spec.models import ModelSpec, Root, Spec, read_spec
from builder.spec.parts import SOURCE_KINDS, Batch, Export, Instances, Warmup

__all__ = ["SOURCE_KINDS", "Batch", "Export", "Instances", "ModelSpec", "Root", "Spec", "Warmup", "read_spec"]
