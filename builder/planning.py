"""What a build will do and why, as data: nothing is loaded, run or written to find out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builder.incremental.cache import Cache, Record, Records, digest_of
from builder.incremental.file_memory import ABSENT
from builder.incremental.keys import Step as Key
from builder.incremental.keys import Subject, fingerprints_of, inputs_of, steps_of
from builder.releases import PINNED_RELEASE, newest_opset
from builder.repository import publish
from builder.spec import ModelSpec, Spec

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
    subject: Subject, records: Records, *, force: bool = False, has: Callable[[str], bool] | None = None
) -> list[Decision]:
    """Hold every step of a model against what is kept of it.

    Args:
        subject: the model.
        records: what is kept.
        force: let every step run.
        has: whether a file is in the cache; to be given where something is to be done, which takes the files.
    """
    decisions: list[Decision] = []
    digests: dict[str, str] = {}
    for step in steps_of(subject.model):
        waits_for = [name for name in step.after if name not in digests]
        if force:
            decisions.append(Decision(step.name, None, ("--force",)))
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


def content_of(decisions: Sequence[Decision]) -> publish.Content | None:
    """What a model consists of when every one of its steps is cached; None when one has to run."""
    records = {decision.step: decision.record for decision in decisions}
    if any(record is None for record in records.values()):
        return None
    export, config = records["export"], records["config"]
    assert export is not None and config is not None
    return publish.Content(None, {**export.objects, **config.data["labels"]}, config.data["identity"])


def plan(spec: Spec, only: Sequence[str] = (), *, force: bool = False) -> Plan:
    """What :func:`builder.build` will do.

    Args:
        spec: the spec.
        only: names of the models to build; all of them when empty.
        force: as for the build.
    """
    cache = Cache(publish.build_dir(spec.repository), spec.repository.name)
    now = fingerprints_of(spec, cache.files)
    steps: list[Step] = []
    for name, model in spec.models.items():
        if not only or name in only:
            steps += _steps(Subject(name, spec, model, now), cache, force=force)
    return Plan(tuple(steps))


def _steps(subject: Subject, cache: Cache, *, force: bool) -> Iterator[Step]:
    name, spec, records = subject.name, subject.spec, cache.records(subject.name)
    decisions = decide(subject, records, force=force)
    wanted = content_of(decisions)
    here = publish.newest_content(spec.repository, name)
    version = publish.next_version(spec.repository / name)
    what, status, why = f"as {spec.repository / name / str(version)}", "run", ""
    if wanted is None:
        what, why = f"{what}, unless the newest version is the same", "its content may have changed"
    elif here is None:
        why = "it is not in the repository"
    elif not here.same_as(wanted):
        why = f"version {here.version} has other content"
    else:
        what, status = f"version {here.version} is up to date", "cached"
    if status == "run":
        decisions = decide(subject, records, force=force, has=cache.has)
    said = _in_words(name, subject.model, spec)
    for decision in decisions:
        word = "run" if decision.record is None else "cached"
        yield Step(name, decision.step, said[decision.step], word, decision.why)
    yield Step(name, "publish", what, status, (why,) if why else ())


def _in_words(name: str, model: ModelSpec, spec: Spec) -> dict[str, str]:
    release = spec.server or PINNED_RELEASE
    source = str(getattr(model.source, model.source.kind))
    exporter = "dynamo" if model.export.exporter == "auto" else model.export.exporter
    opset = model.export.opset or newest_opset(spec.server, exporter)
    export = f"torch.onnx.export by {exporter}, opset {opset}, for Triton {release}"
    metric = f"{model.evaluate.python}" if model.evaluate else ""
    drop = f", a drop of at most {model.evaluate.max_drop:g}" if model.evaluate else ""
    return {
        "source": f"load {source} ({model.source.kind})",
        "samples": f"take samples from {model.samples.python}" if model.samples else "make random samples",
        "reference": "ask the original module for the right answers",
        "baseline": f"{metric} on the original module",
        "export": "take the ONNX file as it is" if model.source.kind == "onnx" else export,
        "config": "decide and write config.pbtxt",
        "contract": "hold config.pbtxt against the artifact",
        "parity": "hold the artifact's answers against the original's",
        "accuracy": f"{metric} on the artifact{drop}",
        "serve": "load it in Triton, ask over HTTP and gRPC, one at a time and many at once",
    }


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
