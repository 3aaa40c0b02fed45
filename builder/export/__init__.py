"""A module becomes ONNX, with the spec's names, or the reason why not."""

from builder.export.to_onnx import onnx_from_file, onnx_from_torch

__all__ = ["onnx_from_file", "onnx_from_torch"]
