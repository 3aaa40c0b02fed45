"""A plan on the stage -> figures: one perf_analyzer for each model, all at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from perf.binary import Binary
from perf.result import Point
from perf.target import Subject
from perf.tune.joint.judge import Seen
from perf.tune.joint.plan import JointTrial, Scene
from perf.tune.joint.stage import JointStage
from perf.tune.measuring import Meter
from serving.progress import SILENT

FEWEST_REQUESTS = 40
"""Of the slowest model, in one round: that long the others are measured too."""


@dataclass
class JointMeter:
    """Measures plans.

    Attributes:
        folder: for raw files.
        seconds: how long one plan is measured in one round, at least.
    """

    scene: Scene
    stage: JointStage
    binary: Binary
    folder: Path
    seconds: float
    _meters: dict[str, Meter] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        rates = [load.rate_per_s for load in self.scene.request.loads[0] if load.rate_per_s is not None]
        longest = max((FEWEST_REQUESTS / rate for rate in rates), default=0.0)
        self.seconds = max(self.seconds, longest)  # all end together
        for wanted in self.scene.request.wanted:
            some = next(iter(self.stage.stages.values()))
            self._meters[wanted.model] = Meter(some, self.binary, self.folder, self.seconds, wanted.percentile)

    def measure(self, trial: JointTrial, number: int, latency_us: Mapping[str, float]) -> Seen:
        """One trial in one round.

        Args:
            latency_us: about what an answer takes, by model.

        Raises:
            ModelLoadError: the server refuses a configuration.
            TuneError: perf_analyzer gave no figures.
            ServerUnavailableError: the server is gone.
        """
        self._count += 1
        members = self.stage.members(trial.plan)
        subjects: Mapping[str, Subject] = members
        if self.scene.way is not None:
            subjects = {self.scene.request.wanted[0].model: self.stage.whole(trial.plan, members)}
        wanted = self.scene.request.wanted
        with ThreadPoolExecutor(max_workers=len(wanted)) as pool:
            runs = [
                pool.submit(self._point, each.model, subjects[each.model], trial, place, number, latency_us[each.model])
                for place, each in enumerate(wanted)
            ]
            points = [run.result() for run in runs]
        models = {each.model: self._meters[each.model].read(point) for each, point in zip(wanted, points, strict=True)}
        return Seen(models, self._computed(points, members))

    def _point(
        self, model: str, subject: Subject, trial: JointTrial, place: int, number: int, latency_us: float
    ) -> Point:
        try:
            return self._meters[model].point(
                subject, trial.loads[place], number, latency_us, f"run-{self._count}", reporter=SILENT
            )
        finally:
            self.stage.client.leave_thread()

    def _computed(self, points: list[Point], members: Mapping[str, Subject]) -> dict[str, float]:
        names = {subject.name: member for member, subject in members.items()}
        sides = [side for point in points for side in (point.server, *point.steps) if side is not None]
        found = {names[side.model]: side.compute_us for side in sides if side.model in names}
        return {name: us for name, us in found.items() if us}
