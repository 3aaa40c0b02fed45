"""Under a limit: what is tried where what leads does not surely keep it.

A percentile near the limit may stay unsure for as many rounds as there are: its interval is as wide as the machine is
noisy. A lower load of the same configuration costs little where the server is busy anyway; where the load is not what
the latency comes from, another configuration that is predicted to have more room is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from perf.tune.evidence import MINIMUM_ROUNDS, Rounds
from perf.tune.judge import Evidence
from perf.tune.outlook import MARGIN, MOST_TRIALS, Outlook
from perf.tune.predict import Trial
from perf.tune.request import TuneRequest

SAFER_ROUNDS = 8
"""What is far enough below the limit is given so many rounds to show it before a lower load is tried."""

LOWER = 0.9
"""A lower load at which the latency is not even this part of what it was does not help: it is not the load."""

ROOM = (1.2, 2.0)
"""How far below the limit something is predicted that is tried where nothing surely keeps it: as far as the interval of
what leads reaches, within these."""

NEARLY = 0.95
"""What surely keeps the limit and is this good makes a better one that may break it not worth more trials."""

BEYOND = 1
"""So many that would lead if they kept the limit are tried at a lower load, in each round."""

MORE_TRIALS = 4
"""With more room, beside all that a search tries."""

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class LowerLoads(Generic[T]):
    """What does not surely keep its limits, at a lower load.

    Attributes:
        below: a trial at every load lower than its own, the lowest first.
        is_expected: whether a trial is predicted to keep the limits.
    """

    evidence: Rounds[T, Any]
    below: Callable[[T], Sequence[T]]
    is_expected: Callable[[T], bool]

    def instead(self, leader: T, default: T, alive: Sequence[T]) -> list[T]:
        """What to measure beside what is in the search: of the leader, of the default, and of what is better than both.

        Args:
            alive: what is not out, the best first.
        """
        evidence = self.evidence
        beyond = [t for t in alive if not evidence.seems_to_hold(t) and evidence.worth(t) > evidence.worth(leader)]
        lower = [self._lower(trial) for trial in (leader, default, *beyond[:BEYOND])]
        return [trial for trial in lower if trial is not None and trial not in evidence.failed]

    def _lower(self, trial: T) -> T | None:
        """A trial that does not surely keep the limit after some rounds at a lower load, if there is one that helps."""
        evidence = self.evidence
        while evidence.count(trial) >= MINIMUM_ROUNDS and not evidence.holds(trial):
            lower = [each for each in self.below(trial) if each not in evidence.failed]
            if not lower:
                return None
            before, trial = trial, next((each for each in reversed(lower) if self.is_expected(each)), lower[-1])
            if self.may_yet(trial):
                return trial
            if evidence.count(trial) >= MINIMUM_ROUNDS and evidence.share(trial) > LOWER * evidence.share(before):
                return None
        return trial if evidence.count(trial) < MINIMUM_ROUNDS else None

    def may_yet(self, trial: T) -> bool:
        """True where a few more rounds will probably show that a trial keeps the limit."""
        evidence = self.evidence
        if not MINIMUM_ROUNDS <= evidence.count(trial) < SAFER_ROUNDS:
            return False
        return not evidence.holds(trial) and evidence.share(trial) * MARGIN <= 1


@dataclass
class Caution:
    """What is known and predicted, looked at from the limit."""

    request: TuneRequest
    evidence: Evidence
    outlook: Outlook
    _roomy: Sequence[Trial] = field(default=())

    def __post_init__(self) -> None:
        self._lower = LowerLoads(self.evidence, self._below, self.outlook.holds)

    def _below(self, trial: Trial) -> Sequence[Trial]:
        loads = [each for each in self.request.loads if (each.concurrency or 0) < trial.under_way]
        return [replace(trial, arrivals=load) for load in loads]

    def instead(self, leader: Trial, default: Trial, alive: Sequence[Trial]) -> list[Trial]:
        """What to measure beside what is in the search; nothing where the leader surely keeps the limit.

        Args:
            alive: what is not out, the best first.
        """
        if self.evidence.limit is None:
            return []
        return [*self._lower.instead(leader, default, alive), *self._with_room(leader, default)]

    def _with_room(self, leader: Trial, default: Trial) -> Sequence[Trial]:
        """Where the leader does not surely keep the limit: what is predicted to keep it with more room."""
        evidence = self.evidence
        if evidence.holds(leader) or evidence.count(leader) < MINIMUM_ROUNDS:
            return ()
        known = [trial for trial in evidence.trials if evidence.count(trial) > 1 and evidence.holds(trial)]
        sure = max(known, key=evidence.worth, default=None)
        if sure is not None and evidence.worth(sure) > NEARLY * evidence.worth(leader):
            return ()
        unsure = [trial for trial in self._roomy if trial not in evidence.failed]
        unsure = [trial for trial in unsure if evidence.count(trial) < MINIMUM_ROUNDS or self._lower.may_yet(trial)]
        if unsure:
            return unsure
        latency = evidence.latency(leader)
        room = min(max(latency.high / latency.value, ROOM[0]), ROOM[1])
        self._roomy = self.outlook.promising(sure, default, 1, margin=room, most=MOST_TRIALS + MORE_TRIALS)
        return self._roomy
