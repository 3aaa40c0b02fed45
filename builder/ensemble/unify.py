"""Dimensions unified through the whole graph: one size wherever they are the same, ranges narrowed, conflicts found.

A name means one size within its model, and an edge makes the dimensions of its two ends the same one. Every set of
dimensions that are the same has an interval of sizes: the intersection of what its ports say. An empty one is a
conflict between the two ports that gave its ends; the way from one to the other through the graph is found again in
the list of joins, so that a message can show it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from builder.ensemble.graph import Edge, End, EnsembleGraph, edges, ensemble_end, step_end
from builder.tensors import Dim

OPEN = 2**63
"""No upper end."""
Variable = tuple[int, str, str, int]
"""Owner; name of the dimension; for one without a name its port (``in`` or ``out`` before it) and place in it."""


@dataclass(frozen=True)
class Bound:
    """A number, and the port whose text says it."""

    value: int
    end: End | None = None
    place: int = 0


@dataclass
class Sizes:
    """The sizes that a set of equal dimensions may have, and who says so."""

    low: Bound
    high: Bound

    @property
    def interval(self) -> tuple[int, int]:
        """From and to, both included."""
        return self.low.value, self.high.value


@dataclass(frozen=True)
class Conflict:
    """An edge that would make two dimensions one that cannot be.

    Attributes:
        edge: where it shows.
        place: index of the dimension in the source's shape.
        source, target: the bounds that exclude each other, each with the port that says it.
        source_sizes, target_sizes: what the dimension may be by either side.
        path: edges between the two ports, where the conflict is not between the ends of ``edge`` themselves.
    """

    edge: Edge
    place: int
    source: Bound
    target: Bound
    source_sizes: tuple[int, int]
    target_sizes: tuple[int, int]
    path: tuple[Edge, ...]


class Unified:
    """The dimensions of a graph, unified.

    Attributes:
        conflicts: dimensions that cannot be the same, in the order of the edges.
        mismatches: edges whose ends have not the same number of dimensions, however batches are counted.
        lost: edges where a batched tensor meets an owner that knows no batch: only one sample fits.
        matched: the pairs of dimensions of each edge that does fit: places in the source's and the target's shape.
    """

    def __init__(self, graph: EnsembleGraph) -> None:
        self._graph = graph
        self._parent: dict[Variable, Variable] = {}
        self._sizes: dict[Variable, Sizes] = {}
        self._own: dict[Variable, tuple[int, int]] = {}
        self._joins: dict[Variable, list[tuple[Variable, Edge]]] = {}
        self.conflicts: list[Conflict] = []
        self.mismatches: list[Edge] = []
        self.lost: list[Edge] = []
        self.matched: list[tuple[Edge, tuple[tuple[int, int], ...]]] = []
        for end in _ends(graph):
            for place, dim in enumerate(end.port.dims or ()):
                self._bound(end, place, dim)
        self._own = {name: sizes.interval for name, sizes in self._sizes.items()}
        for edge in edges(graph):
            self._edge(edge)

    def sizes(self, end: End, place: int) -> Sizes:
        """What a dimension may be, by all that is known of it."""
        return self._sizes[self._root(variable(end, place))]

    def own(self, end: End, place: int) -> tuple[int, int]:
        """What a dimension may be by its own model alone."""
        return self._own[variable(end, place)]

    def same(self, end: End, place: int) -> Variable:
        """A name for the set of dimensions that this one is equal to: the same for each of them."""
        return self._root(variable(end, place))

    def _bound(self, end: End, place: int, dim: Dim) -> None:
        root = self._root(variable(end, place))
        if dim.size is not None:
            low = high = dim.size
        else:
            low, high = (dim.low, dim.high) if dim.low is not None and dim.high is not None else (0, OPEN)
        sizes = self._sizes[root]
        if low > sizes.high.value or high < sizes.low.value:
            return  # a name with two sizes within one model: not a matter of the ensemble
        if low > sizes.low.value:
            sizes.low = Bound(low, end, place)
        if high < sizes.high.value:
            sizes.high = Bound(high, end, place)

    def _root(self, name: Variable) -> Variable:
        if name not in self._parent:
            self._parent[name] = name
            self._sizes[name] = Sizes(Bound(0), Bound(OPEN))
        while self._parent[name] != name:
            name = self._parent[name]
        return name

    def _edge(self, edge: Edge) -> None:
        source, target = edge.source, edge.target
        if source.port.dims is None or target.port.dims is None:
            return
        pairs = matched_places(source, target)
        if pairs is None:
            self.mismatches.append(edge)
            return
        if len(source.port.dims) != len(target.port.dims) and self._graph.batches:
            self.lost.append(edge)
        before = len(self.conflicts)
        for at, to in pairs:
            self._join(edge, at, to)
        if len(self.conflicts) == before:
            self.matched.append((edge, pairs))

    def _join(self, edge: Edge, at: int, to: int) -> None:
        one, other = variable(edge.source, at), variable(edge.target, to)
        first, second = self._root(one), self._root(other)
        if first == second:
            return
        a, b = self._sizes[first], self._sizes[second]
        if max(a.low.value, b.low.value) > min(a.high.value, b.high.value):
            self.conflicts.append(self._conflict(edge, (at, to), a, b))
            return
        self._parent[second] = first
        self._sizes[first] = Sizes(
            a.low if a.low.value >= b.low.value else b.low, a.high if a.high.value <= b.high.value else b.high
        )
        self._joins.setdefault(one, []).append((other, edge))
        self._joins.setdefault(other, []).append((one, edge))

    def _conflict(self, edge: Edge, places: tuple[int, int], a: Sizes, b: Sizes) -> Conflict:
        at, to = places
        above = a.low.value > b.high.value
        own, other = self.own(edge.source, at), self.own(edge.target, to)
        if own[0] > other[1] or own[1] < other[0]:  # what the two ends say themselves is enough
            ends = Bound(own[0 if above else 1], edge.source, at), Bound(other[1 if above else 0], edge.target, to)
            return Conflict(edge, at, *ends, own, other, (edge,))
        source, target = (a.low, b.high) if above else (a.high, b.low)
        before = self._way(variable(edge.source, at), source)
        after = reversed(self._way(variable(edge.target, to), target))
        return Conflict(edge, at, source, target, a.interval, b.interval, (*before, edge, *after))

    def _way(self, start: Variable, bound: Bound) -> tuple[Edge, ...]:
        """The edges from a bound's port to a dimension that is known to be the same, nearest way."""
        if bound.end is None:
            return ()
        goal = variable(bound.end, bound.place)
        before: dict[Variable, tuple[Variable, Edge] | None] = {start: None}
        waiting = [start]
        for here in waiting:
            if here == goal:
                break
            for there, edge in self._joins.get(here, ()):
                if there not in before:
                    before[there] = (here, edge)
                    waiting.append(there)
        way, step = [], before.get(goal)
        while step is not None:
            way.append(step[1])
            step = before[step[0]]
        return tuple(way)


