"""The tensors of an ONNX file, read from its graph without its weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from builder.graphs.light_graph import light_bytes
from builder.tensors import BATCH, Dim, Interface, TensorSpec
from serving.dtypes import BY_ONNX
from serving.errors import MissingDependencyError

PROTOBUF_LIMIT_BYTES = 2**31 - 1
LIGHT_ABOVE_BYTES = 16 * 1024 * 1024
"""Files above this are read without the weights inside them."""


def load_graph(path: Path) -> Any:
    """The ``onnx.ModelProto`` of a file, for a look at its graph: weights outside of it, or many of them, are left out.

    Raises:
        ValueError: it is no ONNX model.
        OSError: it cannot be read.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as exc:
        raise MissingDependencyError("onnx", "torch", needed_for="to read ONNX files") from exc
    size = path.stat().st_size
    if size > PROTOBUF_LIMIT_BYTES:
        raise ValueError(f"{size} bytes, and an ONNX file ends at 2 GiB: larger weights must be external data")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(light_bytes(path) if size > LIGHT_ABOVE_BYTES else path.read_bytes())
    except (DecodeError, ValueError) as exc:
        raise ValueError(f"not an ONNX file, or cut short ({size} bytes): {exc}") from exc
    if not model.graph.output:
        raise ValueError(f"an ONNX file without outputs ({size} bytes)" if size else "an empty file")
    return model


def interface_of_onnx(path: Path) -> Interface:
    """Inputs and outputs of an ONNX file; a dimension without a size keeps its name, cleaned.

    A first dimension that is free in every input and output is the batch dimension, whatever its name, as Triton's
    own auto-completion takes it.

    Raises:
        ValueError: it is no ONNX model, or holds a type that Triton has none for.
        OSError: it cannot be read.
    """
    graph = load_graph(path).graph
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [_tensor(value) for value in graph.input if value.name not in initializers]
    outputs = [_tensor(value) for value in graph.output]
    everything = inputs + outputs
    firsts = [tensor.dims[0] if tensor.dims else None for tensor in everything]
    if all(first is not None and first.size is None for first in firsts) and inputs:
        everything = [_batched(tensor) for tensor in everything]
    count = len(inputs)
    return Interface(tuple(everything[:count]), tuple(everything[count:]))


def _batched(tensor: TensorSpec) -> TensorSpec:
    return TensorSpec(tensor.name, tensor.dtype, (Dim(name=BATCH), *tensor.dims[1:]))


def _tensor(value: Any) -> TensorSpec:
    import onnx

    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ValueError(f"{value.name!r} is a {kind}, not a tensor; Triton serves tensors only")
    if not value.type.tensor_type.HasField("shape"):
        raise ValueError(f"{value.name!r} says nothing of its shape, not even how many dimensions it has")
    spelling = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    if spelling not in BY_ONNX:
        raise ValueError(f"{value.name!r} holds {spelling}, which Triton has no type for")
    dims = []
    for index, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0:
            dims.append(Dim(size=dim.dim_value))
        else:
            name = re.sub(r"\W+", "_", dim.dim_param).strip("_") or f"{value.name}_{index}"
            name = re.sub(r"\W+", "_", name, flags=re.ASCII)  # as the spec would spell it
            dims.append(Dim(name=f"d_{name}" if name[0].isdigit() or (name == BATCH and index) else name))
    return TensorSpec(value.name, BY_ONNX[spelling], tuple(dims))
