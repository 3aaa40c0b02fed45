"""The order of a measurement: find the tool, reach the server, warm each model up, measure each point, doubt it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from perf.baselines.beside import baselines_of
from perf.baselines.data import BaselineKind, LeftOut
from perf.baselines.ratios import baseline_ratios
from perf.binary import Binary, find_binary
from perf.environment import cpu_times, load_1min, machine_facts, steal_percent
from perf.errors import WorkloadError
from perf.levels import levels_of
from perf.nvml import gpus_here
from perf.presence import Presence
from perf.report import write_report
from perf.result import BenchResult, Doubt, ModelRun, Point, Tool
from perf.revision import revision
from perf.rounds import Campaign
from perf.runner import Run
from perf.settling import settled
from perf.stability import machine_doubts
from perf.target import open_target, subjects
from perf.workload import Workload, workload_from
from serving.errors import Problem
from serving.progress import SILENT, Reporter


def bench(
    repository: str | os.PathLike[str] | None = None,
    *,
    url: str | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    metrics_url: str | None = None,
    models: Sequence[str] = (),
    concurrency: Sequence[int] | None = None,
    rate: Sequence[float] | None = None,
    distribution: Literal["constant", "poisson"] | None = None,
    intervals: str | os.PathLike[str] | None = None,
    batch_size: int = 1,
    protocol: Literal["http", "grpc"] | None = None,
    shared_memory: Literal["none", "system", "cuda"] = "none",
    seconds: float | None = None,
    sequence_length: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    rounds: int | None = None,
    difference: float | None = None,
    precision: float | None = None,
    budget: float | None = None,
    baselines: Sequence[BaselineKind] = (),
    output: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> BenchResult:
    """Measure the models of a repository, or of a running server, with perf_analyzer.

    Args:
        repository: a Triton repository; served by an embedded server, or with ``url`` only read for request data.
        url: a running server: ``host:port``, ``http://host:port`` or ``grpc://host:port``; with ``s`` for TLS.
        ca_file: certificates to trust then, instead of the system's.
        metrics_url: of a running server; its port 8002 is tried by default.
        models: which ones; all that are ready by default.
        concurrency: requests under way at once, one point for each; 1, 4 and 16 where no other load is given.
        rate: requests begun each second whether or not the server keeps up; one point for each.
        distribution: how those are spaced, ``constant`` (default) or ``poisson``.
        intervals: a file with microseconds from one request to the next, one a line; one point.
        batch_size: samples in each request.
        protocol: ``http`` (default) or ``grpc``; taken from ``url`` when that says it.
        shared_memory: ``system`` hands tensors over in shared memory, ``cuda`` in a GPU's.
        sequence_length: requests in each sequence of a stateful model.
        shapes: of inputs with dynamic dimensions, by name, without the batch dimension.
        seconds: how long one point is measured in a round; by default 6 for one model, 2 for several.
        rounds: how often each is measured, the models in turn; by default once for one model, 10 times for several
            (fewer where ``seconds`` is more than 2).
        difference: percent; more rounds until one so large between any model and the first would be found.
        precision: percent; more rounds until throughput and p99 are known to so much.
        budget: seconds after which no further round is begun for that (300).
        baselines: measured beside each model: ``onnxruntime``, ``pytorch``, ``fastapi``; of a repository only.
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
        ca_file=Path(ca_file) if ca_file is not None else None,
        metrics_url=metrics_url,
        models=tuple(models),
        concurrency=tuple(concurrency) if concurrency is not None else None,
        rate=tuple(rate) if rate is not None else None,
        distribution=distribution,
        intervals=Path(intervals) if intervals is not None else None,
        batch_size=batch_size,
        protocol=protocol,
        shared_memory=shared_memory,
        seconds=seconds,
        sequence_length=sequence_length,
        shapes=shapes,
        rounds=rounds,
        difference=difference,
        precision=precision,
        budget=budget,
        baselines=tuple(baselines),
    )
    return measure_workload(workload, output=Path(output) if output is not None else None, reporter=reporter)


