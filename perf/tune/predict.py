"""What a configuration would give under a load: the simulation, brought to the level of what was measured.

The simulation knows the times of executions, but not what the network, the client and the machine add. So one unknown,
the time that each request takes of the part which handles one at a time, is fitted to the first measurement; and what
is still wrong after that is corrected by the errors seen at similar configurations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from perf.tune.curve import Curve
from perf.tune.simulate import Arrivals, Prediction, simulate
from perf.tune.space import Settings

REQUESTS = 300
"""Played for one prediction: enough to rank; the 99th percentile of so few is rough, and is corrected."""

NEARNESS = 0.5
"""How much evidence a correction asks for: with one measurement of the very same configuration two thirds of its error
are corrected."""

FITTING_STEPS = 12


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

    def distance(self, other: Trial) -> float:
        """How unlike two trials are, as :meth:`Settings.distance`."""
        one, two = (
            math.log2(trial.arrivals.concurrency or trial.arrivals.rate_per_s or 1.0) for trial in (self, other)
        )
        return self.settings.distance(other.settings) + 0.5 * abs(one - two)


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
        front_us: fitted by :meth:`fit`.
    """

    curves: Mapping[tuple[str, int | None], Curve]
    percentile: float
    front_us: float = 0.0
    _plain: dict[Trial, Prediction] = field(default_factory=dict)
    _seen: dict[Trial, tuple[float, float]] = field(default_factory=dict)

    def simulated(self, trial: Trial, *, requests: int = REQUESTS) -> Prediction:
        """The simulation alone, with what :meth:`fit` found."""
        if trial not in self._plain or requests != REQUESTS:
            found = self._simulate(trial, self.front_us, requests)
            if requests != REQUESTS:
                return found
            self._plain[trial] = found
        return self._plain[trial]

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
        latency_us = plain.percentile_us(self.percentile) * math.exp(latency_error)
        return Expected(rate, latency_us, plain.mean_batch, total / (total + NEARNESS))

    def fit(self, trial: Trial, inferences_per_s: float) -> None:
        """Choose ``front_us`` so that this trial of a closed loop gives what was measured.

        The client's machine may be slower than the simulation, never faster than its executions: then it stays 0.
        """
        if trial.arrivals.concurrency is None:
            return
        low, high = 0.0, 1e6 / max(inferences_per_s, 1e-6)
        if self._simulate(trial, 0.0, REQUESTS).inferences_per_s <= inferences_per_s:
            high = 0.0
        for _ in range(FITTING_STEPS if high else 0):
            middle = (low + high) / 2
            if self._simulate(trial, middle, REQUESTS).inferences_per_s > inferences_per_s:
                low = middle
            else:
                high = middle
        self.front_us = (low + high) / 2
        self._plain.clear()

    def learn(self, trial: Trial, inferences_per_s: float, latency_us: float) -> None:
        """Remember how far the simulation was off; the latest of a trial counts (give medians over its rounds)."""
        plain = self.simulated(trial)
        latency = plain.percentile_us(self.percentile)
        if inferences_per_s <= 0 or latency_us <= 0 or not math.isfinite(latency):
            return
        errors = math.log(inferences_per_s / plain.inferences_per_s), math.log(latency_us / latency)
        self._seen[trial] = errors

    def curve(self, settings: Settings) -> Curve:
        """The times of the executions of a configuration."""
        return self.curves[settings.variant, settings.threads]

    def _simulate(self, trial: Trial, front_us: float, requests: int) -> Prediction:
        curve = self.curve(trial.settings)
        return simulate(
            trial.settings.batching,
            trial.arrivals,
            curve.time_us,
            front_us=front_us,
            rest_us=max(0.0, curve.rest_us - front_us),
            requests=requests,
        )
