"""Which variants can be built and verified on this machine, and what is missing for the others: asked cheaply."""

from __future__ import annotations

from functools import lru_cache

from builder.engine import available, library_version
from builder.engine.device import gpus, has_gpu
from builder.errors import UnavailableError
from builder.variants import Variant


@lru_cache(maxsize=1024)
def unavailable(variant: Variant, spec: str = "SPEC", model: str = "") -> UnavailableError | None:
    """What keeps this machine from building a variant; None where nothing does.

    Args:
        variant: the variant.
        spec, model: for the command that would build it elsewhere.
    """
    if variant.format == "plan":
        lacks = available(variant.target)
        return lacks.error(variant.name, spec=spec, model=model) if lacks else None
    if variant.target == "openvino":
        return _no_openvino(variant)
    if variant.target in ("cuda", "tensorrt"):
        return None if has_gpu() else _no_gpu(variant, "an NVIDIA GPU, and a Triton whose ONNX Runtime uses it")
    if variant.precision == "bf16" and not has_gpu():
        return _no_gpu(variant, "a GPU: ONNX Runtime's CPU provider has no bfloat16 arithmetic")
    return None


@lru_cache(maxsize=4)
def engine_facts(kind: str) -> dict[str, str]:
    """What an engine depends on beside its network: the library that builds it, and the GPUs it is built on."""
    found = {f"tool:{kind}": library_version(kind) or "absent"}
    if has_gpu():
        found["gpus"] = ", ".join(sorted({f"{gpu.capability} {gpu.driver}" for gpu in gpus()}))
    return found


def _no_gpu(variant: Variant, needs: str) -> UnavailableError:
    return UnavailableError(
        f"{variant.name} cannot be verified on this machine",
        expected=needs,
        got="no NVIDIA GPU here (no /dev/nvidia0)",
        fix="run the same build-repo where there is one, or take the variant out",
    )


def _no_openvino(variant: Variant) -> UnavailableError | None:
    from builder.config.accelerators import openvino_missing

    return openvino_missing(variant.name)
