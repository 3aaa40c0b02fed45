"""What each node costs when it alone is brought to another precision, and what is gained by it.

Costs add up: on MiniLM the losses of 36 matrix products quantized one at a time sum to 0.0073, all of them together
lose 0.0071. So what a choice of nodes will lose is known before it is made, and measured only to confirm it.
"""

from __future__ import annotations

import difflib
import fnmatch
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import PrecisionError
from builder.precision import dynamic, static, weights
from builder.precision import graph as graphs
from builder.precision.recipe import Recipe

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose arithmetic is worth another precision."""
ELEMENT_WORK = 16
"""Multiply-adds that fit the time of moving one element: a depthwise convolution is all moving, and hardly any sums."""
MOST_COST = 1e6
_SPLIT_ABOVE = 0.02


@dataclass(frozen=True)
class Part:
    """A node that can be left in float.

    Attributes:
        name: of the node in the prepared graph.
        kind: what it has in common with its likes: operator and size of the weight.
        work: an estimate of its time, in multiply-adds a sample.
    """

    name: str
    kind: str
    work: float


@dataclass(frozen=True)
class Cost:
    """What a part loses when it alone is changed, as a share of what the whole may lose."""

    part: Part
    loss: float

    @property
    def per_work(self) -> float:
        """Loss for its share of the work: what is left in float first."""
        return self.loss / max(self.part.work, 1.0)


def named(prepared: Path, patterns: Iterable[str]) -> list[str]:
    """The nodes that names, globs of names and operator types mean, sorted.

    Raises:
        PrecisionError: one of them means no node.
    """
    nodes = [(node.name, node.op_type) for node in graphs.load(prepared).graph]
    found: set[str] = set()
    for pattern in patterns:
        meant = {name for name, op_type in nodes if pattern in (name, op_type) or fnmatch.fnmatchcase(name, pattern)}
        if not meant:
            near = difflib.get_close_matches(pattern, [text for node in nodes for text in node], n=3, cutoff=0.4)
            raise PrecisionError(
                f"`precision.keep` names no node of the graph: {pattern!r}",
                where="precision.keep",
                expected="names of nodes, globs of them (`/encoder/*`), or operator types",
                got=f"{len(nodes)} nodes; near it: {', '.join(dict.fromkeys(near)) or 'none'}",
                fix="take a name from there, or leave it out",
            )
        found |= meant
    return sorted(found)


def parts(prepared: Path, recipe: Recipe) -> list[Part]:
    """The nodes that a recipe would change and that are worth leaving in float, in the order of the graph."""
    found = []
    for node in _changed(graphs.load(prepared), recipe):
        weight = _shape(node.inputs[1]) if len(node.inputs) > 1 and node.op_type in WEIGHTED else ()
        found.append(Part(node.name, f"{node.op_type} {'x'.join(map(str, weight))}".strip(), work(node)))
    return found


def _changed(model: Any, recipe: Recipe) -> list[Any]:
    """Operators that only follow others into integers (Add, Concat) are left out: alone they cost nothing."""
    kept = set(recipe.keep)
    if recipe.method == "dynamic":
        return dynamic.quantizable(model, dynamic.Settings.of(recipe.options), kept)
    if recipe.method == "weights":
        return weights.quantizable(model, weights.Settings.of(recipe.options, recipe.precision), kept)
    if recipe.method == "static":
        whole = static.quantizable(model, static.Settings.of(recipe.options), kept)
        return [node for node in whole if node.op_type in WEIGHTED]
    return [
        node
        for node in model.graph
        if node.name not in kept and any(graphs.is_float(value) for value in (*node.inputs, *node.outputs))
    ]


def work(node: Any) -> float:
    """An estimate of a node's time, in multiply-adds; sizes that are not known count as one."""
    made, taken = math.prod(_sizes(node.outputs[0])), math.prod(_sizes(node.inputs[0])) if node.inputs else 1
    moved = ELEMENT_WORK * (made + taken)
    if node.op_type not in WEIGHTED:
        return float(moved)
    weight = math.prod(_sizes(node.inputs[1]))
    if node.op_type in ("Conv", "ConvTranspose"):
        through = node.outputs[0] if node.op_type == "Conv" else node.inputs[0]
        return float(weight * math.prod(_sizes(through)[2:]) + moved)
    if graphs.constant(node.inputs[1]) is not None:
        return float(weight * math.prod(_sizes(node.outputs[0])[:-1]) + moved)
    return float(made * (_sizes(node.inputs[0]) or [1])[-1] + moved)


def _sizes(value: Any) -> list[int]:
    return [size if isinstance(size, int) else 1 for size in _shape(value)]


def _shape(value: Any) -> tuple[Any, ...]:
    if value is None or value.shape is None:
        return ()
    return tuple(size if isinstance(size, int) else str(size) for size in value.shape)


def costs(found: Sequence[Part], loss_of: Callable[[Sequence[Part]], float], *, most: int) -> list[Cost]:
    """The cost of every part, in their order, by at most about ``most`` measurements.

    Where there are more parts than that, those of a kind are measured together, and the kinds that lose most are halved
    until the measurements are spent; parts that were never told apart share their group's loss by their work.

    Args:
        found: the parts.
        loss_of: the loss when these parts are changed and all others are not.
        most: measurements.
    """
    if len(found) <= most:
        return [Cost(part, _bounded(loss_of([part]))) for part in found]
    groups: dict[str, list[Part]] = {}
    for part in found:
        groups.setdefault(part.kind, []).append(part)
    pieces = [(group, _bounded(loss_of(group))) for group in _at_most(list(groups.values()), most)]
    spent = len(pieces)
    while spent < most:
        total = sum(loss for _, loss in pieces)
        wide = [piece for piece in pieces if len(piece[0]) > 1 and piece[1] > _SPLIT_ABOVE * total]
        if not wide:
            break
        dearest = max(wide, key=lambda piece: piece[1])
        pieces.remove(dearest)
        middle = (len(dearest[0]) + 1) // 2
        halves = [dearest[0][:middle], dearest[0][middle:]]
        pieces += [(half, _bounded(loss_of(half))) for half in halves]
        spent += 2
    by_name = {part.name: cost for group, loss in pieces for part, cost in _shared(group, loss)}
    return [Cost(part, by_name[part.name]) for part in found]


def _at_most(groups: list[list[Part]], most: int) -> list[list[Part]]:
    """The groups; where there are too many, neighbours go together."""
    wide = -(-len(groups) // max(1, most))
    return [list(itertools.chain(*groups[start : start + wide])) for start in range(0, len(groups), wide)]


def _shared(group: Sequence[Part], loss: float) -> Iterable[tuple[Part, float]]:
    whole = sum(part.work for part in group) or 1.0
    return [(part, loss * part.work / whole) for part in group]


def _bounded(loss: float) -> float:
    return min(max(loss, 0.0), MOST_COST)
