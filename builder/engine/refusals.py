"""Every option that a library does not have is refused by its name: none is passed over in silence."""

from __future__ import annotations

from typing import Any

from builder.engine.library import LIBRARIES
from builder.engine.options import EngineOptions, Job
from builder.engine.targets import sm_name
from builder.errors import EngineError


def check_options(trt: Any, job: Job) -> None:
    """Compare the options with what the library has.

    Raises:
        EngineError: it lacks one, or cannot build for one of the GPUs.
    """
    options, flags, rtx = job.options, trt.BuilderFlag.__members__, job.kind == "tensorrt-rtx"
    level = options.hardware_compatibility.upper()
    missing = {
        "version_compatible": options.version_compatible and ("VERSION_COMPATIBLE" not in flags or rtx),
        "sparsity": options.sparsity and "SPARSE_WEIGHTS" not in flags,
        "refit": options.refit and ("REFIT" not in flags or rtx),  # needs the GPU itself, and one architecture
        "weight_streaming": options.weight_streaming and "WEIGHT_STREAMING" not in flags,
        "hardware_compatibility": level != "NONE"
        and (rtx or level not in getattr(getattr(trt, "HardwareCompatibilityLevel", None), "__members__", ())),
        "dla_core": options.dla_core is not None and (rtx or not hasattr(trt.IBuilderConfig, "DLA_core")),
        "optimization_level": options.optimization_level is not None
        and not hasattr(trt.IBuilderConfig, "builder_optimization_level"),
    }
    for option in (name for name, is_missing in missing.items() if is_missing):
        raise refused_option(option, job.kind, str(trt.__version__))
    if rtx:
        _check_architectures(trt, options)


def refused_option(option: str, kind: str, version: str) -> EngineError:
    """An option that a library does not have."""
    title = LIBRARIES[kind].title
    return EngineError(
        f"{title} {version} has no `{option}`",
        where=f"engine.{option}",
        expected=f"an option of {title} {version}",
        got=option,
        fix=f"take `{option}` out of the spec"
        + (", or build a `tensorrt-*` variant: TensorRT has it" if kind == "tensorrt-rtx" else ""),
    )


def _check_architectures(trt: Any, options: EngineOptions) -> None:
    known = trt.ComputeCapability.__members__
    unknown = [name for name in map(sm_name, options.gpus) if name.upper() not in known]
    if unknown:
        able = ", ".join(name.lower() for name in known if name.startswith("SM"))
        raise EngineError(
            f"TensorRT-RTX {trt.__version__} cannot build for {', '.join(unknown)}",
            where="engine.gpu",
            expected=f"of {able}",
            got=", ".join(unknown),
            fix="take it out of `gpu`, or build a `tensorrt-*` variant on a machine with that GPU",
        )
