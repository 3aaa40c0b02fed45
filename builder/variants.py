"""What a model can be built as. One row, one variant; precision and engine rooms add theirs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One way to serve a model.

    Attributes:
        name: as written in ``variants`` (``onnx-fp32``).
        format: what file it becomes (``onnx``).
        precision: what its arithmetic is done in (``fp32``); the row of the tolerance table.
    """

    name: str
    format: str
    precision: str


VARIANTS: dict[str, Variant] = {
    "onnx-fp32": Variant("onnx-fp32", "onnx", "fp32"),
}
