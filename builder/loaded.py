"""What a source gives: a torch module ready to be called with the spec's tensors, or an ONNX file with its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.tensors import Interface

if TYPE_CHECKING:
    import torch


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


Loaded = TorchModule | OnnxFile
