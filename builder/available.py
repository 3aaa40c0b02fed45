"""Which variants can be built and verified on this machine, and what is missing for the others: asked cheaply."""

from __future__ import annotations

from functools import lru_cache

from builder.errors import UnavailableError
from builder.host import has_nvidia_gpu, tool_versions
from builder.variants import Variant

_ENGINE_TOOLS = {
    "tensorrt": ("tensorrt", "polygraphy"),
    "tensorrt-rtx": ("tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings", "polygraphy"),
}


@lru_cache(maxsize=64)
def unavailable(variant: Variant) -> UnavailableError | None:
    """What keeps this machine from building a variant; None where nothing does."""
    if variant.format == "plan":
        from builder.engine import available

        lacks = available(variant.target)
        return lacks.error(variant.name) if lacks else None
    if variant.target == "openvino":
        return _no_openvino(variant)
    if variant.target in ("cuda", "tensorrt"):
        return None if has_nvidia_gpu() else _no_gpu(variant, "an NVIDIA GPU, and a Triton whose ONNX Runtime uses it")
    if variant.precision == "bf16" and not has_nvidia_gpu():
        return _no_gpu(variant, "a GPU: ONNX Runtime's CPU provider has no bfloat16 arithmetic")
    return None


def engine_tools(kind: str) -> dict[str, str]:
    """What an engine depends on beside its network: the libraries that build it."""
    return {f"tool:{name}": version for name, version in tool_versions(*_ENGINE_TOOLS[kind]).items()}


def _no_gpu(variant: Variant, needs: str) -> UnavailableError:
    return UnavailableError(
        f"{variant.name} cannot be verified on this machine",
        expected=needs,
        got="no NVIDIA GPU here (/dev/nvidiactl is not there)",
        fix="run the same build-repo where there is one, or take the variant out",
    )


def _no_openvino(variant: Variant) -> UnavailableError | None:
    from builder.config.accelerators import openvino_missing

    return openvino_missing(variant.name)