def measure_workload(
    workload: Workload,
    *,
    output: Path | None = None,
    reporter: Reporter = SILENT,
    cut_short: Callable[[BenchResult], None] = lambda result: None,
) -> BenchResult:
    """Measure a workload; see :func:`bench`.

    Interrupted (Ctrl-C, SIGTERM), what was measured so far is written into ``output`` and given to ``cut_short`` before
    the interruption goes on; its ``interrupted`` says what it was. A server that dies ends the run with what there is.
    """
    levels_of(workload)  # a file with intervals that is of no use is said before a server is started
    binary = find_binary(reporter=reporter)
    with Presence() as presence:
        begun = _Begun(presence)
        if others := presence.look():
            reporter.warn(f"another bench-repo runs on this machine (process {min(others)}): both measure each other")
        with (
            _folder(output, begun.at) as folder,
            open_target(workload, reporter=reporter) as target,
            gpus_here(wanted=target.local) as gpus,
        ):
            found = subjects(target, workload)
            several = sum(subject.error is None for subject in found) * (1 + len(workload.baselines))
            workload = settled(workload, several)
            run = Run(workload, binary, target, folder, reporter, check=True, gpus=gpus)
            with baselines_of(run, found) as (contenders, left_out):
                campaign = Campaign(run, contenders, levels_of(workload))

                def finished(interrupted: str | None) -> BenchResult:
                    where = folder if output is not None else None
                    result = _result(campaign, left_out, begun, binary, where, interrupted)
                    if interrupted is not None:
                        what = "what was measured so far is kept" if campaign.done else "nothing was measured yet"
                        reporter.warn(f"interrupted ({interrupted}): {what}")
                    if where is not None:
                        _write(result, where, reporter)
                    return result

                try:
                    campaign.measure()
                except (KeyboardInterrupt, SystemExit) as stop:
                    if campaign.done:
                        cut_short(finished("Ctrl-C" if isinstance(stop, KeyboardInterrupt) else "SIGTERM"))
                    raise
                return finished("the server died" if campaign.gone is not None else None)


def _write(result: BenchResult, folder: Path, reporter: Reporter) -> None:
    """The report; where there is no room for it, what was measured is still returned, and so printed."""
    try:
        write_report(result, folder)
    except OSError as exc:
        reporter.warn(f"the report cannot be written to {folder}: {exc.strerror or exc}")


class _Begun:
    """When a run began, and how busy the machine was."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self.at, self.clock_s = datetime.now(timezone.utc), time.monotonic()
        self.load_1min, self.ticks, self.machine = load_1min(), cpu_times(), machine_facts()

    def doubts(self) -> list[Doubt]:
        """Whether the machine was quiet, and all ours."""
        stolen = steal_percent(self.ticks, cpu_times())
        return [*machine_doubts(self.load_1min, self.machine["cores_usable"], stolen), *self._presence.doubts()]


def _result(
    campaign: Campaign,
    left_out: tuple[LeftOut, ...],
    begun: _Begun,
    binary: Binary,
    folder: Path | None,
    interrupted: str | None,
) -> BenchResult:
    models = campaign.models()
    return BenchResult(
        started_at=begun.at,
        duration_s=time.monotonic() - begun.clock_s,
        revision=revision(Path.cwd()),
        workload=campaign.workload.model_dump(mode="json"),
        tool=Tool(path=str(binary.path), version=binary.version, origin=binary.origin),
        server=dict(campaign.run.target.facts),
        machine=begun.machine,
        models=models if folder is not None else tuple(_without_raw(model) for model in models),
        doubts=(*_unfinished(interrupted), *begun.doubts(), *campaign.doubts()),
        interrupted=interrupted,
        baselines=baseline_ratios(models),
        left_out=left_out,
        folder=folder,
    )


def _unfinished(interrupted: str | None) -> list[Doubt]:
    if interrupted is None:
        return []
    message = f"interrupted ({interrupted}): not all that was asked is here, and some of it in fewer rounds"
    return [Doubt(code="interrupted", message=message)]


def _without_raw(run: ModelRun) -> ModelRun:
    def bare(point: Point) -> Point:
        rounds = tuple(one.model_copy(update={"raw": None}) for one in point.rounds)
        return point.model_copy(update={"raw": None, "rounds": rounds})

    return run.model_copy(update={"points": tuple(bare(point) for point in run.points)})


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
    what, expected = "the output folder cannot be made", "a folder that can be written to"
    return WorkloadError([Problem(what, str(output), expected, reason, "name another place: --output DIR")])
