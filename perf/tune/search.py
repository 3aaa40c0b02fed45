"""The search: time the executions, predict everything, measure where it matters, stop when it is decided.

1. The batch-time curve of each variant and number of threads, once.
2. The default is measured, and the simulation brought to its level.
3. Every configuration at every load is predicted. In each round the default, the leader, whoever may still win, and the
   most promising ones that were not measured yet are measured in turn; each measurement corrects the predictions. Where
   the leader does not surely keep the limit, so is what may (:mod:`perf.tune.caution`).
4. When the leader is told apart from all others (or is as good as they are) and nothing more is promising, each knob is
   put back alone, to see what it did. It ends then, or when the time is up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from perf.tune.board import board
from perf.tune.caution import Caution
from perf.tune.evidence import MINIMUM_ROUNDS
from perf.tune.journal import Journal
from perf.tune.judge import Evidence, Measured
from perf.tune.outlook import FEWEST_TRIALS, PROMISING, UNLIKE, Outlook
from perf.tune.predict import Predictor, Trial
from perf.tune.request import TuneRequest
from perf.tune.space import Space
from perf.tune.turns import Turns
from serving.progress import SILENT, Reporter

WIDTH, NARROW = 4, 2
"""Trials in one round beside the default; the second where the time is short, so that there are rounds at all."""

SHORT_MINUTES = 1.5

LOADS_OF_DEFAULT = 4
"""At so many loads the configuration as it is is measured, if the best of them is not clear before."""

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

    def __post_init__(self) -> None:
        self.outlook = Outlook(self.request, self.space, self.predictor, self.evidence)
        self.caution = Caution(self.request, self.evidence, self.outlook)
        self.turns: Turns[Trial] = Turns(
            self, self.evidence, self.ends_at_s, self.reporter, "configurations", minutes=self.request.minutes
        )

    @property
    def out_of_time(self) -> bool:
        """True where the time was up before all was decided."""
        return self.turns.out_of_time

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
            self._begin()
        while not self.out_of_time and (wanted := self._wanted() or self._unexplained()):
            self.turns.round(wanted)
        self.turns.finish(self.baseline())

    def _begin(self) -> None:
        """Measure the configuration as it is; at a lower load where one cannot be measured."""
        trials = [Trial(self.space.default, arrivals) for arrivals in self.request.loads]
        while not self.evidence.trials:
            first = self.outlook.best(trials)
            trials = trials[: (trials.index(first) + 1) // 2]
            self.turns.one(first, 0, must=not trials)
        self._fit(first)

    def _unexplained(self) -> Sequence[Trial]:
        """What to measure, once all is decided, to see what each knob did."""
        default = self.baseline()
        chosen = self.evidence.choice(default)
        turned = chosen is not None and chosen.settings != default.settings
        return self.turns.unexplained(default, chosen if turned else None, lambda trial: self._put_back(trial, default))

    def _put_back(self, chosen: Trial, default: Trial) -> list[Trial]:
        """The same with one knob as it was, for each that was turned."""
        backs = [replace(chosen, settings=each) for each in chosen.settings.put_back(default.settings).values()]
        return [trial for trial in backs if self.predictor.knows(trial) and trial.settings != default.settings]

    def baseline(self) -> Trial:
        """The configuration as it is, at the best of the loads that it was measured at."""
        measured = [trial for trial in self.evidence.trials if trial.settings == self.space.default]
        measured = measured or [trial for trial in self.evidence.rounds if trial.settings == self.space.default]
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
        failed = [trial for trial in trials if trial in self.evidence.failed]
        measured = [trial for trial in trials if self.evidence.count(trial) and trial not in failed]
        if len(trials) == 1 or not measured:
            return self.baseline()
        held = [trial for trial in measured if self.evidence.seems_to_hold(trial)]
        beyond = [trial for trial in trials if trial in failed or (trial in measured and trial not in held)]
        best = max(held, key=self.evidence.worth, default=None)
        if len(measured) < LOADS_OF_DEFAULT or best is None:
            low = max((trials.index(trial) for trial in held), default=-1)
            high = min((trials.index(trial) for trial in beyond), default=len(trials))
            between = [trial for trial in trials[low + 1 : high] if trial not in measured and not self.skips(trial)]
            if best is not None and high == len(trials):  # nothing is too much so far: only what promises more
                bar = PROMISING * self.evidence.worth(best)
                between = [
                    trial
                    for trial in between
                    if self.outlook.worth_and_holds(trial)[0] > bar and self.outlook.holds(trial)
                ]
            if between:
                return between[len(between) // 2]
        return best or measured[0]

    def _resume(self) -> None:
        """Take over what the journal holds."""
        for trial, number, measured in self.journal.measured:
            if trial.arrivals not in self.request.loads:  # of a search under another load
                continue
            self.evidence.add(trial, number, measured)
            self.turns.rounds = max(self.turns.rounds, number)
        for number, trial in enumerate(self.evidence.trials):
            if number == 0:
                self._fit(trial)
            self.learn(trial)

    def skips(self, trial: Trial) -> bool:
        """True where a trial would fail, by what has failed since it was chosen."""
        return not self.evidence.count(trial) and self.outlook.fails(trial)

    def ask(self, trial: Trial, number: int) -> None:
        """Measure a trial in a round; into the evidence and the journal."""
        about_us = self.predictor.simulated(trial).latency_us.mean()
        measured = self.measure(trial, number, float(about_us))
        self.evidence.add(trial, number, measured)
        self.journal.measurement(trial, number, measured)

    def _fit(self, trial: Trial) -> None:
        first = next(iter(self.evidence.rounds[trial].values()))
        self.predictor.fit(trial, first.inferences_per_s, first.compute_us)
        self.learn(trial)

    def learn(self, trial: Trial) -> None:
        """Correct the predictions by the medians so far."""
        evidence = self.evidence
        self.predictor.learn(trial, evidence.rate(trial).value, evidence.latency(trial).value)

    def _wanted(self) -> list[Trial]:
        """What to measure in the next round; nothing where it is decided."""
        evidence = self.evidence
        default = self.default_trial()
        others = [trial for trial in evidence.trials if trial != default]
        known = [default] if evidence.count(default) and default not in evidence.failed else []
        leader = evidence.leader([*others, *known])
        alive = [trial for trial in others if not evidence.is_out(trial, leader)]
        alive.sort(key=evidence.worth, reverse=True)
        newcomers = (
            [] if self.turns.is_closing and leader is not None else self.outlook.promising(leader, default, self.width)
        )
        if leader is None:
            return self._wanted_beyond(default, newcomers)
        asked = [trial for trial in alive if trial == leader or evidence.is_open(trial, leader)]
        instead = self.caution.instead(leader, default, alive)
        undecided = any(not evidence.is_settled(trial, leader) for trial in [*asked, *known])
        if not newcomers and not undecided and not instead and evidence.count(default):
            return []
        room = max(1, self.width - len(newcomers)) if len(evidence.trials) > 1 else 0
        hopeless = evidence.count(default) >= MINIMUM_ROUNDS and evidence.breaks(default)
        first = [] if hopeless else [default]
        found = [*first, *asked[:room], *instead, *newcomers[: self.width - min(room, len(asked))]]
        return list(dict.fromkeys(trial for trial in found if trial not in evidence.failed))

    def _wanted_beyond(self, default: Trial, newcomers: list[Trial]) -> list[Trial]:
        """The same while nothing seems to keep the limit: what may, and what comes nearest."""
        evidence = self.evidence
        nearest = min(evidence.trials, key=lambda trial: evidence.latency(trial).value, default=None)
        wanted = [t for t in (default, nearest) if t is not None and evidence.count(t) < MINIMUM_ROUNDS]
        if not newcomers and len(evidence.rounds) + len(evidence.failed) < FEWEST_TRIALS:
            fresh = [t for t in self.outlook.all() if not (evidence.count(t) or self.outlook.fails(t))]
            fresh = [t for t in fresh if all(t.distance(other) >= UNLIKE for other in evidence.rounds)]
            newcomers = sorted(fresh, key=lambda t: self.predictor.expected(t).latency_us)[:1]
        return list(dict.fromkeys(trial for trial in [*wanted, *newcomers] if trial not in evidence.failed))

    def spell(self, trial: Trial) -> str:
        """A trial's configuration in words."""
        return trial.settings.spell()

    def board(self, trial: Trial) -> list[str]:
        """All that is known so far, as a table."""
        known = any(each.settings == self.space.default for each in self.evidence.trials)
        return board(self.evidence, self.baseline() if known else None, trial)

    def standing(self) -> str:
        """Who leads, in words."""
        leader = self.evidence.leader(self.evidence.trials)
        if leader is None:
            return "nothing keeps the limit yet"
        rate, latency = self.evidence.rate(leader), self.evidence.latency(leader)
        spelled = f"{rate.value:.0f} inferences/s, p{self.request.percentile:g} {latency.value / 1e3:.2f} ms"
        return f"leader: {leader.settings.spell()}: {spelled}"
