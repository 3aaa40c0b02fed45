"""A whole spec: every model through the pipeline where it has to be, one failure never stopping the others."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from builder.incremental.cache import DEFAULT_LIMIT_BYTES, Cache, Record
from builder.incremental.keys import Subject, fingerprints_of
from builder.live.candidate import remove_stale, stale_candidates
from builder.planning import content_of, decide
from builder.repository import publish
from builder.repository.locks import build_lock
from builder.spec import Spec, read_spec
from builder.workers.staging import staging_for, sweep
from serving.errors import TritonRepoError, UsageError
from serving.progress import SILENT, Reporter

if TYPE_CHECKING:
    from builder.workers.jobs import Done, Job
    from builder.workers.worker import Task

_RUN_THE_MODULE = frozenset({"source", "samples", "reference", "baseline", "export", "accuracy"})
_Key = tuple[Path, str]
Status = Literal["built", "up to date", "failed"]


@dataclass(frozen=True)
class ModelResult:
    """What became of one model.

    Attributes:
        model: its name.
        status: ``built``, ``up to date`` or ``failed``.
        version: the newest version; None where it failed.
        seconds: how long it took.
        stage: where it failed.
        error: why it failed.
        size_bytes, max_abs, cosine, mean_batch: of the artifact: its size, its worst difference from PyTorch
            through the server, and how many requests the server put together.
        accuracy: the user's metric on the artifact, and ``accuracy_reference`` on PyTorch.
        cached: stages whose results were taken from the cache.
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
    cached: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        lists = {"cached": list(self.cached), "notes": list(self.notes)}
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


@dataclass(frozen=True)
class Options:
    """How to build.

    Attributes:
        jobs: how many models at once; None for as many as processors and memory allow.
        force: run every stage, whatever is in the cache.
        cache_size_bytes: how large the cache may become.
        wait: wait for another build of the same repository; otherwise say who it is and stop.
        sign_key: a private key to sign every version with.
        activate: let a new version be served; False leaves the one that is.
    """

    jobs: int | None = None
    force: bool = False
    cache_size_bytes: int = DEFAULT_LIMIT_BYTES
    wait: bool = True
    sign_key: Path | None = None
    activate: bool = True


def load_spec(path: str | Path) -> Spec:
    """Read and check a ``models.yaml``, its ``config`` fields against Triton's protobuf included.

    Args:
        path: the file.

    Raises:
        SpecError: with every problem that was found; exit status 2.
    """
    return read_spec(path)[0]


def build(
    spec: Spec, *, only: Sequence[str] = (), reporter: Reporter = SILENT, options: Options | None = None
) -> BuildReport:
    """Build, verify and publish the models of a spec; what is up to date is left alone.

    Args:
        spec: what :func:`load_spec` gave.
        only: names of the models to build; all of them when empty.
        reporter: hears of every step.
        options: how.

    Returns:
        One result per model, in the order of the spec; a failed model is a result, not an exception.

    Raises:
        UsageError: ``only`` names a model that the spec does not have.
        LockedError: another build has the repository, and ``options.wait`` is False.
        CacheError, PublishError: ``.build`` cannot be written.
    """
    unknown = [name for name in only if name not in spec.models]
    if unknown:
        raise UsageError(f"the spec has no model {unknown[0]!r}", where=str(spec.path), expected=", ".join(spec.models))
    return build_all([spec], only=only, reporter=reporter, options=options)[0]


def build_all(
    specs: Sequence[Spec],
    *,
    only: Sequence[str] = (),
    reporter: Reporter = SILENT,
    options: Options | None = None,
) -> list[BuildReport]:
    """Build several specs together; see :func:`build`. A name in ``only`` that none of them has is an error."""
    options = options or Options()
    _check_names(specs, only)
    runs = [_Run(spec, name) for spec in specs for name in spec.models if not only or name in only]
    with ExitStack() as stack:
        for build_dir in sorted({publish.build_dir(spec.repository) for spec in specs}):
            stack.enter_context(build_lock(build_dir, wait=options.wait, reporter=reporter))
            sweep(build_dir)
        for repository in {spec.repository for spec in specs}:
            for name in stale_candidates(repository):
                remove_stale(repository, name)
        stores = {id(spec): _Store(spec, options) for spec in specs}
        results: dict[_Key, ModelResult] = {}
        waiting = []
        for run in runs:
            if stores[id(run.spec)].cache.damaged(run.name):
                reporter.warn(f"{run.name}: what the cache holds of it is damaged and is made anew")
            todo, result = stores[id(run.spec)].look(run.name, force=options.force)
            if result is None:
                waiting.append(replace(run, todo=todo))
            else:
                results[run.key] = result
        if waiting:
            results |= _build(waiting, stores, reporter, options)
        for store in stores.values():
            store.close()
    return [BuildReport(spec.repository, tuple(results[run.key] for run in runs if run.spec is spec)) for spec in specs]


