"""What can be asked of a TensorRT build, as plain data that crosses a process border."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builder.errors import EngineError

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]
"""Of each input the smallest, the usual and the largest shape; the engine is tuned for the usual one."""

OPTIMIZATION_LEVELS = range(6)
HARDWARE_COMPATIBILITY = ("none", "ampere_plus", "same_compute_capability")


@dataclass(frozen=True)
class EngineOptions:
    """One build of an engine.

    Attributes:
        gpus: what it is for: names of :mod:`builder.engine.targets`. None named is the GPU of this machine, and for an
            engine that is built ahead of time every architecture that the library knows.
        profiles: at least one where a dimension is free.
        workspace_bytes: how much scratch memory a layer may take; None leaves it to the library.
        optimization_level: 0 (fast to build) to 5 (fast to run); None leaves it to the library.
        version_compatible: loads in newer minor versions of the library too, if the server is told to allow it.
        hardware_compatibility: runs on other GPUs too: ``ampere_plus``, ``same_compute_capability``.
        sparsity: use the sparse tensor cores where weights have two zeros in four.
        refit: weights can be exchanged later.
        weight_streaming: weights may stay in the host's memory and come over when they are needed.
        plugins: shared libraries with operators that the library lacks.
        dla_core: which deep learning accelerator of a Jetson it runs on; the GPU takes what that cannot do.
    """

    gpus: tuple[str, ...] = ()
    profiles: tuple[Profile, ...] = ()
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatibility: str = "none"
    sparsity: bool = False
    refit: bool = False
    weight_streaming: bool = False
    plugins: tuple[str, ...] = ()
    dla_core: int | None = None

    def __post_init__(self) -> None:
        if self.optimization_level is not None and self.optimization_level not in OPTIMIZATION_LEVELS:
            raise _refused("optimization_level", "0 (fast to build) to 5 (fast to run)", self.optimization_level)
        if self.hardware_compatibility not in HARDWARE_COMPATIBILITY:
            raise _refused("hardware_compatibility", ", ".join(HARDWARE_COMPATIBILITY), self.hardware_compatibility)
        if self.workspace_bytes is not None and self.workspace_bytes <= 0:
            raise _refused("workspace", "a number of bytes above 0", self.workspace_bytes)
        if self.dla_core is not None and self.dla_core < 0:
            raise _refused("dla_core", "0 or more", self.dla_core)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self) | {"profiles": [dict(profile) for profile in self.profiles]}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> EngineOptions:
        """The options that :meth:`as_dict` made."""
        profiles = tuple(profile_from(profile) for profile in data["profiles"])
        return EngineOptions(
            **{**data, "profiles": profiles, "gpus": tuple(data["gpus"]), "plugins": tuple(data["plugins"])}
        )


@dataclass(frozen=True)
class Job:
    """What one process is to build.

    Attributes:
        kind: ``tensorrt`` or ``tensorrt-rtx``.
        source: the ONNX file.
        to: where the engine goes.
        options: how it is built; ``gpus`` are compute capabilities by now.
        cache: the timing cache, which may not exist yet.
        cache_is_users: whether the user named that file, so that it must not be passed over.
    """

    kind: str
    source: Path
    to: Path
    options: EngineOptions
    cache: Path | None = None
    cache_is_users: bool = False


def profile_from(data: Mapping[str, Any]) -> Profile:
    """A profile out of plain data: lists become tuples."""
    shapes = {name: tuple(tuple(int(size) for size in shape) for shape in three) for name, three in data.items()}
    return {name: (three[0], three[1], three[2]) for name, three in shapes.items()}


def _refused(option: str, expected: str, got: object) -> EngineError:
    what = f"`{option}` of the engine cannot be used"
    return EngineError(what, where=f"engine.{option}", expected=expected, got=str(got), fix=f"write {expected}")
