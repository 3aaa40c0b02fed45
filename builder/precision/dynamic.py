"""Dynamic int8: weights in integers beforehand, activations as they come, with ranges of each request.

No samples are needed, and no outlier of another request spoils a range; what it costs is a look at every activation.
Embeddings are kept in integers too, with a scale for each row: they are looked up, never multiplied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.precision import embeddings
from builder.precision import graph as graphs
from builder.precision.integers import attribute, channel_axis, neighbours, quantized_weight, shifted

OP_TYPES = ("MatMul", "Gemm", "Gather")


@dataclass(frozen=True)
class Settings:
    """The options of a dynamic recipe, with what holds where it does not say."""

    op_types: tuple[str, ...] = OP_TYPES
    reduce_range: bool = False
    per_channel: bool = True
    weight: str = "s8"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Settings:
        """Out of a recipe's options."""
        return cls(
            tuple(options.get("op_types") or OP_TYPES),
            bool(options.get("reduce_range", False)),
            bool(options.get("per_channel", True)),
            str(options.get("weight", "s8")),
        )


def quantizable(model: Any, settings: Settings, keep: Iterable[str] = ()) -> list[Any]:
    """The nodes whose weights would be in integers, in the order of the graph."""
    return [node for node in graphs.nodes(model, settings.op_types, keep) if _fits(node)]


def quantize(model: Any, settings: Settings, keep: Iterable[str] = ()) -> int:
    """Change a model in place; gives back how many nodes are in integers."""
    change = Change(model, settings)
    found = quantizable(model, settings, keep)
    for node in found:
        if node.op_type == "Gather":
            change.embeddings.quantize(node)
        else:
            change.product(node)
    change.maker.drop_unused()
    return len(found)


def _fits(node: Any) -> bool:
    if node.op_type == "Gather":
        return embeddings.fits(node)
    if len(node.inputs) < 2 or not all(graphs.is_float(value) for value in node.inputs if value is not None):
        return False
    weight = graphs.constant(node.inputs[1])
    if weight is None or len(weight.shape) != 2 or not weight.size or graphs.constant(node.inputs[0]) is not None:
        return False
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0
        return bool(plain and not attribute(node, "transA", 0))
    return bool(node.op_type == "MatMul")


class Change:
    """Products and embeddings of one model put in integers, each weight and each activation once."""

    def __init__(self, model: Any, settings: Settings) -> None:
        self.maker = graphs.Maker(model)
        self._graph = model.graph
        self._settings = settings
        self._activations: dict[int, tuple[Any, Any, Any]] = {}
        self._weights: dict[tuple[int, bool], tuple[Any, Any, Any]] = {}
        self.embeddings = embeddings.Embeddings(model, self.maker)

    def product(self, node: Any) -> None:
        """MatMul or Gemm: MatMulInteger, its result scaled back, and the bias added."""
        maker, output = self.maker, node.outputs[0]
        values, scale, zero = self._activation(node)
        weight, weight_scale, weight_zero = self._weight(node)
        product = maker.node("MatMulInteger", [values, weight, zero, weight_zero], name=f"{node.name}_quant", dtype=6)
        product.outputs[0].shape = output.shape
        cast = maker.node("Cast", [product.outputs[0]], name=f"{node.name}_cast", like=output, to=graphs.FLOAT)
        scales = maker.node("Mul", [scale, weight_scale], name=f"{node.name}_scales", dtype=graphs.FLOAT)
        back = maker.node("Mul", [cast.outputs[0], scales.outputs[0]], name=f"{node.name}_scaled", like=output)
        made = [product, cast, scales, back]
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            made.append(maker.node("Add", [back.outputs[0], node.inputs[2]], name=f"{node.name}_bias", like=output))
        graphs.replace(self._graph, node, made)

    def _activation(self, node: Any) -> tuple[Any, Any, Any]:
        value = node.inputs[0]
        if id(value) not in self._activations:
            made = self.maker.node("DynamicQuantizeLinear", [value], name=f"{value.name}_quantized", outputs=3)
            for output, dtype in zip(made.outputs, (2, 1, 2), strict=True):
                output.dtype = _data_type(dtype)
            self._graph.insert_before(node, [made])
            self._activations[id(value)] = tuple(made.outputs)
        return self._activations[id(value)]

    def _weight(self, node: Any) -> tuple[Any, Any, Any]:
        value = node.inputs[1]
        transposed = bool(node.op_type == "Gemm" and attribute(node, "transB", 0))
        key = (id(value), transposed)
        if key not in self._weights:
            array = value.const_value.numpy()
            axis = channel_axis(node, array) if self._settings.per_channel else None
            pairs = neighbours(node, array) if self._settings.reduce_range else None
            integers, scale = quantized_weight(array, axis, pairs)
            integers, zero = shifted(integers, scale, self._settings.weight)
            integers = np.ascontiguousarray(integers.T) if transposed else integers
            parts = {"quantized": integers, "scale": scale, "zero_point": zero}
            made = [self.maker.weight(part, f"{value.name}_{name}") for name, part in parts.items()]
            self._weights[key] = (made[0], made[1], made[2])
        return self._weights[key]


def _data_type(number: int) -> Any:
    import onnx_ir

    return onnx_ir.DataType(number)