def clean(specs: Sequence[Spec]) -> dict[Path, int]:
    """Empty the ``.build`` folders of these specs; nothing that is published is touched.

    Returns:
        How many bytes each folder held; those that were not there are left out.

    Raises:
        LockedError: a build is using one of them.
    """
    freed: dict[Path, int] = {}
    for build_dir in sorted({publish.build_dir(spec.repository) for spec in specs}):
        if build_dir.is_dir():
            with build_lock(build_dir, wait=False):
                files = [path for path in build_dir.rglob("*") if path.is_file() and not path.is_symlink()]
                freed[build_dir] = sum(path.stat().st_size for path in files)
                shutil.rmtree(build_dir, ignore_errors=True)
    return freed


@dataclass(frozen=True, eq=False)
class _Run:
    """One model of one spec in this build, and the steps that have to run."""

    spec: Spec
    name: str
    todo: frozenset[str] = frozenset()

    @property
    def key(self) -> _Key:
        """What it is known by: the same name may be in several specs."""
        return self.spec.path, self.name


def _check_names(specs: Sequence[Spec], only: Sequence[str]) -> None:
    missing = [name for name in only if not any(name in spec.models for spec in specs)]
    if missing:
        where = ", ".join(str(spec.path) for spec in specs)
        expected = ", ".join(name for spec in specs for name in spec.models)
        raise UsageError(f"the spec has no model {missing[0]!r}", where=where, expected=expected)
    homes: dict[tuple[Path, str], Path] = {}
    for spec in specs:
        for name in spec.models:
            first = homes.setdefault((spec.repository, name), spec.path)
            if first is not spec.path:
                raise UsageError(
                    f"two specs have a model {name!r} for one repository",
                    where=f"{first}\n{spec.path}",
                    expected="one model of a name in a repository",
                    fix="rename one of them, or give one of the specs another `repository`",
                )


class _Store:
    """What is kept of one spec's models, and whether they are up to date."""

    def __init__(self, spec: Spec, options: Options) -> None:
        self.spec = spec
        self.sign = options.sign_key is not None
        self.cache = Cache(publish.build_dir(spec.repository), spec.repository.name, options.cache_size_bytes)
        self.cache.prepare()
        self.now = fingerprints_of(spec, self.cache.files)

    def look(self, name: str, *, force: bool) -> tuple[frozenset[str], ModelResult | None]:
        """The steps of a model that have to run; and its result, where it needs nothing at all."""
        started = time.perf_counter()
        subject = Subject(name, self.spec, self.spec.models[name], self.now)
        kept = self.cache.records(name)
        decisions = decide(subject, kept, force=force)
        wanted = content_of(decisions)
        here = publish.newest_content(self.spec.repository, name) if wanted is not None else None
        if wanted is None or here is None or not here.same_as(wanted) or (self.sign and not here.signed):
            decisions = decide(subject, kept, force=force, has=self.cache.has)
            return frozenset(decision.step for decision in decisions if decision.record is None), None
        records = {decision.step: decision.record for decision in decisions if decision.record is not None}
        for record in records.values():
            for digest in record.objects.values():
                self.cache.touch(digest)
        seconds = time.perf_counter() - started
        served = _served_note(name, here.version, here.served)
        return frozenset(), _result(name, "up to date", here.version, seconds, records, tuple(records), served)

    def close(self) -> None:
        """Remember what was hashed, and keep to the size limit."""
        self.cache.files.save()
        self.cache.evict()


def _build(
    runs: Sequence[_Run], stores: Mapping[int, _Store], reporter: Reporter, options: Options
) -> dict[_Key, ModelResult]:
    """Build these models, those of one ``.build`` folder side by side; publish each as soon as it is verified."""
    from builder.workers import jobs

    results: dict[_Key, ModelResult] = {}
    for build_dir in dict.fromkeys(publish.build_dir(run.spec.repository) for run in runs):
        group = [run for run in runs if publish.build_dir(run.spec.repository) == build_dir]
        todo = [_job(run, stores[id(run.spec)], options) for run in group]
        places = min(options.jobs or jobs.default_jobs(todo), len(todo))
        with staging_for(build_dir) as staging:
            done_jobs = jobs.run_jobs(todo, places=places, preload=_preload(group), staging=staging, reporter=reporter)
            with contextlib.closing(done_jobs):
                for done in done_jobs:
                    run: _Run = done.job.key
                    if done.output:
                        reporter.output(done.output, of=run.name if len(runs) > 1 else "")
                    results[run.key] = _publish(run, done, options, reporter)
    return results


