"""Questions about edges: element types, shapes unified through the whole graph, batching.

What the server itself compares when it loads an ensemble is told apart from what only a request would show: it holds
each port against the first one of the same tensor, and takes -1 for anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from builder.ensemble import rules
from builder.ensemble.graph import ENSEMBLE, FREE, Edge, End, EnsembleGraph, edges, ensemble_end, step_end
from builder.ensemble.places import Places
from builder.ensemble.unify import OPEN, Conflict, Unified, variable
from builder.rules.rule import Hit, Rule

Found = Iterator[tuple[Rule, Hit]]


def dtypes(graph: EnsembleGraph, places: Places) -> Found:
    """Both ends of an edge hold the same type."""
    for edge in edges(graph):
        one, other = edge.source.port.dtype, edge.target.port.dtype
        if one is not None and other is not None and one != other:
            fix = f"cast {one.name} to {other.name} in the one, or take {one.name} in the other"
            yield rules.DTYPE, Hit(f"{edge}: cast or change the spec", fix, _place(graph, places, edge))


def shapes(graph: EnsembleGraph, places: Places) -> Found:
    """Every dimension has a size that all its ports take."""
    unified = Unified(graph)
    refused = dict(refused_at_load(graph))
    told: set[str] = set()
    for edge in unified.mismatches:
        one, other = len(edge.source.port.dims or ()), len(edge.target.port.dims or ())
        message = f"{edge}: {one} dimensions and {other}: reshape or change the spec"
        rule = rules.SHAPE if edge.tensor in refused else rules.SHAPE_AT_REQUEST
        told.add(edge.tensor)
        yield rule, Hit(message, rule.fix, _place(graph, places, edge))
    for conflict in unified.conflicts:
        rule = rules.SHAPE if conflict.edge.tensor in refused else rules.SHAPE_AT_REQUEST
        told.add(conflict.edge.tensor)
        yield rule, Hit(_conflict(conflict), rule.fix, _place(graph, places, conflict.edge))
    for tensor, (first, second) in refused.items():
        if tensor not in told:
            message = f"{first} and {second} are both tensor {tensor!r}: reshape or change the spec"
            yield rules.SHAPE, Hit(message, rules.SHAPE.fix, places.end(graph, second))
    if graph.max_batch_size > 1:
        for edge in unified.lost:
            side = edge.target if edge.source.batches else edge.source
            message = f"{edge}: a batch does not fit, {side.label} is of a model that does not batch"
            yield rules.BATCH_LOST, Hit(message, rules.BATCH_LOST.fix, _place(graph, places, edge))
    yield from _narrowed(graph, places, unified)
    yield from _unbatched(graph, places, unified)


def _conflict(conflict: Conflict) -> str:
    edge, source, target = conflict.edge, conflict.source.end, conflict.target.end
    assert source is not None and target is not None  # what nobody said excludes nothing
    one, other = sizes_text(conflict.source_sizes), sizes_text(conflict.target_sizes)
    if len(conflict.path) == 1:
        return f"{edge}: dimension {conflict.place} is {one} and {other}: reshape or change the spec"
    way = ", ".join(f"{step.source.label} -> {step.target.label}" for step in conflict.path)
    return (
        f"{edge}: dimension {conflict.place} is {one} by {source} and {other} by {target}, through {way}: "
        "reshape or change the spec"
    )


def sizes_text(interval: tuple[int, int]) -> str:
    """``128``, ``1..512`` or ``any size``."""
    low, high = interval
    if low == high:
        return str(low)
    if high >= OPEN:
        return "any size" if low <= 1 else f"{low} or more"
    return f"{max(low, 1)}..{high}"


def _narrowed(graph: EnsembleGraph, places: Places, unified: Unified) -> Found:
    """A size that comes into being here and that a later step does not take."""
    told = set()
    for edge, pairs in unified.matched:
        for at, _ in pairs:
            own, whole = unified.own(edge.source, at), unified.sizes(edge.source, at)
            who = variable(edge.source, at)
            narrows = whole.low.value > max(own[0], 1) or whole.high.value < own[1]
            if not narrows or who in told or not _decides(graph, edge.source, at):
                continue
            told.add(who)
            said = whole.high.end if whole.high.value < own[1] else whole.low.end
            text = f"{edge}: dimension {at} may be {sizes_text(own)}"
            taken = f"{sizes_text(whole.interval)} is taken by {said.label if said else edge.target.label}"
            assert edge.source.port.dims is not None
            unknown = edge.source.owner != ENSEMBLE and edge.source.port.dims[at] == FREE
            rule = rules.DIM_UNCHECKED if unknown else rules.DIM_NARROWED
            yield rule, Hit(f"{text}, and only {taken}", rule.fix, places.end(graph, edge.source))


def _decides(graph: EnsembleGraph, end: End, place: int) -> bool:
    """Whether a size comes from this port, not from an input of the same step that has the same name."""
    assert end.port.dims is not None
    name = end.port.dims[place].name
    if end.owner == ENSEMBLE or name is None:
        return True
    model = graph.steps[end.owner].model
    inputs = (model.inputs if model else None) or ()
    return all(dim.name != name for port in inputs for dim in port.dims or ())


def _unbatched(graph: EnsembleGraph, places: Places, unified: Unified) -> Found:
    models = [step.model for step in graph.steps]
    if graph.batches or not models or not all(model is not None and model.batches for model in models):
        return
    fewer = [
        edge
        for edge, pairs in unified.matched
        if edge.source.owner == ENSEMBLE and len(edge.source.port.dims or ()) < len(edge.target.port.dims or ())
    ]
    if fewer:
        most = min(model.max_batch_size for model in models if model is not None)
        message = f"{fewer[0]}: every step batches, and callers can send one sample at a time"
        path = ("max_batch_size",)
        yield rules.UNBATCHED, Hit(message, f"write max_batch_size: {most}, and no batch dimension in dims", path)


def batch_sizes(graph: EnsembleGraph, places: Places) -> Found:
    """The ensemble's largest batch fits every step."""
    for index, step in enumerate(graph.steps):
        most = step.model.max_batch_size if step.model is not None else 0
        if 0 < most < graph.max_batch_size:
            message = f"the ensemble takes batches of {graph.max_batch_size}, step {step.name!r} of {most}"
            fix = f"write max_batch_size: {most} for the ensemble, or raise that of {step.model_name!r}"
            yield rules.MAX_BATCH_SIZE, Hit(message, fix, places.step(index, places.model))


