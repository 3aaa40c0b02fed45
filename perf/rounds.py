"""All models of a workload at all its loads, round by round, until enough is known.

In each round every load is given to one model after the other, another one first each time: whatever else the machine
does meets all alike, and figures of one round are a pair.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from perf.analyzer import Load
from perf.baselines.data import Baseline
from perf.deciding import FOUND_FACTOR
from perf.interleaved import in_turn
from perf.levels import Level
from perf.merged import merged, relative_width_percent
from perf.points import Measured
from perf.result import Doubt, ModelRun, Point
from perf.runner import Run
from perf.settling import ratio_widths
from perf.stability import MINIMUM_BEYOND
from perf.target import Subject
from perf.workload import Workload
from serving.errors import ServerUnavailableError, TritonRepoError

MOST_ROUNDS = 200
P99_REQUESTS = MINIMUM_BEYOND * 100
"""What a 99th percentile wants; with ``precision``, rounds go on until it has them."""


class Measurer(Protocol):
    """What measures a model: at the server (:class:`perf.runner.Run`), or without it."""

    def warm_up(self, subject: Subject) -> Load:
        """Make it ready, and see how fast it is."""

    def measure(self, subject: Subject, load: Load, place_name: str) -> Measured:
        """Measure it once."""


@dataclass(frozen=True)
class Contender:
    """A model, and what measures it; the others of a round are its rivals.

    Attributes:
        baseline: what is known of it where it is a baseline, asked once it has been measured.
    """

    subject: Subject
    by: Measurer
    baseline: Callable[[], Baseline] | None = None


@dataclass
class Campaign:
    """A measurement that is under way; :meth:`models` is what is known so far, at any moment.

    Attributes:
        gone: the server died on the way.
    """

    run: Run
    contenders: Sequence[Contender]
    levels: Sequence[Level]
    runs: dict[str, ModelRun] = field(default_factory=dict)
    loads: dict[str, Load] = field(default_factory=dict)
    done: dict[tuple[str, str], list[tuple[int, Measured]]] = field(default_factory=dict)
    failed: dict[tuple[str, str], Point] = field(default_factory=dict)
    gone: ServerUnavailableError | None = None

    @property
    def workload(self) -> Workload:
        """What was asked."""
        return self.run.workload

    def measure(self) -> None:
        """Warm every model up, then measure in rounds; what goes wrong is kept, and the rest goes on."""
        for contender in self.contenders:
            self._warm_up(contender)
        fewest = self.workload.rounds or 1
        started_s, number = time.monotonic(), 0
        while True:
            round_s = time.monotonic()
            self._round(number, single=fewest == 1 and not self.workload.adaptive)
            if self.gone is not None:
                self._not_measured(fewest)
                return
            number += 1
            round_s = time.monotonic() - round_s
            if number < fewest and self._left():
                continue
            elapsed_s = time.monotonic() - started_s
            if not self.workload.adaptive or number >= MOST_ROUNDS or not self._left():
                return
            if elapsed_s + round_s > self.workload.budget or not (self._imprecise() or self._undecided()):
                return

    def models(self) -> tuple[ModelRun, ...]:
        """What each model was asked, and what came of it so far."""
        return tuple(self._model(each) for each in self.contenders if each.subject.name in self.runs)

    def doubts(self) -> tuple[Doubt, ...]:
        """Where the precision that was asked for was not reached."""
        wanted, budget = self.workload.precision, self.workload.budget
        found = []
        if wide := self._imprecise():
            found.append(f"{len(wide)} of {len(self.done)} points are not known to {wanted:g}%: {'; '.join(wide[:5])}")
        if unsure := self._undecided():
            found.append(
                f"a difference of {self.workload.difference:g}% would not be found everywhere: {'; '.join(unsure[:5])}"
            )
        more = f" within {budget:g} s; a larger --budget, or a quieter machine"
        return (Doubt(code="imprecise", message="; ".join(found) + more),) if found else ()

    def _warm_up(self, contender: Contender) -> None:
        subject = contender.subject
        if subject.error is not None or subject.spec is None or subject.data is None:
            error = subject.error.as_dict() if subject.error is not None else None
            self.run.reporter.warn(f"{subject.name}: {subject.error.what if subject.error else 'nothing to send'}")
            self.runs[subject.name] = ModelRun(model=subject.name, config=dict(subject.config), error=error)
            return
        run = ModelRun(
            model=subject.name,
            version=subject.spec.version,
            inputs=subject.data.source,
            config=dict(subject.config),
            about=dict(subject.about),
        )
        try:
            self.loads[subject.name] = contender.by.warm_up(subject)
        except TritonRepoError as error:
            run = run.model_copy(update={"error": error.as_dict()})
        self.runs[subject.name] = run

    def _round(self, number: int, *, single: bool) -> None:
        for level in self.levels:
            for contender in self._in_turn(number):
                subject = contender.subject
                key = (subject.name, level.name)
                if key in self.failed:
                    continue
                place = level.name if single else f"{level.name}-round-{number + 1}"
                one = contender.by.measure(subject, level.load(self.loads[subject.name], number), place)
                if one.point.ok:
                    self.done.setdefault(key, []).append((number, one))
                else:
                    self.failed[key] = one.point
                    self.gone = self.run.target.gone()
                    if self.gone is not None:  # it would fail with everything else as well, one after the other
                        return

    def _not_measured(self, fewest: int) -> None:
        """The server is gone: say so of every point that it was to be measured at."""
        assert self.gone is not None
        for subject in (contender.subject for contender in self.contenders):
            for level in self.levels:
                key = (subject.name, level.name)
                if subject.name not in self.loads or len(self.done.get(key, ())) >= fewest:
                    continue
                load = level.load(self.loads[subject.name], 0)
                self.failed[key] = self.run.unmeasured(subject, load, self.gone)

    def _in_turn(self, number: int) -> list[Contender]:
        warm = {each.subject.name: each for each in self.contenders if each.subject.name in self.loads}
        return [warm[name] for name in in_turn(list(warm), number)] if warm else []

    def _left(self) -> bool:
        """True while there is a point that did not fail."""
        keys = [(name, level.name) for name in self.loads for level in self.levels]
        return any(key not in self.failed for key in keys)

    def _imprecise(self) -> list[str]:
        """The points that are not known well enough, in words."""
        wanted = self.workload.precision
        found = []
        for (name, level), rounds in self.done.items():
            if wanted is None or (name, level) in self.failed:
                continue
            point = merged(rounds, self.workload.stability_percentage)
            assert point.latency is not None
            width = max(
                relative_width_percent(point.inferences_interval), relative_width_percent(point.p99_interval_us)
            )
            if width > wanted or point.latency.requests < P99_REQUESTS:
                spelled = f"+-{width:.1f}%" if width < 1000 else "one round"
                found.append(f"{name} {level.replace('-', ' ')} {spelled}, {point.latency.requests} requests")
        return found

    def _undecided(self) -> list[str]:
        """The models whose ratio to the first is not known well enough, in words.

        It is asked how wide an interval is, never on which side of 1 it lies: to go on until there is a difference
        would find one.
        """
        wanted = self.workload.difference
        if wanted is None:
            return []
        widths = ratio_widths({key: [(number, one.point) for number, one in done] for key, done in self.done.items()})
        reach = wanted / FOUND_FACTOR
        return [
            f"{name} {level.replace('-', ' ')} +-{width:.3g}%"
            for (name, level), width in widths.items()
            if width > reach and (name, level) not in self.failed
        ]

    def _model(self, contender: Contender) -> ModelRun:
        subject = contender.subject
        run = self.runs[subject.name]
        if contender.baseline is not None:
            run = run.model_copy(update={"baseline": contender.baseline()})
        points: list[Point] = []
        error: dict[str, Any] | None = run.error
        for level in self.levels:
            key = (subject.name, level.name)
            failed = self.failed.get(key)
            if rounds := self.done.get(key):
                point = merged(rounds, self.workload.stability_percentage)
                if failed is not None:  # later: what was measured before is as good as it was
                    assert failed.error is not None
                    doubt = Doubt(code="cut_short", message=f"ended after {len(rounds)} rounds: {failed.error['what']}")
                    point = point.model_copy(update={"doubts": (*point.doubts, doubt)})
                    error = error or failed.error
                points.append(point)
            elif failed is not None:
                points.append(failed)
        return run.model_copy(update={"points": tuple(points), "error": error})
