"""One table of tensor element types: how torch, numpy, ONNX, TensorRT and Triton each spell them.

Plain strings on purpose: this file imports none of those libraries.
Sources: Triton ``model_config.proto`` (DataType) and its "datatypes" page, ``onnx.TensorProto.DataType``,
``tensorrt.DataType``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DType:
    """One element type.

    Attributes:
        name: our spelling, used in ``models.yaml`` (``float32``); the torch spelling where torch has one.
        torch: attribute of ``torch``, or None.
        numpy: name of the numpy dtype, or None where numpy has none (bfloat16).
        onnx: name in ``onnx.TensorProto.DataType``.
        tensorrt: attribute of ``tensorrt.DataType``, or None.
        triton: spelling in requests and metadata (``FP32``); in ``config.pbtxt`` see :attr:`config`.
        size_bytes: bytes per element; 0 for strings.
    """

    name: str
    torch: str | None
    numpy: str | None
    onnx: str
    tensorrt: str | None
    triton: str
    size_bytes: int

    @property
    def config(self) -> str:
        """Spelling in ``config.pbtxt`` (``TYPE_FP32``)."""
        return "TYPE_STRING" if self.triton == "BYTES" else f"TYPE_{self.triton}"

    @property
    def is_float(self) -> bool:
        """True for floating point types."""
        return self.triton in ("FP16", "FP32", "FP64", "BF16")


DTYPES: tuple[DType, ...] = (
    DType("bool", "bool", "bool", "BOOL", "BOOL", "BOOL", 1),
    DType("uint8", "uint8", "uint8", "UINT8", "UINT8", "UINT8", 1),
    DType("uint16", "uint16", "uint16", "UINT16", None, "UINT16", 2),
    DType("uint32", "uint32", "uint32", "UINT32", None, "UINT32", 4),
    DType("uint64", "uint64", "uint64", "UINT64", None, "UINT64", 8),
    DType("int8", "int8", "int8", "INT8", "INT8", "INT8", 1),
    DType("int16", "int16", "int16", "INT16", None, "INT16", 2),
    DType("int32", "int32", "int32", "INT32", "INT32", "INT32", 4),
    DType("int64", "int64", "int64", "INT64", "INT64", "INT64", 8),
    DType("float16", "float16", "float16", "FLOAT16", "HALF", "FP16", 2),
    DType("bfloat16", "bfloat16", None, "BFLOAT16", "BF16", "BF16", 2),
    DType("float32", "float32", "float32", "FLOAT", "FLOAT", "FP32", 4),
    DType("float64", "float64", "float64", "DOUBLE", None, "FP64", 8),
    DType("string", None, "object", "STRING", None, "BYTES", 0),
)

BY_NAME: dict[str, DType] = {dtype.name: dtype for dtype in DTYPES}
BY_TRITON: dict[str, DType] = {dtype.triton: dtype for dtype in DTYPES}
BY_CONFIG: dict[str, DType] = {dtype.config: dtype for dtype in DTYPES}
BY_ONNX: dict[str, DType] = {dtype.onnx: dtype for dtype in DTYPES}
