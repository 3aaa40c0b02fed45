"""One model at a time: warmed up, then measured at a load; what goes wrong is part of the answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

from perf.analyzer import INPUTS, INTERVALS, WINDOWS, Load, Output, analyze
from perf.answers import References, references
from perf.binary import Binary
from perf.borders import Borders
from perf.environment import usable_cores
from perf.errors import AnalyzerCrashError, AnalyzerError
from perf.failures import NO_REQUESTS, unwritable
from perf.inputs import export_bytes, write_input_data
from perf.nvml import Gpus
from perf.parse import passes_of
from perf.points import Measured, doubts_of, measured, with_server
from perf.result import Doubt, Point
from perf.table import milliseconds, rate
from perf.target import Subject, Target
from perf.usage import Meter, usage_doubts
from perf.workload import ALONE_S, Workload
from serving.errors import TritonRepoError
from serving.progress import Reporter

EXPORT_LIMIT_BYTES = 1 << 26
"""About a second of writing. Above this perf_analyzer would soon spend longer on writing tensors as text than on
measuring, and gigabytes of memory (one photograph is 3 MB); its own percentiles are taken then."""

WARM_UP_S = 0.75
WARM_UP_WINDOWS = 2
"""The first for what is slow only once, the second to see how fast it is then."""

WARM_UP_CONCURRENCY = 4
"""Where no concurrency is asked for."""

SLOWEST_ANSWER_S = 60.0
"""A model whose answer takes longer than this is not waited for."""


def patience_s(load: Load) -> float:
    """Generous: for what hangs, not for what is slow. An overloaded server may take some time to empty its queue."""
    if load.schedule is not None:
        return 60.0 + 10.0 * load.schedule.seconds
    return 60.0 + 3.0 * load.window_s * load.windows


@dataclass(frozen=True)
class Run:
    """What all points of a run share.

    Attributes:
        folder: where each point's files go, below ``raw``.
        check: whether answers under load are compared with those without.
        right: by model, the answers without load.
        gpus: of this machine, where they can be read.
        patience_s: how long one run of perf_analyzer may take before it is given up.
        sample_bytes: by model, bytes of text that the tensors of one sample would take in an export.
    """

    workload: Workload
    binary: Binary
    target: Target
    folder: Path
    reporter: Reporter
    check: bool = False
    gpus: Gpus | None = None
    patience_s: Callable[[Load], float] = patience_s
    sample_bytes: dict[str, float] = field(default_factory=dict)
    right: dict[str, References | None] = field(default_factory=dict)

    def warm_up(self, subject: Subject) -> Load:
        """Run the largest load for a moment, until one window holds an answer; what it shows sets the windows.

        Raises:
            AnalyzerError, ServerUnavailableError: the model does not answer, or its requests cannot be written.
        """
        try:
            return self._warm_up(subject)
        except OSError as exc:
            raise unwritable(exc, self._folder(subject)) from exc

    def _warm_up(self, subject: Subject) -> Load:
        workload = self.workload
        seconds = workload.seconds or ALONE_S
        folder = self._folder(subject)
        folder.mkdir(parents=True)
        assert subject.spec is not None and subject.data is not None
        write_input_data(subject.data, folder / Path(INPUTS).name)
        load = Load(
            model=subject.name,
            address=self.target.address,
            protocol=workload.protocol,
            concurrency=max(workload.concurrency, default=WARM_UP_CONCURRENCY),
            batch_size=workload.batch_size,
            shared_memory=workload.shared_memory,
            window_s=min(WARM_UP_S, seconds),
            tls=workload.tls,
            ca_file=workload.ca_file.absolute() if workload.ca_file is not None else None,
            streaming=subject.spec.decoupled,
            sequence_length=workload.sequence_length if subject.spec.stateful else None,
            windows=WARM_UP_WINDOWS,
        )
        place = folder / "warm-up"
        place.mkdir()
        with self.reporter.step(f"{subject.name}: warm up") as step:
            output = self._analyze(load, place)
            seen = passes_of(output.stdout)[-1]
            step.done("warm", f"{rate(seen.inferences_per_s)} inferences/s")
        # A window must hold some answers of each of the requests under way.
        window_s = max(seconds / WINDOWS, 2 * seen.mean_us / 1e6)
        if self.check and subject.name not in self.right:
            self.right[subject.name] = references(self.target.client, subject.spec, subject.data)
        self.sample_bytes[subject.name] = export_bytes(subject.spec, subject.data)
        load = replace(load, window_s=window_s, windows=WINDOWS)
        return replace(load, export=self._exports(load, seen.inferences_per_s * window_s * WINDOWS))

    def _exports(self, load: Load, samples: float) -> bool:
        text_bytes = samples * self.sample_bytes.get(load.model, 0.0)
        return text_bytes < EXPORT_LIMIT_BYTES or load.shared_memory != "none"

    def _analyze(
        self,
        load: Load,
        place: Path,
        at_start: Callable[[Load], None] = lambda load: None,
        at_end: Callable[[], None] = lambda: None,
    ) -> Output:
        """Run perf_analyzer, with longer windows where one passed without an answer; once more where it crashed."""
        crashed = False
        while True:
            start = partial(at_start, load)
            try:
                return analyze(self.binary, load, place, timeout_s=self.patience_s(load), at_start=start, at_end=at_end)
            except AnalyzerCrashError as error:
                if crashed:
                    raise
                crashed = True
                self.reporter.warn(f"{load.model}: {error.what} ({error.got}); it is run once more")
                continue
            except AnalyzerError as error:
                if NO_REQUESTS not in error.got or load.window_s >= SLOWEST_ANSWER_S:
                    raise
            load = replace(load, window_s=min(SLOWEST_ANSWER_S, load.window_s * 5))

    def point(self, subject: Subject, load: Load, place_name: str) -> Point:
        """Measure a model that is warm, once; see :meth:`measure`."""
        return self.measure(subject, load, place_name).point

    def measure(self, subject: Subject, load: Load, place_name: str) -> Measured:
        """Measure a model that is warm, once; what goes wrong is part of the answer.

        Args:
            load: from :meth:`warm_up`, at the level that is wanted (:meth:`perf.levels.Level.load`).
            place_name: the folder for its files, a new one.
        """
        assert subject.spec is not None
        watched = [subject.name, *subject.spec.steps]
        place = self._folder(subject) / place_name
        schedule = load.schedule
        if schedule is not None:
            load = replace(load, export=self._exports(load, len(schedule.due_us) * load.batch_size))
        point = point_of(subject, load).model_copy(update={"raw": str(place.relative_to(self.folder))})
        with self.reporter.step(f"{subject.name}: {place_name.replace('-', ' ')}") as step:
            meter = Meter(local=self.target.local, url=self.target.metrics_url, gpus=self.gpus)
            borders = Borders(lambda: self.target.statistics(watched), self.target.client.leave_thread)

            def at_start(load: Load) -> None:
                meter.begin()
                borders.begin(load)

            def at_end() -> None:
                meter.end()
                borders.end()

            try:
                place.mkdir()
                if schedule is not None:
                    schedule.write(place / INTERVALS)
                with meter, borders:
                    output = self._analyze(load, place, at_start, at_end)
                    borders.end()  # where it was gone before its last window was seen
                done = measured(point, load, output, self.right.get(subject.name))
            except TritonRepoError as error:
                step.done("failed", error.what)
                return Measured(point.model_copy(update={"error": error.as_dict()}))
            except OSError as exc:
                failed = unwritable(exc, place)
                step.done("failed", failed.what)
                return Measured(point.model_copy(update={"error": failed.as_dict()}))
            done = replace(done, point=with_server(done.point, *borders.between(done.span)))
            doubts = tuple(doubts_of(done, output.stdout + output.stderr, self.workload.stability_percentage))
            doubts += tuple(self._usage_doubts(meter, output, done.point))
            done = replace(done, point=done.point.model_copy(update={"doubts": doubts, "usage": meter.usage}))
            step.done("measured", summary(done.point))
        return done

    def unmeasured(self, subject: Subject, load: Load, error: TritonRepoError) -> Point:
        """A point that cannot be measured any more."""
        return point_of(subject, load).model_copy(update={"error": error.as_dict()})

    def _usage_doubts(self, meter: Meter, output: Output, point: Point) -> Sequence[Doubt]:
        cores = usable_cores()
        duration_s = point.duration_s or output.duration_s
        local = self.target.local
        return usage_doubts(meter, local=local, client_s=output.client_s, duration_s=duration_s, cores=cores)

    def _folder(self, subject: Subject) -> Path:
        return self.folder / "raw" / safe_name(subject.name)


def point_of(subject: Subject, load: Load) -> Point:
    """A point of this model and load, without figures yet."""
    assert subject.spec is not None
    schedule = load.schedule
    return Point(
        model=subject.name,
        version=subject.spec.version,
        concurrency=load.concurrency,
        batch_size=load.batch_size,
        rate_per_s=schedule.rate_per_s if schedule is not None else None,
        distribution=schedule.distribution if schedule is not None else None,
    )


def summary(point: Point) -> str:
    """A measured point in a line."""
    assert point.latency is not None and point.inferences_per_s is not None
    mark = "  (see doubts)" if point.doubts else ""
    return f"{rate(point.inferences_per_s)} inferences/s, p99 {milliseconds(point.latency.p99_us)} ms{mark}"


def safe_name(model: str) -> str:
    """A model's name as a folder name: a server may call its models anything."""
    return re.sub(r"^\.", "%2E", quote(model, safe=""))
