"""A whole spec: every model through the pipeline where it has to be, one failure never stopping the others."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import SpecError
from builder.findings import did_you_mean
from builder.incremental.cache import Cache, Record
from builder.incremental.keys import Subject, fingerprints_of
from builder.incremental.steps import STEPS_WITH_THE_MODULE, artifact_step, model_name_of, published_names
from builder.live.candidate import remove_stale, stale_candidates
from builder.options import Options
from builder.outcome import BuildReport, ModelResult, engine_result, left_out, result_of, served_note, without_steps
from builder.planning import Wanted, decide, wanted_of
from builder.publishing import publish_done, write_recipes
from builder.repository import publish
from builder.repository.engines import has_engine
from builder.repository.locks import build_lock
from builder.spec import Spec, read_spec
from builder.spec.ensembles import depth_of, steps_of, with_steps
from builder.spec.problems import in_order
from builder.variants import VARIANTS, is_servable
from builder.workers.staging import staging_for, sweep
from serving.errors import UsageError
from serving.progress import SILENT, Reporter

if TYPE_CHECKING:
    from builder.workers.jobs import Job
    from builder.workers.worker import Task

_Key = tuple[Path, str]


def load_spec(path: str | Path) -> Spec:
    """Read and check a ``models.yaml``, its ``config`` fields against Triton's protobuf included.

    Args:
        path: the file.

    Raises:
        SpecError: with every problem that was found; exit status 2.
    """
    from builder.config.judged import problems_of

    spec, document = read_spec(path)
    problems = problems_of(spec, document)
    if problems:
        raise SpecError(in_order(problems, spec.path))
    return spec


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
    check_names(specs, only)
    runs = [_Run(spec, name) for spec in specs for name in _wanted(spec, only)]
    with ExitStack() as stack:
        for build_dir in sorted({publish.build_dir(spec.repository) for spec in specs}):
            stack.enter_context(build_lock(build_dir, wait=options.wait, reporter=reporter))
            sweep(build_dir)
        for repository in {spec.repository for spec in specs}:
            for name in stale_candidates(repository):
                remove_stale(repository, name)
        stores = {id(spec): _Store(spec, options) for spec in specs}
        results: dict[_Key, list[ModelResult]] = {}
        for wave in _waves(runs):
            waiting = []
            for run in wave:
                if stores[id(run.spec)].cache.damaged(run.name):
                    reporter.warn(f"{run.name}: what the cache holds of it is damaged and is made anew")
                if failed := _failed_steps(run, results):
                    results[run.key] = [without_steps(stores[id(run.spec)].subject(run.name), failed)]
                    continue
                todo, found = stores[id(run.spec)].look(run.name, force=options.force)
                if found is None:
                    waiting.append(replace(run, todo=todo))
                else:
                    results[run.key] = found
            for store in stores.values():
                store.cache.files.save()  # what was hashed here need not be hashed by the processes that build
            if waiting:
                results |= _build(waiting, stores, reporter, options)
        for store in stores.values():
            store.close()
    return [
        BuildReport(spec.repository, tuple(one for run in runs if run.spec is spec for one in results[run.key]))
        for spec in specs
    ]


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


def _wanted(spec: Spec, only: Sequence[str]) -> list[str]:
    """The models to build: those that are asked for, and those that they need."""
    return with_steps(spec.models, [name for name in spec.models if not only or name in only])


def _waves(runs: Sequence[_Run]) -> Iterator[list[_Run]]:
    """Models that need no other, then those that need them, and so on: each knows what is published before it."""
    depths = {run.key: depth_of(run.spec.models, run.name) for run in runs}
    for depth in sorted(set(depths.values())):
        yield [run for run in runs if depths[run.key] == depth]


def _failed_steps(run: _Run, results: Mapping[_Key, Sequence[ModelResult]]) -> list[str]:
    """The models of the repository that a model needs and that failed in this build."""
    failed = {
        result.model
        for name in steps_of(run.spec.models, run.name)
        for result in results.get((run.spec.path, name), ())
        if result.status == "failed"
    }
    return [name for name in run.spec.models[run.name].needs if name in failed]


def check_names(specs: Sequence[Spec], only: Sequence[str]) -> None:
    """What cannot be asked of these specs together.

    Raises:
        UsageError: ``only`` names a model that none of them has, or two have one for the same place.
    """
    names = [name for spec in specs for name in spec.models]
    missing = [name for name in only if name not in names]
    if missing:
        raise UsageError(
            f"the spec has no model {missing[0]!r}" if len(specs) == 1 else f"no spec has a model {missing[0]!r}",
            where=", ".join(str(spec.path) for spec in specs),
            expected=", ".join(names),
            got=missing[0],
            fix=did_you_mean(missing[0], names) or "name one of these, or leave --only out",
        )
    homes: dict[tuple[Path, str], Path] = {}
    for spec in specs:
        for name in spec.models:
            first = homes.setdefault((spec.repository, name), spec.path)
            if first != spec.path:
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
        self.options = options
        self.sign = options.sign_key is not None
        self.cache = Cache(publish.build_dir(spec.repository), spec.repository.name, options.cache_size_bytes)
        self.cache.prepare()
        self.now = fingerprints_of(spec, self.cache.files)

    def subject(self, name: str) -> Subject:
        """One of the spec's models."""
        return Subject(name, self.spec, self.spec.models[name], self.now, self.options.allow_accuracy_drop)

    def look(self, name: str, *, force: bool) -> tuple[frozenset[str], list[ModelResult] | None]:
        """The steps of a model that have to run; and its results, where it needs nothing at all."""
        started = time.perf_counter()
        subject = self.subject(name)
        kept = self.cache.records(name)
        decisions = decide(subject, kept, force=force)
        wanted = wanted_of(subject, decisions)
        results = None if wanted is None else self._up_to_date(subject, wanted, started)
        records = {decision.step: decision.record for decision in decisions if decision.record is not None}
        if results is not None:
            engines = self._engines(subject, records)
            if engines is not None:
                for record in records.values():
                    for digest in record.objects.values():
                        self.cache.touch(digest)
                if self.options.recipes_dir is not None:
                    write_recipes(subject, records, self.options.recipes_dir)
                return frozenset(), [*results, *engines, *left_out(subject)]
        decisions = decide(subject, kept, force=force, has=self.cache.has)
        return frozenset(decision.step for decision in decisions if decision.record is None), None

    def _up_to_date(self, subject: Subject, wanted: Sequence[Wanted], started: float) -> list[ModelResult] | None:
        """The results of what is in the repository as it is to be; None where something is not."""
        results = []
        for each in wanted:
            here = publish.newest_content(self.spec.repository, each.name)
            if here is None or not here.same_as(each.content) or (self.sign and not here.signed):
                return None
            seconds, started = time.perf_counter() - started, time.perf_counter()
            served = served_note(each.name, here.version, here.served)
            cached = tuple(each.records)
            results.append(result_of(each, "up to date", here.version, seconds, cached, served))
        return results

    def _engines(self, subject: Subject, records: Mapping[str, Record]) -> list[ModelResult] | None:
        results = []
        for name in subject.variants:
            if not is_servable(VARIANTS[name]):
                record, engine = records[artifact_step(name)], model_name_of(subject.name, name)
                if not has_engine(self.spec.repository, engine, record.objects):
                    return None
                results.append(engine_result(engine, name, "up to date", record, self.spec.repository))
        return results

    def close(self) -> None:
        """Remember what was hashed, and keep to the size limit."""
        self.cache.files.save()
        self.cache.evict()


