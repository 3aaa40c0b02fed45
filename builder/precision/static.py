"""Static int8: QuantizeLinear and DequantizeLinear around what is computed in integers, with ranges known beforehand.

Two ways to place them. With ``u8`` activations (CPU) the results of convolutions and the like are quantized too, so
that ONNX Runtime finds whole integer operators. With ``s8`` activations (TensorRT, CUDA) only what goes into an
operator is quantized, symmetrically, and biases stay in float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.numerics import Array
from builder.precision import embeddings
from builder.precision import graph as graphs
from builder.precision.integers import (
    TINY,
    attribute,
    channel_axis,
    lost_on_average,
    neighbours,
    quantized_weight,
    shifted,
)

Range = tuple[float, float]

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators with a weight as their second input."""
JOINED = ("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu", "Softmax", "HardSwish")
"""Operators computed in integers where all that they take is in integers already."""
PASSED = ("MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "Resize")
"""Operators that only move values: what comes out has the range of what goes in."""
ABSORBED = ("Relu", "Clip")
"""Operators that a quantized result takes in: its smallest and largest number cut as they do."""
FLOAT_OUTPUT = ("MatMul", "Gemm")
"""Operators that ONNX Runtime computes in integers with a result in float."""

OP_TYPES: Mapping[str, tuple[str, ...]] = {
    "u8": (
        "Conv",
        "Gemm",
        "MatMul",
        "Gather",
        "Add",
        "Mul",
        "Concat",
        "AveragePool",
        "GlobalAveragePool",
        "Sigmoid",
        "LeakyRelu",
    ),
    "s8": ("Conv", "ConvTranspose", "Gemm", "MatMul"),
}
"""What is quantized where the recipe does not say, by the type of activations."""
HOPELESS = 65504.0
"""A range beyond this is no range but a mask: what uses such values stays in float."""


@dataclass(frozen=True)
class Settings:
    """The options of a static recipe, with what holds where it does not say."""

    activation: str = "u8"
    symmetric: bool = False
    reduce_range: bool = False
    per_channel: bool = True
    weight: str = "s8"
    bias_correction: bool = True
    op_types: tuple[str, ...] = OP_TYPES["u8"]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Settings:
        """Out of a recipe's options."""
        activation = options.get("activation", "u8")
        return cls(
            activation,
            bool(options.get("symmetric", activation == "s8")),
            bool(options.get("reduce_range", False)),
            bool(options.get("per_channel", True)),
            str(options.get("weight", "s8")),
            bool(options.get("bias_correction", True)),
            tuple(options.get("op_types") or OP_TYPES[activation]),
        )


Usable = Callable[[Any], bool]


def quantizable(model: Any, settings: Settings, keep: Iterable[str] = (), usable: Usable | None = None) -> list[Any]:
    """The nodes that would be computed in integers, in the order of the graph.

    Args:
        model: an ``onnx_ir.Model``.
        settings: of the recipe.
        keep: names of nodes that stay in float.
        usable: whether a value has a range; by default, all have.
    """
    usable = usable or (lambda value: True)
    kept = set(keep)
    chosen: list[Any] = []
    whole: set[int] = set()  # values that are quantized as soon as they are made
    for node in model.graph:
        if node.name in kept or node.domain not in ("", "ai.onnx") or not _types_fit(node, settings, whole):
            continue
        results = [] if _float_output(node, settings) else [result_of(node)]
        if all(usable(value) for value in (*_activations(node), *results)):
            chosen.append(node)
            whole.update(id(value) for value in results)
    return chosen


def tensors(model: Any, settings: Settings) -> list[str]:
    """The values whose ranges a recipe with these settings needs, whatever it keeps in float."""
    wanted: dict[str, None] = {}
    for node in quantizable(model, settings):
        results = [] if _float_output(node, settings) else [result_of(node)]
        wanted.update((value.name, None) for value in (*_activations(node), *results))
    return list(wanted)


def channels(model: Any, settings: Settings) -> dict[str, int]:
    """The values that weights multiply, and along which dimension their channels lie: for biases to be corrected."""
    found = [node for node in quantizable(model, settings) if node.op_type in WEIGHTED]
    return {node.inputs[0].name: 1 if node.op_type.startswith("Conv") else -1 for node in found}


def result_of(node: Any) -> Any:
    """What of a node is quantized: its output, or that of the Relu or Clip that takes it in."""
    value = node.outputs[0]
    if len(value.uses()) == 1 and not value.is_graph_output():
        user = value.uses()[0].node
        if user.op_type in ABSORBED and user.inputs[0] is value and user.graph is node.graph:
            return user.outputs[0]
    return value


def _types_fit(node: Any, settings: Settings, whole: set[int]) -> bool:
    if (
        not node.inputs
        or not node.outputs
        or not graphs.is_float(node.inputs[0])
        or not graphs.is_float(node.outputs[0])
    ):
        return False
    if node.op_type in WEIGHTED:
        return node.op_type in settings.op_types and _weight_fits(node)
    if settings.activation != "u8":
        return False
    if node.op_type in PASSED:
        return id(node.inputs[0]) in whole
    made = _activations(node)
    return (
        node.op_type in JOINED
        and node.op_type in settings.op_types
        and bool(made)
        and all(graphs.is_float(value) for value in node.inputs)
        and all(id(value) in whole for value in made)
    )


def _weight_fits(node: Any) -> bool:
    """Whether an operator has a weight with channels; one that is made anew in every request is none."""
    weight = graphs.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if weight is None or not graphs.is_float(node.inputs[1]) or len(weight.shape) < 2 or not weight.size:
        return False
    if node.op_type == "Gemm":
        return bool(attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0)
    return True


def _activations(node: Any) -> list[Any]:
    """What a node takes that has to be quantized, and is no weight."""
    values = node.inputs[:1] if node.op_type in WEIGHTED or node.op_type in PASSED else node.inputs
    return [value for value in values if value is not None and graphs.constant(value) is None]


def _float_output(node: Any, settings: Settings) -> bool:
    return settings.activation != "u8" or node.op_type in FLOAT_OUTPUT


def lookups(model: Any, settings: Settings, keep: Iterable[str] = ()) -> list[Any]:
    """The embeddings that would be in integers."""
    return [node for node in graphs.nodes(model, {"Gather"} & set(settings.op_types), keep) if embeddings.fits(node)]


def quantize(
    model: Any,
    ranges: Mapping[str, Range],
    settings: Settings,
    keep: Iterable[str] = (),
    means: Mapping[str, Array] | None = None,
) -> int:
    """Put Q/DQ into a model, in place.

    Args:
        model: an ``onnx_ir.Model``.
        ranges: of :func:`tensors`; a node with a value that has none, or one without bounds, stays in float.
        settings: how.
        keep: names of nodes that stay in float.
        means: of the :func:`channels`; what a weight's rounding adds to a result on average is taken off its bias.

    Returns:
        How many nodes are quantized.
    """
    known = {name: found for name, found in ranges.items() if max(abs(found[0]), abs(found[1])) <= HOPELESS}
    nodes = quantizable(model, settings, keep, lambda value: value.name in known)
    looked_up = lookups(model, settings, keep)
    insertion = _Insertion(model, known, settings, means or {})
    for node in nodes:
        insertion.inputs(node)
        if not _float_output(node, settings):
            insertion.result(node)
    insertion.keep_in_float(model, nodes)
    tables = embeddings.Embeddings(model, insertion.maker)
    for node in looked_up:
        tables.quantize(node)
    insertion.maker.drop_unused()
    return len(nodes)


class _Insertion:
    """Q/DQ pairs put into one model, one for each value, and a DQ for each weight."""

    def __init__(self, model: Any, ranges: Mapping[str, Range], settings: Settings, means: Mapping[str, Array]) -> None:
        self.maker = graphs.Maker(model)
        self._graph = model.graph
        self._ranges = ranges
        self._settings = settings
        self._means = means
        self._origins: dict[int, str] = {}  # of a dequantized value: what it was made of
        self._pairs: dict[int, Any] = {}
        self._parameters: dict[int, tuple[Any, Any]] = {}  # of a dequantized value: scale, zero point
        self._constants: dict[int, Any] = {}
        self._weights: dict[tuple[int, int | None], tuple[Any, Array, Array]] = {}

    def inputs(self, node: Any) -> None:
        """Have a node take dequantized values."""
        for index, value in enumerate(node.inputs):
            if value is None or (node.op_type in PASSED and index):
                continue
            if graphs.constant(value) is None:
                node.replace_input_with(index, self._dequantized(value, node))
            elif node.op_type not in WEIGHTED:
                node.replace_input_with(index, self._constant(value, node))
        if node.op_type in WEIGHTED:
            self._weight(node)

    def result(self, node: Any) -> None:
        """Quantize what a node makes as soon as it is there."""
        value = result_of(node)
        parameters = None
        if node.op_type in PASSED:
            parameters = self._parameters[id(node.inputs[0])]
        uses = list(value.uses())
        output = value.is_graph_output()
        pair, dequantized = self._pair(value, parameters or self._parameters_of(value))
        self._graph.insert_after(value.producer(), [pair, dequantized.producer()])
        for use in uses:
            use.node.replace_input_with(use.idx, dequantized)
        if output:
            self._become_output(value, dequantized)

    def keep_in_float(self, model: Any, quantized: list[Any]) -> None:
        """Have ONNX Runtime compute in float what stays in float.

        Where a float weight meets a dequantized value of one scale, it would quantize the weight by itself, with one
        scale for all channels. A value whose scale is written out for each channel, the same for all, it leaves alone.
        """
        done = {id(node) for node in quantized}
        for node in graphs.nodes(model, ("Conv", "Gemm")):
            value = node.inputs[0]
            if id(node) in done or id(value) not in self._parameters or graphs.constant(node.inputs[1]) is None:
                continue
            shape = node.inputs[1].const_value.shape
            count = int(shape[1]) * int(attribute(node, "group", 1))
            if node.op_type == "Gemm":
                count = int(shape[1 if attribute(node, "transB", 0) else 0])
            parts = [np.full(count, part.const_value.numpy()) for part in self._parameters[id(value)]]
            given = [self.maker.weight(part, f"{node.name}_each") for part in parts]
            made = self.maker.node(
                "DequantizeLinear", [value.producer().inputs[0], *given], name=f"{node.name}_input", like=value, axis=1
            )
            self._graph.insert_before(node, [made])
            node.replace_input_with(0, made.outputs[0])

    def _become_output(self, value: Any, dequantized: Any) -> None:
        index = next(i for i, found in enumerate(self._graph.outputs) if found is value)
        self._graph.outputs[index] = dequantized
        name, value.name = value.name, self.maker.name(f"{value.name}_float")
        dequantized.name = name

    def _dequantized(self, value: Any, node: Any) -> Any:
        if id(value) in self._parameters:
            return value
        if id(value) not in self._pairs:
            pair, dequantized = self._pair(value, self._parameters_of(value))
            self._graph.insert_before(node, [pair, dequantized.producer()])
            self._pairs[id(value)] = dequantized
        return self._pairs[id(value)]

    def _pair(self, value: Any, parameters: tuple[Any, Any]) -> tuple[Any, Any]:
        scale, zero = parameters
        pair = self.maker.node(
            "QuantizeLinear", [value, scale, zero], name=f"{value.name}_QuantizeLinear", like=value, dtype=zero.dtype
        )
        back = self.maker.node(
            "DequantizeLinear", [pair.outputs[0], scale, zero], name=f"{value.name}_DequantizeLinear", like=value
        )
        self._parameters[id(back.outputs[0])] = parameters
        self._origins[id(back.outputs[0])] = value.name
        return pair, back.outputs[0]

    def _parameters_of(self, value: Any) -> tuple[Any, Any]:
        scale, zero = activation_parameters(self._ranges[value.name], self._settings)
        return self.maker.weight(scale, f"{value.name}_scale"), self.maker.weight(zero, f"{value.name}_zero_point")

    def _constant(self, value: Any, node: Any) -> Any:
        """A constant that is no weight (an addend): quantized as an activation would be, ahead of time."""
        if id(value) not in self._constants:
            array = value.const_value.numpy()
            found = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
            scale, zero = activation_parameters(found, self._settings)
            bounds = np.iinfo(zero.dtype)
            integers = np.clip(np.rint(array / scale) + zero, bounds.min, bounds.max).astype(zero.dtype)
            self._constants[id(value)] = self._dequantize(value.name, node, integers, scale, zero, None)
        return self._constants[id(value)]

    def _dequantize(self, name: str, node: Any, integers: Array, scale: Array, zero: Array, axis: int | None) -> Any:
        parts = [
            self.maker.weight(integers, f"{name}_quantized"),
            self.maker.weight(scale, f"{name}_scale"),
            self.maker.weight(zero, f"{name}_zero_point"),
        ]
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        back = self.maker.node(
            "DequantizeLinear", parts, name=f"{name}_DequantizeLinear", like=None, dtype=graphs.FLOAT, **attributes
        )
        self._graph.insert_before(node, [back])
        return back.outputs[0]

    def _weight(self, node: Any) -> None:
        """Have a node take a dequantized weight, and a bias that makes up for what was rounded."""
        weight, owner, index = node.inputs[1], *_bias_of(node)
        given: Any = owner.inputs[index] if owner is not None and len(owner.inputs) > index else None
        constant = graphs.constant(given)
        bias = constant.numpy() if constant is not None and len(constant.shape) == 1 else None
        in_32_bits = self._settings.activation == "u8" and owner is node
        incoming = float(self._parameters[id(node.inputs[0])][0].const_value.numpy())
        least = _least_scale(bias, incoming) if bias is not None and in_32_bits else None
        back, scale, rounded = self._rounded(node, least)
        mean = self._means.get(self._origins[id(node.inputs[0])])
        added = None if mean is None else lost_on_average(node, weight.const_value.numpy() - rounded, mean)
        node.replace_input_with(1, back)
        if owner is None or (given is not None and bias is None) or (bias is None and added is None):
            return
        bias = np.float32(0) if bias is None else bias
        total = np.asarray(bias if added is None else bias + added, np.float32)
        if owner is node and given is None:
            owner.resize_inputs(3)
        name = given.name if given is not None else f"{node.name}_bias"
        if in_32_bits:
            both = np.asarray(np.broadcast_to(scale * np.float32(incoming), total.shape), np.float32)
            integers = np.rint(total.astype(np.float64) / both).astype(np.int32)
            new = self._dequantize(name, node, integers, both, np.zeros(both.shape, np.int32), 0)
        else:
            new = given if added is None else self.maker.weight(total, f"{name}_corrected")
        owner.replace_input_with(index, new)

    def _rounded(self, node: Any, least: Array | None) -> tuple[Any, Array, Array]:
        """A weight dequantized: its value, its scale, and what it really is."""
        weight = node.inputs[1]
        array = weight.const_value.numpy()
        axis = channel_axis(node, array) if self._settings.per_channel else None
        key = (id(weight), axis)
        known = self._weights.get(key)
        if known is None or (least is not None and bool(np.any(known[1] < least))):
            pairs = neighbours(node, array) if self._settings.reduce_range else None
            integers, scale = quantized_weight(array, axis, pairs, least)
            stored, zero = shifted(integers, scale, self._settings.weight)
            known = self._dequantize(weight.name, node, stored, scale, zero, axis), scale, integers
            self._weights[key] = known
        shape = [1] * array.ndim
        if axis is not None:
            shape[axis] = -1
        return known[0], known[1], known[2] * known[1].reshape(shape)


def _bias_of(node: Any) -> tuple[Any, int]:
    """The node that adds the bias, and as which input; a product's is the Add that alone uses it."""
    if node.op_type != "MatMul":
        return node, 2
    uses = node.outputs[0].uses()
    if len(uses) != 1 or node.outputs[0].is_graph_output() or uses[0].node.op_type != "Add":
        return None, 0
    return uses[0].node, 1 - uses[0].idx


def activation_parameters(found: Range, settings: Settings) -> tuple[Array, Array]:
    """Scale and zero point of an activation; zero is always a number of its own."""
    low, high = min(0.0, found[0]), max(0.0, found[1])
    if settings.symmetric or settings.activation == "s8":
        largest = max(-low, high)
        scale, zero = (largest / 127, 0 if settings.activation == "s8" else 128)
    else:
        scale = (high - low) / 255
        zero = int(np.clip(np.rint(-low / scale), 0, 255)) if scale else 0
    kind = np.int8 if settings.activation == "s8" else np.uint8
    return np.asarray(scale if scale > TINY else 1.0, np.float32), np.asarray(zero, kind)


def _least_scale(bias: Array, incoming: float) -> Array:
    """The smallest weight scales with which a bias still fits 32 bits."""
    return np.asarray(np.abs(bias.astype(np.float64)) / (incoming * 2.0**30), np.float32)
