"""What a build will do and why, as data: nothing is loaded, run or written to find out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builder.incremental.cache import Cache, Record, Records, digest_of
from builder.incremental.file_memory import ABSENT
from builder.incremental.keys import Subject, fingerprints_of
from builder.incremental.steps import Step as Key
from builder.incremental.steps import (
    artifact_step,
    inputs_of,
    model_name_of,
    name_of,
    published_names,
    records_of,
    served_variant,
    steps_of,
)
from builder.releases import PINNED_RELEASE
from builder.repository import publish
from builder.spec import ModelSpec, Spec
from builder.spec.ensembles import depth_of, with_steps
from builder.spec.ensembles import steps_of as steps_of_ensemble
from builder.variants import VARIANTS

_REASONS_SHOWN = 4


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes:
        model: for which model.
        stage: a stage of ``pipeline.STAGES``.
        what: in words.
        status: ``cached`` or ``run``.
        why: why it has to run; empty where it is cached.
    """

    model: str
    stage: str
    what: str
    status: str
    why: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        return {**vars(self), "why": list(self.why)}


@dataclass(frozen=True)
class Plan:
    """The steps of a build, in order."""

    steps: tuple[Step, ...]

    @property
    def to_build(self) -> tuple[str, ...]:
        """The models for which anything is to be done."""
        return tuple(dict.fromkeys(step.model for step in self.steps if step.status == "run"))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        return {"steps": [step.as_dict() for step in self.steps], "to_build": list(self.to_build)}


@dataclass(frozen=True)
class Decision:
    """Whether one keyed step has to run.

    Attributes:
        step: its name.
        record: the result that is kept; None where it has to run.
        why: the reasons, where it has to.
    """

    step: str
    record: Record | None
    why: tuple[str, ...] = ()


def decide(
    subject: Subject,
    records: Records,
    *,
    force: bool = False,
    has: Callable[[str], bool] | None = None,
    changing: Sequence[str] = (),
) -> list[Decision]:
    """Hold every step of a model against what is kept of it.

    Args:
        subject: the model.
        records: what is kept.
        force: let every step run.
        has: whether a file is in the cache; to be given where something is to be done, which takes the files.
        changing: models that it is made of and that are to be built before it.
    """
    decisions: list[Decision] = []
    digests: dict[str, str] = {}
    for step in steps_of(subject):
        waits_for = [name for name in step.after if name not in digests]
        if force:
            decisions.append(Decision(step.name, None, ("--force",)))
            continue
        if changing:
            decisions.append(Decision(step.name, None, (f"{' and '.join(changing)} will be built",)))
            continue
        if waits_for:
            decisions.append(Decision(step.name, None, (f"{' and '.join(waits_for)} will run",)))
            continue
        found = find(step, subject, records, digests)
        if found is None:
            why = tuple(_why(step, subject, records.get(step.name, []), digests))
            decisions.append(Decision(step.name, None, why))
            continue
        digests[step.name] = found.digest  # files that are missing will be as they were when they are made anew
        gone = has is not None and not all(has(digest) for digest in found.objects.values())
        why = ("what it made is no more in the cache",) if gone else ()
        decisions.append(Decision(step.name, None if gone else found, why))
    return decisions


def find(step: Key, subject: Subject, records: Records, digests: Mapping[str, str]) -> Record | None:
    """The kept result of a step that depends on nothing but what is here now; None where there is none."""
    inputs = inputs_of(step, subject, digests)
    for record in records.get(step.name, []):
        same = record.inputs == inputs
        if same and all(subject.now.of(key) == value for key, value in record.reads.items()):
            return record
    return None


@dataclass(frozen=True)
class Wanted:
    """What one model in the repository consists of when nothing has to run for it.

    Attributes:
        name: its name there.
        variant: what it serves.
        content: its files and its configuration.
        records: what is kept of each stage it went through.
    """

    name: str
    variant: str
    content: publish.Content
    records: Mapping[str, Record]


