"""One version folder with one engine for each compute capability, and the field that tells Triton which is whose."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from builder.engine.targets import as_pair, sm_name

DEFAULT_FILE = "model.plan"
"""What Triton's TensorRT backend loads where ``cc_model_filenames`` has nothing for the GPU."""


def engine_file(capability: str) -> str:
    """``8.6`` -> ``model_sm86.plan``."""
    return f"model_{sm_name(capability)}.plan"


def cc_config(capabilities: Iterable[str]) -> dict[str, Any]:
    """The fields of ``config.pbtxt`` for a model with an engine for each of these compute capabilities.

    A GPU that has none finds no file under the default name and the model does not load there: the ONNX variant, a
    model of its own beside it, is what serves it.
    """
    names = {capability: engine_file(capability) for capability in sorted(set(capabilities), key=as_pair)}
    return {"backend": "tensorrt", "cc_model_filenames": names}
