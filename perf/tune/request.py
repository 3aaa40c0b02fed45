"""What is asked of a search: the goal, the limit, the load, the time."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from perf.tune.errors import TuneUsageError
from perf.tune.simulate import Arrivals
from serving.errors import Problem

Goal = Literal["throughput", "latency", "cost"]
PERCENTILES = (50.0, 90.0, 95.0, 99.0)
BUSY = 16
"""Requests under way where neither a load nor a limit is given; the same as ``serve: fastest`` takes."""

FOUND = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Concurrencies that are tried where the load is to be found: the highest at which the limit holds."""

_LIMIT = re.compile(r"p(50|90|95|99)\s*=\s*([0-9]*\.?[0-9]+)\s*(us|ms|s)", re.IGNORECASE)
_UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6}


@dataclass(frozen=True)
class Limit:
    """``p99=20ms``."""

    percentile: float
    us: float

    def spell(self) -> str:
        """As it is written on the command line."""
        unit = "us" if self.us < 1e3 else "ms" if self.us < 1e6 else "s"
        return f"p{self.percentile:g}={self.us / _UNITS_US[unit]:g}{unit}"


@dataclass(frozen=True)
class TuneRequest:
    """What to search for.

    Attributes:
        model: its name in the repository.
        limit: of the latency; None for none.
        goal: ``throughput``: the most inferences per second; ``latency``: the lowest percentile; ``cost``: the most
            inferences per second and core.
        rate_per_s: requests begun each second, as a Poisson process.
        concurrency: requests under way at once.
        minutes: how long the search may take.
    """

    repository: Path
    model: str
    limit: Limit | None = None
    goal: Goal = "throughput"
    rate_per_s: float | None = None
    concurrency: int | None = None
    minutes: float = 5.0

    def __post_init__(self) -> None:
        problems = []
        if self.goal not in get_args(Goal):
            problems.append(
                Problem("no such goal", "--goal", " or ".join(get_args(Goal)), str(self.goal), "take one of these")
            )
        if self.rate_per_s is not None and self.concurrency is not None:
            got, fix = f"{self.rate_per_s:g} and {self.concurrency}", "leave one of them out"
            what = "a rate and a concurrency are two loads"
            problems.append(Problem(what, "--rate, --concurrency", "one of them", got, fix))
        if self.rate_per_s is not None and not (math.isfinite(self.rate_per_s) and self.rate_per_s > 0):
            got, fix = f"{self.rate_per_s:g}", "such as --rate 200"
            problems.append(Problem("not a rate", "--rate", "requests per second, above 0", got, fix))
        if self.rate_per_s is not None and self.goal == "throughput":
            what = "at a fixed rate every configuration that keeps up answers as many"
            fix = "leave --goal out (latency), or name another load: --concurrency N"
            problems.append(Problem(what, "--rate, --goal", "--goal latency or cost", "--goal throughput", fix))
        if self.concurrency is not None and not 1 <= self.concurrency <= 1024:
            got, fix = str(self.concurrency), f"such as --concurrency {BUSY}"
            problems.append(Problem("not a concurrency", "--concurrency", "1 to 1024", got, fix))
        problems += unusable_time(self.minutes)
        if problems:
            raise TuneUsageError(problems)

    @property
    def percentile(self) -> float:
        """The one that matters: that of the limit, else the 99th."""
        return self.limit.percentile if self.limit is not None else 99.0

    @property
    def loads(self) -> tuple[Arrivals, ...]:
        """The loads under which configurations are tried: one, or those of :data:`FOUND`."""
        if self.rate_per_s is not None:
            return (Arrivals(rate_per_s=self.rate_per_s),)
        if self.concurrency is not None:
            return (Arrivals(concurrency=self.concurrency),)
        if self.goal == "latency":
            return (Arrivals(concurrency=1),)
        if self.limit is None:
            return (Arrivals(concurrency=BUSY),)
        return tuple(Arrivals(concurrency=number) for number in FOUND)

    @property
    def load(self) -> str:
        """The load in words."""
        if self.rate_per_s is not None:
            return f"{self.rate_per_s:g} requests/s (poisson)"
        if len(self.loads) == 1:
            return f"concurrency {self.loads[0].concurrency}"
        return "the highest concurrency at which the limit holds"


def unusable_time(minutes: float) -> list[Problem]:
    """What is wrong with the time of a search."""
    if math.isfinite(minutes) and 0.05 <= minutes <= 24 * 60:
        return []
    return [Problem("not a time", "--minutes", "0.05 to 1440", f"{minutes:g}", "such as --minutes 5")]


def parse_limit(text: str) -> Limit:
    """``p99=20ms``.

    Raises:
        TuneUsageError: it is none.
    """
    match = _LIMIT.fullmatch(text.strip())
    if match is None or float(match[2]) <= 0:
        expected = "p50, p90, p95 or p99, =, and a time: p99=20ms"
        raise TuneUsageError([Problem("not a latency limit", "--latency-limit", expected, text, "write it so")])
    return Limit(float(match[1]), float(match[2]) * _UNITS_US[match[3].lower()])
