"""The steps of a model: which there are, in which order, what each is for and what it follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from builder.incremental import keys
from builder.incremental.cache import Record
from builder.incremental.keys import Inputs, Subject
from builder.spec import ModelSpec
from builder.variants import FASTEST, FUSED, VARIANTS, Variant, is_servable

FAILED = "failed"
_OF_A_MODEL = ("config", "contract", "serve")


@dataclass(frozen=True)
class Step:
    """One step whose result is kept.

    Attributes:
        stage: as in ``pipeline.STAGES``.
        inputs: what it depends on besides the steps before it.
        after: the steps whose results it uses, by name.
        runs_user_code: what that code reads while it runs counts as well.
        of: the variant that it is for; empty for what they share, and for the plain name.
    """

    stage: str
    inputs: Callable[[Subject], Inputs]
    after: tuple[str, ...] = ()
    runs_user_code: bool = False
    of: str = ""

    @property
    def name(self) -> str:
        """What its result is kept under."""
        return name_of(self.stage, self.of)


def name_of(stage: str, of: str) -> str:
    """``precision onnx-int8``; ``config`` where it is for no variant of its own."""
    return f"{stage} {of}" if of else stage


def model_name_of(model: str, of: str) -> str:
    """The name in the repository: a variant's own, or the plain one."""
    return f"{model}_{VARIANTS[of].suffix}" if of else model


def published_names(subject: Subject) -> list[str]:
    """The variants that get a model of their own, and last the plain name: empty. Those that can be built here."""
    alone = subject.model.is_alone
    own = [] if alone else [name for name in subject.variants if is_servable(VARIANTS[name])]
    served = subject.model.served
    return [*own, *([""] if served in subject.variants or (served == FASTEST and own) else [])]


def served_variant(model: ModelSpec, of: str, kept: Mapping[str, Record]) -> Variant:
    """The variant that is served under a name: its own, or of the plain name the one that was asked for or chosen."""
    if of:
        return VARIANTS[of]
    return VARIANTS[kept["choose"].data["variant"] if model.served == FASTEST else model.served]


def records_of(kept: Mapping[str, Record], of: str, variant: Variant) -> dict[str, Record]:
    """What is kept of each stage that a published model went through, by stage.

    Args:
        kept: by step.
        of: the variant whose own model it is; empty for the plain name.
        variant: what is served under the name.
    """
    found = {name: record for name, record in kept.items() if " " not in name}
    for name, record in kept.items():
        stage, _, whose = name.partition(" ")
        if whose == variant.name and stage not in _OF_A_MODEL:
            found[stage] = record
    if of:
        found |= {stage: kept[name_of(stage, of)] for stage in _OF_A_MODEL}
        found.pop("choose", None)
    return found


def artifact_step(variant: str) -> str:
    """The step that makes a variant's file."""
    row = VARIANTS[variant]
    if row.format in ("python", "ensemble"):
        return "package"
    if row is FUSED:
        return "fuse"
    if row.format == "plan":
        return name_of("engine", variant)
    return "export" if row.precision == "fp32" else name_of("precision", variant)


STEPS_WITH_THE_MODULE = frozenset({"source", "samples", "reference", "baseline", "export", "accuracy"})
"""Steps that run the user's code."""


def steps_of(subject: Subject) -> tuple[Step, ...]:
    """The steps of a model, in the order they run; those of variants that cannot be built here are left out."""
    if subject.model.kind in ("python_model", "ensemble"):
        return _steps_as_it_is(subject)
    model, measured = subject.model, subject.model.evaluate is not None
    # Samples are made for the tensors that are written in the spec, whatever the source is.
    steps = [
        Step("source", keys.of_source, (), True),
        Step("samples", keys.of_samples, () if model.inputs else ("source",), True),
        Step("reference", keys.of_reference, ("source", "samples"), True),
        *([Step("baseline", keys.of_baseline, ("source",), True)] if measured else []),
        Step("export", keys.of_export, ("source", "samples"), True),
        Step("parity", keys.of_parity, ("export", "reference")),
    ]
    if measured and any(VARIANTS[name].precision == "fp32" for name in subject.variants):
        steps.append(Step("accuracy", keys.of_accuracy, ("export", "baseline"), True))
    for name in subject.variants:
        steps += [*_steps_of_variant(name, measured), *_steps_of_its_own_model(subject, name)]
    return (*steps, *_steps_of_the_plain_name(subject))


