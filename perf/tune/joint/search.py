"""The joint search: the plan as it is first, then in rounds whatever may be better, until it is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from perf.tune.caution import LowerLoads
from perf.tune.evidence import MINIMUM_ROUNDS
from perf.tune.joint.explore import Explorer
from perf.tune.joint.judge import JointEvidence, Seen
from perf.tune.joint.plan import JointTrial
from perf.tune.outlook import DOUBTFUL, FEWEST_TRIALS, MOST_TRIALS, PROMISING, UNLIKE
from perf.tune.turns import Turns
from serving.progress import SILENT, Reporter

WIDTH, ROUNDS = 4, 4
"""Plans in one round beside the default, at most: so that in the time that is left there are so many rounds."""

EXPLORED_SHARE, EXPLORED_S = 0.15, 20.0
"""Of the time, and at most, for simulating before anything but the default is measured; a tenth after each round."""

LONG_S = 3.0
"""What a measurement is thought to take, before there was one."""

Measure = Callable[[JointTrial, int, Mapping[str, float]], Seen]
"""``(trial, round, about what an answer takes in us by model)`` -> figures."""


@dataclass
class JointSearch:
    """A search that is under way.

    Attributes:
        measure: see :data:`Measure`.
        keep: called with each measurement.
        ends_at_s: by ``time.monotonic``.
    """

    explorer: Explorer
    evidence: JointEvidence
    measure: Measure
    keep: Callable[[JointTrial, int, Seen], None]
    ends_at_s: float
    reporter: Reporter = SILENT

    def __post_init__(self) -> None:
        self.turns: Turns[JointTrial] = Turns(
            self,
            self.evidence,
            self.ends_at_s,
            self.reporter,
            "plans",
            longest_s=LONG_S,
            minutes=self.explorer.scene.request.minutes,
        )
        self.lower = LowerLoads(self.evidence, self._below, lambda trial: self.explorer.standing(trial)[0])

    @property
    def out_of_time(self) -> bool:
        """True where the time was up before all was decided."""
        return self.turns.out_of_time

    def run(self, known: Sequence[tuple[JointTrial, int, Seen]] = ()) -> None:
        """Search until it is decided, or the time is up.

        Args:
            known: what was measured before.

        Raises:
            ServerUnavailableError: the server is gone.
            TritonRepoError: the plan as it is cannot be measured.
        """
        for trial, number, seen in known:
            self.evidence.add(trial, number, seen)
            self.turns.rounds = max(self.turns.rounds, number)
        if not self.evidence.trials:
            self.turns.one(self.default_trial(), 0, must=True)
        self.explorer.predictor.fit(self.evidence.trials[0], self.evidence)
        for trial in self.evidence.trials:
            self.learn(trial)
        seconds = min(EXPLORED_S, EXPLORED_SHARE * self.explorer.scene.request.minutes * 60)
        with self.reporter.step("predict plans") as step:
            self.explorer.explore(seconds)
            step.done("predicted", f"{len(self.explorer.predictor.predicted)} plans")
        while not self.out_of_time and (wanted := self._wanted() or self._unexplained()):
            self.turns.round(wanted)
            self.explorer.explore(seconds / 10)
        self.turns.finish(self.baseline())

    def _unexplained(self) -> Sequence[JointTrial]:
        """What to measure, once all is decided, to see what each member's change did."""
        default = self.baseline()
        chosen = self.evidence.choice(default)
        return self.turns.unexplained(
            default,
            None if chosen == default else chosen,
            lambda trial: [back for _, back in self.put_back(trial) if back.plan != default.plan],
        )

    @property
    def width(self) -> int:
        """Plans in one round beside the default."""
        fitting = self.turns.left_s / (ROUNDS * self.turns.longest_s)
        return int(min(WIDTH, max(1.0, fitting - 1)))

    def default_trial(self) -> JointTrial:
        """The plan as it is, at the load at which it is to be measured next."""
        best = self.explorer.at_its_best(self.explorer.default)
        measured = [t for t in self.evidence.trials if t.plan == self.explorer.default]
        held = [trial for trial in measured if self.evidence.seems_to_hold(trial)]
        if best in measured or not measured or (not held and len(measured) < MINIMUM_ROUNDS):
            return best
        if held and len(measured) < MINIMUM_ROUNDS:
            holds, worth = self.explorer.standing(best)
            if holds and worth > PROMISING * max(map(self.evidence.worth, held)):
                return best
        return self.baseline()

    def baseline(self) -> JointTrial:
        """The plan as it is, at the best of the loads that it was measured at."""
        measured = [trial for trial in self.evidence.trials if trial.plan == self.explorer.default]
        measured = measured or [trial for trial in self.evidence.rounds if trial.plan == self.explorer.default]
        held = [trial for trial in measured if self.evidence.seems_to_hold(trial)]
        if held:
            return max(held, key=self.evidence.worth)
        return min(measured, key=self.evidence.share)

    def skips(self, trial: JointTrial) -> bool:
        """True where it has failed meanwhile."""
        return trial in self.evidence.failed

    def ask(self, trial: JointTrial, number: int) -> None:
        """Measure a plan in a round; into the evidence, and kept."""
        about = {name: us for name, (_, us) in self.explorer.predictor.simulated(trial).figures.items()}
        seen = self.measure(trial, number, about)
        self.evidence.add(trial, number, seen)
        self.keep(trial, number, seen)

    def learn(self, trial: JointTrial) -> None:
        """Correct the predictions by what was measured."""
        self.explorer.predictor.learn(trial, self.evidence)

    def _wanted(self) -> list[JointTrial]:
        """What to measure in the next round; nothing where it is decided."""
        evidence, default = self.evidence, self.default_trial()
        others = [trial for trial in evidence.trials if trial != default]
        known = [default] if evidence.count(default) and default not in evidence.failed else []
        leader = evidence.leader([*others, *known])
        alive = [trial for trial in others if not evidence.is_out(trial, leader)]
        newcomers = self._promising(leader)
        if leader is None:
            return self._wanted_beyond(default, newcomers)
        alive.sort(key=evidence.worth, reverse=True)
        asked = [t for t in alive if t == leader or evidence.is_open(t, leader)]
        instead = self.lower.instead(leader, default, alive)
        settled = all(evidence.is_settled(t, leader) for t in [*asked, *known])
        if not newcomers and settled and not instead and evidence.count(default):
            return []
        room = max(1, self.width - len(newcomers)) if len(evidence.trials) > 1 else 0
        found = [default, *asked[:room], *instead, *newcomers[: self.width - min(room, len(asked))]]
        return list(dict.fromkeys(trial for trial in found if trial not in evidence.failed))

    def _wanted_beyond(self, default: JointTrial, newcomers: list[JointTrial]) -> list[JointTrial]:
        """The same while nothing seems to keep the limits: what may, and what comes nearest."""
        evidence = self.evidence
        nearest = min(evidence.trials, key=evidence.share, default=None)
        wanted = [t for t in (default, nearest) if t is not None and evidence.count(t) < MINIMUM_ROUNDS]
        if not newcomers and len(evidence.rounds) + len(evidence.failed) < FEWEST_TRIALS:
            newcomers = self._unlike(self._fresh(lambda standing: True))[:1]
        return list(dict.fromkeys([*wanted, *newcomers]))

    def _below(self, trial: JointTrial) -> Sequence[JointTrial]:
        """The same plan at lower loads: only an ensemble's are found, rates are as they are."""
        under_way = sum(load.concurrency or 0 for load in trial.loads)
        lower = [
            loads
            for loads in self.explorer.scene.request.loads
            if 0 < sum(load.concurrency or 0 for load in loads) < under_way
        ]
        return [replace(trial, loads=loads) for loads in lower]

    def _promising(self, leader: JointTrial | None) -> list[JointTrial]:
        """The best of what was not measured, by prediction, each unlike the others."""
        evidence = self.evidence
        tried = len(evidence.rounds) + len(evidence.failed)
        if tried >= MOST_TRIALS or (self.turns.is_closing and leader is not None):
            return []
        factor = PROMISING if tried > FEWEST_TRIALS else DOUBTFUL
        bar = factor * evidence.worth(leader) if leader is not None else 0.0
        return self._unlike(self._fresh(lambda standing: standing[0] and standing[1] > bar))

    def _fresh(self, good: Callable[[tuple[bool, float]], bool]) -> list[JointTrial]:
        """What was predicted and not measured, the best first; of equals what changes least."""
        explorer, evidence = self.explorer, self.evidence
        found = []
        for trial in explorer.predictor.predicted:
            if trial.plan == explorer.default or evidence.count(trial) or trial in evidence.failed:
                continue
            standing = explorer.standing(trial)
            if good(standing):
                found.append((standing, trial))
        found.sort(key=lambda pair: (not pair[0][0], -pair[0][1], pair[1].plan.distance(explorer.default)))
        return [trial for _, trial in found]

    def _unlike(self, trials: Sequence[JointTrial]) -> list[JointTrial]:
        chosen: list[JointTrial] = []
        for trial in trials:
            if all(trial.distance(other) >= UNLIKE for other in [*chosen, *self.evidence.rounds]):
                chosen.append(trial)
            if len(chosen) == self.width:
                break
        return chosen

    def put_back(self, chosen: JointTrial) -> list[tuple[str, JointTrial]]:
        """The same with one member as it was, for each that was changed; without the rate limiter too."""
        default = self.explorer.default
        found = [
            (name, replace(chosen, plan=chosen.plan.having(name, default.of(name))))
            for name in chosen.plan.changed(default)
        ]
        if chosen.plan.limited:
            found.append(("rate limiter", replace(chosen, plan=replace(chosen.plan, limited=False))))
        return found

    def spell(self, trial: JointTrial) -> str:
        """A plan and its load in words."""
        return f"{trial.plan.spell(self.explorer.default)} at {self.explorer.scene.load(trial)}"

    def board(self, trial: JointTrial) -> list[str]:
        """What is measured, and who leads."""
        return [self.spell(trial), self.standing()]

    def standing(self) -> str:
        """Who leads, in words."""
        leader = self.evidence.leader(self.evidence.trials)
        if leader is None:
            return "nothing keeps the limits yet"
        figures = self.evidence.figures(leader)
        parts = [
            f"{wanted.model} p{wanted.percentile:g} {figures[wanted.model][1] / 1e3:.2f} ms"
            for wanted in self.explorer.scene.request.wanted
        ]
        return f"leader: {leader.plan.spell(self.explorer.default)}: {', '.join(parts)}"
