"""The search: time the executions, predict everything, measure where it matters, stop when it is decided.

1. The batch-time curve of each variant and number of threads, once.
2. The default is measured, and the simulation brought to its level.
3. Every configuration at every load is predicted. In each round the default, the leader, whoever may still win, and the
   most promising ones that were not measured yet are measured in turn; each measurement corrects the predictions.
4. It ends when the leader is told apart from all others (or is as good as they are), nothing more is promising, or the
   time is up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from perf.interleaved import in_turn
from perf.tune.board import board
from perf.tune.journal import Journal
from perf.tune.judge import MINIMUM_ROUNDS, Evidence, Measured
from perf.tune.predict import Predictor, Trial, sensible, without_delay
from perf.tune.request import TuneRequest
from perf.tune.space import KNOBS, Space
from serving.errors import ServerUnavailableError, TritonRepoError
from serving.progress import SILENT, Reporter

WIDTH, NARROW = 4, 2
"""Trials in one round beside the default; the second where the time is short, so that there are rounds at all."""

SHORT_MINUTES = 1.5

PROMISING = 1.02
"""How much better than the leader something is to be, as it is predicted, before it is measured."""

FEWEST_TRIALS, DOUBTFUL = 5, 0.8
"""Until so many trials were measured, also what is predicted to be only this good is: predictions may be wrong."""

MOST_TRIALS = 14
"""Beyond this many different trials nothing new is tried: predictions that were wrong so often will not be right."""

REFINED = 30
"""So many of the best trials are predicted with all queue delays too."""

UNLIKE = 0.45
"""How unlike two newcomers of one round are to be: two of a kind tell little more than one."""

LOADS_OF_DEFAULT = 4
"""At so many loads the configuration as it is is measured, if the best of them is not clear before."""

CLOSING = 0.35
"""Of the time, at its end: nothing new is tried then, unless nothing keeps the limit yet."""

ROUNDS_TO_EXPLAIN = 8
"""At most, for what each knob did."""

MARGIN = 1.2
"""How far below the limit a latency is to be predicted, if it is to be found there with its whole interval."""

Measure = Callable[[Trial, int, float], Measured]
"""``(trial, round, about what an answer takes in us)`` -> figures; raises what a :class:`Meter` does."""


@dataclass
class Search:
    """A search that is under way.

    Attributes:
        measure: see :data:`Measure`.
        ends_at_s: by ``time.monotonic``.
    """

    request: TuneRequest
    space: Space
    predictor: Predictor
    evidence: Evidence
    measure: Measure
    journal: Journal
    ends_at_s: float
    reporter: Reporter = SILENT
    rounds: int = 0
    out_of_time: bool = False
    _longest_s: float = field(default=2.0)
    _trials: Sequence[Trial] = ()

    @property
    def width(self) -> int:
        """Trials in one round beside the default."""
        return NARROW if self.request.minutes < SHORT_MINUTES else WIDTH

    def run(self) -> None:
        """Search until it is decided, or the time is up.

        Raises:
            ServerUnavailableError: the server is gone; what was measured is in the journal.
            TritonRepoError: the configuration as it is cannot be measured.
        """
        self._resume()
        if not self.evidence.trials:
            first = self.default_trial()
            self._one(first, 0, must=True)
            self._fit(first)
        while not self.out_of_time and (wanted := self._wanted()):
            self._round(wanted)
        self._explain()
        default = self.baseline()
        while self.evidence.count(default) < MINIMUM_ROUNDS:  # whatever the time: a figure without an interval is none
            self.rounds += 1
            self._one(default, self.rounds, must=True)

    def _explain(self) -> None:
        """With time left: what each knob did, by putting it back alone. One that did nothing is then left as it was."""
        default, explained = self.baseline(), None
        for _ in KNOBS:  # with one knob less there are others to put back
            chosen = self.evidence.choice(default)
            if self.out_of_time or chosen is None or chosen == explained or chosen.settings == default.settings:
                return
            explained = chosen
            backs = [replace(chosen, settings=each) for each in chosen.settings.put_back(default.settings).values()]
            backs = [trial for trial in backs if self.predictor.knows(trial) and trial.settings != default.settings]
            wanted = list(dict.fromkeys([default, chosen, *backs]))
            for _ in range(ROUNDS_TO_EXPLAIN):
                wanted = [trial for trial in wanted if trial not in self.evidence.failed]
                backs = [back for back in backs if back in wanted]
                if all(self.evidence.is_settled(back, chosen) for back in backs):
                    break
                if time.monotonic() + len(wanted) * self._longest_s > self.ends_at_s:
                    return
                self._round(wanted)

    def _round(self, wanted: Sequence[Trial]) -> None:
        self.rounds += 1
        with self.reporter.step(f"round {self.rounds}: {len(wanted)} configurations") as step:
            for trial in _turned(wanted, self.rounds):
                if time.monotonic() + self._longest_s > self.ends_at_s:
                    self.out_of_time = True
                    step.done("out of time", self._standing())
                    return
                step.update("\n".join([self._left(), *board(self.evidence, self._baseline_or_none(), trial)]))
                self._one(trial, self.rounds)
            for trial in wanted:
                if self.evidence.count(trial):
                    self._learn(trial)
            step.done("measured", self._standing())

    def baseline(self) -> Trial:
        """The configuration as it is, at the best of the loads that it was measured at."""
        measured = [trial for trial in self.evidence.trials if trial.settings == self.space.default]
        held = [trial for trial in measured if self.evidence.seems_to_hold(trial)]
        if held:
            return max(held, key=self.evidence.worth)
        return min(measured, key=lambda trial: self.evidence.latency(trial).value)

    def default_trial(self) -> Trial:
        """The configuration as it is, at the load at which it is to be measured next.

        Loads are halved between the highest that seems to keep the limit and the lowest that does not: predictions are
        too rough for that before anything was measured. A default at a load that does not suit it would make anything
        look good; but one that moves on is in few rounds with the others, so there are not many.
        """
        trials = [Trial(self.space.default, arrivals) for arrivals in self.request.loads]
        measured = [trial for trial in trials if self.evidence.count(trial)]
        if len(trials) == 1 or not measured:
            return self._best_predicted(trials)
        held = [trial for trial in measured if self.evidence.seems_to_hold(trial)]
        beyond = [trial for trial in measured if trial not in held]
        best = max(held, key=self.evidence.worth, default=None)
        if len(measured) < LOADS_OF_DEFAULT or best is None:
            low = max((trials.index(trial) for trial in held), default=-1)
            high = min((trials.index(trial) for trial in beyond), default=len(trials))
            between = [trial for trial in trials[low + 1 : high] if trial not in measured]
            if best is not None and high == len(trials):  # nothing is too much so far: only what promises more
                bar = PROMISING * self.evidence.worth(best)
                between = [trial for trial in between if self._predicted_worth(trial)[0] > bar and self._holds(trial)]
            if between:
                return between[len(between) // 2]
        return best or measured[0]

    def _resume(self) -> None:
        """Take over what the journal holds."""
        for trial, number, measured in self.journal.measured:
            if trial.arrivals not in self.request.loads:  # of a search under another load
                continue
            self.evidence.add(trial, number, measured)
            self.rounds = max(self.rounds, number)
        for number, trial in enumerate(self.evidence.trials):
            if number == 0:
                self._fit(trial)
            self._learn(trial)

    def _one(self, trial: Trial, number: int, *, must: bool = False) -> None:
        started_s = time.monotonic()
        about_us = self.predictor.simulated(trial).latency_us.mean()
        try:
            measured = self.measure(trial, number, float(about_us))
        except ServerUnavailableError:
            raise
        except TritonRepoError as error:
            if must:
                raise
            self.evidence.failed[trial] = error.as_dict()
            self.reporter.warn(f"{trial.settings.spell()}: {error.what}" + (f": {error.got}" if error.got else ""))
            return
        self.evidence.add(trial, number, measured)
        self.journal.measurement(trial, number, measured)
        self._longest_s = max(1.0, time.monotonic() - started_s)

    def _fit(self, trial: Trial) -> None:
        first = next(iter(self.evidence.rounds[trial].values()))
        self.predictor.fit(trial, first.inferences_per_s, first.compute_us)
        self._learn(trial)

    def _learn(self, trial: Trial) -> None:
        evidence = self.evidence
        self.predictor.learn(trial, evidence.rate(trial).value, evidence.latency(trial).value)

    def _wanted(self) -> list[Trial]:
        """What to measure in the next round; nothing where it is decided."""
        evidence = self.evidence
        default = self.default_trial()
        alive = [t for t in evidence.trials if t != default]
        leader = evidence.leader([*alive, default] if evidence.count(default) else alive)
        alive = [t for t in alive if not evidence.is_out(t, leader)]
        alive.sort(key=evidence.worth, reverse=True)
        newcomers = [] if self._is_closing and leader is not None else self._promising(leader, default)
        if leader is None:
            return self._wanted_beyond(default, newcomers)
        rivals = [*alive, *([default] if evidence.count(default) else [])]
        undecided = any(not evidence.is_settled(trial, leader) for trial in rivals)
        if not newcomers and not undecided and evidence.count(default):
            return []
        room = max(1, self.width - len(newcomers)) if len(evidence.trials) > 1 else 0
        asked = [t for t in alive if not evidence.is_settled(t, leader) or t == leader]
        safer = [t for t in (self._safer(leader), self._safer(default)) if t is not None]
        first = [] if self._is_hopeless(default) else [default]
        return list(dict.fromkeys([*first, *asked[:room], *safer, *newcomers[: self.width - min(room, len(asked))]]))

    def _is_hopeless(self, trial: Trial) -> bool:
        """True where it surely does not keep the limit: what it would be compared for is decided."""
        evidence = self.evidence
        if evidence.limit is None or evidence.count(trial) < MINIMUM_ROUNDS:
            return False
        return evidence.latency(trial).low > evidence.limit.us

    @property
    def _is_closing(self) -> bool:
        """True towards the end: what is known of a few is worth more now than a look at another one."""
        return time.monotonic() > self.ends_at_s - CLOSING * self.request.minutes * 60

    def _safer(self, trial: Trial) -> Trial | None:
        """Where a trial does not surely keep the limit after some rounds: the same at a lower load, if there is one.

        A lower load costs little where the server is busy anyway, and its whole interval may lie below the limit.
        """
        evidence = self.evidence
        while evidence.count(trial) >= MINIMUM_ROUNDS and not evidence.holds(trial):
            lower = [each for each in self.request.loads if (each.concurrency or 0) < _under_way(trial)]
            if not lower:
                return None
            trial = replace(trial, arrivals=lower[-1])
        return trial if evidence.count(trial) < MINIMUM_ROUNDS else None

    def _wanted_beyond(self, default: Trial, newcomers: list[Trial]) -> list[Trial]:
        """The same while nothing seems to keep the limit: what may, and what comes nearest."""
        evidence = self.evidence
        nearest = min(evidence.trials, key=lambda trial: evidence.latency(trial).value, default=None)
        wanted = [t for t in (default, nearest) if t is not None and evidence.count(t) < MINIMUM_ROUNDS]
        if not newcomers and len(evidence.rounds) + len(evidence.failed) < FEWEST_TRIALS:
            fresh = [t for t in self._all() if not evidence.count(t) and t not in evidence.failed]
            fresh = [t for t in fresh if all(t.distance(other) >= UNLIKE for other in evidence.rounds)]
            newcomers = sorted(fresh, key=lambda t: self.predictor.expected(t).latency_us)[:1]
        return list(dict.fromkeys([*wanted, *newcomers]))

    def _promising(self, leader: Trial | None, default: Trial) -> list[Trial]:
        """The best of what was not measured, by prediction, each unlike the others."""
        evidence = self.evidence
        if len(evidence.rounds) + len(evidence.failed) >= MOST_TRIALS:
            return []
        factor = PROMISING if len(evidence.rounds) > FEWEST_TRIALS else DOUBTFUL
        bar = factor * evidence.worth(leader) if leader is not None and evidence.count(leader) else 0.0
        # A queue delay is a fine point: it is looked at where the rest is good already.
        known = (0, self.space.default.max_queue_delay_microseconds)
        ranked = self._ranked([t for t in self._all() if t.settings.max_queue_delay_microseconds in known])
        good = {without_delay(trial) for _, trial in ranked[:REFINED]}
        fine = [t for t in self._all() if t.settings.max_queue_delay_microseconds not in known]
        ranked += self._ranked([t for t in fine if without_delay(t) in good])
        ranked = [(worth, trial) for worth, trial in ranked if worth > bar and trial.settings != default.settings]
        ranked = [(worth, trial) for worth, trial in ranked if not (evidence.count(trial) or trial in evidence.failed)]
        ranked.sort(key=lambda pair: (-pair[0], pair[1].settings.distance(default.settings)))
        chosen: list[Trial] = []
        for _, trial in ranked:
            if all(trial.distance(other) >= UNLIKE for other in [*chosen, *evidence.rounds]):
                chosen.append(trial)
            if len(chosen) == self.width:
                break
        return chosen

    def _ranked(self, trials: Sequence[Trial]) -> list[tuple[float, Trial]]:
        """Those that are predicted to keep the limit, with what they are worth, the best first."""
        found = [(*self._predicted_worth(trial), trial) for trial in trials]
        return sorted(((worth, trial) for worth, holds, trial in found if holds), key=lambda pair: -pair[0])

    def _all(self) -> Sequence[Trial]:
        if not self._trials:
            loads = self.request.loads
            found = [
                Trial(s, arrivals)
                for s in self.space.settings()
                for arrivals in loads
                if sensible(s, arrivals, self.space.default)
            ]
            self._trials = found
        return self._trials

    def _predicted_worth(self, trial: Trial) -> tuple[float, bool]:
        expected = self.predictor.expected(trial)
        holds = self.request.limit is None or expected.latency_us * MARGIN <= self.request.limit.us
        return self.evidence.worth_of(trial, expected.inferences_per_s, expected.latency_us), holds

    def _holds(self, trial: Trial) -> bool:
        return self._predicted_worth(trial)[1]

    def _best_predicted(self, trials: Sequence[Trial]) -> Trial:
        """The best that is predicted to keep the limit; the one with the lowest latency where none is."""
        worths = {trial: self._predicted_worth(trial) for trial in trials}
        within = [trial for trial, (_, holds) in worths.items() if holds]
        if within:
            return max(within, key=lambda trial: worths[trial][0])
        return min(trials, key=lambda trial: self.predictor.expected(trial).latency_us)

    def _baseline_or_none(self) -> Trial | None:
        return self.baseline() if any(t.settings == self.space.default for t in self.evidence.trials) else None

    def _left(self) -> str:
        left_s = max(0.0, self.ends_at_s - time.monotonic())
        return f"{left_s / 60:.1f} of {self.request.minutes:g} minutes left"

    def _standing(self) -> str:
        leader = self.evidence.leader(self.evidence.trials)
        if leader is None:
            return "nothing keeps the limit yet"
        rate, latency = self.evidence.rate(leader), self.evidence.latency(leader)
        spelled = f"{rate.value:.0f} inferences/s, p{self.request.percentile:g} {latency.value / 1e3:.2f} ms"
        return f"leader: {leader.settings.spell()}: {spelled}"


def _under_way(trial: Trial) -> int:
    return trial.arrivals.concurrency or 0


def _turned(trials: Sequence[Trial], number: int) -> list[Trial]:
    names = {str(index): trial for index, trial in enumerate(trials)}
    return [names[name] for name in in_turn(list(names), number)]
