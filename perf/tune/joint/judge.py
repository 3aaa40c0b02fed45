"""From rounds to what is known of plans: as :mod:`perf.tune.judge`, where every model's limit has to hold.

Plans of one round are pairs. One is better where the 95% interval of the ratio of medians says so, keeps its limits
where the whole interval of every model's percentile does, and what cannot be told apart is decided for the plan that
changes least.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from perf.intervals import Interval, median_with_interval, ratio_of_medians
from perf.tune.joint.plan import KEEPING_UP, JointTrial, Scene
from perf.tune.judge import HOPELESS, MAXIMUM_ROUNDS, MINIMUM_ROUNDS, NEAR, Measured


@dataclass(frozen=True)
class Seen:
    """One plan in one round.

    Attributes:
        models: by model or ensemble.
        compute_us: by member, mean time of the execution that a request was part of.
    """

    models: Mapping[str, Measured]
    compute_us: Mapping[str, float] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, tuple[float, float]]:
        """As :data:`perf.tune.joint.plan.Figures`."""
        return {name: (each.inferences_per_s, each.latency_us) for name, each in self.models.items()}


@dataclass
class JointEvidence:
    """All that was measured.

    Attributes:
        rounds: by trial, by number of the round.
        failed: why a trial could not be measured.
    """

    scene: Scene
    rounds: dict[JointTrial, dict[int, Seen]] = field(default_factory=dict)
    failed: dict[JointTrial, Mapping[str, object]] = field(default_factory=dict)
    _intervals: dict[tuple[object, ...], Interval] = field(default_factory=dict)

    def add(self, trial: JointTrial, number: int, seen: Seen) -> None:
        """Another measurement."""
        self.rounds.setdefault(trial, {})[number] = seen

    def count(self, trial: JointTrial) -> int:
        """In how many rounds it was."""
        return len(self.rounds.get(trial, {}))

    @property
    def trials(self) -> list[JointTrial]:
        """Those that gave figures."""
        return [trial for trial in self.rounds if trial not in self.failed]

    def latency(self, trial: JointTrial, model: str) -> Interval:
        """A model's percentile."""
        return self._interval(trial, model, "latency_us")

    def rate(self, trial: JointTrial, model: str) -> Interval:
        """A model's inferences per second."""
        return self._interval(trial, model, "inferences_per_s")

    def _interval(self, trial: JointTrial, model: str, what: str) -> Interval:
        key = (trial, model, what, self.count(trial))  # drawn anew only where there is another round
        if key not in self._intervals:
            values = [getattr(seen.models[model], what) for seen in self.rounds[trial].values()]
            self._intervals[key] = median_with_interval(values)
        return self._intervals[key]

    def figures(self, trial: JointTrial) -> dict[str, tuple[float, float]]:
        """Medians over the rounds."""
        rounds = [seen.figures for seen in self.rounds[trial].values()]
        names = [wanted.model for wanted in self.scene.request.wanted]

        def median(name: str, place: int) -> float:
            return statistics.median(figures[name][place] for figures in rounds)

        return {name: (median(name, 0), median(name, 1)) for name in names}

    def shares(self, trial: JointTrial) -> dict[str, float]:
        """By model, what it uses of what it is allowed; see :meth:`Scene.share`."""
        return self.scene.shares(trial, self.figures(trial))

    def within(self, trial: JointTrial, model: str) -> str:
        """``yes`` where the whole interval keeps the model's limit, ``no`` where the median does not, ``unsure``."""
        place = [wanted.model for wanted in self.scene.request.wanted].index(model)
        wanted, load = self.scene.request.wanted[place], trial.loads[place]
        rate, latency = self.rate(trial, model), self.latency(trial, model)
        if self.scene.share(wanted, load, rate.value, latency.value) > 1:
            return "no"
        behind = load.rate_per_s is not None and rate.value < KEEPING_UP * load.rate_per_s
        return "unsure" if behind or (wanted.limit is not None and latency.high > wanted.limit.us) else "yes"

    def holds(self, trial: JointTrial) -> bool:
        """True where every model surely keeps its limit."""
        return all(self.within(trial, wanted.model) == "yes" for wanted in self.scene.request.wanted)

    def seems_to_hold(self, trial: JointTrial) -> bool:
        """True where every model's median keeps its limit."""
        return max(self.shares(trial).values()) <= 1

    def worth(self, trial: JointTrial) -> float:
        """Median over its rounds."""
        return statistics.median(self._worths(trial).values())

    def _worths(self, trial: JointTrial) -> dict[int, float]:
        return {number: self.scene.worth(trial, seen.figures) for number, seen in self.rounds[trial].items()}

    def ratio(self, first: JointTrial, second: JointTrial) -> Interval | None:
        """How many times as good the first is, from the rounds that both were in; None without one."""
        if not (self.count(first) and self.count(second)):
            return None
        one, other = self._worths(first), self._worths(second)
        both = sorted(set(one) & set(other))
        if not both:
            return None
        key = (first, second, self.count(first), self.count(second))
        if key not in self._intervals:
            self._intervals[key] = ratio_of_medians([one[n] for n in both], [other[n] for n in both])
        return self._intervals[key]

    def leader(self, trials: list[JointTrial]) -> JointTrial | None:
        """The best that seems to keep the limits."""
        return max((trial for trial in trials if self.seems_to_hold(trial)), key=self.worth, default=None)

    def is_out(self, trial: JointTrial, leader: JointTrial | None) -> bool:
        """True where it need not be measured again: surely worse than the leader, or surely beyond a limit."""
        few = self.count(trial) < MINIMUM_ROUNDS
        if max(self.shares(trial).values()) > (HOPELESS if few else 1) and (few or self._surely_beyond(trial)):
            return True
        if leader is None or trial == leader:
            return False
        if few:
            return self.worth(leader) > HOPELESS * self.worth(trial)
        ratio = self.ratio(leader, trial)
        return ratio is not None and ratio.low > 1.0

    def _surely_beyond(self, trial: JointTrial) -> bool:
        for wanted, load in zip(self.scene.request.wanted, trial.loads, strict=True):
            rate, latency = self.rate(trial, wanted.model), self.latency(trial, wanted.model)
            if self.scene.share(wanted, load, rate.high, latency.low) > 1:
                return True
        return False

    def is_settled(self, trial: JointTrial, leader: JointTrial) -> bool:
        """True where more rounds would not change what is decided between the two, and whether they keep the limits."""
        if self.count(trial) >= MAXIMUM_ROUNDS:
            return True
        if self.count(trial) < MINIMUM_ROUNDS or (self.seems_to_hold(trial) and not self.holds(trial)):
            return False
        ratio = self.ratio(leader, trial)
        return trial == leader or (ratio is not None and (ratio.low > 1.0 or ratio.high < NEAR))

    def choice(self, default: JointTrial) -> JointTrial | None:
        """The one to take; None where none surely keeps the limits."""
        sure = [trial for trial in self.trials if self.count(trial) >= 2 and self.holds(trial)]
        if not sure:
            return None
        leader = max(sure, key=self.worth)
        if default in sure:
            gains = {trial: self.ratio(trial, default) for trial in sure if trial != default}
            surely = {trial: gain.low for trial, gain in gains.items() if gain is not None and gain.low > 1.0}
            if not surely:
                return default
            leader = max(surely, key=lambda trial: surely[trial])
        rivals = [leader]
        for trial in sure:
            ratio = self.ratio(leader, trial) if trial not in (leader, default) else None
            if ratio is not None and ratio.low <= 1.0 and ratio.high < NEAR:
                rivals.append(trial)
        scene = self.scene
        return min(rivals, key=lambda t: (t.plan.distance(default.plan), scene.memory_bytes(t.plan), -self.worth(t)))

    def nearest(self) -> JointTrial | None:
        """Where none keeps the limits: the one that breaks them least, of those that have an interval."""
        repeated = [trial for trial in self.trials if self.count(trial) >= 2]
        return min(repeated or self.trials, key=lambda trial: max(self.shares(trial).values()), default=None)
