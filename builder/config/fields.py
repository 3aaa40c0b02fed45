"""What a variant needs in ``config.pbtxt`` beside what the spec says: its engines, its accelerator, where it runs."""

from __future__ import annotations

from typing import Any

from builder.artifact import Artifact
from builder.incremental.cache import digest_of
from builder.spec import ModelSpec
from builder.variants import Variant
from serving.terminal import parse_size


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
    from builder.config.forms import instance_group

    engine = model.engine
    return accelerator_fields(
        variant.target,
        variant.precision,
        _shapes(model),
        key=digest_of(dict(artifact.sha256))[:16],
        instance_groups=[instance_group(group) for group in model.instances],
        workspace_bytes=parse_size(engine.workspace) if engine.workspace else None,
        optimization_level=engine.optimization_level,
        sparsity=engine.sparsity,
    )


def _engines(artifact: Artifact) -> dict[str, Any]:
    capabilities = {name.removeprefix("model_sm").removesuffix(".plan"): name for name in artifact.sha256}
    return {"cc_model_filenames": {f"{cc[:-1]}.{cc[-1]}": name for cc, name in sorted(capabilities.items())}}


def _shapes(model: ModelSpec) -> list[dict[str, dict[str, list[int]]]]:
    return [
        {name: {"min": list(s.min), "opt": list(s.opt), "max": list(s.max)} for name, s in profile.items()}
        for profile in model.engine.profiles
    ]
