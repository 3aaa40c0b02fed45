"""Where a module comes from. One loader per kind of source; the registry is the dictionary below."""

from __future__ import annotations

from collections.abc import Callable

from builder.loaded import Loaded, OnnxFile, TorchModule
from builder.sources.onnx_file import from_onnx
from builder.sources.torch_sources import from_checkpoint, from_exported, from_huggingface, from_python
from builder.spec import ModelSpec, Spec

LOADERS: dict[str, Callable[[Spec, ModelSpec], Loaded]] = {
    "python": from_python,
    "exported": from_exported,
    "checkpoint": from_checkpoint,
    "huggingface": from_huggingface,
    "onnx": from_onnx,
}

__all__ = ["LOADERS", "Loaded", "OnnxFile", "TorchModule", "load"]


def load(spec: Spec, model: ModelSpec) -> Loaded:
    """The module or file behind ``model.source``. To be called inside :func:`builder.usercode.user_code`.

    Raises:
        SourceError: it raised, is missing or is of the wrong kind.
    """
    return LOADERS[model.kind](spec, model)
