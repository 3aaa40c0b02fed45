"""SmoothQuant: what is hard to quantize in a few channels of an activation is moved into the weights that multiply it.

Every channel of the activation is divided by a factor, and the weight's row multiplied by it. The factors are powers of
two, so that nothing is rounded: the smoothed graph gives the same numbers as the one it was made of.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from builder.numerics import Array
from builder.precision import graph as graphs
from builder.precision.calibration import Calibration
from builder.precision.integers import attribute

_FARTHEST = 2.0**20


def smoothed(calibration: Calibration, to: Path, alpha: float) -> None:
    """Write the smoothed graph; nodes keep their names.

    Args:
        calibration: of the graph to smooth.
        to: the file to write.
        alpha: how much of the difficulty goes into the weights: 0 leaves the activations as they are, 1 makes all of
            their channels equally large.

    Raises:
        CalibrationError: there are no samples, or the graph has values that are NaN or Inf.
    """
    model = graphs.load(calibration.path)
    groups = _groups(model)
    maxima = calibration.maxima([value.name for value, _ in groups])
    change = _Smoothing(model)
    for value, nodes in groups:
        if value.name in maxima and maxima[value.name].shape == (_inner(nodes[0]),):
            change.smooth(value, nodes, factors(maxima[value.name], [_rows(node) for node in nodes], alpha))
    change.maker.drop_unused()
    graphs.save(model, to)


def factors(activation: Array, weights: list[Array], alpha: float) -> Array:
    """What each channel of an activation is divided by: a power of two.

    Args:
        activation: largest magnitudes of its channels.
        weights: those of the rows of each weight that multiplies it.
        alpha: as in :func:`smoothed`.
    """
    rows = np.max(weights, axis=0)
    usable = (activation > 0) & (rows > 0)
    wanted = np.ones(activation.shape)
    wanted[usable] = activation[usable].astype(np.float64) ** alpha / rows[usable].astype(np.float64) ** (1 - alpha)
    return np.asarray(np.exp2(np.rint(np.log2(np.clip(wanted, 1 / _FARTHEST, _FARTHEST)))), np.float32)


def _groups(model: Any) -> list[tuple[Any, list[Any]]]:
    """Activations that weights multiply, each with all the nodes that do."""
    found: dict[int, tuple[Any, list[Any]]] = {}
    for node in graphs.nodes(model, ("MatMul", "Gemm")):
        weight = graphs.constant(node.inputs[1]) if len(node.inputs) > 1 else None
        value = node.inputs[0]
        if weight is None or len(weight.shape) != 2 or not weight.size or graphs.constant(value) is not None:
            continue
        if graphs.is_float(value) and graphs.is_float(node.inputs[1]) and not attribute(node, "transA", 0):
            known = found.setdefault(id(value), (value, []))
            if not known[1] or _inner(known[1][0]) == _inner(node):
                known[1].append(node)
    return list(found.values())


def _axis(node: Any) -> int:
    """The axis of a weight along which it is summed."""
    return 1 if node.op_type == "Gemm" and attribute(node, "transB", 0) else 0


def _inner(node: Any) -> int:
    return int(node.inputs[1].const_value.shape[_axis(node)])


def _rows(node: Any) -> Array:
    return np.asarray(np.abs(node.inputs[1].const_value.numpy()).max(axis=1 - _axis(node)))


class _Smoothing:
    def __init__(self, model: Any) -> None:
        self.maker = graphs.Maker(model)
        self._graph = model.graph

    def smooth(self, value: Any, nodes: list[Any], by: Array) -> None:
        """Divide an activation's channels, and multiply the rows of its weights."""
        if bool(np.all(by == 1)):
            return
        for node in nodes:
            weight = node.inputs[1]
            column = by.reshape((-1, 1) if _axis(node) == 0 else (1, -1))
            node.replace_input_with(1, self._weight(weight, weight.const_value.numpy() * column))
        uses = {(id(use.node), use.idx) for use in value.uses()}
        if uses == {(id(node), 0) for node in nodes} and self._fold(value, 1 / by):
            return
        divide = self.maker.node(
            "Mul",
            [value, self.maker.weight(1 / by, f"{value.name}_smoothing")],
            name=f"{value.name}_smooth",
            like=value,
        )
        self._graph.insert_before(nodes[0], [divide])
        for node in nodes:
            node.replace_input_with(0, divide.outputs[0])

    def _weight(self, value: Any, array: Array) -> Any:
        return self.maker.weight(np.asarray(array, np.float32), f"{value.name}_smooth")

    def _fold(self, value: Any, by: Array) -> bool:
        """Have the node that makes a value make it scaled, where its own constants can do that."""
        node = value.producer()
        if (
            node is None
            or value.is_graph_output()
            or node.graph is not self._graph
            or node.domain not in ("", "ai.onnx")
        ):
            return False
        constants = [graphs.constant(given) for given in node.inputs]
        size = by.shape[0]
        if node.op_type == "Relu":
            return len(node.inputs[0].uses()) == 1 and self._fold(node.inputs[0], by)
        if node.op_type == "LayerNormalization":
            fits = all(constant is not None and tuple(constant.shape) == (size,) for constant in constants[1:])
            return fits and self._scale(node, range(1, len(constants)), by)
        if node.op_type == "Mul":
            index = next((i for i, constant in enumerate(constants) if constant is not None), None)
            return index is not None and _is_row(constants[index], size) and self._scale(node, [index], by)
        if node.op_type == "Add":
            index = next((i for i, constant in enumerate(constants) if constant is not None), None)
            if index is None or not _is_row(constants[index], size) or len(node.inputs[1 - index].uses()) != 1:
                return False
            return self._fold(node.inputs[1 - index], by) and self._scale(node, [index], by)
        return self._fold_product(node, constants, by)

    def _fold_product(self, node: Any, constants: list[Any], by: Array) -> bool:
        if node.op_type not in ("MatMul", "Gemm") or constants[1] is None or len(constants[1].shape) != 2:
            return False
        if node.op_type == "Gemm" and len(constants) > 2 and node.inputs[2] is not None:
            if constants[2] is None or not _is_row(constants[2], by.shape[0]):
                return False
            self._scale(node, [2], by)
        return self._scale(node, [1], by.reshape((1, -1) if _axis(node) == 0 else (-1, 1)))

    def _scale(self, node: Any, indices: Any, by: Array) -> bool:
        for index in indices:
            given = node.inputs[index]
            node.replace_input_with(index, self._weight(given, given.const_value.numpy() * by))
        return True


def _is_row(constant: Any, size: int) -> bool:
    """Whether a constant has one number for each channel, or one for all."""
    shape = tuple(constant.shape)
    return all(dim == 1 for dim in shape[:-1]) and (not shape or shape[-1] in (1, size))
