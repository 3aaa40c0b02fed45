"""The order of a measurement: find the tool, reach the server, warm each model up, measure each point, doubt it."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from perf.analyzer import CSV, EXPORT, INPUTS, WINDOWS, Load, Output, analyze
from perf.binary import Binary, find_binary
from perf.environment import cpu_times, load_1min, machine_facts, steal_percent
from perf.errors import AnalyzerError, WorkloadError
from perf.failures import NO_REQUESTS
from perf.inputs import export_bytes, write_input_data
from perf.parse import (
    latency_from_csv,
    latency_of,
    passes_of,
    read_csv,
    read_profile,
    server_side,
    strip_tensors,
    windows_of,
)
from perf.report import milliseconds, rate, write_report
from perf.result import BenchResult, Doubt, ModelRun, Point, Tool, Window
from perf.revision import revision
from perf.stability import client_behind, few_requests, machine_doubts, server_doubts, unstable
from perf.target import Subject, Target, open_target, subjects
from perf.workload import Workload, workload_from
from serving.errors import Problem, TritonRepoError
from serving.progress import SILENT, Reporter

EXPORT_LIMIT_BYTES = 1 << 26
"""About a second of writing. Above this perf_analyzer would soon spend longer on writing tensors as text than on
measuring, and gigabytes of memory (one photograph is 3 MB); its own percentiles are taken then."""

WARM_UP_S = 0.75
WARM_UP_WINDOWS = 2
"""The first for what is slow only once, the second to see how fast it is then."""

SLOWEST_ANSWER_S = 60.0
"""A model whose answer takes longer than this is not waited for."""

PROFILE = "profile.json"


def bench(
    repository: str | os.PathLike[str] | None = None,
    *,
    url: str | None = None,
    models: Sequence[str] = (),
    concurrency: Sequence[int] = (1, 4, 16),
    batch_size: int = 1,
    protocol: Literal["http", "grpc"] | None = None,
    shared_memory: Literal["none", "system"] = "none",
    seconds: float = 6.0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    output: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> BenchResult:
    """Measure the models of a repository, or of a running server, with perf_analyzer.

    Args:
        repository: a Triton repository; served by an embedded server, or with ``url`` only read for request data.
        url: a running server: ``host:port``, ``http://host:port`` or ``grpc://host:port``.
        models: which ones; all that are ready by default.
        concurrency: requests under way at once; one point for each.
        batch_size: samples in each request.
        protocol: ``http`` (default) or ``grpc``; taken from ``url`` when that says it.
        shared_memory: ``system`` hands tensors over in shared memory.
        seconds: how long each point is measured.
        shapes: of inputs with dynamic dimensions, by name, without the batch dimension.
        output: folder to keep results and raw files in (a folder per run below it).
        reporter: told what is going on.

    Returns:
        The result; ``result.points[0].latency.p99_us``, ``.inferences_per_s``, ``.server.mean_batch``. A point that
        could not be measured is in it with its ``error``.

    Raises:
        WorkloadError: it cannot be measured as asked; names every problem.
        ServerUnavailableError, ServerStartError, AnalyzerUnavailableError: no server, no tool.

    Example:
        >>> result = bench("model_repository", models=["digits"], concurrency=[1, 8])  # doctest: +SKIP
    """
    workload = workload_from(
        repository=repository,
        url=url,
        models=tuple(models),
        concurrency=tuple(concurrency),
        batch_size=batch_size,
        protocol=protocol,
        shared_memory=shared_memory,
        seconds=seconds,
        shapes=shapes,
    )
    return measure_workload(workload, output=Path(output) if output is not None else None, reporter=reporter)


def measure_workload(workload: Workload, *, output: Path | None = None, reporter: Reporter = SILENT) -> BenchResult:
    """Measure a workload; see :func:`bench`."""
    started_at, started_s = datetime.now(timezone.utc), time.monotonic()
    load_before, machine, ticks = load_1min(), machine_facts(), cpu_times()
    binary = find_binary(reporter=reporter)
    with _folder(output, started_at) as folder, open_target(workload, reporter=reporter) as target:
        run = Run(workload, binary, target, folder, reporter)
        models = tuple(run.model(subject) for subject in subjects(target, workload))
        facts = dict(target.facts)
        kept = output is not None
        result = BenchResult(
            revision=revision(Path.cwd()),
            started_at=started_at,
            duration_s=time.monotonic() - started_s,
            workload=workload.model_dump(mode="json"),
            tool=Tool(path=str(binary.path), version=binary.version, origin=binary.origin),
            server=facts,
            machine=machine,
            models=models if kept else tuple(_without_raw(model) for model in models),
            doubts=tuple(machine_doubts(load_before, machine["cores_usable"], steal_percent(ticks, cpu_times()))),
            folder=folder if kept else None,
        )
        if kept:
            write_report(result, folder)
    return result


@dataclass(frozen=True)
class Run:
    """What all points of a run share.

    Attributes:
        folder: where each point's files go, below ``raw``.
    """

    workload: Workload
    binary: Binary
    target: Target
    folder: Path
    reporter: Reporter

    def model(self, subject: Subject) -> ModelRun:
        """Warm one model up and measure its points; what goes wrong is part of the answer."""
        if subject.error is not None or subject.spec is None or subject.data is None:
            error = subject.error.as_dict() if subject.error is not None else None
            self.reporter.warn(f"{subject.name}: {subject.error.what if subject.error else 'nothing to send'}")
            return ModelRun(model=subject.name, error=error)
        run = ModelRun(model=subject.name, version=subject.spec.version, inputs=subject.data.source)
        try:
            load = self.warm_up(subject)
        except TritonRepoError as error:
            return run.model_copy(update={"error": error.as_dict()})
        points = tuple(
            self.point(subject, replace(load, concurrency=number), f"concurrency-{number}")
            for number in self.workload.concurrency
        )
        return run.model_copy(update={"points": points})

    def warm_up(self, subject: Subject) -> Load:
        """Run the largest load for a moment, until one window holds an answer; what it shows sets the windows.

        Raises:
            AnalyzerError, ServerUnavailableError: the model does not answer.
        """
        workload = self.workload
        folder = self._folder(subject)
        folder.mkdir(parents=True)
        assert subject.spec is not None and subject.data is not None
        write_input_data(subject.data, folder / Path(INPUTS).name)
        load = Load(
            model=subject.name,
            address=self.target.address,
            protocol=workload.protocol,
            concurrency=max(workload.concurrency),
            batch_size=workload.batch_size,
            shared_memory=workload.shared_memory,
            window_s=min(WARM_UP_S, workload.seconds),
            windows=WARM_UP_WINDOWS,
        )
        place = folder / "warm-up"
        place.mkdir()
        with self.reporter.step(f"{subject.name}: warm up") as step:
            output = self._analyze(load, place)
            seen = passes_of(output.stdout)[-1]
            step.done("warm", f"{rate(seen.inferences_per_s)} inferences/s")
        # A window must hold some answers of each of the requests under way.
        window_s = max(workload.seconds / WINDOWS, 2 * seen.mean_us / 1e6)
        text_bytes = seen.inferences_per_s * window_s * WINDOWS * export_bytes(subject.spec, subject.data)
        export = text_bytes < EXPORT_LIMIT_BYTES or workload.shared_memory == "system"
        return replace(load, window_s=window_s, windows=WINDOWS, export=export)

    def _analyze(self, load: Load, place: Path, at_end: Callable[[], None] = lambda: None) -> Output:
        """Run perf_analyzer, with longer windows where one passed without an answer."""
        while True:
            try:
                return analyze(self.binary, load, place, timeout_s=_timeout_s(load), at_end=at_end)
            except AnalyzerError as error:
                if NO_REQUESTS not in error.got or load.window_s >= SLOWEST_ANSWER_S:
                    raise
            load = replace(load, window_s=min(SLOWEST_ANSWER_S, load.window_s * 5))

    def point(self, subject: Subject, load: Load, place_name: str) -> Point:
        """Measure a model that is warm, once; what goes wrong is part of the answer.

        Args:
            load: from :meth:`warm_up`, at the concurrency that is wanted.
            place_name: the folder for its files, a new one.
        """
        assert subject.spec is not None
        watched = [subject.name, *subject.spec.steps]
        place = self._folder(subject) / place_name
        place.mkdir()
        point = Point(
            model=subject.name,
            version=subject.spec.version,
            concurrency=load.concurrency,
            batch_size=load.batch_size,
            raw=str(place.relative_to(self.folder)),
        )
        with self.reporter.step(f"{subject.name}: {place_name.replace('-', ' ')}") as step:
            after: dict[str, Mapping[str, Any]] = {}
            try:
                before = self.target.statistics(watched)
                output = self._analyze(load, place, lambda: after.update(self.target.statistics(watched)))
                point = _measured(point, load, output)
            except TritonRepoError as error:
                step.done("failed", error.what)
                return point.model_copy(update={"error": error.as_dict()})
            point = _with_server(point, before, after)
            doubts = tuple(_doubts(point, output, self.workload.stability_percentage))
            point = point.model_copy(update={"doubts": doubts})
            step.done("measured", _summary(point))
        return point

    def _folder(self, subject: Subject) -> Path:
        return self.folder / "raw" / safe_name(subject.name)


def _measured(point: Point, load: Load, output: Output) -> Point:
    """The client's figures, from every request where they were exported, else perf_analyzer's own."""
    update: dict[str, Any] = {"command": output.command}
    if load.export:
        export = output.folder / EXPORT
        strip_tensors(export, output.folder / PROFILE)
        export.unlink()
        profile = read_profile(output.folder / PROFILE)
        latency = latency_of(profile)
        update |= {
            "latency": latency,
            "duration_s": profile.duration_s,
            "inferences_per_s": latency.requests * load.batch_size / profile.duration_s,
            "windows": windows_of(profile, load.batch_size),
        }
    else:
        row = read_csv(output.folder / CSV)
        latency = latency_from_csv(row, output.stdout)
        update |= {
            "latency": latency,
            "duration_s": latency.requests * load.batch_size / row.inferences_per_s,
            "inferences_per_s": row.inferences_per_s,
            "windows": tuple(
                Window(duration_s=None, requests=None, inferences_per_s=seen.inferences_per_s, mean_us=seen.mean_us)
                for seen in passes_of(output.stdout)[-WINDOWS:]
            ),
        }
    return point.model_copy(update=update)


def _with_server(point: Point, before: Mapping[str, Any], after: Mapping[str, Any]) -> Point:
    sides = {name: server_side(before[name], after[name]) for name in after if name in before}
    steps = tuple(side for name, side in sides.items() if name != point.model)
    return point.model_copy(update={"server": sides.get(point.model), "steps": steps})


def _doubts(point: Point, output: Output, limit_percent: float) -> Iterator[Doubt]:
    assert point.latency is not None
    yield from unstable(point.windows, limit_percent)
    yield from few_requests(point.latency)
    if point.server is not None:
        yield from server_doubts(point.server, point.latency.requests)
    yield from client_behind(output.stdout + output.stderr)


def _summary(point: Point) -> str:
    assert point.latency is not None and point.inferences_per_s is not None
    mark = "  (see doubts)" if point.doubts else ""
    return f"{rate(point.inferences_per_s)} inferences/s, p99 {milliseconds(point.latency.p99_us)} ms{mark}"


def _timeout_s(load: Load) -> float:
    """Generous: for what hangs, not for what is slow."""
    return 60.0 + 3.0 * load.window_s * load.windows


def _without_raw(run: ModelRun) -> ModelRun:
    return run.model_copy(update={"points": tuple(point.model_copy(update={"raw": None}) for point in run.points)})


def safe_name(model: str) -> str:
    """A model's name as a folder name: a server may call its models anything."""
    return re.sub(r"^\.", "%2E", quote(model, safe=""))


@contextmanager
def _folder(output: Path | None, started_at: datetime) -> Iterator[Path]:
    """A new folder for this run below ``output``, or one that goes away again."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="bench-repo-") as temporary:
            yield Path(temporary)
        return
    stamp = started_at.strftime("%Y%m%dT%H%M%SZ")
    for number in range(1, 1000):
        folder = (output / (stamp if number == 1 else f"{stamp}-{number}")).absolute()
        try:
            output.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError as exc:
            if output.is_dir():
                continue
            raise _unusable(output, "a file of this name") from exc
        except OSError as exc:
            raise _unusable(output, exc.strerror or str(exc)) from exc
        yield folder
        return
    raise _unusable(output, "a thousand runs in one second")


def _unusable(output: Path, reason: str) -> WorkloadError:
    return WorkloadError([Problem("the output folder cannot be made", where=str(output), got=reason)])
