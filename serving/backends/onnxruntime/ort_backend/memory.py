"""Memory that somebody else owns: where a tensor's elements are, and an array over them."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype = ctypes.c_void_p
_capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def tensor_address(tensor: Any) -> int:
    """Where the elements of one of the stub's tensors are now: the first field of its DLPack description."""
    capsule = tensor.to_dlpack()
    address = ctypes.c_void_p.from_address(_capsule_pointer(capsule, b"dltensor")).value
    return address or 0


def view_at(address: int, like: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A writable array of the shape and type of ``like`` over the memory at ``address``."""
    memory = (ctypes.c_char * like.nbytes).from_address(address)
    return np.frombuffer(memoryview(memory), dtype=like.dtype).reshape(like.shape)
