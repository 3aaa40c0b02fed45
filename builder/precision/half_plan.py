"""What becomes of every node and every tensor of a graph in half precision, decided before anything is changed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from builder.precision import graph as graphs
from builder.precision.half_types import FLOW, Choice, choose


class Plan:
    """Every decision, as data.

    Attributes:
        nodes: all of the graph's, those of graphs inside after the node that they are in.
        native: element type that each tensor is made in, by ``id``; what is not there is as it was.
        note: which nodes stay in float32 without being asked; empty where none does.
    """

    def __init__(self, model: Any, half: int, keep: Collection[str]) -> None:
        self.half = half
        self.nodes: list[Any] = []
        self._choices: dict[int, Choice] = {}
        self._keep = frozenset(keep)
        opsets = {("" if domain == "ai.onnx" else domain): number for domain, number in model.opset_imports.items()}
        for node, inside in _all_nodes(model.graph, self._keep):
            self.nodes.append(node)
            self._choices[id(node)] = choose(node, half, opsets, keep=inside)
        if self._keep:
            self._leave_between_kept()
        self.native = self._native_types()
        self.note = self._note()

    def of(self, node: Any) -> Choice:
        """What becomes of a node."""
        return self._choices[id(node)]

    def _native_types(self) -> dict[int, int]:
        native: dict[int, int] = {}
        for node in self.nodes:
            choice = self.of(node)
            for value, dtype in zip(node.outputs, choice.outputs, strict=True):
                if dtype is not None:
                    native[id(value)] = dtype
            for body in bodies(node) if choice.converted and node.op_type in FLOW else ():
                native.update({id(value): self.half for value in body.inputs if graphs.is_float(value)})
        return native

    def _leave_between_kept(self) -> None:
        """Nodes without weights that stand only between kept ones stay too: no value is rounded on its way."""
        stays = {id(node) for node in self.nodes if not self.of(node).converted and has_float(node)}
        inside = set(stays)
        for node in self.nodes:
            if node.op_type not in FLOW and self._is_fed_by(node, inside):
                inside.add(id(node))
        between = [node for node in self.nodes if id(node) in inside - stays]
        loose = between
        while loose:
            loose = [node for node in between if not (self._feeds_only(node, inside) and self._is_fed_by(node, inside))]
            inside -= {id(node) for node in loose}
            between = [node for node in between if id(node) in inside]
        for node in between:
            choice = self.of(node)
            choice.inputs = [graphs.FLOAT if want else None for want in choice.inputs]
            choice.outputs = [graphs.FLOAT if gives else None for gives in choice.outputs]
            choice.attribute, choice.converted = "", False

    def _is_fed_by(self, node: Any, inside: set[int]) -> bool:
        makers = [value.producer() for value in node.inputs if graphs.is_float(value)]
        return bool(makers) and all(maker is not None and id(maker) in inside for maker in makers)

    def _feeds_only(self, node: Any, inside: set[int]) -> bool:
        outputs = [value for value in node.outputs if graphs.is_float(value)]
        users = [use.node for value in outputs for use in value.uses()]
        ends = any(value.is_graph_output() for value in outputs)
        return bool(users) and all(id(user) in inside for user in users) and not ends

    def _note(self) -> str:
        counts: dict[str, int] = {}
        for node in self.nodes:
            choice = self.of(node)
            in_float = graphs.FLOAT in (*choice.inputs, *choice.outputs)  # else it takes what comes: Shape, ArgMax
            if in_float and not choice.converted and node.name not in self._keep:
                counts[node.op_type] = counts.get(node.op_type, 0) + 1
        told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        return (
            f"in float32 without being asked (ONNX has no half for them, or between kept nodes): {told}" if told else ""
        )


def index_arithmetic(nodes: list[Any]) -> dict[str, str]:
    """Floats made of integers and lone constants that become integers again: a rounded index is another."""
    exact: set[int] = set()
    for node in nodes:
        floats = [value for value in node.inputs if graphs.is_float(value)]
        made = [value.producer() for value in floats if graphs.constant(value) is None]
        lone = all(value.const_value.size == 1 for value in floats if graphs.constant(value) is not None)
        if lone and all(maker is not None and id(maker) in exact for maker in made) and has_float(node):
            exact.add(id(node))
    found: dict[str, str] = {}
    for node in reversed(nodes):
        users = [use.node for value in node.outputs if graphs.is_float(value) for use in value.uses()]
        ends = any(map(graphs.is_float, node.inputs)) and not any(map(graphs.is_float, node.outputs))
        if id(node) in exact and (ends or any(user.name in found for user in users)):
            found[node.name] = "computes an integer from integers: rounded, it is another one"
    return found


def _all_nodes(graph: Any, keep: frozenset[str], inside: bool = False) -> Iterator[tuple[Any, bool]]:
    """Every node, those of graphs inside after the one they are in, and whether it, or one around it, is kept."""
    for node in graph:
        kept = inside or node.name in keep
        yield node, kept
        for body in bodies(node):
            yield from _all_nodes(body, keep, kept or node.op_type not in FLOW)


def bodies(node: Any) -> Iterator[Any]:
    """The graphs inside a node."""
    for attribute in node.attributes.values():
        if attribute.type.name == "GRAPH":
            yield attribute.as_graph()
        elif attribute.type.name == "GRAPHS":
            yield from attribute.as_graphs()


def has_float(node: Any) -> bool:
    """True where a tensor of the node is float32."""
    return any(graphs.is_float(value) for value in (*node.inputs, *node.outputs))