def wanted_of(subject: Subject, decisions: Sequence[Decision]) -> list[Wanted] | None:
    """What is to be in the repository when every step is cached, the plain name last; None when one has to run."""
    kept = {decision.step: decision.record for decision in decisions if decision.record is not None}
    if len(kept) != len(decisions):
        return None
    found = []
    for of in published_names(subject):
        variant = served_variant(subject.model, of, kept)
        config, artifact = kept[name_of("config", of)], kept[artifact_step(variant.name)]
        content = publish.Content(None, {**artifact.objects, **config.data["files"]}, config.data["identity"])
        name = model_name_of(subject.name, of)
        found.append(Wanted(name, variant.name, content, records_of(kept, of, variant)))
    return found


def plan(spec: Spec, only: Sequence[str] = (), *, force: bool = False) -> Plan:
    """What :func:`builder.build` will do.

    Args:
        spec: the spec.
        only: names of the models to build; all of them when empty. What it does not have is passed over: see
            :func:`builder.api.check_names`.
        force: as for the build.
    """
    cache = Cache(publish.build_dir(spec.repository), spec.repository.name)
    now = fingerprints_of(spec, cache.files)
    steps: dict[str, list[Step]] = {}
    names = with_steps(spec.models, [name for name in only or spec.models if name in spec.models])
    for name in sorted(names, key=lambda each: depth_of(spec.models, each)):
        changing = [each for each in steps_of_ensemble(spec.models, name) if _is_changing(steps[each])]
        subject = Subject(name, spec, spec.models[name], now)
        steps[name] = list(_steps(subject, cache, force=force, changing=changing))
    return Plan(tuple(step for name in names for step in steps[name]))


def _is_changing(steps: Sequence[Step]) -> bool:
    return any(step.status == "run" for step in steps)


def _steps(subject: Subject, cache: Cache, *, force: bool, changing: Sequence[str]) -> Iterator[Step]:
    records = cache.records(subject.name)
    decisions = decide(subject, records, force=force, changing=changing)
    wanted = wanted_of(subject, decisions)
    if wanted is None:
        ends = [_unknown(subject, of) for of in published_names(subject)]
    else:
        ends = [_publishing(subject, each) for each in wanted]
    if any(end.status == "run" for end in ends):
        decisions = decide(subject, records, force=force, has=cache.has, changing=changing)
    said = _in_words(subject)
    for decision in decisions:
        word = "run" if decision.record is None else "cached"
        yield Step(subject.name, decision.step, said[decision.step], word, decision.why)
    for name, error in subject.missing.items():
        required = name in subject.model.required or name == subject.model.served
        yield Step(subject.name, name, error.what, "failed" if required else "left out", (error.got,))
    yield from ends


def _unknown(subject: Subject, of: str) -> Step:
    """Publishing, where it is not known yet what."""
    name = model_name_of(subject.name, of)
    where = subject.spec.repository / name / str(publish.next_version(subject.spec.repository / name))
    what = f"as {where}, unless the newest version is the same"
    return Step(subject.name, name_of("publish", of), what, "run", ("its content may have changed",))


def _publishing(subject: Subject, wanted: Wanted) -> Step:
    repository, name = subject.spec.repository, wanted.name
    here = publish.newest_content(repository, name)
    stage = name_of("publish", "" if name == subject.name else wanted.variant)
    if here is not None and here.same_as(wanted.content):
        return Step(subject.name, stage, f"version {here.version} is up to date", "cached")
    why = "it is not in the repository" if here is None else f"version {here.version} has other content"
    return Step(
        subject.name, stage, f"as {repository / name / str(publish.next_version(repository / name))}", "run", (why,)
    )


