"""Which steps could be one model: connected groups of ONNX steps that no other step lies between."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from builder.ensemble import rules
from builder.ensemble.graph import EnsembleGraph, Port, Step, StepModel, consumers, in_order, producers, upstream
from builder.ensemble.places import Places
from builder.rules.rule import Hit, Rule


@dataclass(frozen=True)
class Group:
    """Steps that can be one.

    Attributes:
        steps: their indices, in the order in which they run.
        inputs: tensors of the pool that come from outside, in the order in which they are first used.
        outputs: tensors that are used outside, in the order in which they are made.
    """

    steps: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def groups(graph: EnsembleGraph) -> list[Group]:
    """The largest groups that can be fused, each of two steps or more; none where the graph has a circle."""
    try:
        order = in_order(graph)
    except ValueError:
        return []
    needs, place = upstream(graph), {index: k for k, index in enumerate(order)}
    alone = [not list(_not_alone(step)) for step in graph.steps]
    above = _all_above(needs, order)
    member = {index: frozenset([index]) for index in order}
    for target in order:
        for source in sorted(needs[target], key=place.__getitem__) if alone[target] else ():
            one, other = member[source], member[target]
            if one == other or not alone[source] or list(_differ(graph.steps[source], graph.steps[target])):
                continue
            union = one | other
            inside = sum(1 << index for index in union)
            if all(not above[outside] & inside for index in union for outside in needs[index] - union):
                member |= dict.fromkeys(union, union)
    found = {group for group in member.values() if len(group) > 1}
    return [group_of(graph, group) for group in sorted(found, key=lambda group: min(place[index] for index in group))]


def _all_above(needs: list[set[int]], order: list[int]) -> dict[int, int]:
    """For each step all that it needs, directly or not, as bits."""
    above: dict[int, int] = {}
    for index in order:
        above[index] = 0
        for source in needs[index]:
            above[index] |= above[source] | 1 << source
    return above


def group_of(graph: EnsembleGraph, indices: Collection[int]) -> Group:
    """Some steps with the tensors that go in and out of them.

    Raises:
        ValueError: the graph has a circle.
    """
    inside = [index for index in in_order(graph) if index in indices]
    made = dict.fromkeys(tensor for index in inside for tensor in graph.steps[index].outputs.values())
    taken = dict.fromkeys(tensor for index in inside for tensor in graph.steps[index].inputs.values())
    users = consumers(graph)
    outputs = [tensor for tensor in made if any(owner not in indices for owner, _ in users.get(tensor, ()))]
    return Group(tuple(inside), tuple(tensor for tensor in taken if tensor not in made), tuple(outputs))


def why_not(graph: EnsembleGraph, indices: Collection[int]) -> list[str]:
    """Why these steps cannot be one model; empty where they can."""
    inside = sorted(indices)
    alone = [reason for index in inside for reason in _not_alone(graph.steps[index])]
    if alone:
        return alone
    first, *others = [graph.steps[index] for index in inside]
    reasons = [reason for other in others for reason in _differ(first, other)]
    return reasons + _not_together(graph, inside)


def _not_alone(step: Step) -> Iterator[str]:
    model = step.model
    if model is None or model.inputs is None or model.outputs is None:
        yield f"{step.name}: its model is not known"
        return
    if model.format != "onnx":
        yield f"{step.name} is no ONNX model, but {model.format or 'of an unknown backend'}"
    if model.decoupled:
        yield f"{step.name} is decoupled"
    if model.sequence:
        yield f"{step.name} keeps the state of sequences"
    if model.response_cache:
        yield f"{step.name} has its answers cached, which would be lost"
    for port in model.inputs:
        if port.ragged:
            yield f"{step.name}.{port.name} takes ragged batches"
        if port.name not in step.inputs:
            yield f"{step.name}.{port.name} is not connected"


def _differ(one: Step, other: Step) -> Iterator[str]:
    name, model, second, against = one.name, one.model, other.name, other.model
    assert model is not None and against is not None
    if model.batches != against.batches:
        batching, not_batching = (name, second) if model.batches else (second, name)
        yield f"{batching} batches, {not_batching} does not"
    if model.instance_kinds != against.instance_kinds:
        kinds = [
            ", ".join(kinds) or "wherever the server decides"
            for kinds in (model.instance_kinds, against.instance_kinds)
        ]
        yield f"{name} runs on {kinds[0]}, {second} on {kinds[1]}"


def _not_together(graph: EnsembleGraph, inside: list[int]) -> list[str]:
    """They have to hang together, and what leaves the group must not come back into it."""
    needs = upstream(graph)
    names = [step.name for step in graph.steps]
    reasons = []
    reached, waiting = {inside[0]}, [inside[0]]
    for here in waiting:
        near = [k for k in inside if k not in reached and (k in needs[here] or here in needs[k])]
        reached |= set(near)
        waiting += near
    lonely = [names[index] for index in inside if index not in reached]
    if lonely:
        reasons.append(f"no tensor goes between {names[inside[0]]} and {', '.join(lonely)}")
    for index in inside:
        for outside in sorted(needs[index] - set(inside)):
            back = sorted(_all_before(needs, outside) & set(inside))
            if back:
                reasons.append(f"{names[outside]} lies between {names[back[0]]} and {names[index]}")
    return reasons


def _all_before(needs: list[set[int]], index: int) -> set[int]:
    found: set[int] = set()
    waiting = [index]
    for here in waiting:
        waiting += sorted(needs[here] - found)
        found |= needs[here]
    return found


def fused_model(graph: EnsembleGraph, group: Group, name: str) -> StepModel:
    """What the group is as one model; its tensors are called as they are in the pool.

    Raises:
        ValueError: a tensor of the group is not known.
    """
    parts = [graph.steps[index].model for index in group.steps]
    known = [part for part in parts if part is not None]
    return StepModel(
        name,
        min((part.max_batch_size for part in known), default=0),
        tuple(_port(graph, group, tensor, is_output=False) for tensor in group.inputs),
        tuple(_port(graph, group, tensor, is_output=True) for tensor in group.outputs),
        format="onnx",
        instance_kinds=known[0].instance_kinds if known else (),
    )


def _port(graph: EnsembleGraph, group: Group, tensor: str, *, is_output: bool) -> Port:
    """The port of the step that makes the tensor, or first takes it, under the tensor's name."""
    for index in group.steps:
        step = graph.steps[index]
        for name, wired in (step.outputs if is_output else step.inputs).items():
            if wired != tensor or step.model is None:
                continue
            port = step.model.output(name) if is_output else step.model.input(name)
            if port is not None:
                return replace(port, name=tensor)
    raise ValueError(f"tensor {tensor!r} is not known")


