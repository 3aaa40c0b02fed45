"""A whole spec: every model through the pipeline, one failure never stopping the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from builder.config import field_problem
from builder.errors import SpecError
from builder.pipeline import Build, run
from builder.publish import staging_for
from builder.releases import ORT_OF_RELEASE
from builder.spec import ModelSpec, Spec, read_spec
from builder.usercode import user_code
from builder.verify import ServeBench
from builder.yaml_source import Document
from serving.errors import Problem, TritonRepoError, UsageError
from serving.progress import SILENT, Reporter

Status = Literal["built", "up to date", "failed"]


@dataclass(frozen=True)
class ModelResult:
    """What became of one model.

    Attributes:
        model: its name.
        status: ``built``, ``up to date`` or ``failed``.
        version: the version that is served now; None where it failed.
        seconds: how long it took.
        stage: where it failed.
        error: why it failed.
        size_bytes, max_abs, cosine, mean_batch: of the artifact: its size, its worst difference from PyTorch
            through the server, and how many requests the server put together.
        accuracy: the user's metric on the artifact, and ``accuracy_reference`` on PyTorch.
        notes: what the user should know: a fallback that was taken, random samples.
    """

    model: str
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
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        return {**vars(self), "notes": list(self.notes), "error": self.error.as_dict() if self.error else None}


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


def load_spec(path: str | Path) -> Spec:
    """Read and check a ``models.yaml``, its ``config`` fields against Triton's protobuf included.

    Args:
        path: the file.

    Raises:
        SpecError: with every problem that was found; exit status 2.
    """
    spec, document = read_spec(path)
    problems = [problem for name, model in spec.models.items() for problem in _config_problems(name, model, document)]
    if spec.server is not None and spec.server not in ORT_OF_RELEASE:
        releases = list(ORT_OF_RELEASE)
        problems.append(
            Problem(
                f"unknown Triton release {spec.server!r}",
                document.where(("server",)),
                expected=f"one of {releases[0]} to {releases[-1]}, as in the name of NVIDIA's image",
                fix=f'server: "{releases[-1]}"',
            )
        )
    if problems:
        raise SpecError(problems)
    return spec


def _config_problems(name: str, model: ModelSpec, document: Document) -> list[Problem]:
    if not model.config:
        return []
    found = field_problem(model.config)
    if found is None:
        return []
    what, expected, fix = found
    return [Problem(what, document.where(("models", name, "config")), expected=expected, fix=fix)]


def build(spec: Spec, *, only: Sequence[str] = (), reporter: Reporter = SILENT) -> BuildReport:
    """Build, verify and publish the models of a spec.

    Args:
        spec: what :func:`load_spec` gave.
        only: names of the models to build; all of them when empty.
        reporter: hears of every step.

    Returns:
        One result per model, in the order of the spec; a failed model is a result, not an exception.

    Raises:
        UsageError: ``only`` names a model that the spec does not have.
        PublishError: the staging folder cannot be made.
    """
    unknown = [name for name in only if name not in spec.models]
    if unknown:
        raise UsageError(f"the spec has no model {unknown[0]!r}", where=str(spec.path), expected=", ".join(spec.models))
    results = []
    with ExitStack() as stack:
        staging = stack.enter_context(staging_for(spec.repository))
        bench = stack.enter_context(ServeBench(staging / "repository", staging / "server.log"))
        (staging / "repository").mkdir()
        for name, model in spec.models.items():
            if not only or name in only:
                results.append(_build_one(Build(name, spec, model, staging / "repository", bench), reporter))
    return BuildReport(spec.repository, tuple(results))


def _build_one(build: Build, reporter: Reporter) -> ModelResult:
    started = time.perf_counter()
    try:
        with user_code(build.spec.folder):
            run(build, reporter)
    except TritonRepoError as error:
        return ModelResult(build.name, "failed", None, time.perf_counter() - started, build.stage, error)
    worst = max(build.served.outputs, key=lambda difference: difference.excess)
    notes = [note for note in build.artifact.notes if note.startswith("fallback")]
    if not build.samples.are_real:
        notes.append("verified with random inputs: give `samples` for real ones")
    return ModelResult(
        model=build.name,
        status="built" if build.published.fresh else "up to date",
        version=build.published.version,
        seconds=time.perf_counter() - started,
        size_bytes=build.artifact.size_bytes,
        max_abs=worst.max_abs,
        cosine=min(difference.cosine for difference in build.served.outputs),
        mean_batch=build.served.mean_batch,
        accuracy=build.accuracy.value if build.accuracy else None,
        accuracy_reference=build.accuracy.reference if build.accuracy else None,
        notes=tuple(notes),
    )
