"""What a plan would give: the joint simulation, at the level of the first measurement and corrected by the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from perf.tune.curve import Curve
from perf.tune.joint.judge import JointEvidence
from perf.tune.joint.network import ExecutionTime, Played, Station, Stream
from perf.tune.joint.plan import JointTrial, Scene
from perf.tune.joint.simulate import play
from perf.tune.predict import NEARLY, NEARNESS
from perf.tune.space import Settings

CurveKey = tuple[str, str, int | None]
"""Member, variant, threads."""

SLOWEST_REQUESTS, MOST_REQUESTS = 200, 1600
"""Played at fixed rates: so many of the slowest model, and not more than so many together. Enough to rank; the 99th
percentile of so few is rough, and is corrected."""
CLOSED_REQUESTS, CLOSED_REQUESTS_EACH = 150, 10
CARRIED_MORE = 3
"""Times as many where it is one plan that is played: for the rates that could be carried."""
FITTING_ROUNDS, FITTING_STEPS = 3, 8
LATEST_US = 1e8
"""What stands for a latency that grows without bound."""


def execution_time(curve: Curve, threads: int, cores: int, stretch: float = 1.0) -> ExecutionTime:
    """How long an execution takes while so many threads are busy on the machine, whosever they are.

    The curve knows several instances of the same model. Other models' threads are taken for as many of its own; more
    than were measured share the cores evenly.
    """
    top = max(timing.busy for timing in curve.timings)
    known: dict[tuple[int, float], float] = {}

    def time_us(batch: int, busy: float) -> float:
        if (batch, busy) not in known:
            alike = busy / threads
            factor = max(1.0, busy / max(cores, top * threads)) if alike > top else 1.0
            known[batch, busy] = stretch * factor * curve.time_us(batch, max(1.0, min(alike, top)))
        return known[batch, busy]

    return time_us


@dataclass(frozen=True)
class Outlook:
    """What is expected of a trial: by model the rate and the latency at its percentile; ``played`` is where from."""

    figures: Mapping[str, tuple[float, float]]
    played: Played


@dataclass
class JointPredictor:
    """Predictions that learn from measurements.

    Attributes:
        stretch: by member, how much slower executions are beside clients than alone; ``front_us`` by model: see
            :class:`perf.tune.joint.simulate.Stream`. Both from :meth:`fit`.
    """

    scene: Scene
    curves: Mapping[CurveKey, Curve]
    stretch: dict[str, float] = field(default_factory=dict)
    front_us: dict[str, float] = field(default_factory=dict)
    _plain: dict[JointTrial, Outlook] = field(default_factory=dict)
    _errors: dict[JointTrial, Mapping[str, tuple[float, float]]] = field(default_factory=dict)

    @property
    def predicted(self) -> list[JointTrial]:
        """All that were simulated."""
        return list(self._plain)

    @property
    def measured(self) -> list[JointTrial]:
        """All that :meth:`learn` was told of."""
        return list(self._errors)

    def knows(self, member: str, settings: Settings) -> bool:
        """Whether the executions of a member with these settings were timed."""
        return (member, settings.variant, settings.threads) in self.curves

    def simulated(self, trial: JointTrial) -> Outlook:
        """The simulation alone."""
        if trial not in self._plain:
            self._plain[trial] = self._outlook(self.play(trial), trial)
        return self._plain[trial]

    def play(self, trial: JointTrial, *, factor: float = 1.0, more: int = 1) -> Played:
        """Simulate a trial.

        Args:
            factor: all rates times this.
            more: times as many requests as usual.
        """
        scene = self.scene
        stations = [self._station(name, settings) for name, settings in trial.plan.parts]
        streams = []
        for place, (wanted, arrivals) in enumerate(zip(scene.request.wanted, trial.loads, strict=True)):
            front_us = self.front_us.get(wanted.model, 0.0)
            if arrivals.rate_per_s is not None and factor != 1.0:
                arrivals = type(arrivals)(rate_per_s=factor * arrivals.rate_per_s, distribution=arrivals.distribution)
            rest_us = max(self._rest_us(trial, scene.members[step.station]) for step in scene.steps(place))
            streams.append(Stream(arrivals, scene.steps(place), front_us, max(0.0, rest_us - front_us)))
        concurrency = sum(load.concurrency or 0 for load in trial.loads)
        requests = max(CLOSED_REQUESTS, CLOSED_REQUESTS_EACH * concurrency) if concurrency else SLOWEST_REQUESTS
        limiter = scene.cores if trial.plan.limited else None
        return play(stations, streams, requests=more * requests, most=more * MOST_REQUESTS, cores=limiter)

    def _station(self, member: str, settings: Settings) -> Station:
        threads, scene = self.scene.threads_of(member, settings), self.scene
        curve = self.curves[member, settings.variant, settings.threads]
        time_us = execution_time(curve, threads, scene.cores, self.stretch.get(member, 1.0))
        return Station(settings.batching, threads, time_us)

    def _rest_us(self, trial: JointTrial, member: str) -> float:
        settings = trial.plan.of(member)
        return self.curves[member, settings.variant, settings.threads].rest_us

    def _outlook(self, played: Played, trial: JointTrial) -> Outlook:
        figures = {}
        for wanted, found, load in zip(self.scene.request.wanted, played.streams, trial.loads, strict=True):
            # Over so short a time the rate of the slowest is rough: one that does not fall behind has what was asked.
            asked = load.rate_per_s if load.rate_per_s is not None and not found.growing else None
            figures[wanted.model] = (
                asked or found.inferences_per_s,
                min(LATEST_US, found.percentile_us(wanted.percentile)),
            )
        return Outlook(figures, played)

    def expected(self, trial: JointTrial) -> dict[str, tuple[float, float]]:
        """By model: rate and latency, corrected by the errors at similar trials."""
        return self.corrected(trial, self.simulated(trial).figures)

    def corrected(
        self, trial: JointTrial, figures: Mapping[str, tuple[float, float]]
    ) -> dict[str, tuple[float, float]]:
        """Figures of a simulation of this trial, with what simulations of similar ones were wrong by."""
        weights = {other: math.exp(-trial.distance(other)) for other in self._errors}
        total = sum(weights.values()) + NEARNESS
        found = {}
        for (name, (rate, latency_us)), arrivals in zip(figures.items(), trial.loads, strict=True):
            errors = [sum(w * self._errors[t][name][k] for t, w in weights.items()) / total for k in (0, 1)]
            rate *= math.exp(errors[0])
            if arrivals.rate_per_s is not None:
                rate = min(rate, arrivals.rate_per_s)
            found[name] = rate, latency_us * math.exp(errors[1])
        return found

    def fit(self, trial: JointTrial, evidence: JointEvidence) -> None:
        """Bring the simulation to the level of a trial that was measured."""
        seen = next(iter(evidence.rounds[trial].values()))
        self.stretch, self.front_us = {}, {}
        closed = [w.model for w, load in zip(self.scene.request.wanted, trial.loads, strict=True) if load.concurrency]
        for _ in range(FITTING_ROUNDS):
            stations = dict(zip(self.scene.members, self.play(trial).stations, strict=True))
            for member, us in seen.compute_us.items():
                factor = min(4.0, max(0.25, us / max(1e-3, stations[member].compute_us)))
                self.stretch[member] = self.stretch.get(member, 1.0) * factor
            for model in closed:
                self.front_us[model] = self._front(trial, model, seen.models[model].inferences_per_s)
        self._plain.clear()

    def _front(self, trial: JointTrial, model: str, inferences_per_s: float) -> float:
        """The least that explains the rate nearly, by halving; see :meth:`perf.tune.predict.Predictor.fit`."""
        wanted = NEARLY * inferences_per_s

        def rate(front_us: float) -> float:
            self.front_us[model] = front_us
            return self._outlook(self.play(trial), trial).figures[model][0]

        low, high = 0.0, 1e6 / max(wanted, 1e-6)
        if rate(0.0) <= wanted:
            return 0.0
        for _ in range(FITTING_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if rate(middle) > wanted else (low, middle)
        return (low + high) / 2

    def learn(self, trial: JointTrial, evidence: JointEvidence) -> None:
        """Remember how far the simulation was off."""
        plain, errors = self.simulated(trial).figures, {}
        for name, (rate, latency_us) in evidence.figures(trial).items():
            off = math.log(rate / plain[name][0]) if rate > 0 and plain[name][0] > 0 else 0.0
            errors[name] = off, math.log(latency_us / plain[name][1])
        self._errors[trial] = errors

    def carried(self, trial: JointTrial, *, most: float = 64.0) -> float:
        """By what factor all rates could be multiplied with every model within its limit; 0 where by none."""

        def holds(factor: float) -> bool:
            played = self.play(trial, factor=factor, more=CARRIED_MORE)
            figures = self.corrected(trial, self._outlook(played, trial).figures)
            pairs = zip(self.scene.request.wanted, played.streams, strict=True)
            return all(
                not found.growing and (wanted.limit is None or figures[wanted.model][1] <= wanted.limit.us)
                for wanted, found in pairs
            )

        low, high = 0.0, 1.0
        while high < most and holds(high):
            low, high = high, 2 * high
        for _ in range(FITTING_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        return low
