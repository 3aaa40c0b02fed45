"""What a variant needs in ``config.pbtxt`` beside what the spec says: its engines, its accelerator, where it runs."""

from __future__ import annotations

from typing import Any

from builder.artifact import Artifact
from builder.spec import ModelSpec
from builder.variants import Variant


def fields_of(variant: Variant, model: ModelSpec, artifact: Artifact) -> dict[str, Any]:
    """Fields of Triton's ``ModelConfig`` as plain data; empty for what ONNX Runtime runs as it is.

    Args:
        variant: what is served.
        model: what the spec says of the model.
        artifact: its file, or its engines: one for each compute capability.
    """
    if variant.format == "plan":
        return _engines(artifact)
    if variant.target == "cpu":
        return {}
    from builder.config.accelerators import accelerator_fields

    return accelerator_fields(variant.target, variant.precision, _shapes(model))


def _engines(artifact: Artifact) -> dict[str, Any]:
    capabilities = {name.removeprefix("model_sm").removesuffix(".plan"): name for name in artifact.sha256}
    return {"cc_model_filenames": {f"{cc[:-1]}.{cc[-1]}": name for cc, name in sorted(capabilities.items())}}


def _shapes(model: ModelSpec) -> list[dict[str, dict[str, list[int]]]]:
    return [
        {name: {"min": list(s.min), "opt": list(s.opt), "max": list(s.max)} for name, s in profile.items()}
        for profile in model.engine.profiles
    ]
