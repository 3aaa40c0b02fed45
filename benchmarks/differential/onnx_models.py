"""Small ONNX files, as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

Tensors = Mapping[str, tuple[str, Sequence[int | str | None]]]


@cache
def _made(outputs: tuple[Any, ...], inputs: tuple[Any, ...], parts: tuple[Any, ...]) -> bytes:
    from onnx import TensorProto, helper

    options = dict(parts)
    ins = dict(inputs)
    nodes = []
    initializers = []
    first = next(iter(ins))
    for index, (name, (kind, dims)) in enumerate(outputs):
        like = next((key for key, (its, shape) in ins.items() if (its, shape) == (kind, dims)), None)
        if like is not None:
            nodes.append(helper.make_node("Identity", [like], [name]))
            continue
        constant = helper.make_tensor(f"c{index}", getattr(TensorProto, kind), [1], _zero(kind))
        initializers.append(constant)
        parts_of_shape = [_dimension(f"d{index}_{place}", dim, first, nodes) for place, dim in enumerate(dims)]
        initializers += [helper.make_tensor(n, TensorProto.INT64, [1], [d]) for n, d in parts_of_shape if d is not None]
        if not dims:
            nodes.append(helper.make_node("Squeeze", [f"c{index}"], [name]))
            continue
        nodes.append(helper.make_node("Concat", [n for n, _ in parts_of_shape], [f"s{index}"], axis=0))
        nodes.append(helper.make_node("Expand", [f"c{index}", f"s{index}"], [name]))
    for extra in options.get("operators", ()):
        nodes.append(helper.make_node(extra, [first], [f"{first}_{extra}"]))

    def infos(tensors: Any) -> list[Any]:
        return [helper.make_tensor_value_info(n, getattr(TensorProto, k), list(d)) for n, (k, d) in tensors]

    for name in options.get("overridable", ()):
        kind, dims = ins[name]
        initializers.append(helper.make_tensor(name, getattr(TensorProto, kind), list(dims), _zero(kind)))
    graph = helper.make_graph(nodes, "graph", infos(inputs), infos(outputs), initializers)
    opsets = [helper.make_opsetid("", options.get("opset", 17))]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=options.get("ir", 8))
    return bytes(model.SerializeToString())


def _dimension(name: str, dim: int | str | None, first: str, nodes: list[Any]) -> tuple[str, int | None]:
    """A dimension as a tensor of one element: a constant, the batch of the first input, or what cannot be foreseen."""
    from onnx import helper

    if isinstance(dim, int):
        return name, dim
    if dim == "batch":
        nodes.append(helper.make_node("Shape", [first], [name], start=0, end=1))
        return name, None
    nodes.append(helper.make_node("NonZero", [first], [f"{name}_nz"]))  # as many as there happen to be
    nodes.append(helper.make_node("Shape", [f"{name}_nz"], [name], start=1, end=2))
    return name, None


def _zero(kind: str) -> list[Any]:
    return [b""] if kind == "STRING" else [False] if kind == "BOOL" else [0]


def _hashable(tensors: Tensors) -> tuple[Any, ...]:
    return tuple((name, (kind, tuple(dims))) for name, (kind, dims) in tensors.items())


def onnx_model(inputs: Tensors, outputs: Tensors, **parts: Any) -> bytes:
    """A file with this signature, ``{name: ("FLOAT", ["batch", 4])}``.

    An output that is like an input is its copy, every other one a constant of the declared shape.

    Args:
        inputs: with the batch dimension.
        outputs: likewise.
        parts: ``opset``, ``ir``; ``operators``: further nodes on the first input; ``overridable``: inputs of one
            element that a request may leave out.
    """
    frozen = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in sorted(parts.items()))
    return _made(_hashable(outputs), _hashable(inputs), frozen)


def changed(content: bytes, change: Any) -> bytes:
    """The file with ``change(model)`` applied to its ``ModelProto``."""
    import onnx

    model = onnx.load_from_string(content)
    change(model)
    return bytes(model.SerializeToString())