def _steps_as_it_is(subject: Subject) -> tuple[Step, ...]:
    """The steps of a Python class, and of an ensemble: nothing is converted."""
    model = subject.model
    measured = bool(model.needs) and model.evaluate is not None
    judged = ("package", "samples", "reference", *(("baseline",) if measured else ()))
    steps = [
        Step("source", keys.of_source, (), True),
        Step("samples", keys.of_samples, () if model.inputs else ("source",), True),
        Step("reference", keys.of_reference, ("source", "samples"), True),
        *([Step("baseline", keys.of_baseline, ("source",), True)] if measured else []),
        Step("package", keys.of_package, ("source",), True),
    ]
    if model.needs:
        steps.append(Step("accuracy", keys.of_agreement, judged, True))
    if FUSED.name in model.variants:
        steps.append(Step("fuse", keys.of_fuse, ("package", "reference"), True))
    own = [step for name in subject.variants for step in _steps_of_its_own_model(subject, name)]
    return (*steps, *own, *_steps_of_the_plain_name(subject))


def _steps_of_its_own_model(subject: Subject, variant: str) -> list[Step]:
    """What makes a variant a model of its own, where there are several."""
    if subject.model.is_alone or not is_servable(VARIANTS[variant]):
        return []
    return _steps_to_serve(variant, artifact_step(variant), variant)


def _steps_of_the_plain_name(subject: Subject) -> list[Step]:
    """What chooses the variant that is served under the plain name, and makes a model of it."""
    model = subject.model
    if model.served == FASTEST:
        entrants = [name for name in subject.variants if is_servable(VARIANTS[name])]
        after = ["reference", *(name_of("serve", name) for name in entrants)]
        after += [name_of("accuracy", name) for name in entrants if VARIANTS[name].precision != "fp32"]
        return [Step("choose", keys.of_choose, tuple(after)), *_steps_to_serve("", "choose", "")]
    if model.served in subject.variants:
        return _steps_to_serve("", artifact_step(model.served), "" if model.is_alone else model.served)
    return []


def _steps_of_variant(name: str, measured: bool) -> list[Step]:
    """What makes a variant's file, and judges it."""
    variant, steps = VARIANTS[name], []
    made = name_of("precision", name)
    if variant.precision != "fp32":
        base = ("export", "samples", *(("baseline",) if measured else ()))
        steps += [
            Step("precision", partial(keys.of_precision, variant=name), (*base, "reference"), True, name),
            Step("parity", keys.of_parity, (made, "reference"), False, name),
            Step("accuracy", keys.of_agreement, (made, *base), measured, name),
        ]
    if variant.format == "plan":
        after = ("export" if variant.precision == "fp32" else made, "samples", "reference")
        steps.append(Step("engine", partial(keys.of_engine, variant=name), after, False, name))
    return steps


def _steps_to_serve(of: str, artifact: str, variant: str) -> list[Step]:
    """What makes a model of an artifact, and asks it in a server."""
    config = name_of("config", of)
    return [
        Step("config", partial(keys.of_config, variant=variant), (artifact, "samples"), False, of),
        Step("contract", keys.of_contract, (artifact, config), False, of),
        Step("serve", keys.of_serve, (artifact, config, "reference"), False, of),
    ]


def inputs_of(step: Step, subject: Subject, digests: Mapping[str, str]) -> Inputs:
    """All that a step depends on and is known before it runs.

    Args:
        step: the step.
        subject: the model.
        digests: of the results of the steps before it; one that is not there has failed.
    """
    return {**step.inputs(subject), **{f"step:{name}": digests.get(name, FAILED) for name in step.after}}
