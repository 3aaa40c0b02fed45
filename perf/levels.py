"""The loads of a workload: so many requests under way at once, so many begun each second, or at times of one's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perf.analyzer import Load
from perf.schedule import drawn, from_intervals, read_intervals
from perf.workload import ALONE_S, Workload


@dataclass(frozen=True)
class Level:
    """One load. Exactly one of ``concurrency``, ``rate_per_s`` and ``intervals_us`` is given.

    Attributes:
        seconds: how long requests are begun, where the load says when they are.
    """

    concurrency: int | None = None
    rate_per_s: float | None = None
    distribution: Literal["constant", "poisson"] = "constant"
    intervals_us: NDArray[np.int64] | None = None
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Of the folder for its files: ``concurrency-4``, ``rate-50``, ``intervals``."""
        if self.concurrency is not None:
            return f"concurrency-{self.concurrency}"
        return f"rate-{self.rate_per_s:g}" if self.rate_per_s is not None else "intervals"

    def load(self, load: Load, number: int = 0) -> Load:
        """A load from a warm-up at this level.

        Args:
            number: of the round: each has its own draw of a Poisson load.
        """
        if self.concurrency is not None:
            return replace(load, concurrency=self.concurrency)
        if self.rate_per_s is not None:
            schedule = drawn(self.rate_per_s, self.distribution, self.seconds, number=number)
        else:
            assert self.intervals_us is not None
            schedule = from_intervals(self.intervals_us, self.seconds)
        return replace(load, concurrency=None, schedule=schedule)


def levels_of(workload: Workload) -> tuple[Level, ...]:
    """All loads of a workload, in order.

    Raises:
        WorkloadError: the file with the intervals is of no use.
    """
    seconds = workload.seconds or ALONE_S
    levels = [Level(concurrency=number) for number in workload.concurrency]
    levels += [Level(rate_per_s=rate, distribution=workload.distribution, seconds=seconds) for rate in workload.rate]
    if workload.intervals is not None:
        levels.append(Level(intervals_us=read_intervals(workload.intervals), seconds=seconds))
    return tuple(levels)