def _job(run: _Run, store: _Store, options: Options) -> Job:
    from builder.workers import jobs, worker

    def task(repository: Path, threads: int) -> Task:
        version = publish.next_version(run.spec.repository / run.name)
        build_dir = publish.build_dir(run.spec.repository)
        return worker.Task(run.spec, run.name, build_dir, repository / run.name, version, threads, options.force)

    size = _weights_bytes(run, store)
    return jobs.Job(run, task, jobs.JOB_BYTES + int(jobs.ARTIFACT_FACTOR * size))


def _weights_bytes(run: _Run, store: _Store) -> int:
    """How large the model is, as far as one can know before it is loaded: last time's artifact, or the files named."""
    exports = store.cache.records(run.name).get("export", [])
    sizes = [int(record.data.get("size_bytes", 0)) for record in exports[:1]]
    for _, name in run.spec.models[run.name].source.files():
        path = run.spec.folder / name
        with contextlib.suppress(OSError):
            files = path.rglob("*") if path.is_dir() else [path]
            sizes.append(sum(file.stat().st_size for file in files if file.is_file()))
    return max(sizes, default=0)


def _preload(runs: Sequence[_Run]) -> list[str]:
    """What the models need in any case, imported once: torch only where a module is to be run or exported."""
    from builder.workers.worker import PRELOAD

    kinds = {run.spec.models[run.name].source.kind for run in runs if run.todo & _RUN_THE_MODULE}
    modules = [*PRELOAD, "onnx", "onnxruntime"]
    modules += ["torch", "torch.export", "onnxscript", "onnx_ir"] if kinds - {"onnx"} else []
    modules += ["torch.onnx"] if any(run.todo & {"export"} for run in runs) and kinds - {"onnx"} else []
    return modules + (["transformers"] if "huggingface" in kinds else [])


def _publish(run: _Run, done: Done, options: Options, reporter: Reporter) -> ModelResult:
    if done.built is None:
        return ModelResult(run.name, "failed", None, done.seconds, done.stage, done.error)
    records = done.built.records
    try:
        with reporter.step(f"{run.name}: publish") as step:
            published = publish.publish(
                done.built.staged, run.spec.repository, sign_key=options.sign_key, activate=options.activate
            )
            step.done("built" if published.fresh else "up to date", f"version {published.version}")
    except TritonRepoError as error:
        return ModelResult(run.name, "failed", None, done.seconds, "publish", error)
    for note in published.warnings:
        reporter.warn(f"{run.name}: {note}")
    status: Status = "built" if published.fresh else "up to date"
    served = () if published.pending else _served_note(run.name, published.version, published.served)
    return _result(run.name, status, published.version, done.seconds, records, done.built.cached, served)


def _served_note(name: str, newest: int | None, served: int | None) -> tuple[str, ...]:
    """Said where something else than the newest version is served."""
    if served in (None, newest):
        return ()
    return (f"version {served} is served since a rollback; `build-repo --rollback {name} {newest}` serves the newest",)


def _result(
    name: str,
    status: Status,
    version: int | None,
    seconds: float,
    records: Mapping[str, Record],
    cached: Sequence[str],
    more: Sequence[str],
) -> ModelResult:
    """The figures of a model, each from the step that measured it."""
    export, served = records["export"].data, records["serve"].data
    worst = max(served["outputs"], key=lambda output: output["excess"])
    accuracy = records["accuracy"].data if "accuracy" in records else {}
    notes = [note for note in export["notes"] if note.startswith("fallback")]
    if not records["samples"].data["real"]:
        notes.append("verified with random inputs: give `samples` for real ones")
    return ModelResult(
        model=name,
        status=status,
        version=version,
        seconds=seconds,
        size_bytes=int(export["size_bytes"]),
        max_abs=float(worst["max_abs"]),
        cosine=min(float(output["cosine"]) for output in served["outputs"]),
        mean_batch=float(served["mean_batch"]),
        accuracy=accuracy.get("value"),
        accuracy_reference=accuracy.get("reference"),
        cached=tuple(cached),
        notes=(*notes, *more),
    )
