"""String tensors: bytes on Triton's side, text on ONNX Runtime's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def decode_strings(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An object array of bytes as one of ``str``, of the same shape.

    Raises:
        ValueError: an element is not UTF-8 (ONNX strings are).
    """
    decoded = np.empty(array.shape, dtype=np.object_)
    flat = decoded.reshape(-1)
    for index, element in enumerate(array.reshape(-1)):
        try:
            flat[index] = element.decode("utf-8") if isinstance(element, bytes) else str(element)
        except UnicodeDecodeError as error:
            raise ValueError(f"element {index} of string input '{name}' is not UTF-8: {error}") from None
    return decoded
