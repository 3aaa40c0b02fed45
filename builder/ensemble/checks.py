"""All that is wrong with an ensemble: one function a question, asked in the order in which one would mend the answers.

The same questions for an ensemble of the spec and for any ``config.pbtxt``: they are asked of the graph, and
:class:`Places` says where the answer is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from builder.ensemble import rules
from builder.ensemble.edge_checks import batch_sizes, dtypes, shapes
from builder.ensemble.flow import cycles, decoupled, never_produced, optional_inputs
from builder.ensemble.graph import ENSEMBLE, EnsembleGraph, Port, Step, consumers, producers
from builder.ensemble.groups import fusable
from builder.ensemble.places import CONFIG_PLACES, Places
from builder.findings import nearest
from builder.rules.rule import Hit, Rule

Found = Iterator[tuple[Rule, Hit]]


def check(graph: EnsembleGraph, places: Places = CONFIG_PLACES) -> list[tuple[Rule, Hit]]:
    """Every rule that the graph breaks, and where; in a fixed order.

    Args:
        graph: the ensemble.
        places: the notation that it is written in.
    """
    questions = (
        steps, models, wiring, written_twice, never_produced, cycles, unused, dtypes, shapes, batch_sizes,
        optional_inputs, decoupled, single_step, fusable,
    )  # fmt: skip
    return [found for question in questions for found in question(graph, places)]


def steps(graph: EnsembleGraph, places: Places) -> Found:
    """There are steps, each names its model and says how it is connected."""
    if not graph.steps:
        yield rules.EMPTY, Hit(f"ensemble {graph.name!r} has no step", rules.EMPTY.fix, places.root)
    for index, step in enumerate(graph.steps):
        if not step.model_name:
            message = f"step {index} of ensemble {graph.name!r} names no model"
            yield rules.STEP_UNNAMED, Hit(message, rules.STEP_UNNAMED.fix, places.step(index))
        for what, given in (("input", step.inputs), ("output", step.outputs)):
            if not given:
                message = f"step {step.name!r} has no {what} in the ensemble"
                fix = f"map at least one {what} of the model to a tensor of the ensemble"
                yield rules.STEP_UNWIRED, Hit(message, fix, places.step(index))


def models(graph: EnsembleGraph, places: Places) -> Found:
    """The models are there, in the version that is asked for, and the ensemble is not one of them."""
    for index, step in enumerate(graph.steps):
        circle = _circle(graph, step)
        if circle:
            message = f"ensemble {graph.name!r} needs itself: {' -> '.join(circle)}"
            yield rules.RECURSION, Hit(message, rules.RECURSION.fix, places.step(index, places.model))
        elif step.model is None and step.model_name:
            close = nearest(step.model_name, graph.models)
            there = ", ".join(graph.models[:10]) + (", ..." if len(graph.models) > 10 else "")
            message = f"step {step.name!r}: the repository has no model {step.model_name!r}"
            fix = f"did you mean {close!r}?" if close else f"one of {there}" if there else rules.MODEL_MISSING.fix
            yield rules.MODEL_MISSING, Hit(message, fix, places.step(index, places.model))
        yield from _version(step, index, places)


def _circle(graph: EnsembleGraph, step: Step) -> list[str]:
    """The way from the ensemble through this step back to it; empty where there is none."""
    before: dict[str, str | None] = {step.model_name: None}
    waiting = [step.model_name]
    for here in waiting:
        if here == graph.name:
            way: list[str] = []
            at: str | None = here
            while at is not None:
                way.insert(0, at)
                at = before[at]
            return [graph.name, *way]
        for there in graph.uses.get(here, ()):
            if there not in before:
                before[there] = here
                waiting.append(there)
    return []


def _version(step: Step, index: int, places: Places) -> Found:
    wanted, model = step.model_version, step.model
    if wanted == -1 or model is None:
        return
    if wanted < 1:
        why = "a step that names no version asks for version 0" if wanted == 0 else "versions are numbers from 1"
        message = f"step {step.name!r} asks for version {wanted} of {model.name!r}: {why}"
        yield rules.VERSION, Hit(message, "write -1 for the latest", places.step(index, places.version))
        return
    served = model.served if model.served is not None else model.versions
    if served is None or wanted in served:
        return
    there = ", ".join(map(str, served)) or "none"
    message = f"step {step.name!r} asks for version {wanted} of {model.name!r}; served: {there}"
    on_disk = model.versions is not None and wanted in model.versions
    fix = (
        "let the model's version_policy serve it, or write -1 for the latest" if on_disk else "write -1 for the latest"
    )
    yield rules.VERSION, Hit(message, fix, places.step(index, places.version))


def wiring(graph: EnsembleGraph, places: Places) -> Found:
    """Every tensor that is mapped exists, every input that is needed is mapped."""
    for index, step in enumerate(graph.steps):
        if step.model is None:
            continue
        for is_output, given, ports in (
            (False, step.inputs, step.model.inputs),
            (True, step.outputs, step.model.outputs),
        ):
            if ports is None:
                continue
            rule = rules.UNKNOWN_OUTPUT if is_output else rules.UNKNOWN_INPUT
            for name in given:
                if all(port.name != name for port in ports):
                    what = "output" if is_output else "input"
                    message = f"step {step.name!r}: model {step.model_name!r} has no {what} {name!r}"
                    yield rule, Hit(message, _known(name, ports), places.wired(index, name, is_output=is_output))
        for port in step.model.inputs or ():
            if not port.optional and port.name not in step.inputs and step.inputs:
                message = f"{step.name}.{port.name} {port} is not connected"
                yield rules.INPUT_UNCONNECTED, Hit(message, _fitting(graph, index, port), places.step(index))


def _known(name: str, ports: Iterable[Port]) -> str:
    close = nearest(name, [port.name for port in ports])
    listed = ", ".join(f"{port.name} {port}" for port in ports)
    return f"did you mean {close!r}? It has {listed}" if close else f"it has {listed}"


def _fitting(graph: EnsembleGraph, index: int, wanted: Port) -> str:
    """What could be connected: tensors of that type and rank that this step does not make itself."""
    fits = [f"{port.name} {port}" for port in graph.inputs if alike(port, wanted)]
    for other, step in enumerate(graph.steps):
        if other != index and step.model is not None:
            fits += [f"{step.name}.{port.name} {port}" for port in step.model.outputs or () if alike(port, wanted)]
    return f"what fits: {', '.join(fits)}" if fits else "nothing here fits: make it an input of the ensemble"


def alike(one: Port, other: Port) -> bool:
    """The same element type and number of dimensions, as far as they are known."""
    if one.dims is not None and other.dims is not None and len(one.dims) != len(other.dims):
        return False
    return one.dtype is None or other.dtype is None or one.dtype == other.dtype


def written_twice(graph: EnsembleGraph, places: Places) -> Found:
    """No tensor has two makers."""
    for tensor, makers in producers(graph).items():
        named = ["an input of the ensemble" if k == ENSEMBLE else f"{graph.steps[k].name}.{name}" for k, name in makers]
        fix = "give one of them another name"
        for owner, name in [maker for maker in makers if maker[0] != ENSEMBLE][1:]:
            message = f"tensor {tensor!r} is written twice: by {' and '.join(named)}"
            yield rules.PRODUCED_TWICE, Hit(message, fix, places.wired(owner, name, is_output=True))
        if makers[0][0] == ENSEMBLE and len(makers) > 1:
            owner, name = makers[1]
            message = f"tensor {tensor!r} is an input of the ensemble, and {named[1]} writes to it"
            path = places.wired(owner, name, is_output=True)
            yield rules.INPUT_OVERWRITTEN, Hit(message, rules.INPUT_OVERWRITTEN.fix, path)


def unused(graph: EnsembleGraph, places: Places) -> Found:
    """What is taken or made is used."""
    used = {
        tensor: [user for user in users if user[0] != ENSEMBLE or tensor not in {port.name for port in graph.inputs}]
        for tensor, users in consumers(graph).items()
    }
    made = producers(graph)
    for port in graph.inputs:
        if not used.get(port.name) and len(made[port.name]) == 1:
            message = f"input {port.name} {port} of the ensemble is not used by any step"
            path = places.tensor(graph, port.name, is_output=False)
            yield rules.UNUSED_INPUT, Hit(message, _takers(graph, port), path)
    for tensor, makers in made.items():
        if tensor in used:
            continue
        for owner, name in (maker for maker in makers[:1] if maker[0] != ENSEMBLE):
            message = f"tensor {tensor!r} ({graph.steps[owner].name}.{name}) is used by no step and no output"
            fix = f"take {name!r} out of the step's outputs, or make {tensor!r} an output of the ensemble"
            yield rules.UNUSED_TENSOR, Hit(message, fix, places.wired(owner, name, is_output=True))


def _takers(graph: EnsembleGraph, given: Port) -> str:
    open_inputs = [
        f"{step.name}.{port.name} {port}"
        for step in graph.steps
        for port in (step.model.inputs if step.model else None) or ()
        if port.name not in step.inputs and alike(port, given)
    ]
    return f"connect it to {' or '.join(open_inputs)}" if open_inputs else "take it out"


def single_step(graph: EnsembleGraph, places: Places) -> Found:
    """There is something to put together."""
    if len(graph.steps) == 1:
        message = f"ensemble {graph.name!r} has the one step {graph.steps[0].name!r}"
        yield rules.SINGLE_STEP, Hit(message, rules.SINGLE_STEP.fix, places.root)
