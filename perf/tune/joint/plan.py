"""A plan: the settings of all models together; and the scene it is for: which requests go which way, what counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from perf.tune.errors import TuneUsageError
from perf.tune.joint.network import Step
from perf.tune.joint.request import JointRequest, Wanted
from perf.tune.simulate import Arrivals
from perf.tune.space import MEMORY_PER_BYTE, MEMORY_PER_INSTANCE, Settings
from perf.tune.variants import Variant
from serving.errors import Problem

KEEPING_UP = 0.9
"""Of the rate that was asked for, what has to be answered in a round of a second or two."""

Figures = Mapping[str, tuple[float, float]]
"""By model or ensemble: inferences per second, and the latency at its percentile in us."""


@dataclass(frozen=True)
class Plan:
    """The settings of each member, by its name.

    Attributes:
        limited: with Triton's rate limiter, an execution taking one of as many resources as there are cores for each
            of its threads.
    """

    parts: tuple[tuple[str, Settings], ...]
    limited: bool = False

    def of(self, member: str) -> Settings:
        """One member's settings."""
        return dict(self.parts)[member]

    def having(self, member: str, settings: Settings) -> Plan:
        """The same with one member's settings."""
        return replace(self, parts=tuple((name, settings if name == member else old) for name, old in self.parts))

    def distance(self, other: Plan) -> float:
        """How unlike two plans are: as :meth:`Settings.distance`, all members together."""
        pairs = zip(self.parts, other.parts, strict=True)
        return sum(one.distance(two) for (_, one), (_, two) in pairs) + (self.limited != other.limited)

    def changed(self, default: Plan) -> list[str]:
        """The members that are not as they were."""
        return [name for name, settings in self.parts if settings != default.of(name)]

    def spell(self, default: Plan | None = None) -> str:
        """For people; with a default only what differs from it."""
        shown = [(name, each) for name, each in self.parts if default is None or each != default.of(name)]
        parts = [f"{name}: {each.spell()}" for name, each in shown]
        if self.limited:
            parts.append("rate limiter")
        return "; ".join(parts) or "as it is"


@dataclass(frozen=True)
class JointTrial:
    """A plan under a load: that of each model, in the order of the scene."""

    plan: Plan
    loads: tuple[Arrivals, ...]

    def distance(self, other: JointTrial) -> float:
        """As :meth:`Plan.distance`; loads twice as high are half of one apart."""
        far = self.plan.distance(other.plan)
        for one, two in zip(self.loads, other.loads, strict=True):
            sizes = (math.log2(each.concurrency or each.rate_per_s or 1.0) for each in (one, two))
            far += 0.5 * abs(next(sizes) - next(sizes))
        return far


@dataclass(frozen=True)
class Scene:
    """What is served, and what counts.

    Attributes:
        members: the models that have settings: those that are asked for, or the steps of the ensemble.
        way: of the requests of an ensemble, by members' names; None for models side by side.
        threads: by member, what an execution of it keeps busy where its settings do not say.
        variants: by member, by name.
        cores: of the machine.
    """

    request: JointRequest
    members: tuple[str, ...]
    cores: int
    way: tuple[tuple[str, tuple[int, ...]], ...] | None = None
    threads: Mapping[str, int] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Variant]] = field(default_factory=dict)

    def steps(self, place: int) -> tuple[Step, ...]:
        """The way of the requests of one model or ensemble; stations are members, in their order."""
        if self.way is None:
            return (Step(place),)
        return tuple(Step(self.members.index(name), after) for name, after in self.way)

    def threads_of(self, member: str, settings: Settings) -> int:
        """What one execution keeps busy."""
        return min(self.cores, settings.threads or self.threads.get(member, self.cores))

    def cores_of(self, plan: Plan) -> int:
        """What all instances of a plan together could keep busy; may be more than there are."""
        return sum(each.instances * self.threads_of(name, each) for name, each in plan.parts)

    def memory_bytes(self, plan: Plan) -> float:
        """What all instances of a plan take, about."""
        total = 0.0
        for name, each in plan.parts:
            found = self.variants.get(name, {}).get(each.variant)
            size = found.size_bytes if found is not None else 0
            total += each.instances * (size * MEMORY_PER_BYTE + MEMORY_PER_INSTANCE)
        return total

    def share(self, wanted: Wanted, arrivals: Arrivals, rate: float, latency_us: float) -> float:
        """What one model uses of what it is allowed: above 1 its limit is broken, or it falls behind its rate."""
        if arrivals.rate_per_s is not None and rate < KEEPING_UP * arrivals.rate_per_s:
            return max(1.01, arrivals.rate_per_s / max(rate, 1e-9))
        return latency_us / wanted.limit.us if wanted.limit is not None else 0.0

    def shares(self, trial: JointTrial, figures: Figures) -> dict[str, float]:
        """By model, see :meth:`share`."""
        pairs = zip(self.request.wanted, trial.loads, strict=True)
        return {wanted.model: self.share(wanted, load, *figures[wanted.model]) for wanted, load in pairs}

    def worth(self, trial: JointTrial, figures: Figures) -> float:
        """What the goal counts; more is better."""
        if self.request.goal == "latency":
            limited = [each for each in self.request.wanted if each.limit is not None]
            if limited and not self.request.is_ensemble:  # the one that has the least headroom
                return 1 / max(1e-9, *(figures[w.model][1] / w.limit.us for w in limited if w.limit is not None))
            logs = [math.log(max(figures[each.model][1], 1e-3)) for each in self.request.wanted]
            return 1e6 / math.exp(sum(logs) / len(logs))
        rate = sum(
            load.rate_per_s if load.rate_per_s is not None else figures[wanted.model][0]
            for wanted, load in zip(self.request.wanted, trial.loads, strict=True)
        )
        return rate / self.cores_of(trial.plan) if self.request.goal == "cost" else rate

    def load(self, trial: JointTrial) -> str:
        """In words."""
        first = trial.loads[0]
        return f"concurrency {first.concurrency}" if first.concurrency is not None else self.request.load


def way_of(config: Mapping[str, Any]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The steps of an ensemble's configuration: their models, and which steps each waits for.

    Raises:
        TuneUsageError: it has none.
    """
    steps: Sequence[Mapping[str, Any]] = (config.get("ensemble_scheduling") or {}).get("step", ())
    if not steps:
        expected, fix = "ensemble_scheduling with at least one step", "build it again with build-repo"
        name = str(config.get("name", ""))
        raise TuneUsageError([Problem("the ensemble has no steps", f"{name}/config.pbtxt", expected, "none", fix)])
    made = {tensor: place for place, step in enumerate(steps) for tensor in step.get("output_map", {}).values()}
    return tuple(
        (
            str(step["model_name"]),
            tuple(sorted({made[tensor] for tensor in step.get("input_map", {}).values() if tensor in made})),
        )
        for step in steps
    )
