"""The ensemble's own tensors: its largest batch, and its dimensions as the whole graph has them."""

from __future__ import annotations

from dataclasses import replace

from builder.ensemble.graph import (
    BATCH_DIM,
    ENSEMBLE,
    FREE,
    End,
    EnsembleGraph,
    Port,
    ensemble_end,
    step_end,
)
from builder.ensemble.unify import Unified, Variable, resolved
from builder.ensemble.written import Written
from builder.findings import Finding, Findings
from builder.tensors import BATCH, Dim

_ROWS = "n"
"""What the batch dimension of a step is called where the ensemble itself does not batch."""


def own_tensors(graph: EnsembleGraph, written: Written) -> EnsembleGraph:
    """The graph with ``max_batch_size`` and with inputs and outputs as wide as its steps allow.

    Args:
        graph: wired; its tensors are as the user or the first step of each has them.
        written: what the user says.

    Raises:
        Findings: a tensor that the user declared contradicts the ensemble's batching.
    """
    declared = {tensor.name for tensor in written.inputs}
    declared |= {output.name for output in written.outputs if output.tensor is not None}
    most = written.max_batch_size if written.max_batch_size is not None else _largest_batch(graph, declared)
    wrong = [
        Finding(
            f"{port.name!r} is {port}, and the ensemble takes batches of {most}",
            f"{BATCH} first, as in every tensor where `max_batch_size` is above 0",
            fix=f"begin it with `{BATCH}`, or write `max_batch_size: 0`",
            path=(kind, port.name),
        )
        for kind, ports in (("inputs", graph.inputs), ("outputs", graph.outputs))
        for port in ports
        if port.name in declared and most > 0 and (port.dims or ())[:1] != (BATCH_DIM,)
    ]
    if wrong:
        raise Findings(wrong)
    rough = replace(
        graph,
        max_batch_size=most,
        inputs=tuple(_rough(port, most > 0, port.name in declared) for port in graph.inputs),
        outputs=tuple(_rough(port, most > 0, port.name in declared) for port in graph.outputs),
    )
    unified = Unified(rough)
    names = _names(rough, unified)
    return replace(
        rough,
        inputs=tuple(_final(ensemble_end(rough, port, is_output=False), unified, names) for port in rough.inputs),
        outputs=tuple(_final(ensemble_end(rough, port, is_output=True), unified, names) for port in rough.outputs),
    )


def _largest_batch(graph: EnsembleGraph, declared: set[str]) -> int:
    """What every step can take; 0 where one does not batch, or where the user declared a tensor without a batch."""
    bare = [port for port in graph.inputs + graph.outputs if port.name in declared and not _begins_with_batch(port)]
    if bare:
        return 0
    return min((step.model.max_batch_size for step in graph.steps if step.model is not None), default=0)


def _begins_with_batch(port: Port) -> bool:
    return port.dims is None or port.dims[:1] == (BATCH_DIM,)


def _rough(port: Port, batches: bool, declared: bool) -> Port:
    """A port whose dimensions have no names but those that the user gave: names of steps mean nothing outside them."""
    if port.dims is None or declared:
        return port
    dims = tuple(Dim(size=dim.size) if dim.size is not None else FREE for dim in port.dims)
    if batches:  # a step that does not batch has the batch in its dims, or no room for it
        free = bool(port.dims) and port.dims[0].size is None
        dims = (BATCH_DIM, *(dims[1:] if free else dims))
    return replace(port, dims=dims)


def _names(graph: EnsembleGraph, unified: Unified) -> dict[Variable, str]:
    """A name for each dimension that has one somewhere: the user's, else that of the first step that has it."""
    ends: list[End] = [ensemble_end(graph, port, is_output=False) for port in graph.inputs]
    ends += [ensemble_end(graph, port, is_output=True) for port in graph.outputs]
    for index, step in enumerate(graph.steps):
        for is_output, ports in ((False, step.model and step.model.inputs), (True, step.model and step.model.outputs)):
            found = [step_end(graph, index, port.name, is_output=is_output) for port in ports or ()]
            ends += [end for end in found if end is not None]
    own = {unified.same(end, k) for end in ends if end.owner == ENSEMBLE for k in range(len(end.port.dims or ()))}
    names: dict[Variable, str] = {}
    for end in ends:
        for place, dim in enumerate(end.port.dims or ()):
            same = unified.same(end, place)
            if dim.name is None or same in names or same not in own:
                continue
            plain = _ROWS if dim.name == BATCH and not graph.batches else dim.name
            taken = set(names.values())
            if plain in taken and end.owner != ENSEMBLE:
                plain = f"{graph.steps[end.owner].name}_{plain}".replace("-", "_").replace(".", "_")
            while plain in taken:
                plain += "_"
            names[same] = plain
    return names


def _final(end: End, unified: Unified, names: dict[Variable, str]) -> Port:
    if end.port.dims is None:
        return end.port
    dims = []
    for place, dim in enumerate(end.port.dims):
        name = names.get(unified.same(end, place))
        if end.batches and place == 0:
            dims.append(BATCH_DIM)
        elif name is None and dim.size is None:
            low, high = unified.sizes(end, place).interval
            dims.append(Dim(size=low) if low == high else FREE)
        else:
            dims.append(resolved(unified, end, place, name or ""))
    return replace(end.port, dims=tuple(dims))
