"""``cast_half``: a whole graph in fp16 or bf16, as strongly typed engines and ONNX Runtime read it alike.

Every tensor gets one type, that of the node that makes it; a Cast stands only where a node wants another one: at the
borders of nodes that stay in float32, at operators that ONNX has no half precision for, at inputs and outputs. The same
decisions, with rounding in place of types, make the graph that verifies bf16 on a CPU: :func:`emulated`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from builder.precision import graph as graphs
from builder.precision.half_plan import Plan, bodies
from builder.precision.half_types import FLOW
from builder.precision.taps import element_types

LARGEST = {"fp16": 65504.0, "bf16": 3.3895313892515355e38}
"""The largest finite number of each."""
_SUFFIX = {1: "fp32", 10: "fp16", 16: "bf16"}
_IO = {"fp32": 1, "fp16": 10}
_HALF = {"fp16": 10, "bf16": 16}  # onnx_ir.DataType, without importing it


def cast_half(
    prepared: Path, to: Path, *, precision: str, keep: Collection[str] = (), io: str = "fp32"
) -> tuple[str, ...]:
    """Write a graph in half precision. The same bytes come out of the same graph.

    Args:
        prepared: an ONNX file of :func:`builder.precision.prepare.prepared`.
        to: the file to write; weights above the limit go to ``<to>.data``.
        precision: ``fp16`` or ``bf16``.
        keep: names of the nodes that stay in float32, with all that is inside them.
        io: element type of float inputs and outputs: ``fp32``, or ``fp16``.

    Returns:
        What was done that is more than rounding: constants beyond the range, nodes without half precision.

    Raises:
        PrecisionError: the file cannot be read.
    """
    model = typed(prepared)
    work = _Conversion(model, precision, keep)
    work.convert(_IO[io])
    graphs.save(model, to)
    return tuple(work.notes)


def emulated(prepared: Path, to: Path, *, precision: str, keep: Collection[str] = ()) -> None:
    """Write a float32 graph that rounds where :func:`cast_half` changes types: weights, and what converted nodes give.

    It runs where half precision has no kernels (bf16 on ONNX Runtime's CPU provider), and answers as hardware does that
    sums in float32.

    Args:
        prepared, to, precision, keep: as for :func:`cast_half`.
    """
    model = typed(prepared)
    work = _Conversion(model, precision, keep)
    work.round()
    graphs.save(model, to)


def typed(path: Path) -> Any:
    """The graph, with types for what operators of a runtime's own give; where it does not load, they stay unknown."""
    import onnx_ir

    model = graphs.load(path)
    unknown = [value for node in model.graph for value in node.outputs if value.name and value.dtype is None]
    unknown = [value for value in unknown if value.type is None]
    if unknown:
        with contextlib.suppress(Exception):  # of ONNX Runtime, which will say it again when the result is loaded
            types = element_types(path, [value.name for value in unknown])
            for value in unknown:
                if value.name in types:
                    value.dtype = onnx_ir.DataType(types[value.name])
    return model


class _Conversion:
    """One conversion: first every decision, as data; then the graph is changed."""

    def __init__(self, model: Any, precision: str, keep: Collection[str]) -> None:
        self.model, self.half, self.precision = model, _HALF[precision], precision
        self.notes: list[str] = []
        self._maker = graphs.Maker(model)
        self._made: dict[tuple[int, int], Any] = {}
        self._plan = Plan(model, self.half, keep)
        self._native = self._plan.native
        if self._plan.note:
            self.notes.append(self._plan.note)

    def convert(self, io: int) -> None:
        """Give every tensor its type, with Casts where they differ."""
        import onnx_ir

        for value in self.model.graph.inputs:
            if graphs.is_float(value):
                self._native[id(value)] = io
        self._make_outputs(io)
        for node in self._plan.nodes:
            self._set_attribute(node)
            for index, want in enumerate(self._plan.of(node).inputs):
                if want is not None and self._type(node.inputs[index]) != want:
                    node.replace_input_with(index, self._as(node.inputs[index], want))
            if node.op_type in FLOW:
                self._make_body(node)
        for value in self._values():
            if id(value) in self._native:
                value.dtype = onnx_ir.DataType(self._native[id(value)])
        self._drop_empty_casts()
        self._maker.drop_unused()

    def round(self) -> None:
        """Keep every tensor in float32, rounded where it would be a half."""
        rounded = [value for value in self._values() if self._native.get(id(value)) == self.half]
        for node in self._plan.nodes:
            for index, want in enumerate(self._plan.of(node).inputs):
                value = node.inputs[index]
                if want == self.half and self._native.get(id(value)) != self.half:
                    node.replace_input_with(index, self._rounded(value))
        for value in rounded:
            producer = value.producer()
            if producer is None or producer.op_type in FLOW:
                continue  # what a graph inside gave has been rounded there
            first, second = self._pair(value)
            producer.graph.insert_after(producer, [first, second])
            value.replace_all_uses_with(second.outputs[0], replace_graph_outputs=True)
            first.replace_input_with(0, value)
            name = value.name
            value.name, second.outputs[0].name = second.outputs[0].name, name
        self._maker.drop_unused()

    def _type(self, value: Any) -> int:
        return self._native.get(id(value), graphs.FLOAT)

    def _values(self) -> Iterator[Any]:
        yield from self.model.graph.inputs
        for node in self._plan.nodes:
            for body in bodies(node):
                yield from body.inputs
            yield from node.outputs

    def _as(self, value: Any, want: int) -> Any:
        """``value`` in another type: a weight converted, anything else behind one Cast, that all its users share."""
        key = (id(value), want)
        if key not in self._made:
            if graphs.constant(value) is not None:
                self._made[key] = self._weight(value, want)
            else:
                cast = self._cast(value, want)
                self._insert(value, [cast])
                self._made[key] = cast.outputs[0]
        return self._made[key]

    def _cast(self, value: Any, want: int) -> Any:
        name = f"{value.name}_{_SUFFIX[want]}"
        cast = self._maker.node("Cast", [value], name=name, like=value, dtype=want, to=want)
        self._native[id(cast.outputs[0])] = want
        return cast

    def _pair(self, value: Any) -> list[Any]:
        first = self._maker.node(
            "Cast", [value], name=f"{value.name}_to_half", like=value, dtype=self.half, to=self.half
        )
        out = first.outputs[0]
        return [first, self._maker.node("Cast", [out], name=f"{value.name}_rounded", like=value, dtype=1, to=1)]

    def _rounded(self, value: Any) -> Any:
        key = (id(value), self.half)
        if key not in self._made:
            if graphs.constant(value) is not None:
                self._made[key] = self._weight(value, self.half, back=True)
            else:
                pair = self._pair(value)
                self._insert(value, pair)
                self._made[key] = pair[1].outputs[0]
        return self._made[key]

    def _insert(self, value: Any, nodes: list[Any]) -> None:
        producer = value.producer()
        if producer is not None:
            producer.graph.insert_after(producer, nodes)
            return
        graph = value.graph
        if len(graph):
            graph.insert_before(graph[0], nodes)
        else:
            graph.extend(nodes)

    def _weight(self, value: Any, want: int, *, back: bool = False) -> Any:
        """A converted copy of a weight; under its own name where nobody else wants it as it was."""
        import onnx_ir

        tensor, precision = value.const_value, self.precision if want == self.half else "fp16"
        self._note_beyond(value.name, tensor, precision)
        dtype = onnx_ir.DataType(graphs.FLOAT if back else want)
        name = self._maker.name(f"{value.name}_{_SUFFIX[want]}")

        def made() -> Any:
            array = half_array(tensor.numpy(), precision)
            _release(tensor)
            return onnx_ir.tensor(array.astype(np.float32) if back else array, name=name)

        copy = onnx_ir.Value(name=name, const_value=onnx_ir.LazyTensor(made, dtype, tensor.shape, name=name))
        copy.shape, copy.dtype = tensor.shape, dtype
        self.model.graph.register_initializer(copy)
        self._native[id(copy)] = want
        return copy

    def _note_beyond(self, name: str, tensor: Any, precision: str) -> None:
        limit = LARGEST[precision]
        count, most = _beyond(tensor.numpy(), limit)
        if count:
            self.notes.append(f"{name}: {count} of {tensor.size} elements, up to {most:.3g}, are cut to {limit:.6g}")
        _release(tensor)

    def _set_attribute(self, node: Any) -> None:
        import onnx_ir

        name = self._plan.of(node).attribute
        if name == "value":
            array = _constant_array(node)
            for other in ("value_float", "value_floats"):
                node.attributes.pop(other, None)
            tensor = onnx_ir.tensor(half_array(array, self.precision))
            node.attributes["value"] = onnx_ir.AttrTensor("value", tensor)
        elif name:
            node.attributes[name] = onnx_ir.AttrInt64(name, self.half)

    def _make_outputs(self, io: int) -> None:
        graph = self.model.graph
        for index, value in enumerate(list(graph.outputs)):
            if not graphs.is_float(value) or self._type(value) == io or value.producer() is None:
                continue
            cast = self._cast(value, io)
            producer = value.producer()
            producer.graph.insert_after(producer, [cast])
            self._made[id(value), io] = cast.outputs[0]
            graph.outputs[index] = cast.outputs[0]
            name, own = value.name, self._maker.name(f"{value.name}_{_SUFFIX[self._type(value)]}")
            value.name, cast.outputs[0].name = own, name

    def _make_body(self, node: Any) -> None:
        """What a graph inside gives has the type of the node that it is inside of."""
        want = self.half if self._plan.of(node).converted else graphs.FLOAT
        for body in bodies(node):
            for index, value in enumerate(list(body.outputs)):
                if graphs.is_float(value) and self._type(value) != want:
                    body.outputs[index] = self._as(value, want)

    def _drop_empty_casts(self) -> None:
        """A Cast to the type that its input has by now does nothing."""
        for node in self._plan.nodes:
            if (
                node.op_type == "Cast"
                and node.inputs[0].dtype is not None
                and node.inputs[0].dtype == node.outputs[0].dtype
            ):
                value, output = node.inputs[0], node.outputs[0]
                if output.is_graph_output():
                    node.op_type = "Identity"
                    node.attributes.clear()
                else:
                    output.replace_all_uses_with(value)
                    node.graph.remove(node, safe=True)


def half_array(array: Any, precision: str) -> Any:
    """An array rounded to nearest even; what is finite stays finite, and a lone number that is not zero stays that."""
    import ml_dtypes

    dtype: Any = np.float16 if precision == "fp16" else ml_dtypes.bfloat16
    largest = np.float32(LARGEST[precision])
    array = np.asarray(array, dtype=np.float32)
    cut = np.where(np.isfinite(array), np.clip(array, -largest, largest), array)
    half = cut.astype(dtype)
    if array.size == 1 and array.reshape(-1)[0] != 0 and half.reshape(-1)[0] == 0:
        smallest = np.float32(2.0**-24 if precision == "fp16" else 2.0**-133)
        half = np.copysign(np.full(array.shape, smallest, np.float32), array).astype(dtype)  # an epsilon
    return half.reshape(array.shape)


def _beyond(array: Any, limit: float) -> tuple[int, float]:
    """How many finite elements are beyond a limit, and the largest magnitude."""
    sizes = np.abs(array[np.isfinite(array)])
    return int(np.count_nonzero(sizes > limit)), float(sizes.max(initial=0.0))


def _release(tensor: Any) -> None:
    """Give back the memory that a weight outside of the file is mapped into; it is mapped again where it is read."""
    if hasattr(tensor, "release"):
        tensor.release()


def _constant_array(node: Any) -> Any:
    attributes = node.attributes
    if "value_float" in attributes:
        return np.float32(attributes["value_float"].as_float())
    if "value_floats" in attributes:
        return np.array(attributes["value_floats"].as_floats(), np.float32)
    return attributes["value"].as_tensor().numpy() if "value" in attributes else np.zeros(1, np.float32)
