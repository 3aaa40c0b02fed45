"""A photograph's bytes into its pixels, inside the server: a class without Triton in it.

Pillow decodes more formats than JPEG, faster than onnxruntime-extensions' ``DecodeImage``, and takes the bytes as the
text tensor that they are sent in; ONNX Runtime's own ``ImageDecoder`` has no implementation on the CPU.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np


class Decode:
    """The middle of a photograph, always of one size: photographs of many sizes go into one batch.

    Args:
        part: how much of its shorter side is kept.
        side: pixels of the square.
    """

    def __init__(self, part: float = 0.875, side: int = 256) -> None:
        self._part, self._side = part, side

    def execute(self, jpeg: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """``string[batch, 1]`` -> ``pixels``, ``uint8[batch, 256, 256, 3]``; any format that Pillow knows."""
        return {"pixels": np.stack([self._square(data) for data in jpeg[:, 0]])}

    def _square(self, data: bytes) -> np.ndarray[Any, Any]:
        from PIL import Image, ImageOps

        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        side = min(upright.size) * self._part
        left, top = (upright.width - side) / 2, (upright.height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(upright.resize((self._side, self._side), Image.Resampling.BICUBIC, box=box))
