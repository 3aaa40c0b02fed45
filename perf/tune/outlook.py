"""What is worth measuring, by prediction: every configuration at every load, ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perf.tune.judge import Evidence
from perf.tune.predict import Predictor, Trial, sensible, without_delay
from perf.tune.request import TuneRequest
from perf.tune.space import Space
from serving.errors import ModelLoadError

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

MARGIN = 1.2
"""How far below the limit a latency is to be predicted, if it is to be found there with its whole interval."""


@dataclass
class Outlook:
    """Predictions beside what is known."""

    request: TuneRequest
    space: Space
    predictor: Predictor
    evidence: Evidence
    _trials: Sequence[Trial] = ()

    def promising(
        self, leader: Trial | None, default: Trial, width: int, *, margin: float = MARGIN, most: int = MOST_TRIALS
    ) -> list[Trial]:
        """The best of what was not measured, each unlike the others, as many as ``width``.

        Args:
            leader: what it is to be better than; None for anything.
            margin: how far below the limit it is to be predicted.
            most: so many trials altogether.
        """
        evidence = self.evidence
        if len(evidence.rounds) + len(evidence.failed) >= most:
            return []
        factor = PROMISING if len(evidence.rounds) > FEWEST_TRIALS else DOUBTFUL
        bar = factor * evidence.worth(leader) if leader is not None and evidence.count(leader) else 0.0
        # A queue delay is a fine point: it is looked at where the rest is good already.
        known = (0, self.space.default.max_queue_delay_microseconds)
        ranked = self._ranked([t for t in self.all() if t.settings.max_queue_delay_microseconds in known], margin)
        good = {without_delay(trial) for _, trial in ranked[:REFINED]}
        fine = [t for t in self.all() if t.settings.max_queue_delay_microseconds not in known]
        ranked += self._ranked([t for t in fine if without_delay(t) in good], margin)
        ranked = [(worth, trial) for worth, trial in ranked if worth > bar and trial.settings != default.settings]
        ranked = [(worth, trial) for worth, trial in ranked if not (evidence.count(trial) or self.fails(trial))]
        ranked.sort(key=lambda pair: (-pair[0], pair[1].settings.distance(default.settings)))
        chosen: list[Trial] = []
        for _, trial in ranked:
            if all(trial.distance(other) >= UNLIKE for other in [*chosen, *evidence.rounds]):
                chosen.append(trial)
            if len(chosen) == width:
                break
        return chosen

    def _ranked(self, trials: Sequence[Trial], margin: float) -> list[tuple[float, Trial]]:
        """Those that are predicted to keep the limit, with what they are worth, the best first."""
        found = [(*self.worth_and_holds(trial, margin), trial) for trial in trials]
        return sorted(((worth, trial) for worth, holds, trial in found if holds), key=lambda pair: -pair[0])

    def fails(self, trial: Trial) -> bool:
        """True where a trial failed, the same settings did with as much under way or less, or any may with so much.

        What fails with many requests under way is mostly the client, whatever the configuration: then half as many are
        tried, or as many as went well with another.
        """
        failed = self.evidence.failed
        if any(trial.settings == other.settings and other.under_way <= trial.under_way for other in failed):
            return True
        if len(self.request.loads) == 1:
            return False
        went_well = max((each.under_way for each in self.evidence.trials), default=0)
        measuring = [each.under_way for each, why in failed.items() if why.get("error") != ModelLoadError.__name__]
        too_many = [each for each in measuring if each > went_well]
        return bool(too_many) and trial.under_way > max(went_well, min(too_many) // 2)

    def all(self) -> Sequence[Trial]:
        """Every configuration at every load at which it makes sense."""
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

    def worth_and_holds(self, trial: Trial, margin: float = MARGIN) -> tuple[float, bool]:
        """What a trial is predicted to be worth, and whether it is predicted to keep the limit, with a margin."""
        expected = self.predictor.expected(trial)
        holds = self.request.limit is None or expected.latency_us * margin <= self.request.limit.us
        return self.evidence.worth_of(trial, expected.inferences_per_s, expected.latency_us), holds

    def holds(self, trial: Trial) -> bool:
        """The second of :meth:`worth_and_holds`."""
        return self.worth_and_holds(trial)[1]

    def best(self, trials: Sequence[Trial]) -> Trial:
        """The best that is predicted to keep the limit; the one with the lowest latency where none is."""
        worths = {trial: self.worth_and_holds(trial) for trial in trials}
        within = [trial for trial, (_, holds) in worths.items() if holds]
        if within:
            return max(within, key=lambda trial: worths[trial][0])
        return min(trials, key=lambda trial: self.predictor.expected(trial).latency_us)
