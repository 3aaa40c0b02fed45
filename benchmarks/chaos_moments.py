"""When a build is to be killed: the three ways in which `make chaos` draws a moment."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from benchmarks.chaos_models import Models
from benchmarks.chaos_traces import TRACES, Traces, finished
from tests.builder.processes import Running

Moment = Callable[[], bool]
"""Whether it has come; asked again and again, it waits a little itself where there is time."""


class Moments:
    """Draws moments.

    Args:
        models: what is built.
        traces: what the builds leave on the disk.
        chance: where the numbers come from.

    Attributes:
        seconds: how long a build of each spec takes, as it was last seen.
    """

    def __init__(self, models: Models, traces: Traces, chance: random.Random) -> None:
        self.seconds: dict[str, float] = {}
        self._models = models
        self._traces = traces
        self._random = chance

    def of_kind(self, number: int) -> Callable[[Running, str], Moment]:
        """The three kinds in turn."""
        return (self._publishing, self._some_time, self._at_work)[number % 3]

    def _some_time(self, running: Running, spec: str) -> Moment:
        """A moment anywhere in a build."""
        return _at(time.monotonic() + self._random.uniform(0, self.seconds[spec]))

    def _at_work(self, running: Running, spec: str) -> Moment:
        """A moment after the imports, which take half of a build as short as this."""
        share = self._random.uniform(0, 0.6)
        begun: list[Moment] = []

        def has_come() -> bool:
            if not begun and any(map(finished, running.lines)):
                begun.append(_at(time.monotonic() + share * self.seconds[spec]))
            elif not begun:
                time.sleep(0.005)
            return bool(begun) and begun[0]()

        return has_come

    def _publishing(self, running: Running, spec: str) -> Moment:
        """The moment at which a trace of publishing a model is seen, or up to some milliseconds later."""
        name, trace = self._random.choice(self._models.names(spec)), self._random.choice(TRACES)
        delay = self._random.choice([0.0, self._random.uniform(0, 0.003)])
        coming: list[Moment] = []

        def has_come() -> bool:
            if not coming:
                time.sleep(0.005)
                if running.said(f"{name}: parity  "):
                    coming.append(self._traces.coming(name, trace))
                return False
            if not coming[0]():
                return False
            time.sleep(delay)
            return True

        return has_come


def _at(moment: float) -> Moment:
    """Whether it has come; waits a little where it has not."""

    def has_come() -> bool:
        left = moment - time.monotonic()
        if left > 0:
            time.sleep(min(left, 0.005))
        return left <= 0

    return has_come
