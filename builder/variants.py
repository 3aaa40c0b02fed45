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

    def model_name(self, model: str) -> str:
        """The Triton model that holds this variant when a model has several (``digits_onnx_fp32``)."""
        return f"{model}_{self.name.replace('-', '_')}"


VARIANTS: dict[str, Variant] = {
    "onnx-fp32": Variant("onnx-fp32", "onnx", "fp32"),
}
