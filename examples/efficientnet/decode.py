"""A photograph's bytes into its pixels, inside the server: a class without Triton in it.

Pillow decodes more formats than JPEG, faster than onnxruntime-extensions' ``DecodeImage``, and takes the bytes as the
text tensor that they are sent in; ONNX Runtime's own ``ImageDecoder`` has no implementation on the CPU.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np


class Decode:
    """The middle of a photograph.

    Args:
        part: how much of its shorter side is kept.
    """

    def __init__(self, part: float = 0.875) -> None:
        self._part = part

    def execute(self, jpeg: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """``string[batch, 1]`` -> ``pixels``, ``uint8[batch, side, side, 3]``; any format that Pillow knows.

        Raises:
            ValueError: the photographs of one request have different sizes.
        """
        squares = [self._square(data) for data in jpeg[:, 0]]
        sides = sorted({len(square) for square in squares})
        if len(sides) > 1:
            raise ValueError(
                f"photographs of {len(sides)} sizes in one request: send each size in a request of its own"
            )
        return {"pixels": np.stack(squares)}

    def _square(self, data: bytes) -> np.ndarray[Any, Any]:
        from PIL import Image, ImageOps

        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        side = max(1, int(min(upright.size) * self._part))
        left, top = (upright.width - side) // 2, (upright.height - side) // 2
        return np.asarray(upright.crop((left, top, left + side, top + side)))
