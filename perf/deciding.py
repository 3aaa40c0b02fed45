"""Which figure says that one is faster than another, and how sure that must be; the rest is shown beside it."""

from __future__ import annotations

from collections.abc import Sequence

from perf.result import Point

METRICS = ("inferences_per_s", "p50_us", "p99_us", "mean_us")

WRONG_SHARE = 0.01
"""In so many comparisons of equal sides a row may be called different by chance, for each figure that decides."""

FOUND_FACTOR = 1.5
"""A difference this many times half the width of a 99% interval is found nine times in ten: (2.576 + 1.282) / 2.576."""


def deciding(*, concurrency: int | None) -> Sequence[Sequence[str]]:
    """The figures that decide: the second where the first tells no difference; of each the first that both sides have.

    Throughput, and the median latency: with so many under way a request that takes longer makes throughput lower, but a
    moment in which the machine does something else moves the mean, which throughput is, and not the median. Where the
    load says when requests leave, throughput is given, and latency says it.
    """
    if concurrency is not None:
        return (("inferences_per_s",), ("p50_us",))
    return (("p99_us", "mean_us", "p50_us"),)


def figure(point: Point, metric: str) -> float | None:
    """One of :data:`METRICS` of a point."""
    if metric == "inferences_per_s":
        return point.inferences_per_s
    value: float | None = getattr(point.latency, metric) if point.latency is not None else None
    return value


def confidence_of(rows: int) -> float:
    """Of each interval, so that so many together are wrong in one of a hundred comparisons at most (Bonferroni)."""
    return 1 - WRONG_SHARE / max(1, rows)
