"""From rounds to what is known of trials: who leads, who is settled, who is chosen.

Trials are measured in rounds; those of one round are pairs. A trial is better where the interval of the ratio says so,
keeps what it must where the whole interval does, and what cannot be told apart is decided for what changes least. What
a trial is, what it is worth, and what it must keep, a search says in a class of its own.
"""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from perf.intervals import Interval, ratio_of_pairs, ratio_without_pairs

MINIMUM_ROUNDS = 3
MAXIMUM_ROUNDS = 20
SURE = 0.98
"""Of the interval of a ratio: a leader has many rivals, and of equal ones each looks better now and then."""

NEAR = 1.05
"""Two whose ratio surely lies below this are as good as each other: further rounds are not worth their time."""

HOPELESS = 1.3
"""One that was this much worse in the few rounds it had is not asked again."""

T = TypeVar("T", bound=Hashable)
M = TypeVar("M")


@dataclass
class Rounds(ABC, Generic[T, M]):
    """All that was measured.

    Attributes:
        rounds: by trial, by number of the round.
        failed: why a trial could not be measured.
    """

    rounds: dict[T, dict[int, M]] = field(default_factory=dict, kw_only=True)
    failed: dict[T, Mapping[str, object]] = field(default_factory=dict, kw_only=True)
    _known: dict[tuple[object, ...], Interval] = field(default_factory=dict, repr=False, kw_only=True)

    @abstractmethod
    def worth_in(self, trial: T, seen: M) -> float:
        """What the goal counts, in one round; more is better."""

    @abstractmethod
    def holds(self, trial: T) -> bool:
        """True where the whole interval keeps the limit."""

    @abstractmethod
    def share(self, trial: T) -> float:
        """What the median uses of the limit: above 1 beyond it, 0 where there is none."""

    @abstractmethod
    def change(self, trial: T, default: T) -> Any:
        """How much a trial changes and takes, for the least of several that are as good as each other."""

    def seems_to_hold(self, trial: T) -> bool:
        """True where the median keeps the limit: the interval may still cross it."""
        return self.share(trial) <= 1

    def nearest(self) -> T | None:
        """Where none keeps the limit: the one that breaks it least, of those that have an interval."""
        return min(self.repeated(), key=self.share, default=None)

    def add(self, trial: T, number: int, measured: M) -> None:
        """Another measurement."""
        self.rounds.setdefault(trial, {})[number] = measured

    def count(self, trial: T) -> int:
        """In how many rounds it was."""
        return len(self.rounds.get(trial, {}))

    @property
    def trials(self) -> list[T]:
        """Those that gave figures."""
        return [trial for trial in self.rounds if trial not in self.failed]

    def worth(self, trial: T) -> float:
        """Median over its rounds."""
        return statistics.median(self._worths(trial).values())

    def _worths(self, trial: T) -> dict[int, float]:
        return {number: self.worth_in(trial, seen) for number, seen in self.rounds.get(trial, {}).items()}

    def ratio(self, first: T, second: T) -> Interval | None:
        """How many times as good the first is, from the rounds that both were in; None where nothing can be said.

        Where these are too few, all rounds of both count, without being pairs.
        """
        one, other = self._worths(first), self._worths(second)
        both = sorted(set(one) & set(other))
        if len(both) < MINIMUM_ROUNDS <= min(len(one), len(other)):
            values, of = (list(one.values()), list(other.values())), ratio_without_pairs
        elif both:
            values, of = ([one[number] for number in both], [other[number] for number in both]), ratio_of_pairs
        else:
            return None
        return self.once(lambda: of(*values, SURE), first, second, len(one), len(other))

    def once(self, interval: Callable[[], Interval], *of: object) -> Interval:
        """An interval that is drawn once: it is asked for again and again between two measurements."""
        if of not in self._known:
            self._known[of] = interval()
        return self._known[of]

    def leader(self, trials: Sequence[T]) -> T | None:
        """The best that seems to keep the limit."""
        return max((trial for trial in trials if self.seems_to_hold(trial)), key=self.worth, default=None)

    def is_worse(self, trial: T, leader: T | None) -> bool:
        """True where it is surely worse than the leader, or after few rounds much worse."""
        if leader is None or trial == leader:
            return False
        if self.count(trial) < MINIMUM_ROUNDS:
            return self.worth(leader) > HOPELESS * self.worth(trial)
        ratio = self.ratio(leader, trial)
        return ratio is not None and ratio.low > 1.0

    def is_settled(self, trial: T, leader: T) -> bool:
        """True where more rounds would not change what is decided between the two, and whether they hold the limit."""
        if self.count(trial) >= MAXIMUM_ROUNDS:
            return True
        if self.count(trial) < MINIMUM_ROUNDS or (self.seems_to_hold(trial) and not self.holds(trial)):
            return False
        ratio = self.ratio(leader, trial)
        return trial == leader or (ratio is not None and (ratio.low > 1.0 or ratio.high < NEAR))

    def is_open(self, trial: T, leader: T) -> bool:
        """True where more rounds may change what is known; not where it breaks the limit after some."""
        few = self.count(trial) < MINIMUM_ROUNDS
        return few or (self.seems_to_hold(trial) and not self.is_settled(trial, leader))

    def choice(self, default: T) -> T | None:
        """The one to take; None where none surely keeps the limit.

        Args:
            default: the configuration as it is, at its best load.
        """
        sure = [trial for trial in self.trials if self.count(trial) >= 2 and self.holds(trial)]
        if not sure:
            return None
        leader = max(sure, key=self.worth)
        if default in sure:
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
        return min(rivals, key=lambda trial: (self.change(trial, default), -self.worth(trial)))

    def repeated(self) -> Sequence[T]:
        """Those that have an interval; all, where none has."""
        return [trial for trial in self.trials if self.count(trial) >= 2] or self.trials
