"""Weights in eight bits: where their channels lie, their scales, and how small they must be for old processors."""

from __future__ import annotations

from typing import Any

import numpy as np

from builder.numerics import Array

PAIR = 128
"""What two neighbours of one sign may add up to where the range is reduced: 255 times that fits the 16 bits in which a
processor without VNNI adds two products."""
TINY = 1e-30
"""A scale below this is none."""


def attribute(node: Any, name: str, default: Any) -> Any:
    """An attribute's value, or the operator's default."""
    return node.attributes[name].value if name in node.attributes else default


def channel_axis(node: Any, weight: Array) -> int | None:
    """Where a weight's output channels lie; None where it has none of its own for each."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    if node.op_type == "ConvTranspose" and attribute(node, "group", 1) != 1:
        return None
    if node.op_type == "MatMul":
        return 1 if weight.ndim == 2 else None
    return 0 if node.op_type == "Conv" else 1


def quantized_weight(
    array: Array, axis: int | None, pairs: Array | None = None, least: Array | None = None
) -> tuple[Array, Array]:
    """A weight in symmetric s8, and its scale: one for each channel, or one.

    Args:
        array: the weight.
        axis: of the channels; None for one scale.
        pairs: where the range is reduced: what :func:`neighbours` gave.
        least: scales are not below this.
    """
    rest = tuple(i for i in range(array.ndim) if i != axis) if axis is not None else None
    largest = np.abs(array).max(axis=rest).astype(np.float32) / np.float32(127)
    if pairs is not None:  # one less than fits, for both may be rounded up
        reduced = (pairs if axis is not None else pairs.max()) / np.float32(PAIR - 1)
        largest = np.maximum(largest, reduced.astype(np.float32))
    scale = np.asarray(np.where(largest > TINY, largest, np.float32(1.0)), np.float32)
    if least is not None:
        scale = np.asarray(np.maximum(scale, least if axis is not None else least.max()), np.float32)
    shape = [1] * array.ndim
    if axis is not None:
        shape[axis] = -1
    integers = np.clip(np.rint(array / scale.reshape(shape)), -127, 127).astype(np.int8)
    return integers, scale


def shifted(integers: Array, scale: Array, kind: str) -> tuple[Array, Array]:
    """A symmetric weight as it is stored, ``s8`` or ``u8``, and its zero points."""
    if kind == "u8":
        return (integers.astype(np.int16) + 128).astype(np.uint8), np.full(scale.shape, 128, np.uint8)
    return integers, np.zeros(scale.shape, np.int8)


def lost_on_average(node: Any, lost: Array, mean: Array) -> Array | None:
    """What a result lacks on average where its weight lacks something; None where that is not the same everywhere.

    Args:
        node: a convolution or a product.
        lost: what its weight lacks.
        mean: of each input channel.
    """
    if node.op_type == "Conv":
        each = lost.reshape(*lost.shape[:2], -1).sum(axis=2, dtype=np.float64)
        groups = int(attribute(node, "group", 1))
        if mean.size != groups * each.shape[1]:
            return None
        parts = np.einsum("goc,gc->go", each.reshape(groups, -1, each.shape[1]), mean.reshape(groups, -1))
        return np.asarray(parts.reshape(-1))
    if node.op_type not in ("MatMul", "Gemm") or lost.ndim != 2 or attribute(node, "transA", 0):
        return None
    rows = lost if channel_axis(node, lost) == 0 else lost.T
    return np.asarray(rows.astype(np.float64) @ mean) if mean.size == rows.shape[1] else None


def neighbours(node: Any, weight: Array) -> Array:
    """For each output channel, the most that two weights of one sign, whose products are added first, add up to.

    Products are added along the input channels, from the first on, in twos. Where channels do not come in fours, both
    ways to go on at the next place of the kernel are looked at. A depthwise convolution adds each to 32 bits.
    """
    if node.op_type == "Conv" and weight.shape[1] == 1 and attribute(node, "group", 1) == weight.shape[0]:
        return np.zeros(weight.shape[0], np.float32)
    if node.op_type in ("Conv", "ConvTranspose"):
        rows = np.moveaxis(weight, 1, -1) if node.op_type == "Conv" else np.moveaxis(np.swapaxes(weight, 0, 1), 1, -1)
    else:
        rows = weight if channel_axis(node, weight) == 0 else weight.reshape(-1, weight.shape[-1]).T
    alone, together = rows.reshape(-1, rows.shape[-1]), rows.reshape(rows.shape[0], -1)
    each = _pairs(alone).reshape(rows.shape[0], -1).max(axis=1)
    return np.asarray(each if rows.shape[-1] % 4 == 0 else np.maximum(each, _pairs(together).max(axis=1)))


def _pairs(rows: Array) -> Array:
    if rows.shape[1] % 2:
        rows = np.concatenate([rows, np.zeros((rows.shape[0], 1), rows.dtype)], axis=1)
    first, second = rows[:, 0::2], rows[:, 1::2]
    above = np.maximum(first, 0) + np.maximum(second, 0)
    below = np.minimum(first, 0) + np.minimum(second, 0)
    return np.asarray(np.maximum(above, -below))
