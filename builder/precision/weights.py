"""Weights alone in integers, in blocks with a scale each: a smaller file, and arithmetic that stays close to float's.

The products are ``MatMulNBits`` of ONNX Runtime's own operators; embeddings are integers with a scale for each row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.numerics import Array
from builder.precision import dynamic
from builder.precision import graph as graphs
from builder.precision.integers import attribute

OP_TYPES = ("MatMul", "Gemm", "Gather")
DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class Settings:
    """The options of a weight-only recipe, with what holds where it does not say."""

    bits: int = 8
    block_size: int = 32
    symmetric: bool = True
    accuracy_level: int = 0
    op_types: tuple[str, ...] = OP_TYPES

    @classmethod
    def of(cls, options: Mapping[str, Any], precision: str) -> Settings:
        """Out of a recipe's options."""
        return cls(
            int(options.get("bits") or (4 if precision.startswith("int4") else 8)),
            int(options.get("block_size") or 32),
            bool(options.get("symmetric", True)),
            int(options.get("accuracy_level", 0)),
            tuple(options.get("op_types") or OP_TYPES),
        )


def quantizable(model: Any, settings: Settings, keep: Iterable[str] = ()) -> list[Any]:
    """The nodes whose weights would be in integers, in the order of the graph."""
    found = dynamic.quantizable(model, dynamic.Settings(op_types=settings.op_types), keep)
    return [node for node in found if node.op_type == "Gather" or _is_smaller(node, settings)]


def _is_smaller(node: Any, settings: Settings) -> bool:
    """Whether a weight shrinks: one of few rows would be filled up to a whole block."""
    transposed = node.op_type == "Gemm" and attribute(node, "transB", 0)
    rows = int(node.inputs[1].const_value.shape[1 if transposed else 0])
    count = -(-rows // settings.block_size)
    return bool(count * (settings.block_size * settings.bits // 8 + 4) < rows * 4)


def quantize(model: Any, settings: Settings, keep: Iterable[str] = ()) -> int:
    """Change a model in place; gives back how many products have their weights in integers."""
    found = quantizable(model, settings, keep)
    products = [node for node in found if node.op_type != "Gather"]
    if not products:
        return 0
    shared = dynamic.Change(model, dynamic.Settings())
    change = _Change(model, settings, shared)
    for node in found:
        if node.op_type == "Gather":
            shared.embeddings.quantize(node)
        else:
            change.product(node)
    shared.maker.drop_unused()
    model.graph.opset_imports[DOMAIN] = 1
    return len(products)


class _Change:
    def __init__(self, model: Any, settings: Settings, shared: dynamic.Change) -> None:
        self._graph = model.graph
        self._settings = settings
        self._shared = shared
        self._weights: dict[tuple[int, bool], list[Any]] = {}

    def product(self, node: Any) -> None:
        """MatMul or Gemm: MatMulNBits, and the bias added."""
        maker, output = self._shared.maker, node.outputs[0]
        transposed = bool(node.op_type == "Gemm" and attribute(node, "transB", 0))
        rows, columns = node.inputs[1].const_value.shape
        product = maker.node(
            "MatMulNBits",
            [node.inputs[0], *self._weight(node.inputs[1], transposed)],
            name=f"{node.name}_quant",
            like=output,
            domain=DOMAIN,
            K=int(columns if transposed else rows),
            N=int(rows if transposed else columns),
            bits=self._settings.bits,
            block_size=self._settings.block_size,
            **({"accuracy_level": self._settings.accuracy_level} if self._settings.accuracy_level else {}),
        )
        made = [product]
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            made.append(maker.node("Add", [product.outputs[0], node.inputs[2]], name=f"{node.name}_bias", like=output))
        graphs.replace(self._graph, node, made)

    def _weight(self, value: Any, transposed: bool) -> list[Any]:
        key = (id(value), transposed)
        if key not in self._weights:
            array = value.const_value.numpy()
            parts = blocks(array if transposed else array.T, self._settings)
            self._weights[key] = [
                self._shared.maker.weight(part, f"{value.name}_{name}")
                for name, part in zip(("quantized", "scales", "zero_points"), parts, strict=False)
            ]
        return self._weights[key]


def blocks(array: Array, settings: Settings) -> tuple[Array, ...]:
    """A weight as MatMulNBits takes it: packed integers, scales, and zero points where it is not symmetric.

    Args:
        array: one row for each output channel.
        settings: how.
    """
    rows, columns = array.shape
    size, top = settings.block_size, 2**settings.bits - 1
    count = -(-columns // size)
    padded = np.zeros((rows, count * size), np.float32)
    padded[:, :columns] = array
    parts = padded.reshape(rows, count, size)
    low, high = parts.min(axis=2), parts.max(axis=2)
    middle = 2 ** (settings.bits - 1)
    if settings.symmetric:
        farthest = np.where(-low > high, low, high)  # signed: what is largest falls on the end that goes one further
        scale = -farthest / middle
        zero = np.full(scale.shape, middle, np.float32)
    else:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        scale = (high - low) / top
        zero = np.rint(-low / np.where(scale == 0, 1, scale))
    scale = np.where(scale == 0, 1, scale).astype(np.float32)
    integers = np.clip(np.rint(parts / scale[..., None]) + zero[..., None], 0, top).astype(np.uint8)
    packed = _packed(integers, settings.bits)
    if settings.symmetric:
        return packed, scale
    return packed, scale, _packed(zero.astype(np.uint8), settings.bits)


def _packed(integers: Array, bits: int) -> Array:
    """Two 4-bit numbers in a byte, the first in its lower half."""
    if bits == 8:
        return integers
    if integers.shape[-1] % 2:
        integers = np.concatenate([integers, np.zeros((*integers.shape[:-1], 1), np.uint8)], axis=-1)
    return np.asarray(integers[..., 0::2] | (integers[..., 1::2] << 4))
