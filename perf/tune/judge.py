"""What is known of the configurations of one model: figures, the limit, and what of it counts."""

from __future__ import annotations

from dataclasses import dataclass

from perf.intervals import Interval, median_with_interval
from perf.tune.evidence import HOPELESS, MINIMUM_ROUNDS, Rounds
from perf.tune.predict import Trial
from perf.tune.request import Goal, Limit


@dataclass(frozen=True)
class Measured:
    """One trial in one round.

    Attributes:
        latency_us: at the percentile that matters.
        requests: that it rests on.
        compute_us: mean time of the execution that a request was part of, as the server counts it.
    """

    inferences_per_s: float
    latency_us: float
    requests: int
    mean_batch: float | None = None
    compute_us: float | None = None
    doubts: tuple[str, ...] = ()


@dataclass
class Evidence(Rounds[Trial, Measured]):
    """All that was measured, and what it says for a goal and under a limit.

    Attributes:
        cores: of the machine.
    """

    goal: Goal
    limit: Limit | None
    cores: int

    def worth_of(self, trial: Trial, inferences_per_s: float, latency_us: float) -> float:
        """What the goal counts; more is better."""
        if self.goal == "latency":
            return 1e6 / max(latency_us, 1e-3)
        if self.goal == "cost":
            return inferences_per_s / trial.settings.cores(self.cores)
        return inferences_per_s

    def worth_in(self, trial: Trial, seen: Measured) -> float:
        """The same, of one round."""
        return self.worth_of(trial, seen.inferences_per_s, seen.latency_us)

    def latency(self, trial: Trial) -> Interval:
        """The percentile that matters."""
        values = [each.latency_us for each in self.rounds[trial].values()]
        return self.once(lambda: median_with_interval(values), "latency", trial, len(values))

    def rate(self, trial: Trial) -> Interval:
        """Inferences per second."""
        values = [each.inferences_per_s for each in self.rounds[trial].values()]
        return self.once(lambda: median_with_interval(values), "rate", trial, len(values))

    def share(self, trial: Trial) -> float:
        """What the median uses of the limit: above 1 beyond it, 0 where there is none."""
        return 0.0 if self.limit is None else self.latency(trial).value / self.limit.us

    def holds(self, trial: Trial) -> bool:
        """True where the whole interval keeps the limit."""
        return self.limit is None or self.latency(trial).high <= self.limit.us

    def breaks(self, trial: Trial) -> bool:
        """True where the whole interval lies beyond the limit."""
        return self.limit is not None and self.latency(trial).low > self.limit.us

    def is_out(self, trial: Trial, leader: Trial | None) -> bool:
        """True where it need not be measured again: surely worse than the leader, or surely beyond the limit."""
        few = self.count(trial) < MINIMUM_ROUNDS
        far = self.limit is not None and few and self.latency(trial).value > HOPELESS * self.limit.us
        return far or self.breaks(trial) or self.is_worse(trial, leader)

    def change(self, trial: Trial, default: Trial) -> float:
        """How much of the configuration differs."""
        return trial.settings.distance(default.settings)
