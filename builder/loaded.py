"""What a model is made of: a torch module, an ONNX file, a Python class, or the originals of an ensemble's steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.tensors import Interface

if TYPE_CHECKING:
    import torch

    from builder.ensemble.graph import EnsembleGraph
    from builder.python_model import PythonStep
    from builder.reference import Runner


@dataclass(frozen=True)
class TorchModule:
    """A module in inference mode.

    Attributes:
        module: called with tensors, gives tensors.
        interface: what the spec says it takes and gives.
        program: the ``torch.export`` program behind it, where the source was one.
    """

    module: torch.nn.Module
    interface: Interface
    program: Any = None


@dataclass(frozen=True)
class OnnxFile:
    """An existing ONNX file, taken as it is.

    Attributes:
        path: the file.
        interface: its tensors, dimension names and ranges as the spec says where it says so.
    """

    path: Path
    interface: Interface


@dataclass(frozen=True)
class PythonClass:
    """A class that is served as it is.

    Attributes:
        step: what is to be made of it: the class, its arguments, its tensors.
        interface: what the spec says it takes and gives.
        runner: the class itself, to be asked; what it calls are originals.
        parts: the original behind each model that it calls, by the name it is called by.
    """

    step: PythonStep
    interface: Interface
    runner: Runner
    parts: Mapping[str, Loaded]


@dataclass(frozen=True)
class Composition:
    """An ensemble, put together of the originals of its steps.

    Attributes:
        graph: its steps and their wiring, checked.
        interface: its tensors.
        runner: the originals of its steps, asked one after another.
        parts: the original behind each step, by the step's name.
    """

    graph: EnsembleGraph
    interface: Interface
    runner: Runner
    parts: Mapping[str, Loaded]


Loaded = TorchModule | OnnxFile | PythonClass | Composition
