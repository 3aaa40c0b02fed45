"""What became of the models of a spec: one result for each model in the repository, and for each variant beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from builder.errors import BuildError, EnsembleError
from builder.incremental.cache import Record
from builder.incremental.keys import Subject
from builder.incremental.steps import artifact_step, model_name_of
from builder.planning import Wanted
from builder.repository.engines import engines_dir
from builder.variants import FASTEST
from serving.errors import TritonRepoError

Status = Literal["built", "up to date", "failed", "left out"]


@dataclass(frozen=True)
class Failure:
    """Where a variant, or the plain name, went no further, and why."""

    stage: str
    error: TritonRepoError


@dataclass(frozen=True)
class ModelResult:
    """What became of one model in the repository: of the plain name, or of a variant that has a model of its own.

    Attributes:
        model: its name.
        variant: what it serves.
        status: ``built``, ``up to date``, ``failed``, or ``left out``: a variant that this machine cannot build, and
            that nobody requires.
        version: the newest version; None where it failed, and for engines, which are not in the repository.
        seconds: how long it took.
        stage: where it failed.
        error: why it failed.
        size_bytes, max_abs, cosine, mean_batch: of the artifact: its size, its worst difference from PyTorch
            through the server, and how many requests the server put together.
        accuracy: the user's metric on the artifact, and ``accuracy_reference`` on PyTorch.
        scores: how well a variant agrees with fp32.
        choice: of ``serve: fastest``: what was measured, and why this variant, in words.
        cached: stages whose results were taken from the cache.
        notes: what the user should know: a fallback that was taken, random samples.
    """

    model: str
    variant: str
    status: Status
    version: int | None
    seconds: float
    stage: str = ""
    error: TritonRepoError | None = None
    size_bytes: int = 0
    max_abs: float = 0.0
    cosine: float = 1.0
    mean_batch: float = 0.0
    accuracy: float | None = None
    accuracy_reference: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    choice: str = ""
    cached: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        lists = {"cached": list(self.cached), "notes": list(self.notes), "scores": dict(self.scores)}
        return {**vars(self), **lists, "error": self.error.as_dict() if self.error else None}


@dataclass(frozen=True)
class BuildReport:
    """What became of a spec."""

    repository: Path
    models: tuple[ModelResult, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """True when no model failed."""
        return all(result.status != "failed" for result in self.models)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        return {"repository": str(self.repository), "ok": self.ok, "models": [m.as_dict() for m in self.models]}


def served_note(name: str, newest: int | None, served: int | None) -> tuple[str, ...]:
    """Said where something else than the newest version is served."""
    if served in (None, newest):
        return ()
    return (f"version {served} is served since a rollback; `build-repo --rollback {name} {newest}` serves the newest",)


def result_of(
    wanted: Wanted, status: Status, version: int | None, seconds: float, cached: Sequence[str], more: Sequence[str]
) -> ModelResult:
    """The figures of a model, each from the step that measured it."""
    records = wanted.records
    artifact = records[artifact_step(wanted.variant).partition(" ")[0]].data
    served = records["serve"].data
    worst = max(served["outputs"], key=lambda output: output["excess"])
    accuracy = records["accuracy"].data if "accuracy" in records else {}
    notes = [note for note in artifact["notes"] if note.startswith("fallback")]
    if not records["samples"].data["real"]:
        notes.append("verified with random inputs: give `samples` for real ones")
    notes += [f"published with --allow-accuracy-drop: {what}" for what in accuracy.get("allowed", ())]
    choice = records["choose"].data if "choose" in records else {}
    return ModelResult(
        model=wanted.name,
        variant=wanted.variant,
        status=status,
        version=version,
        seconds=seconds,
        size_bytes=int(artifact["size_bytes"]),
        max_abs=float(worst["max_abs"]),
        cosine=min(float(output["cosine"]) for output in served["outputs"]),
        mean_batch=float(served["mean_batch"]),
        accuracy=accuracy.get("value"),
        accuracy_reference=accuracy.get("reference"),
        scores=accuracy.get("agreement", {}).get("scores", {}),
        choice=f"{wanted.name} serves {choice['variant']}: {choice['reason']}\n{choice['table']}" if choice else "",
        cached=tuple(cached),
        notes=(*notes, *more),
    )


def engine_result(
    name: str, variant: str, status: Status, record: Record, repository: Path, seconds: float = 0.0
) -> ModelResult:
    """The result of an engine that is beside the repository."""
    note = f"the engine is in {engines_dir(repository) / name}: no GPU has run it, and Triton has no backend for it"
    size = int(record.data["size_bytes"])
    return ModelResult(name, variant, status, None, seconds, size_bytes=size, notes=(note,))


def left_out(subject: Subject) -> list[ModelResult]:
    """The variants that this machine cannot build: failed where they have to be there."""
    results = []
    for variant, error in subject.missing.items():
        name = model_name_of(subject.name, variant)
        required = variant in subject.model.required or variant == subject.model.served
        status: Status = "failed" if required else "left out"
        results.append(ModelResult(name, variant, status, None, 0.0, "plan", error))
    return results


def without_steps(subject: Subject, failed: Sequence[str]) -> ModelResult:
    """A model that needs models that failed: it is not looked at, and what is served of it stays as it is."""
    made, key, it = ("made of", "ensemble", "the ensemble") if subject.model.ensemble else ("to call", "source", "it")
    error = EnsembleError(
        f"{' and '.join(failed)}, which it is {made}, failed",
        where=f"models.{subject.name}.{key}",
        expected="models that were built and verified",
        got="what is said of them above; what was served before is served still",
        fix=f"mend them; {it} is built when they are",
    )
    return ModelResult(subject.name, subject.model.served, "failed", None, 0.0, "plan", error)


def not_published(subject: Subject, of: str, failed: Mapping[str, Failure], seconds: float) -> ModelResult:
    """A variant, or the plain name, that went no further; the plain name says so of the variant it was to serve."""
    served = subject.model.served
    name, variant = model_name_of(subject.name, of), of or served
    failure = failed.get(of) or failed.get(variant)
    if failure is None:
        failure = Failure("choose", _nothing_to_serve(subject))
    elif of == "" and not subject.model.is_alone and variant in failed:
        failure = Failure(failure.stage, _nothing_to_serve(subject, failure.error))
    return ModelResult(name, variant, "failed", None, seconds, failure.stage, failure.error)


def _nothing_to_serve(subject: Subject, why: TritonRepoError | None = None) -> BuildError:
    served = subject.model.served
    here = "nothing is served under the plain name but what was before"
    if served == FASTEST:
        what, fix = "none of the variants can be served", "see what is said of each of them"
    else:
        what = f"{served}, which is to be served, is not there"
        fix = "mend it, or name another variant in `serve`"
    return BuildError(
        what,
        where=f"models.{subject.name}.serve",
        expected="a variant that was built and verified",
        got=f"{why.what if why else 'every one of them failed'}; {here}",
        fix=fix,
    )