def fused_graph(graph: EnsembleGraph, group: Group, name: str, *, model: StepModel | None = None) -> EnsembleGraph:
    """The ensemble with one step in place of the group's, at the place of the first of them.

    Args:
        graph: the ensemble.
        group: of it.
        name: of the new step, and of its model.
        model: what the fused model is, where that is known better than :func:`fused_model` does.
    """
    step = Step(
        name,
        name,
        model or fused_model(graph, group, name),
        -1,
        {tensor: tensor for tensor in group.inputs},
        {tensor: tensor for tensor in group.outputs},
    )
    at = min(group.steps)
    steps = [
        step if index == at else other
        for index, other in enumerate(graph.steps)
        if index == at or index not in group.steps
    ]
    return replace(graph, steps=tuple(steps))


def fusable(graph: EnsembleGraph, places: Places) -> Iterator[tuple[Rule, Hit]]:
    """Neighbouring ONNX steps are one."""
    for group in groups(graph):
        made = producers(graph)
        names = " and ".join(graph.steps[index].name for index in group.steps)
        inner = [
            tensor
            for index in group.steps
            for tensor in graph.steps[index].inputs.values()
            if made.get(tensor, [(-2, "")])[0][0] in group.steps
        ]
        count = len(dict.fromkeys(inner))
        tensors = f"{count} tensor{'s' if count > 1 else ''}"
        message = f"steps {names} are ONNX graphs side by side: as one model they pass on {tensors} fewer"
        yield rules.FUSABLE, Hit(message, rules.FUSABLE.fix, places.step(group.steps[0]))
