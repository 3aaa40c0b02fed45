"""How large the sums inside a node become: what its output does not show, and a kernel that sums in fp16 would lose.

Upper bounds, from cheap to dear: only where the cheap one is beyond the limit is the dear one computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from builder.numerics import Array

Bound = tuple[float, str]
_SUMS = ("ReduceSum", "ReduceMean", "ReduceL1", "GlobalAveragePool")
_SQUARES = ("ReduceSumSquare", "ReduceL2", "LpNormalization")
_NORMS = ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization")


def largest_inside(node: Any, arrays: Sequence[Array | None], limit: float) -> Bound | None:
    """The largest sum inside a node, and what it is; None where it has none, or it stays below the limit.

    Args:
        node: an ``onnx_ir.Node``.
        arrays: its inputs, None where one is absent; weights too.
        limit: sums below it are of no interest.
    """
    if not arrays or arrays[0] is None or not arrays[0].size or node.op_type not in _BOUNDS:
        return None
    value, what = _BOUNDS[node.op_type](node, arrays, limit)
    return (value, what) if value > limit else None


def _sums(node: Any, arrays: Sequence[Array | None], limit: float) -> Bound:
    return _over_axes(node, arrays, limit, np.abs(_first(arrays))), "the sum of what it reduces"


def _squares(node: Any, arrays: Sequence[Array | None], limit: float) -> Bound:
    return _over_axes(node, arrays, limit, np.square(_first(arrays))), "the sum of squares that it reduces"


def _over_axes(node: Any, arrays: Sequence[Array | None], limit: float, terms: Array) -> float:
    axes = _axes(node, arrays, terms.ndim)
    count = math.prod(terms.shape[axis] for axis in axes)
    if float(terms.max()) * count <= limit:
        return 0.0
    return float(terms.sum(axis=axes).max())


def _axes(node: Any, arrays: Sequence[Array | None], ndim: int) -> tuple[int, ...]:
    if node.op_type == "GlobalAveragePool":
        return tuple(range(2, ndim))
    given: Any = None
    if node.op_type == "LpNormalization":
        given = [node.attributes["axis"].as_int()] if "axis" in node.attributes else [-1]
    elif len(arrays) > 1 and arrays[1] is not None:
        given = arrays[1].reshape(-1).tolist()
    elif "axes" in node.attributes:
        given = node.attributes["axes"].as_ints()
    return tuple(int(axis) % ndim for axis in given) if given else tuple(range(ndim))


def _variance(node: Any, arrays: Sequence[Array | None], limit: float) -> Bound:
    """The mean of squares: ONNX sums in float32 there, but what comes of it is a value of its own in most kernels."""
    array = _first(arrays)
    what = "the mean of squares that it normalizes by"
    most = float(np.max(np.abs(array))) ** 2
    if most <= limit:
        return 0.0, what
    first = 2 if node.op_type in ("InstanceNormalization", "GroupNormalization") else -1
    if "axis" in node.attributes:
        first = node.attributes["axis"].as_int()
    axes = tuple(range(first % array.ndim, array.ndim))
    return float(np.square(array).mean(axis=axes).max()), what


def _products(node: Any, arrays: Sequence[Array | None], limit: float) -> Bound:
    """Of a matrix product, by the lengths of rows and columns, which no partial sum exceeds."""
    what = "a partial sum of its products"
    left, right = _first(arrays), arrays[1]
    if right is None:
        return 0.0, what
    left = left.T if _flag(node, "transA") else left
    right = right.T if _flag(node, "transB") else right
    rows = float(np.sqrt(np.square(left).sum(axis=-1)).max())
    columns = float(np.sqrt(np.square(right).sum(axis=-2 if right.ndim > 1 else 0)).max())
    if rows * columns <= limit:
        return 0.0, what
    return float(np.matmul(np.abs(left), np.abs(right)).max()), what


def _attention(node: Any, arrays: Sequence[Array | None], limit: float) -> Bound:
    """Of the scores, by the lengths of queries and keys; heads that are still together make the bound a wide one."""
    query, key = _first(arrays), arrays[1]
    what = "a partial sum of its scores"
    if key is None:
        return 0.0, what
    heads = node.attributes["q_num_heads"].as_int() if "q_num_heads" in node.attributes and query.ndim == 3 else 1
    given = node.attributes["scale"].as_float() if "scale" in node.attributes else 0.0
    scale = given or 1.0 / math.sqrt(query.shape[-1] / heads)
    rows, columns = (float(np.sqrt(np.square(array).sum(axis=-1)).max()) for array in (query, key))
    return rows * columns * scale, what


def _convolution(node: Any, arrays: Sequence[Array | None], limit: float) -> Bound:
    """By the largest input and the weights of each filter: above what any window sums up to."""
    what = "a partial sum of its products"
    weight = arrays[1]
    if weight is None:
        return 0.0, what
    filters = np.abs(weight)
    if node.op_type == "Conv":
        most = filters.reshape(weight.shape[0], -1).sum(axis=1).max()
    else:
        most = filters.sum(axis=0).reshape(weight.shape[1], -1).sum(axis=1).max()
    return float(np.max(np.abs(_first(arrays))) * most), what


def _flag(node: Any, name: str) -> bool:
    return name in node.attributes and bool(node.attributes[name].as_int())


def _first(arrays: Sequence[Array | None]) -> Array:
    return np.asarray(arrays[0], dtype=np.float64 if arrays[0] is not None and arrays[0].size < 4096 else np.float32)


_BOUNDS: dict[str, Callable[[Any, Sequence[Array | None], float], Bound]] = {
    **dict.fromkeys(_SUMS, _sums),
    **dict.fromkeys(_SQUARES, _squares),
    **dict.fromkeys(_NORMS, _variance),
    "MatMul": _products,
    "Gemm": _products,
    "Attention": _attention,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
}