def variable(end: End, place: int) -> Variable:
    """What a dimension is known by before anything is unified."""
    assert end.port.dims is not None
    dim = end.port.dims[place]
    if dim.name is not None:
        return (end.owner, dim.name, "", 0)
    return (end.owner, "", f"{'out' if end.is_output else 'in'} {end.port.name}", place)


def matched_places(source: End, target: End) -> tuple[tuple[int, int], ...] | None:
    """Which dimension of the one is which of the other; None where no count of batches makes their ranks equal.

    As in the server: the whole shapes are compared, or, where only one of the two batches, the shapes without its
    batch dimension.
    """
    if source.port.dims is None or target.port.dims is None:
        return ()
    given, taken = len(source.port.dims), len(target.port.dims)
    if given == taken:
        return tuple((place, place) for place in range(given))
    if source.batches != target.batches and given - source.batches == taken - target.batches:
        return tuple((k + source.batches, k + target.batches) for k in range(given - source.batches))
    return None


def _ends(graph: EnsembleGraph) -> Iterable[End]:
    for port in graph.inputs:
        yield ensemble_end(graph, port, is_output=False)
    for index, step in enumerate(graph.steps):
        model = step.model
        for is_output, ports in ((False, model and model.inputs), (True, model and model.outputs)):
            for port in ports or ():
                end = step_end(graph, index, port.name, is_output=is_output)
                assert end is not None
                yield end
    for port in graph.outputs:
        yield ensemble_end(graph, port, is_output=True)


def resolved(unified: Unified, end: End, place: int, name: str) -> Dim:
    """A dimension as it is after unification; ``name`` where it is not fixed."""
    low, high = unified.sizes(end, place).interval
    if low == high:
        return Dim(size=low)
    if high < OPEN:
        return Dim(name=name, low=max(low, 1), high=high)
    return Dim(name=name)
