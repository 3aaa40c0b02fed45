"""Trials measured in rounds, each in turn, until the time is up: what a search of one model and a joint one share."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from perf.interleaved import in_turn
from perf.tune.evidence import MINIMUM_ROUNDS
from serving.errors import ServerUnavailableError, TritonRepoError
from serving.progress import Reporter

ROUNDS_TO_EXPLAIN = 8
"""At most, for what each change did."""

CLOSING = 0.35
"""Of the time, at its end: nothing new is tried then, unless nothing keeps the limit yet."""

T = TypeVar("T", bound=Hashable)
Asked = TypeVar("Asked", contravariant=True)


class Known(Protocol[T]):
    """What is known of trials."""

    @property
    def failed(self) -> dict[T, Mapping[str, object]]:
        """Why a trial could not be measured."""

    def count(self, trial: T) -> int:
        """In how many rounds it was."""

    def is_settled(self, trial: T, leader: T) -> bool:
        """True where more rounds would not change what is decided between the two."""


class Searcher(Protocol[Asked]):
    """What a search does with a trial, and says of itself."""

    def skips(self, trial: Asked) -> bool:
        """True where a trial is not to be measured after all."""

    def ask(self, trial: Asked, number: int) -> None:
        """Measure a trial in a round, and remember what came of it."""

    def learn(self, trial: Asked) -> None:
        """Correct predictions by what was measured."""

    def spell(self, trial: Asked) -> str:
        """A trial in words."""

    def standing(self) -> str:
        """Who leads, in words."""

    def board(self, trial: Asked) -> Sequence[str]:
        """What is known so far, as lines below the step, while this trial is measured."""


@dataclass
class Turns(Generic[T]):
    """The clock of a search.

    Attributes:
        ends_at_s: by ``time.monotonic``.
        rounds: number of the last one.
        longest_s: how long the last measurement took; none is begun that would end too late.
        minutes: that the search may take altogether.
    """

    searcher: Searcher[T]
    known: Known[T]
    ends_at_s: float
    reporter: Reporter
    what: str
    rounds: int = 0
    out_of_time: bool = False
    longest_s: float = field(default=2.0)
    minutes: float = 0.0
    _once_failed: set[T] = field(default_factory=set)
    _explained: dict[T, int] = field(default_factory=dict)

    @property
    def left_s(self) -> float:
        """Seconds until the end, never negative."""
        return max(0.0, self.ends_at_s - time.monotonic())

    @property
    def is_closing(self) -> bool:
        """True towards the end: what is known of a few is worth more now than a look at another one."""
        return self.left_s < CLOSING * self.minutes * 60

    def one(self, trial: T, number: int, *, must: bool = False) -> None:
        """Measure one trial; what cannot be measured is remembered, and said, and not asked again.

        What was measured before is given one more chance: it may have been bad luck.

        Args:
            must: without it there is no search: then its error is raised.

        Raises:
            ServerUnavailableError: the server is gone.
            TritonRepoError: only with ``must``.
        """
        started_s = time.monotonic()
        try:
            self.searcher.ask(trial, number)
        except ServerUnavailableError:
            raise
        except TritonRepoError as error:
            if must:
                raise
            if not self.known.count(trial) or trial in self._once_failed:
                self.known.failed[trial] = error.as_dict()
            self._once_failed.add(trial)
            self.reporter.warn(f"{self.searcher.spell(trial)}: {error.what}" + (f": {error.got}" if error.got else ""))
            return
        self.longest_s = max(1.0, time.monotonic() - started_s)

    def round(self, wanted: Sequence[T]) -> None:
        """Measure each once, in another order than in the round before."""
        self.rounds += 1
        names = {str(index): trial for index, trial in enumerate(wanted)}
        with self.reporter.step(f"round {self.rounds}: {len(wanted)} {self.what}") as step:
            for name in in_turn(list(names), self.rounds):
                if self.searcher.skips(names[name]):
                    continue
                if time.monotonic() + self.longest_s > self.ends_at_s:
                    self.out_of_time = True
                    step.done("out of time", self.searcher.standing())
                    return
                step.update("\n".join([f"{self.left_s / 60:.1f} minutes left", *self.searcher.board(names[name])]))
                self.one(names[name], self.rounds)
            for trial in wanted:
                if self.known.count(trial):
                    self.searcher.learn(trial)
            step.done("measured", self.searcher.standing())

    def unexplained(self, default: T, chosen: T | None, backs_of: Callable[[T], Sequence[T]]) -> Sequence[T]:
        """What to measure in the next round to see what each change did: the choice with one put back, for each.

        What turns out to have done nothing is left as it was in the end, so there may be another choice then, to be
        explained in its turn. Nothing where all is said, or no time is left for a round.

        Args:
            chosen: what would be chosen by now; None for nothing, or the default.
        """
        if chosen is None or self._explained.get(chosen, 0) >= ROUNDS_TO_EXPLAIN:
            return []
        backs = [trial for trial in backs_of(chosen) if trial not in self.known.failed]
        wanted = [trial for trial in dict.fromkeys([default, chosen, *backs]) if trial not in self.known.failed]
        if all(self.known.is_settled(back, chosen) for back in backs):
            return []
        if time.monotonic() + len(wanted) * self.longest_s > self.ends_at_s:
            return []
        self._explained[chosen] = self._explained.get(chosen, 0) + 1
        return wanted

    def finish(self, default: T) -> None:
        """Whatever the time: a figure without an interval is none. One that cannot be had is left as it is."""
        while self.known.count(default) < MINIMUM_ROUNDS and default not in self.known.failed:
            self.rounds += 1
            self.one(default, self.rounds)
