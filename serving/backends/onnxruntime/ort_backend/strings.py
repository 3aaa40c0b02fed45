"""String tensors: bytes on Triton's side, text on ONNX Runtime's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def decode_strings(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An object array of bytes as ONNX Runtime wants it, of the same shape.

    Text becomes ``str``. Bytes that are no UTF-8 go in as they are, in a fixed-width array, unless they hold a zero
    byte: ONNX Runtime would cut them there.

    Raises:
        ValueError: bytes that are neither.
    """
    decoded = np.empty(array.size, dtype=np.object_)
    try:
        for index, element in enumerate(array.flat):
            decoded[index] = element.decode()
    except UnicodeDecodeError as error:
        if any(b"\0" in element for element in array.flat):
            raise ValueError(f"string input '{name}' is not UTF-8, and holds zero bytes: {error}") from None
        return array.astype(np.bytes_)
    return decoded.reshape(array.shape)
