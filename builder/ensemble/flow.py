"""Questions about the flow through an ensemble: what is never made, circles, what callers may leave out, decoupling."""

from __future__ import annotations

from collections.abc import Iterator

from builder.ensemble import rules
from builder.ensemble.graph import ENSEMBLE, EnsembleGraph, consumers, edges, in_order, producers, upstream
from builder.ensemble.places import Places
from builder.findings import nearest
from builder.rules.rule import Hit, Rule

Found = Iterator[tuple[Rule, Hit]]


def never_produced(graph: EnsembleGraph, places: Places) -> Found:
    """Every tensor that is used is made."""
    made = producers(graph)
    for tensor, users in consumers(graph).items():
        if tensor in made:
            continue
        close = nearest(tensor, [name for name in made if name not in {t for t, _ in _own_tensors(graph, users)}])
        fix = f"did you mean {close!r}?" if close else f"there are {', '.join(made) or 'no tensors'}"
        for owner, name in users:
            if owner == ENSEMBLE:
                message, path = f"output {name!r} is made by no step", places.tensor(graph, name, is_output=True)
            else:
                message = f"{graph.steps[owner].name}.{name} takes tensor {tensor!r}, which nothing makes"
                path = places.wired(owner, name, is_output=False)
            yield rules.NOT_PRODUCED, Hit(message, fix, path)


def _own_tensors(graph: EnsembleGraph, users: list[tuple[int, str]]) -> Iterator[tuple[str, int]]:
    """What the users make themselves: no sensible thing to give them."""
    for owner, _ in users:
        if owner != ENSEMBLE:
            yield from ((tensor, owner) for tensor in graph.steps[owner].outputs.values())


def cycles(graph: EnsembleGraph, places: Places) -> Found:
    """No step waits for itself; each circle is told once, with the tensors around it."""
    if _has_order(graph):
        return
    needs = upstream(graph)
    told: set[int] = set()
    for start in range(len(graph.steps)):
        circle = _circle(needs, start)
        if not circle or told & set(circle):
            continue
        told |= set(circle)
        parts = []
        for here, there in zip(circle, [*circle[1:], circle[0]], strict=True):
            tensor, name = _link(graph, here, there)
            parts.append(f"{graph.steps[here].name} -({tensor})-> {graph.steps[there].name}")
        message = f"steps wait for each other: {', '.join(parts)}"
        yield rules.CYCLE, Hit(message, rules.CYCLE.fix, places.wired(circle[0], name, is_output=False))


def _has_order(graph: EnsembleGraph) -> bool:
    try:
        in_order(graph)
    except ValueError:
        return False
    return True


def _circle(needs: list[set[int]], start: int) -> list[int]:
    """The steps of a shortest circle through ``start``, in the direction of the data; empty where there is none."""
    after: dict[int, int | None] = {start: None}
    waiting = [start]
    for here in waiting:
        for before in sorted(needs[here]):
            if before == start:
                way: list[int] = []
                at: int | None = here
                while at is not None:
                    way.append(at)
                    at = after[at]
                return [start, *way[:-1]]
            if before not in after:
                after[before] = here
                waiting.append(before)
    return []


def _link(graph: EnsembleGraph, source: int, target: int) -> tuple[str, str]:
    """A tensor that one step makes and the other takes, and the input it is taken as."""
    made = set(graph.steps[source].outputs.values())
    return next((tensor, name) for name, tensor in graph.steps[target].inputs.items() if tensor in made)


def optional_inputs(graph: EnsembleGraph, places: Places) -> Found:
    """What callers may leave out, steps can do without, and the other way round."""
    taken: dict[str, list[bool]] = {}
    for edge in edges(graph):
        if edge.source.owner != ENSEMBLE or edge.target.owner == ENSEMBLE:
            continue
        taken.setdefault(edge.tensor, []).append(edge.target.port.optional)
        if edge.source.port.optional and not edge.target.port.optional:
            message = f"{edge}: callers may leave it out, and {edge.target.label} is not optional"
            yield rules.OPTIONAL, Hit(message, rules.OPTIONAL.fix, places.end(graph, edge.source))
    users = consumers(graph)
    for port in graph.inputs:
        answers = taken.get(port.name, [])
        if answers and all(answers) and len(answers) == len(users[port.name]) and not port.optional:
            message = f"input {port.name} {port} has to be given, though every step that takes it could do without"
            path = places.tensor(graph, port.name, is_output=False)
            yield rules.COULD_BE_OPTIONAL, Hit(message, rules.COULD_BE_OPTIONAL.fix, path)


def decoupled(graph: EnsembleGraph, places: Places) -> Found:
    """Answers of different decoupled steps do not meet; as the server does, each such step begins a flow of its own."""
    try:
        order = in_order(graph)
    except ValueError:
        return  # a circle: said already
    flow: dict[str, str] = {port.name: "" for port in graph.inputs}
    for index in order:
        step = graph.steps[index]
        flows = {name: flow.get(tensor, "") for name, tensor in step.inputs.items()}
        if len(set(flows.values())) > 1:
            message = f"step {step.name!r} takes inputs of different flows: {_told(flows)}"
            yield rules.DECOUPLED_MIXED, Hit(message, rules.DECOUPLED_MIXED.fix, places.step(index))
            return
        begins = step.model is not None and step.model.decoupled
        flow |= dict.fromkeys(step.outputs.values(), step.name if begins else next(iter(flows.values()), ""))
    flows = {port.name: flow.get(port.name, "") for port in graph.outputs}
    if len(set(flows.values())) > 1:
        message = f"the ensemble's outputs are of different flows: {_told(flows)}"
        path = places.tensor(graph, graph.outputs[-1].name, is_output=True)
        yield rules.DECOUPLED_MIXED, Hit(message, rules.DECOUPLED_MIXED.fix, path)
        return
    for index, step in enumerate(graph.steps):
        if step.model is not None and step.model.decoupled:
            message = f"ensemble {graph.name!r} is decoupled: step {step.name!r} answers any number of times"
            yield rules.DECOUPLED, Hit(message, "call it by gRPC streaming", places.step(index))
            return


def _told(flows: dict[str, str]) -> str:
    return ", ".join(f"{name} from {f'decoupled {flow!r}' if flow else 'the request'}" for name, flow in flows.items())