def _in_words(subject: Subject) -> dict[str, str]:
    model, spec = subject.model, subject.spec
    release = spec.server or PINNED_RELEASE
    steps = ", ".join(step.model for step in model.ensemble.steps) if model.ensemble else ""
    source = steps or str(getattr(model.origin, model.kind))
    exporter = "dynamo" if model.export.exporter == "auto" else model.export.exporter
    opset = model.opset_of(spec.server, exporter)
    export = f"torch.onnx.export by {exporter}, opset {opset}, for Triton {release}"
    metric = f"{model.evaluate.python}" if model.evaluate else ""
    drop = f", a drop of at most {model.evaluate.max_drop:g}" if model.evaluate else ""
    words = {
        "source": f"load {source} ({model.kind})",
        "samples": f"take samples from {model.samples.python}" if model.samples else "make random samples",
        "reference": "ask the originals of its steps" if steps else "ask the original module for the right answers",
        "fuse": "put its steps into one graph, and hold that against them",
        "package": "wire its steps" if steps else "put the class and what it needs together",
        "baseline": f"{metric} on the original module",
        "export": "take the ONNX file as it is" if model.kind == "onnx" else export,
        "engine": "build the engine",
        "config": "decide and write config.pbtxt",
        "contract": "hold config.pbtxt against the artifact",
        "parity": "hold the artifact's answers against the original's",
        "accuracy": f"{metric} on the artifact{drop}",
        "serve": "load it in Triton, ask over HTTP and gRPC, one at a time and many at once",
        "choose": "measure the variants in Triton, and choose the fastest",
    }
    return {step.name: _of_a_variant(step, model) or words[step.stage] for step in steps_of(subject)}


def _of_a_variant(step: Key, model: ModelSpec) -> str:
    """What a step does for one variant, where that is something of its own."""
    if step.stage == "precision":
        recipe, precision = model.precision.recipes.get(step.of), VARIANTS[step.of].precision
        return f"bring it to {precision} by {recipe}" if recipe else f"search for a recipe in {precision}"
    if step.stage == "accuracy" and model.needs:
        of = "its steps together against their originals" if model.ensemble else "it against the originals of its calls"
        return f"hold {of}, on held-out samples"
    if step.stage == "accuracy" and step.of:
        metric = f"{model.evaluate.python} and " if model.evaluate else ""
        return f"{metric}agreement with fp32 on held-out samples"
    return ""


def _why(step: Key, subject: Subject, records: Sequence[Record], digests: Mapping[str, str]) -> Iterator[str]:
    """What differs from the newest result that is kept."""
    if not records:
        yield "it has not run yet"
        return
    inputs = inputs_of(step, subject, digests)
    old = records[0]
    before = {**old.inputs, **old.reads}
    now = {**inputs, **{key: subject.now.of(key) for key in old.reads}}
    changed = [key for key in sorted({**before, **now}) if before.get(key) != now.get(key)]
    reasons = list(dict.fromkeys(_change(key, before.get(key), now.get(key)) for key in changed))
    yield from reasons[:_REASONS_SHOWN]
    if len(reasons) > _REASONS_SHOWN:
        yield f"and {len(reasons) - _REASONS_SHOWN} more"


def _change(key: str, before: str | None, now: str | None) -> str:
    kind, _, name = key.partition(":")
    if kind == "spec":
        return f"the spec: {_spec_change(name, before, now)}"
    if kind == "step":
        return f"{name} gave another result"
    if kind == "published":
        return f"{name} in the repository is another"
    if kind in ("tool", "package"):
        return f"{name} {before or 'absent'} -> {now or 'absent'}"
    if kind == "host":
        return f"another machine: {before} -> {now}"
    if kind == "env":
        return f"${name} changed"
    if kind in ("file", "there", "folder"):
        return _change_of_a_file(kind, name, before, now)
    if kind == "module":
        return f"import {name} finds another file: {before} -> {now}"
    if kind == "cwd":
        return f"relative paths start at another folder: {before} -> {now}"
    return f"{key}: {before} -> {now}"


def _change_of_a_file(kind: str, name: str, before: str | None, now: str | None) -> str:
    if before == ABSENT:
        return f"{name} appeared"
    if now == ABSENT:
        return f"{name} is gone"
    if before is None or now is None:
        return f"{name} is named {'now' if now else 'no more'}"
    return f"{name}/ has other entries" if kind == "folder" else f"{name} changed"


def _spec_change(name: str, before: str | None, now: str | None) -> str:
    """``batch.max 32 -> 64``: the leaf that changed, where there is one."""
    old, new = (json.loads(text) if text else None for text in (before, now))
    while isinstance(old, dict) and isinstance(new, dict):
        changed = [key for key in sorted({**old, **new}) if old.get(key) != new.get(key)]
        if len(changed) != 1:
            break
        name, old, new = f"{name}.{changed[0]}", old.get(changed[0]), new.get(changed[0])
    return f"{name} {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"({digest_of(value)[:8]})"
