"""Models of one spec that need others: the steps of an ensemble, what a Python class calls.

Which model each name means, and which have to be built before others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from builder.findings import Finding, did_you_mean
from builder.variants import VARIANTS, is_servable

if TYPE_CHECKING:
    from builder.spec.models import ModelSpec

Models = Mapping[str, "ModelSpec"]


def target_of(models: Models, step: str) -> tuple[str, str] | None:
    """``(model, variant)`` of what a step names: the variant is empty for the plain name. None where nothing is."""
    if step in models:
        return step, ""
    for name, model in models.items():
        for variant in () if model.is_alone else model.variants:
            if f"{name}_{VARIANTS[variant].suffix}" == step and is_servable(VARIANTS[variant]):
                return name, variant
    return None


def steps_of(models: Models, name: str) -> list[str]:
    """The models that a model needs, itself left out: an ensemble its steps, a Python class those that it calls."""
    targets = [target_of(models, needed) for needed in models[name].needs]
    return list(dict.fromkeys(target[0] for target in targets if target is not None and target[0] != name))


def with_steps(models: Models, names: Mapping[str, object] | list[str]) -> list[str]:
    """These models and all that they need, in the order of the spec."""
    wanted: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += steps_of(models, name)
    return [name for name in models if name in wanted]


def depth_of(models: Models, name: str) -> int:
    """0 for what needs no other model; what does is built after everything of less depth."""
    return max((1 + depth_of(models, step) for step in steps_of(models, name)), default=0)


def ensemble_findings(models: Models) -> Iterator[Finding]:
    """Steps and calls that name no model, and models that need themselves; paths begin at the spec."""
    servable = [f"{n}_{VARIANTS[v].suffix}" for n, m in models.items() if not m.is_alone for v in m.variants]
    for name, model in models.items():
        where, word = (("ensemble", "steps"), "step") if model.ensemble else (("source", "calls"), "call")
        named = [step.model for step in model.ensemble.steps] if model.ensemble else model.needs
        for index, needed in enumerate(named):
            target = target_of(models, needed)
            if target is not None and models[target[0]].is_decoupled:
                what = f"{word} {needed!r} is decoupled: its answers are not one, and could not be verified here"
                yield Finding(what, "models that answer a request once", path=("models", name, *where, index))
            if target_of(models, needed) is None:
                known = [*(other for other in models if other != name), *servable]
                what = f"{word} {needed!r} is no model of this spec"
                fix = did_you_mean(needed, known)
                yield Finding(what, ", ".join(known), fix=fix, path=("models", name, *where, index))
    for name in models:
        circle = _circle(models, name, ())
        if circle and min(circle) == name:  # said once
            way = " -> ".join([*circle, circle[0]])
            kind = "an ensemble" if models[name].ensemble else "a class"
            kinds = "ensembles" if all(models[each].ensemble for each in circle) else "models"
            what = f"{kind} that needs itself" if len(circle) == 1 else f"{kinds} that need each other"
            at = ("ensemble", "steps") if models[name].ensemble else ("source", "calls")
            fix = "take one of these steps out"
            yield Finding(what, "models that are there before", way, fix, ("models", name, *at))


def _circle(models: Models, name: str, way: tuple[str, ...]) -> tuple[str, ...]:
    """A way from a model back to it, where there is one."""
    if name in way:
        return way if name == way[0] else ()
    for needed in models[name].needs:
        target = target_of(models, needed)
        found = _circle(models, target[0], (*way, name)) if target is not None else ()
        if found:
            return found
    return ()
