"""Embeddings in integers with a scale for each row: they are looked up, never multiplied, so only size changes."""

from __future__ import annotations

from typing import Any

from builder.precision import graph as graphs
from builder.precision.integers import attribute, quantized_weight

LEAST_COLUMNS = 8
"""A row of fewer numbers is hardly smaller with a scale of its own."""


def fits(node: Any) -> bool:
    """Whether a node looks rows up in a constant table of float32."""
    if node.op_type != "Gather" or node.domain not in ("", "ai.onnx"):
        return False
    table = graphs.constant(node.inputs[0])
    if table is None or not graphs.is_float(node.inputs[0]) or len(table.shape) != 2 or not table.size:
        return False
    return bool(attribute(node, "axis", 0) == 0 and table.shape[1] >= LEAST_COLUMNS)


class Embeddings:
    """The embeddings of one model put in integers, each table once."""

    def __init__(self, model: Any, maker: graphs.Maker) -> None:
        self._graph = model.graph
        self._maker = maker
        self._tables: dict[int, tuple[Any, Any]] = {}

    def quantize(self, node: Any) -> None:
        """Look up integers and their rows' scales in the place of a row."""
        maker, output = self._maker, node.outputs[0]
        table, scales = self._table(node.inputs[0])
        integers = maker.node("Gather", [table, node.inputs[1]], name=f"{node.name}_quant", like=output, dtype=3)
        cast = maker.node("Cast", [integers.outputs[0]], name=f"{node.name}_cast", like=output, to=graphs.FLOAT)
        scale = maker.node("Gather", [scales, node.inputs[1]], name=f"{node.name}_scales", dtype=graphs.FLOAT)
        back = maker.node("Mul", [cast.outputs[0], scale.outputs[0]], name=f"{node.name}_scaled", like=output)
        graphs.replace(self._graph, node, [integers, cast, scale, back])

    def _table(self, value: Any) -> tuple[Any, Any]:
        if id(value) not in self._tables:
            integers, scale = quantized_weight(value.const_value.numpy(), 0)
            self._tables[id(value)] = (
                self._maker.weight(integers, f"{value.name}_quantized"),
                self._maker.weight(scale.reshape(-1, 1), f"{value.name}_scale"),
            )
        return self._tables[id(value)]
