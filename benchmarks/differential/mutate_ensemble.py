"""The edges of an ensemble: tensors, steps, versions, shapes that do not meet."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from benchmarks.differential.case import Case
from benchmarks.differential.mutate_config import from_text, in_config
from benchmarks.differential.style import styled


def _step(config: Any, rng: random.Random) -> Any:
    return rng.choice(list(config.ensemble_scheduling.step))


def _entry(config: Any, rng: random.Random) -> tuple[Any, str]:
    step = _step(config, rng)
    mapping = rng.choice((step.input_map, step.output_map))
    return mapping, rng.choice(sorted(mapping))


def key_changed(config: Any, rng: random.Random) -> object:
    """A map's key names no tensor of the step's model."""
    mapping, key = _entry(config, rng)
    value = mapping.pop(key)
    mapping[rng.choice((key + "s", key.upper() + "_", value))] = value
    return True


def value_changed(config: Any, rng: random.Random) -> object:
    """A map's value names no tensor of the ensemble, or another one."""
    mapping, key = _entry(config, rng)
    values = [
        v
        for step in config.ensemble_scheduling.step
        for m in (step.input_map, step.output_map)
        for v in sorted(m.values())
    ]
    mapping[key] = rng.choice([*values, "nowhere", mapping[key] + "_x", ""])
    return True


def entry_removed(config: Any, rng: random.Random) -> object:
    """An input or output of a step is not mapped, or none is."""
    mapping, key = _entry(config, rng)
    if rng.random() < 0.25:
        mapping.clear()
    else:
        mapping.pop(key)
    return True


def maps_swapped(config: Any, rng: random.Random) -> object:
    """Names the wrong way round: the ensemble's as the key, the model's as the value; two of them exchanged."""
    mapping, key = _entry(config, rng)
    if rng.random() < 0.5 or len(mapping) < 2:
        value = mapping.pop(key)
        mapping[value] = key
    else:
        other = rng.choice([name for name in sorted(mapping) if name != key])
        mapping[key], mapping[other] = mapping[other], mapping[key]
    return True


def step_missing(config: Any, rng: random.Random) -> object:
    """A step is not there, or none is."""
    steps = config.ensemble_scheduling.step
    if rng.random() < 0.2:
        del steps[:]
    else:
        del steps[rng.randrange(len(steps))]
    return True


def step_twice(config: Any, rng: random.Random) -> object:
    """A step is there twice, and writes what was written."""
    config.ensemble_scheduling.step.add().CopyFrom(_step(config, rng))
    return True


def model_unknown(config: Any, rng: random.Random) -> object:
    """A step's model is not in the repository, has no name, or is the ensemble itself."""
    step = _step(config, rng)
    step.model_name = rng.choice(("absent", "", step.model_name + "x", step.model_name.upper()))
    return True


def version_unknown(config: Any, rng: random.Random) -> object:
    """A step wants a version that is not there; left out it is 0."""
    _step(config, rng).model_version = rng.choice((0, 2, 9, -2, 1, -1))
    return True


def io_changed(config: Any, rng: random.Random) -> object:
    """The ensemble says another type, other dims or another name of what a step gives or takes."""
    chosen = rng.choice([*config.input, *config.output])
    way = rng.randrange(5)
    if way == 0:
        chosen.data_type = rng.choice([kind for kind in (2, 8, 9, 10, 11, 13) if kind != chosen.data_type])
    elif way == 1:
        chosen.dims[0] = rng.choice((-1, 1, 2, 7))
    elif way == 2:
        chosen.dims.append(rng.choice((1, -1, 3)))
    elif way == 3:
        chosen.name += "_2"
    else:
        chosen.dims.insert(0, -1)
    return True


def io_added(config: Any, rng: random.Random) -> object:
    """The ensemble has an input that no step reads, or an output that no step writes."""
    field = config.input if rng.random() < 0.5 else config.output
    field.add(name="more", data_type=11, dims=[1])
    return True


def cycle(config: Any, rng: random.Random) -> object:
    """A step reads what a later one makes from its output."""
    steps = config.ensemble_scheduling.step
    first, last = steps[0], steps[-1]
    first.input_map[sorted(first.input_map)[0]] = last.output_map[sorted(last.output_map)[0]]
    return True


def batch_differs(config: Any, rng: random.Random) -> object:
    """The ensemble's largest batch is not one of its steps'."""
    config.max_batch_size = rng.choice((0, 1, 2, 4, 16, 17, 64, -1))
    return True