def refused_at_load(graph: EnsembleGraph) -> Iterator[tuple[str, tuple[End, End]]]:
    """Each tensor whose shapes the server compares and finds different, with the first two ports that are."""
    first: dict[str, End] = {}
    refused = set()
    for tensor, end in _as_the_server_sees(graph):
        if end.port.dims is None:
            continue
        known = first.setdefault(tensor, end)
        if known is not end and tensor not in refused and not _compatible(known, end):
            refused.add(tensor)
            yield tensor, (known, end)


def _as_the_server_sees(graph: EnsembleGraph) -> Iterator[tuple[str, End]]:
    """The ports of the pool's tensors in the order in which the server visits them."""
    own = {}
    for port in graph.inputs:
        own[port.name] = ensemble_end(graph, port, is_output=False)
    for port in graph.outputs:
        own.setdefault(port.name, ensemble_end(graph, port, is_output=True))
    yield from own.items()
    for index, step in enumerate(graph.steps):
        for is_output, names in ((False, step.inputs), (True, step.outputs)):
            for name, tensor in names.items():
                end = step_end(graph, index, name, is_output=is_output)
                if end is not None:
                    yield tensor, end


def _compatible(one: End, other: End) -> bool:
    """The server's own comparison: without the batch dimension, or with it; -1 is anything."""
    pairs = ((one.sample_dims, other.sample_dims), (one.port.dims, other.port.dims))
    return any(
        a is not None
        and b is not None
        and len(a) == len(b)
        and all(x.size is None or y.size is None or x.size == y.size for x, y in zip(a, b, strict=True))
        for a, b in pairs
    )


def _place(graph: EnsembleGraph, places: Places, edge: Edge) -> tuple[str | int, ...]:
    """Where an edge is written: at the end that takes the tensor, else at the end that gives it."""
    end = edge.target if edge.target.owner != ENSEMBLE else edge.source
    return places.end(graph, end)
