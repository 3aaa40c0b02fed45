"""Which plans are promising: all settings of all models together are too many, so one model at a time is turned.

From the best plan known so far each model's settings are gone through with the others' as they are, until nothing is
better; first the knobs that matter most (variant, instances, threads, a queue delay or none), then preferred sizes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from perf.tune.joint.plan import JointTrial, Plan, Scene
from perf.tune.joint.predict import JointPredictor
from perf.tune.space import MEMORY_SHARE, Settings, Space

SWEEPS = 3


@dataclass
class Explorer:
    """Looks for plans by simulation.

    Attributes:
        spaces: by member.
        free_bytes: memory that is free, None where it is not known.
    """

    scene: Scene
    spaces: Mapping[str, Space]
    predictor: JointPredictor
    free_bytes: int | None = None
    _options: dict[tuple[str, bool], list[Settings]] = field(default_factory=dict)

    @property
    def default(self) -> Plan:
        """All members as they are."""
        return Plan(tuple((name, self.spaces[name].default) for name in self.scene.members))

    def standing(self, trial: JointTrial) -> tuple[bool, float]:
        """Whether it is expected to keep the limits, and what it is worth then; else less the more it breaks them."""
        figures = self.predictor.expected(trial)
        over = max(self.scene.shares(trial, figures).values())
        return (True, self.scene.worth(trial, figures)) if over <= 1 else (False, -over)

    def at_its_best(self, plan: Plan) -> JointTrial:
        """A plan at the load that suits it."""
        trials = [JointTrial(plan, loads) for loads in self.scene.request.loads]
        return max(trials, key=self.standing) if len(trials) > 1 else trials[0]

    def explore(self, seconds: float) -> None:
        """Simulate plans for so long; what is found is in the predictor."""
        ends_at_s = time.monotonic() + seconds
        starts = [self.default, replace(self.default, limited=True)] if self.scene.request.rate_limiter else []
        for start in starts or [self.default]:
            best = self.at_its_best(start)
            for fine in (False, True):
                best = self._climb(best, ends_at_s, fine=fine)
        measured = self.predictor.measured
        if measured:  # what was measured may have turned the order around
            self._climb(max(measured, key=self.standing), ends_at_s, fine=False)

    def _climb(self, best: JointTrial, ends_at_s: float, *, fine: bool) -> JointTrial:
        for _ in range(SWEEPS):
            before = best
            for member in self.scene.members:
                for settings in self._of(member, fine):
                    if time.monotonic() > ends_at_s:
                        return best
                    plan = best.plan.having(member, settings)
                    if not self._fits(plan):
                        continue
                    trial = self.at_its_best(plan)
                    if self.standing(trial) > self.standing(best):
                        best = trial
            if best == before:
                break
        return best

    def _fits(self, plan: Plan) -> bool:
        if self.free_bytes is None or plan == self.default:
            return True
        return self.scene.memory_bytes(plan) <= max(
            MEMORY_SHARE * self.free_bytes, self.scene.memory_bytes(self.default)
        )

    def _of(self, member: str, fine: bool) -> list[Settings]:
        if (member, fine) not in self._options:
            self._options[member, fine] = list(self._listed(member, fine))
        return self._options[member, fine]

    def _listed(self, member: str, fine: bool) -> Iterator[Settings]:
        space = self.spaces[member]
        usual = (space.default.preferred, space.default.max_queue_delay_microseconds)
        for settings in space.settings():
            # A larger max_batch_size lets clients send more at once: not what this search is about.
            if settings.max_batch_size != space.default.max_batch_size:
                continue
            if not self.predictor.knows(member, settings):
                continue
            coarse = (settings.preferred, settings.max_queue_delay_microseconds) in (usual, ((), 0))
            if coarse != fine:
                yield settings