def _build(
    runs: Sequence[_Run], stores: Mapping[int, _Store], reporter: Reporter, options: Options
) -> dict[_Key, list[ModelResult]]:
    """Build these models, those of one ``.build`` folder side by side; publish each as soon as it is verified."""
    from builder.workers import jobs

    results: dict[_Key, list[ModelResult]] = {}
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
                    results[run.key] = publish_done(stores[id(run.spec)].subject(run.name), done, options, reporter)
    return results


def _job(run: _Run, store: _Store, options: Options) -> Job:
    from builder.workers import jobs, worker

    def task(repository: Path, threads: int) -> Task:
        names = [model_name_of(run.name, of) for of in published_names(store.subject(run.name))]
        return worker.Task(
            spec=run.spec,
            name=run.name,
            build_dir=publish.build_dir(run.spec.repository),
            repository=repository,
            versions={name: publish.next_version(run.spec.repository / name) for name in names},
            threads=threads,
            force=options.force,
            search_minutes=options.search_minutes,
            allow_drop=options.allow_accuracy_drop,
        )

    size = _weights_bytes(run, store)
    return jobs.Job(run, task, jobs.JOB_BYTES + int(jobs.ARTIFACT_FACTOR * size))


def _weights_bytes(run: _Run, store: _Store) -> int:
    """How large the model is, as far as one can know before it is loaded: last time's artifact, or the files named."""
    exports = store.cache.records(run.name).get("export", [])
    sizes = [int(record.data.get("size_bytes", 0)) for record in exports[:1]]
    models = run.spec.models
    sources = [models[name].source for name in with_steps(models, [run.name])]
    for name in [file for source in sources if source is not None for _, file in source.paths()]:
        path = run.spec.folder / name
        with contextlib.suppress(OSError):
            files = path.rglob("*") if path.is_dir() else [path]
            sizes.append(sum(file.stat().st_size for file in files if file.is_file()))
    return max(sizes, default=0)


def _preload(runs: Sequence[_Run]) -> list[str]:
    """What the models need in any case, imported once: torch only where a module is to be run or exported."""
    from builder.workers.worker import PRELOAD

    with_modules = [run for run in runs if run.todo & STEPS_WITH_THE_MODULE]
    kinds = {r.spec.models[name].kind for r in with_modules for name in with_steps(r.spec.models, [r.name])}
    modules = [*PRELOAD, "onnx", "onnxruntime"]
    if kinds - {"onnx", "python_model", "ensemble"}:
        modules += ["torch", "torch.export", "onnxscript", "onnx_ir"]
        modules += ["torch.onnx"] if any("export" in run.todo for run in runs) else []
    return modules + (["transformers"] if "huggingface" in kinds else [])
