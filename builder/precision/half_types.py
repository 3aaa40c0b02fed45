"""Which tensors of a node can be in half precision: what ONNX's own schema of its operator allows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from builder.precision import graph as graphs

FLOW = ("If", "Loop", "Scan")
"""Operators whose graphs inside are converted as well."""
_DTYPE_ATTRIBUTES = ("to", "dtype", "output_datatype", "output_dtype")


@dataclass
class Choice:
    """What a node wants and gives; None for a tensor that is not float32, or that may come as it is.

    Attributes:
        inputs: element type that each input must have.
        outputs: element type that each output has then.
        attribute: name of the attribute that says so where no input does, else empty.
        converted: False where all of it stays in float32.
    """

    inputs: list[int | None]
    outputs: list[int | None]
    attribute: str = ""
    converted: bool = True


def choose(node: Any, half: int, opsets: dict[str, int], *, keep: bool) -> Choice:
    """What becomes of one node, as its tensors were before.

    Args:
        node: an ``onnx_ir.Node`` of a graph with types.
        half: ``onnx_ir.DataType`` of the half precision.
        opsets: version of each domain.
        keep: it stays in float32.
    """
    stays = Choice(_each(node.inputs, graphs.FLOAT), _each(node.outputs, graphs.FLOAT), converted=False)
    if keep or not (any(stays.inputs) or any(stays.outputs)):
        return stays
    if not all(_is_tensor(value) for value in (*node.inputs, *node.outputs)):
        return stays
    if any(attribute.type.name in ("GRAPH", "GRAPHS") for attribute in node.attributes.values()):
        flows = node.op_type in FLOW and node.domain in ("", "ai.onnx")
        return Choice(_each(node.inputs, half), _each(node.outputs, half)) if flows else stays
    schema = _schema(node, opsets)
    if schema is None:
        return stays
    return _by_schema(node, schema, half, stays)


def _by_schema(node: Any, schema: Any, half: int, stays: Choice) -> Choice:
    formals = [_formal(schema.inputs, index) for index in range(len(node.inputs))]
    inputs = [
        (half if _allows(formal, half) else graphs.FLOAT) if wants else None
        for formal, wants in zip(formals, stays.inputs, strict=True)
    ]
    bound = {formal.type_str for formal, value in zip(formals, node.inputs, strict=True) if value is not None}
    outputs: list[int | None] = []
    attribute = ""
    for index, gives in enumerate(stays.outputs):
        formal = _formal(schema.outputs, index)
        if not gives or not _allows(formal, half):
            outputs.append(gives)
        elif formal.type_str in bound:
            outputs.append(half)
        else:
            attribute = _says_type(node, schema)
            outputs.append(half if attribute else gives)
    if _follows(node, stays, inputs, half):
        inputs = [None] * len(inputs)
    return Choice(inputs, outputs, attribute, converted=half in inputs or half in outputs)


def _follows(node: Any, stays: Choice, inputs: Sequence[int | None], half: int) -> bool:
    """A node that takes its one float tensor in either type, and gives no other for it: Cast, Shape, ArgMax."""
    floats = [(value, want) for value, want in zip(node.inputs, inputs, strict=True) if want]
    if len(floats) != 1 or floats[0][1] != half or graphs.constant(floats[0][0]) is not None:
        return False
    return node.op_type == "Cast" or not any(stays.outputs)


def _says_type(node: Any, schema: Any) -> str:
    """The attribute that decides the type of an output; empty where there is none."""
    if node.op_type in ("Constant", "ConstantOfShape"):
        return "value" if {"value_float", "value_floats", "value"} & set(node.attributes) or not node.attributes else ""
    return next((name for name in _DTYPE_ATTRIBUTES if name in schema.attributes), "")


def _each(values: Sequence[Any], dtype: int) -> list[int | None]:
    return [dtype if graphs.is_float(value) and _is_tensor(value) else None for value in values]


def _is_tensor(value: Any) -> bool:
    import onnx_ir

    return value is None or value.type is None or isinstance(value.type, onnx_ir.TensorType)


def _schema(node: Any, opsets: dict[str, int]) -> Any:
    import onnx

    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        return onnx.defs.get_schema(node.op_type, opsets.get(domain, 1), domain)
    except onnx.defs.SchemaError:
        return None  # an operator of a runtime's own: nobody says what types it takes


def _formal(formals: Sequence[Any], index: int) -> Any:
    return formals[min(index, len(formals) - 1)]  # the last one may be variadic


def _allows(formal: Any, half: int) -> bool:
    import onnx_ir

    allowed: Collection[str] = formal.types
    return f"tensor({onnx_ir.DataType(half).name.lower()})" in allowed
