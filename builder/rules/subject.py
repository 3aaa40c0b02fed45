"""What the rules about a configuration are given: the message, and what the server would add to it before it looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from builder.releases import Release
from builder.rules.rule import Hit, Rule

# backend: its platform (or none), and the file that it loads unless `default_model_filename` says another.
BACKENDS: dict[str, tuple[str, str]] = {
    "onnxruntime": ("onnxruntime_onnx", "model.onnx"),
    "tensorrt": ("tensorrt_plan", "model.plan"),
    "pytorch": ("pytorch_libtorch", "model.pt"),
    "openvino": ("", "model.xml"),
    "python": ("", "model.py"),
    "tensorflow": ("", ""),
}
"""Backends that Triton's core knows by name."""

OTHER_BACKENDS = ("dali", "fil", "vllm", "tensorrtllm", "identity", "repeat", "square", "armnn_tflite", "rapids_triton")
"""Backends of NVIDIA's images and repositories that the core treats as any other."""

_PLATFORMS = {
    "tensorrt_plan": "tensorrt",
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "libtorch": "pytorch",
    "torch_aoti": "pytorch",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
}
_FILES = {
    "model.plan": "tensorrt",
    "model.onnx": "onnxruntime",
    "model.xml": "openvino",
    "model.pt": "pytorch",
    "model.pt2": "pytorch",
    "model.py": "python",
}
_FILES_ONLY = ("model.plan", "model.pt")
"""Taken for what their names say only where they are files, not folders."""

ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Served:
    """Who serves a model, once the server has filled in what the configuration leaves open.

    Attributes:
        backend: ``""`` for an ensemble, and where nothing says it.
        platform: likewise.
        filename: what the backend loads from a version's folder; ``""`` where that is the backend's own affair.
    """

    backend: str
    platform: str
    filename: str


def served_by(config: Any, files: Mapping[str, bool] | None = None, name: str = "") -> Served:
    """Who serves a model, as Triton finds it out.

    Args:
        config: the message.
        files: what the first version's folder holds, True for folders; None where that is not known.
        name: of the model's folder: ``model.NAME`` names a backend of one's own.
    """
    backend, platform, filename = config.backend, config.platform, config.default_model_filename
    if platform == ENSEMBLE and not backend and not _FILES.get(filename):
        return Served("", ENSEMBLE, "")
    if not backend:
        named = (_PLATFORMS.get(platform, ""), _FILES.get(filename, ""))
        order = ("tensorflow", *_FILES.values())
        backend = next((known for known in order if known in named), "")  # the first that either says
    if not backend and not platform and not filename and files is not None:
        found = [file for file in _FILES if file in files and not (files[file] and file in _FILES_ONLY)]
        if files.get("model.savedmodel") or files.get("model.graphdef") is False:
            backend = "tensorflow"
        elif found:
            backend = _FILES[found[0]]
            platform = "torch_aoti" if found[0] == "model.pt2" else platform
        elif "." in name:
            backend = name.split(".", 1)[1]
            return Served(backend, platform, f"model.{backend}")
    default_platform, default_file = BACKENDS.get(backend, ("", ""))
    if platform == "torch_aoti":
        default_file = "model.pt2"
    return Served(backend, platform or default_platform, filename or default_file)


@dataclass(frozen=True)
class Subject:
    """One configuration to judge.

    Attributes:
        config: the ``ModelConfig`` message, as it is written in the file.
        served: who serves it.
        name: of the model's folder; None where that is not to be looked at.
        files: what the first version's folder holds, True for folders; None where that is not known.
        libraries: backends whose own library lies in the model's folder.
        completes: the backend may fill in types and dims that are missing; None where that hangs on a python model's
            code, which is not looked at.
        release: of Triton; None for any.
        gpu: False where the repository is known to be served without one.
        backends: those of the server, where they are known.
    """

    config: Any
    served: Served
    name: str | None = None
    files: Mapping[str, bool] | None = None
    libraries: frozenset[str] = frozenset()
    completes: bool | None = False
    release: Release | None = None
    gpu: bool | None = None
    backends: tuple[str, ...] = ()

    @property
    def backend(self) -> str:
        """The backend's name, ``""`` for ensembles and where it is not known."""
        return self.served.backend

    @property
    def is_ensemble(self) -> bool:
        """True for ensembles, whichever way they say it."""
        return bool(self.config.platform == ENSEMBLE or self.config.HasField("ensemble_scheduling"))


ConfigRule = tuple[Rule, Callable[[Subject], Iterable[Hit]]]
"""A rule, and the function that looks for it."""


def enum_name(message: Any, field: str) -> str:
    """The name of an enumeration's value in a message; its number where it has no name."""
    number = getattr(message, field)
    value = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number.get(number)
    return value.name if value is not None else str(number)