def ensemble_with_more(config: Any, rng: random.Random) -> None:
    """An ensemble with what only models have: instances, batching, a backend, a policy."""
    from_text(
        config,
        rng.choice(
            (
                "instance_group { count: 1 }",
                'backend: "python"',
                "optimization { priority: PRIORITY_MAX }",
                "model_transaction_policy { decoupled: true }",
                "response_cache { enable: true }",
                'model_warmup { name: "w" batch_size: 1 }',
                'default_model_filename: "model.onnx"',
                "version_policy { specific { versions: [ 4 ] } }",
                'parameters { key: "k" value { string_value: "v" } }',
                'input { name: "again" data_type: TYPE_FP32 dims: [ 1 ] optional: true }',
            )
        ),
    )


def scheduling_removed(config: Any, rng: random.Random) -> object:
    """The platform says ensemble and there are no steps; or steps, and the platform does not."""
    if rng.random() < 0.5:
        config.ClearField("ensemble_scheduling")
    else:
        config.platform = rng.choice(("", "onnxruntime_onnx", "Ensemble"))
    return True


def _in_step(change: Callable[[Any, random.Random], object]) -> Callable[[Case, random.Random], Case | None]:
    """The change made to the configuration of a step's model."""

    def mutate(case: Case, rng: random.Random) -> Case | None:
        steps = [model for model in case.models if not case.is_ensemble(model)]
        if not case.is_ensemble(case.target) or not steps:
            return None
        model = rng.choice(steps)
        config = case.config(model)
        before = config.SerializeToString(deterministic=True)
        if change(config, rng) is False or config.SerializeToString(deterministic=True) == before:
            return None
        return case.with_text(styled(config, rng), model)

    mutate.__doc__ = change.__doc__
    return mutate


def step_batch(config: Any, rng: random.Random) -> object:
    """A step's model batches less than the ensemble, or not at all."""
    config.max_batch_size = rng.choice((0, 1, 2, 4, 32))
    return True


def step_dims(config: Any, rng: random.Random) -> object:
    """A step's model, in Python, has other dims, types or names than the edge it stands on."""
    if config.backend != "python":
        return False
    chosen = rng.choice([*config.input, *config.output])
    way = rng.randrange(4)
    if way == 0:
        chosen.dims[0] = rng.choice((1, 2, 7, -1))
    elif way == 1:
        chosen.data_type = rng.choice((8, 9, 10, 11, 13))
    elif way == 2:
        chosen.dims.append(2)
    else:
        chosen.name += "2"
    return True


def step_streams(config: Any, rng: random.Random) -> object:
    """A step's model is decoupled, or no longer; optional inputs; a sequence batcher."""
    way = rng.randrange(4)
    if way <= 1:
        config.model_transaction_policy.decoupled = not config.model_transaction_policy.decoupled
    elif way == 2:
        rng.choice(list(config.input)).optional = True
    else:
        config.input.add(name="more", data_type=11, dims=[1], optional=rng.random() < 0.5)
    return True


def step_folder_removed(case: Case, rng: random.Random) -> Case | None:
    """The folder of a step's model is not in the repository."""
    steps = [model for model in case.models if not case.is_ensemble(model)]
    if not case.is_ensemble(case.target) or not steps:
        return None
    return case.moved(f"{rng.choice(steps)}/", None)


def _only_ensembles(change: Callable[[Any, random.Random], object]) -> Callable[[Case, random.Random], Case | None]:
    inner = in_config(change)

    def mutate(case: Case, rng: random.Random) -> Case | None:
        return inner(case, rng) if case.is_ensemble(case.target) else None

    mutate.__doc__ = change.__doc__
    return mutate


ENSEMBLE = {
    "ensemble map key": _only_ensembles(key_changed),
    "ensemble tensor": _only_ensembles(value_changed),
    "ensemble map entry removed": _only_ensembles(entry_removed),
    "ensemble maps exchanged": _only_ensembles(maps_swapped),
    "ensemble step removed": _only_ensembles(step_missing),
    "ensemble step twice": _only_ensembles(step_twice),
    "ensemble model unknown": _only_ensembles(model_unknown),
    "ensemble model version": _only_ensembles(version_unknown),
    "ensemble input or output": _only_ensembles(io_changed),
    "ensemble input or output added": _only_ensembles(io_added),
    "ensemble cycle": _only_ensembles(cycle),
    "ensemble batch": _only_ensembles(batch_differs),
    "ensemble with a model's fields": _only_ensembles(ensemble_with_more),
    "ensemble without steps or platform": _only_ensembles(scheduling_removed),
    "step's batch": _in_step(step_batch),
    "step's tensors": _in_step(step_dims),
    "step's streams and options": _in_step(step_streams),
    "step's folder removed": step_folder_removed,
}
