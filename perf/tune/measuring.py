"""A trial on the stage -> figures, by one run of perf_analyzer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from perf.analyzer import INPUTS, WINDOWS, Load
from perf.binary import Binary
from perf.inputs import export_bytes, write_input_data
from perf.levels import Level
from perf.result import Point
from perf.runner import Run, safe_name
from perf.target import Subject
from perf.tune.errors import TuneError
from perf.tune.judge import Measured
from perf.tune.predict import Trial
from perf.tune.simulate import Arrivals
from perf.tune.stage import Stage
from perf.workload import workload_from
from serving.errors import ServerUnavailableError
from serving.progress import SILENT, Reporter

FEWEST_REQUESTS = 30
"""At a fixed rate, a round lasts at least so many."""

EXPORT_LIMIT_BYTES = 1 << 24
"""A quarter of a second of writing: a trial takes little more than a second, and perf_analyzer has the percentiles of a
limit by itself."""

ANSWERS_PER_CLIENT = 2
"""A window lasts at least so many answers."""


def patience_s(load: Load) -> float:
    """Of one trial: with very many requests under way perf_analyzer may starve itself, and not end.

    Waiting for that would cost more than all the other trials of a search.
    """
    return 8.0 + 4.0 * (load.schedule.seconds if load.schedule is not None else load.window_s * load.windows)


@dataclass
class Meter:
    """Measures trials on a stage.

    Attributes:
        folder: for raw files.
        seconds: how long one trial is measured in one round.
        percentile: of the latency that matters.
    """

    stage: Stage
    binary: Binary
    folder: Path
    seconds: float
    percentile: float
    _written: set[str] = field(default_factory=set)

    def measure(self, trial: Trial, number: int, latency_us: float, *, reporter: Reporter = SILENT) -> Measured:
        """One trial in one round.

        Args:
            latency_us: about what an answer takes, so that the windows are not too short.

        Raises:
            ModelLoadError: the server refuses the configuration.
            TuneError: perf_analyzer gave no figures.
            ServerUnavailableError: the server is gone.
        """
        place = f"{trial.arrivals.concurrency or 'rate'}-round-{number + 1}"
        subject = self.stage.subject(trial.settings)
        return self.read(self.point(subject, trial.arrivals, number, latency_us, place, reporter=reporter))

    def point(
        self,
        subject: Subject,
        arrivals: Arrivals,
        number: int,
        latency_us: float,
        place: str,
        *,
        reporter: Reporter = SILENT,
    ) -> Point:
        """A model that is loaded under a load; what goes wrong is in the point.

        Args:
            place: the folder for the raw files, a new one for each run of this model.
        """
        load = self._load(subject, arrivals, number, latency_us)
        workload = workload_from(url=self.stage.target.address, models=(subject.name,), seconds=max(0.3, self.seconds))
        assert subject.spec is not None and subject.data is not None
        run = Run(
            workload,
            self.binary,
            self.stage.target,
            self.folder,
            reporter,
            patience_s=patience_s,
        )
        if load.concurrency is not None:  # at a rate every request is needed: latency counts from when it was due
            answers = load.concurrency / max(latency_us, 1.0) * 1e6 * load.window_s * load.windows
            load = replace(load, export=answers * export_bytes(subject.spec, subject.data) < EXPORT_LIMIT_BYTES)
        return run.point(subject, load, place)

    def _load(self, subject: Subject, arrivals: Arrivals, number: int, latency_us: float) -> Load:
        assert subject.data is not None
        if subject.name not in self._written:
            folder = self.folder / "raw" / safe_name(subject.name)
            folder.mkdir(parents=True)
            write_input_data(subject.data, folder / Path(INPUTS).name)
            self._written.add(subject.name)
        window_s = max(self.seconds / WINDOWS, ANSWERS_PER_CLIENT * latency_us / 1e6)
        load = Load(
            model=subject.name,
            address=self.stage.target.address,
            protocol="http",
            concurrency=arrivals.concurrency,
            batch_size=1,
            shared_memory="none",
            window_s=window_s,
        )
        if (rate := arrivals.rate_per_s) is None:
            return load
        # Enough for the percentile, at a low rate too; each round has a draw of its own.
        seconds = max(self.seconds, FEWEST_REQUESTS / rate)
        return Level(rate_per_s=rate, distribution=arrivals.distribution, seconds=seconds).load(load, number)

    def read(self, point: Point) -> Measured:
        """The figures of a point.

        Raises:
            TuneError, ServerUnavailableError: it has none.
        """
        if point.error is not None:
            parts = {key: str(point.error[key]) for key in ("where", "expected", "got", "fix") if key in point.error}
            gone = point.error.get("error") == ServerUnavailableError.__name__
            raise (ServerUnavailableError if gone else TuneError)(str(point.error["what"]), **parts)
        assert point.latency is not None and point.inferences_per_s is not None
        server = point.server
        return Measured(
            inferences_per_s=point.inferences_per_s,
            latency_us=float(getattr(point.latency, f"p{self.percentile:g}_us")),
            requests=point.latency.requests,
            mean_batch=server.mean_batch if server is not None else None,
            compute_us=server.compute_us if server is not None else None,
            doubts=tuple(doubt.code for doubt in point.doubts),
        )
