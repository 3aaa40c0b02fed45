"""The intervals of one point: those that were measured with it, else from its rounds, else from its windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from perf.intervals import median_with_interval
from perf.result import Point

Range = tuple[float, float]


def rates_of(point: Point) -> list[float]:
    """Inferences per second, several times over: of each round, else of each window."""
    if len(point.rounds) > 1:
        return [each.inferences_per_s for each in point.rounds]
    return [window.inferences_per_s for window in point.windows]


def rate_interval(point: Point) -> Range | None:
    """95% interval of the inferences per second; None with fewer than two rounds or windows."""
    return _finite(point.inferences_interval) or _interval(rates_of(point))


def p99_interval(point: Point) -> Range | None:
    """95% interval of the 99th percentile, microseconds; windows have none of their own, so it takes rounds."""
    return _finite(point.p99_interval_us) or _interval([each.p99_us for each in point.rounds])


def p50_interval(point: Point) -> Range | None:
    """95% interval of the median latency, microseconds; it takes rounds as well."""
    return _interval([each.p50_us for each in point.rounds])


def _finite(given: Range | None) -> Range | None:
    """An interval of everything is none."""
    return given if given is not None and math.isfinite(given[1]) else None


def _interval(values: Sequence[float]) -> Range | None:
    if len(values) < 2 or min(values) <= 0:
        return None
    interval = median_with_interval(values)
    return (interval.low, interval.high)
