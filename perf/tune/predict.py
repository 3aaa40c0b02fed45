"""What a configuration would give under a load: the simulation, brought to the level of what was measured.

The simulation knows the times of executions alone, but not what the network, the client and the machine add. So two
unknowns are fitted to the first measurement: by how much executions are slower while clients are busy too, and the time
that each request takes of the part which handles one at a time. What is still wrong after that is corrected by the
errors seen at similar configurations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from perf.tune.curve import Curve
from perf.tune.simulate import Arrivals, Prediction, simulate
from perf.tune.space import Settings

FEWEST_REQUESTS, REQUESTS_EACH = 150, 10
"""Played for one prediction, at least, and for each one under way: enough to rank; the 99th percentile of so few is
rough, and is corrected."""
OPEN_REQUESTS = 1500

NEARNESS = 0.5
"""How much evidence a correction asks for: with one measurement of the very same configuration two thirds of its error
are corrected."""

NEARLY = 1.05
FITTING_STEPS = 10
FITTING_ROUNDS = 3


@dataclass(frozen=True)
class Trial:
    """A configuration under a load."""

    settings: Settings
    arrivals: Arrivals

    @property
    def load(self) -> str:
        """The load in words."""
        arrivals = self.arrivals
        if arrivals.concurrency is not None:
            return f"concurrency {arrivals.concurrency}"
        return f"{arrivals.rate_per_s:g} requests/s ({arrivals.distribution})"

    @property
    def under_way(self) -> int:
        """Requests at once; 0 at a rate."""
        return self.arrivals.concurrency or 0

    def distance(self, other: Trial) -> float:
        """How unlike two trials are, as :meth:`Settings.distance`."""
        one, two = (
            math.log2(trial.arrivals.concurrency or trial.arrivals.rate_per_s or 1.0) for trial in (self, other)
        )
        return self.settings.distance(other.settings) + 0.5 * abs(one - two)


def sensible(settings: Settings, arrivals: Arrivals, default: Settings) -> bool:
    """False where a knob cannot matter under this load: a batch that never fills only waits for its delay."""
    concurrency = arrivals.concurrency
    if concurrency is None:
        return True
    if settings.max_batch_size != default.max_batch_size and concurrency <= default.max_batch_size:
        return False
    if settings.preferred and max(settings.preferred) > concurrency:
        return False
    return not (settings.max_queue_delay_microseconds and settings.batching.most > concurrency)


def without_delay(trial: Trial) -> Trial:
    """The same with a queue delay of 0."""
    return replace(trial, settings=replace(trial.settings, max_queue_delay_microseconds=0))


@dataclass(frozen=True)
class Expected:
    """What is expected of a trial: a rate, a latency at the percentile that matters, and how sure that is.

    Attributes:
        evidence: 0 for a simulation alone, towards 1 with measurements of similar trials.
    """

    inferences_per_s: float
    latency_us: float
    mean_batch: float
    evidence: float


@dataclass
class Predictor:
    """Predictions that learn from measurements.

    Attributes:
        curves: by variant and threads.
        percentile: of the latency that matters.
        front_us, stretch: fitted by :meth:`fit`.
    """

    curves: Mapping[tuple[str, int | None], Curve]
    percentile: float
    front_us: float = 0.0
    stretch: float = 1.0
    _latency_us: dict[Trial, float] = field(default_factory=dict)
    _plain: dict[Trial, Prediction] = field(default_factory=dict)
    _seen: dict[Trial, tuple[float, float]] = field(default_factory=dict)

    @property
    def played(self) -> int:
        """How many trials were simulated with what :meth:`fit` found."""
        return len(self._plain)

    def simulated(self, trial: Trial) -> Prediction:
        """The simulation alone, with what :meth:`fit` found."""
        if trial not in self._plain:
            self._plain[trial] = self.play(trial)
        return self._plain[trial]

    def play(self, trial: Trial, *, requests: int | None = None, front_us: float | None = None) -> Prediction:
        """Simulate a trial, whatever was simulated before; ``requests`` and ``front_us`` by default those of others."""
        curve, concurrency = self.curve(trial.settings), trial.arrivals.concurrency
        front_us = self.front_us if front_us is None else front_us
        few = max(FEWEST_REQUESTS, REQUESTS_EACH * concurrency) if concurrency is not None else OPEN_REQUESTS
        return simulate(
            trial.settings.batching,
            trial.arrivals,
            lambda batch, busy: self.stretch * curve.time_us(batch, busy),
            front_us=front_us,
            rest_us=max(0.0, curve.rest_us - front_us),
            requests=requests or few,
        )

    def expected(self, trial: Trial) -> Expected:
        """The simulation, corrected by the errors at similar trials."""
        plain = self.simulated(trial)
        weights = {other: math.exp(-trial.distance(other)) for other in self._seen}
        total = sum(weights.values())
        rate_error, latency_error = (
            sum(weight * self._seen[other][index] for other, weight in weights.items()) / (total + NEARNESS)
            for index in (0, 1)
        )
        rate = plain.inferences_per_s * math.exp(rate_error)
        if trial.arrivals.rate_per_s is not None:
            rate = min(rate, trial.arrivals.rate_per_s)
        latency_us = self._latency(trial) * math.exp(latency_error)
        return Expected(rate, latency_us, plain.mean_batch, total / (total + NEARNESS))

    def fit(self, trial: Trial, inferences_per_s: float, compute_us: float | None) -> None:
        """Choose ``stretch`` and ``front_us`` so that this trial gives what was measured.

        Args:
            compute_us: mean time of the execution that a request was part of, as the server counts it; None where it
                is not known: all that is slower than simulated is the front's then.
        """
        self.stretch, self.front_us = 1.0, 0.0
        for _ in range(FITTING_ROUNDS):  # a longer queue makes larger batches, and these take longer
            if compute_us:
                self.stretch *= min(4.0, max(0.25, compute_us / self.play(trial).compute_us))
            if trial.arrivals.concurrency is not None:
                self.front_us = self._front(trial, inferences_per_s)
        self._plain.clear()
        self._latency_us.clear()

    def _front(self, trial: Trial, inferences_per_s: float) -> float:
        """The least that explains the rate nearly, by halving; 0 where the executions alone do.

        Nearly, because one measurement is noisy: where executions are what bounds the rate, any front that is a little
        faster than they are gives the same, and would be taken for the bound of every other configuration.
        """
        inferences_per_s *= NEARLY
        low, high = 0.0, 1e6 / max(inferences_per_s, 1e-6)
        if self.play(trial, front_us=0.0).inferences_per_s <= inferences_per_s:
            return 0.0
        for _ in range(FITTING_STEPS):
            middle = (low + high) / 2
            if self.play(trial, front_us=middle).inferences_per_s > inferences_per_s:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    def _latency(self, trial: Trial) -> float:
        if trial not in self._latency_us:
            self._latency_us[trial] = self.simulated(trial).percentile_us(self.percentile)
        return self._latency_us[trial]

    def learn(self, trial: Trial, inferences_per_s: float, latency_us: float) -> None:
        """Remember how far the simulation was off; the latest of a trial counts (give medians over its rounds)."""
        plain = self.simulated(trial)
        latency = self._latency(trial)
        if inferences_per_s <= 0 or latency_us <= 0 or not math.isfinite(latency):
            return
        errors = math.log(inferences_per_s / plain.inferences_per_s), math.log(latency_us / latency)
        self._seen[trial] = errors

    def knows(self, trial: Trial) -> bool:
        """Whether the executions of a trial were timed."""
        return (trial.settings.variant, trial.settings.threads) in self.curves

    def curve(self, settings: Settings) -> Curve:
        """The times of the executions of a configuration."""
        return self.curves[settings.variant, settings.threads]
