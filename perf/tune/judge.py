"""From what was measured to what is known: who leads, who is out, what must still be measured, who is chosen.

Trials are measured in rounds; those of one round are pairs. A trial is better where the interval of the ratio says so,
holds the limit where the whole interval of its percentile lies below, and what cannot be told apart is
decided for the configuration that changes least.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from perf.intervals import Interval, median_with_interval, ratio_of_independent_medians, ratio_of_medians
from perf.tune.predict import Trial
from perf.tune.request import Goal, Limit

MINIMUM_ROUNDS = 3
MAXIMUM_ROUNDS = 20
SURE = 0.98
"""Of the interval of a ratio: a leader has many rivals, and of equal ones each looks better now and then."""

NEAR = 1.05
"""Two whose ratio surely lies below this are as good as each other: further rounds are not worth their time."""

HOPELESS = 1.3
"""One that was this much worse in the few rounds it had is not asked again."""


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
class Evidence:
    """All that was measured, and what it says for a goal and under a limit.

    Attributes:
        cores: of the machine.
        rounds: by trial, by number of the round.
        failed: why a trial could not be measured.
    """

    goal: Goal
    limit: Limit | None
    cores: int
    rounds: dict[Trial, dict[int, Measured]] = field(default_factory=dict)
    failed: dict[Trial, Mapping[str, object]] = field(default_factory=dict)
    _known: dict[tuple[object, ...], Interval] = field(default_factory=dict, repr=False)

    def add(self, trial: Trial, number: int, measured: Measured) -> None:
        """Another measurement."""
        self.rounds.setdefault(trial, {})[number] = measured

    def count(self, trial: Trial) -> int:
        """In how many rounds it was."""
        return len(self.rounds.get(trial, {}))

    @property
    def trials(self) -> list[Trial]:
        """Those that gave figures."""
        return [trial for trial in self.rounds if trial not in self.failed]

    def worth_of(self, trial: Trial, inferences_per_s: float, latency_us: float) -> float:
        """What the goal counts; more is better."""
        if self.goal == "latency":
            return 1e6 / max(latency_us, 1e-3)
        if self.goal == "cost":
            return inferences_per_s / trial.settings.cores(self.cores)
        return inferences_per_s

    def worth(self, trial: Trial) -> float:
        """Median over its rounds."""
        return statistics.median(self._worths(trial).values())

    def _worths(self, trial: Trial) -> dict[int, float]:
        return {
            number: self.worth_of(trial, each.inferences_per_s, each.latency_us)
            for number, each in self.rounds[trial].items()
        }

    def ratio(self, first: Trial, second: Trial) -> Interval | None:
        """How many times as good the first is, from the rounds that both were in; None where nothing can be said.

        Where these are too few, all rounds of both count, without being pairs.
        """
        one, other = self._worths(first), self._worths(second)
        both = sorted(set(one) & set(other))
        if len(both) < MINIMUM_ROUNDS <= min(len(one), len(other)):
            values, of = (list(one.values()), list(other.values())), ratio_of_independent_medians
        elif both:
            values, of = ([one[number] for number in both], [other[number] for number in both]), ratio_of_medians
        else:
            return None
        return self._once(lambda: of(*values, SURE), first, second, len(one), len(other))

    def _once(self, interval: Callable[[], Interval], *of: object) -> Interval:
        """An interval that is drawn once: it is asked for again and again between two measurements."""
        if of not in self._known:
            self._known[of] = interval()
        return self._known[of]

    def latency(self, trial: Trial) -> Interval:
        """The percentile that matters."""
        values = [each.latency_us for each in self.rounds[trial].values()]
        return self._once(lambda: median_with_interval(values), "latency", trial, len(values))

    def rate(self, trial: Trial) -> Interval:
        """Inferences per second."""
        values = [each.inferences_per_s for each in self.rounds[trial].values()]
        return self._once(lambda: median_with_interval(values), "rate", trial, len(values))

    def holds(self, trial: Trial) -> bool:
        """True where the whole interval keeps the limit."""
        return self.limit is None or self.latency(trial).high <= self.limit.us

    def seems_to_hold(self, trial: Trial) -> bool:
        """True where the median keeps the limit: the interval may still cross it."""
        return self.limit is None or self.latency(trial).value <= self.limit.us

    def leader(self, trials: list[Trial]) -> Trial | None:
        """The best that seems to keep the limit."""
        within = [trial for trial in trials if self.seems_to_hold(trial)]
        return max(within, key=self.worth, default=None)

    def is_out(self, trial: Trial, leader: Trial | None) -> bool:
        """True where it need not be measured again: surely worse than the leader, or surely beyond the limit."""
        few = self.count(trial) < MINIMUM_ROUNDS
        if self.limit is not None:
            latency = self.latency(trial)
            if latency.low > self.limit.us or (few and latency.value > HOPELESS * self.limit.us):
                return True
        if leader is None or trial == leader:
            return False
        if few and self.worth(leader) > HOPELESS * self.worth(trial):
            return True
        ratio = self.ratio(leader, trial)
        return ratio is not None and not few and ratio.low > 1.0

    def is_settled(self, trial: Trial, leader: Trial) -> bool:
        """True where more rounds would not change what is decided between the two, and whether they hold the limit."""
        if self.count(trial) >= MAXIMUM_ROUNDS:
            return True
        if self.count(trial) < MINIMUM_ROUNDS:
            return False
        if not self.holds(trial) and self.seems_to_hold(trial):
            return False
        if trial == leader:
            return True
        ratio = self.ratio(leader, trial)
        return ratio is not None and (ratio.low > 1.0 or ratio.high < NEAR)

    def choice(self, default: Trial | None) -> Trial | None:
        """The one to take; None where none surely keeps the limit.

        Args:
            default: the configuration as it is, at its best load.
        """
        sure = [trial for trial in self.trials if self.count(trial) >= 2 and self.holds(trial)]
        if not sure:
            return None
        leader = max(sure, key=self.worth)
        if default is not None and default in sure:
            gains = {trial: self.ratio(trial, default) for trial in sure if trial != default}
            surely = {trial: gain.low for trial, gain in gains.items() if gain is not None and gain.low > 1.0}
            if not surely:
                return default
            leader = max(surely, key=lambda trial: surely[trial])  # not the luckiest: the one that gains most for sure
        rivals = [leader]
        for trial in sure:
            ratio = self.ratio(leader, trial) if trial not in (leader, default) else None
            if ratio is not None and ratio.low <= 1.0 and ratio.high < NEAR:
                rivals.append(trial)
        if default is None:
            return leader
        base = default.settings
        return min(rivals, key=lambda trial: (trial.settings.distance(base), -self.worth(trial)))

    def nearest(self) -> Trial | None:
        """Where none keeps the limit: the one with the lowest latency, of those that have an interval."""
        repeated = [trial for trial in self.trials if self.count(trial) >= 2]
        return min(repeated or self.trials, key=lambda trial: self.latency(trial).value, default=None)
