"""What is known of plans: as :mod:`perf.tune.judge`, where every model's limit has to hold."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from perf.intervals import Interval, median_with_interval
from perf.tune.evidence import HOPELESS, MINIMUM_ROUNDS, Rounds
from perf.tune.joint.plan import KEEPING_UP, JointTrial, Scene
from perf.tune.judge import Measured


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
class JointEvidence(Rounds[JointTrial, Seen]):
    """All that was measured."""

    scene: Scene

    def latency(self, trial: JointTrial, model: str) -> Interval:
        """A model's percentile."""
        return self._interval(trial, model, "latency_us")

    def rate(self, trial: JointTrial, model: str) -> Interval:
        """A model's inferences per second."""
        return self._interval(trial, model, "inferences_per_s")

    def _interval(self, trial: JointTrial, model: str, what: str) -> Interval:
        values = [getattr(seen.models[model], what) for seen in self.rounds[trial].values()]
        return self.once(lambda: median_with_interval(values), trial, model, what, len(values))

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

    def share(self, trial: JointTrial) -> float:
        """That of the model that is nearest to its limit, or furthest beyond."""
        return max(self.shares(trial).values())

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

    def worth_in(self, trial: JointTrial, seen: Seen) -> float:
        """What the goal counts, in one round; more is better."""
        return self.scene.worth(trial, seen.figures)

    def is_out(self, trial: JointTrial, leader: JointTrial | None) -> bool:
        """True where it need not be measured again: surely worse than the leader, or surely beyond a limit."""
        few = self.count(trial) < MINIMUM_ROUNDS
        if self.share(trial) > (HOPELESS if few else 1) and (few or self._surely_beyond(trial)):
            return True
        return self.is_worse(trial, leader)

    def _surely_beyond(self, trial: JointTrial) -> bool:
        for wanted, load in zip(self.scene.request.wanted, trial.loads, strict=True):
            rate, latency = self.rate(trial, wanted.model), self.latency(trial, wanted.model)
            if self.scene.share(wanted, load, rate.high, latency.low) > 1:
                return True
        return False

    def change(self, trial: JointTrial, default: JointTrial) -> tuple[float, float]:
        """How much of the plan differs, and the memory that it takes."""
        return trial.plan.distance(default.plan), self.scene.memory_bytes(trial.plan)
