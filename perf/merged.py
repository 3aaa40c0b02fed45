"""Several rounds of one point -> one point: medians with their intervals, percentiles over all requests together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from perf.figures import latency_from
from perf.intervals import Interval, median_with_interval
from perf.points import Measured
from perf.result import Doubt, Latency, Point, Round, ServerSide, Usage, Window
from perf.stability import few_requests, unstable

_OF_THE_WHOLE = {"few_requests", "unstable"}
"""Doubts that are judged anew from all rounds; of the others it is said in how many they came up."""


def merged(rounds: Sequence[tuple[int, Measured]], limit_percent: float) -> Point:
    """One point of all rounds in which it was measured (at least one); a single one stays as it is.

    Args:
        rounds: (number, what was measured).
    """
    done = [one for _, one in rounds]
    first = done[0].point
    if len(done) == 1:
        return first
    points = [one.point for one in done]
    latencies = [point.latency for point in points if point.latency is not None]
    latency = _all_requests(done, latencies)
    speed = median_with_interval([max(point.inferences_per_s or 0.0, 1e-9) for point in points])
    p99 = median_with_interval([max(latency.p99_us, 1e-3) for latency in latencies])
    numbered = zip(rounds, latencies, strict=True)
    return first.model_copy(
        update={
            "rounds": tuple(_round(number, one.point, latency) for (number, one), latency in numbered),
            "inferences_per_s": speed.value,
            "inferences_interval": _ends(speed),
            "p99_interval_us": _ends(p99),
            "duration_s": sum(point.duration_s or 0.0 for point in points),
            "latency": latency,
            "windows": tuple(window for point in points for window in point.windows),
            "server": _side([point.server for point in points]),
            "steps": _steps(points),
            "checked": _total(point.checked for point in points),
            "wrong": _total(point.wrong for point in points),
            "usage": _usage([point.usage for point in points if point.usage is not None]),
            "first_response": _first_responses(points),
            "responses_per_s": _middle([point.responses_per_s for point in points]),
            "doubts": tuple(_doubts(points, latency, limit_percent)),
            "raw": None,
        }
    )


def relative_width_percent(interval: tuple[float, float] | None) -> float:
    """How far the upper end of an interval lies above its middle, in percent; infinite where there is no interval."""
    if interval is None or interval[0] <= 0 or not np.isfinite(interval[1]):
        return float("inf")
    return float(np.sqrt(interval[1] / interval[0]) - 1.0) * 100.0


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def _round(number: int, point: Point, latency: Latency) -> Round:
    return Round(
        number=number,
        inferences_per_s=point.inferences_per_s or 0.0,
        requests=latency.requests,
        p50_us=latency.p50_us,
        p99_us=latency.p99_us,
        mean_us=latency.mean_us,
        raw=point.raw,
    )


def _all_requests(done: Sequence[Measured], latencies: Sequence[Latency]) -> Latency:
    known = [one.latency_us for one in done if one.latency_us is not None]
    if len(known) == len(done):
        return latency_from(np.concatenate(known), scheduled=done[0].late_us is not None)

    return _medians(latencies)  # perf_analyzer's own percentiles cannot be joined


def _medians(latencies: Sequence[Latency]) -> Latency:
    def middle(name: str) -> float:
        return float(np.median([getattr(latency, name) for latency in latencies]))

    return Latency(
        requests=sum(latency.requests for latency in latencies),
        mean_us=middle("mean_us"),
        p50_us=middle("p50_us"),
        p90_us=middle("p90_us"),
        p95_us=middle("p95_us"),
        p99_us=middle("p99_us"),
        source=latencies[0].source,
        measured_from=latencies[0].measured_from,
    )


def _first_responses(points: Sequence[Point]) -> Latency | None:
    """Medians of the rounds' percentiles."""
    known = [point.first_response for point in points if point.first_response is not None]
    return _medians(known) if known else None


def _middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _doubts(points: Sequence[Point], latency: Latency, limit_percent: float) -> Iterable[Doubt]:
    whole = [
        Window(duration_s=point.duration_s, requests=None, inferences_per_s=point.inferences_per_s or 0.0, mean_us=mean)
        for point in points
        if (mean := point.latency.mean_us if point.latency is not None else None) is not None
    ]
    yield from unstable(whole, limit_percent, offered=points[0].concurrency is None, of="rounds")
    yield from few_requests(latency)
    found: dict[str, list[Doubt]] = {}
    for point in points:
        for doubt in point.doubts:
            if doubt.code not in _OF_THE_WHOLE:
                found.setdefault(doubt.code, []).append(doubt)
    for code, doubts in found.items():
        message = f"in {len(doubts)} of {len(points)} rounds: {doubts[0].message}"
        yield Doubt(code=code, message=message)


def _side(sides: Sequence[ServerSide | None]) -> ServerSide | None:
    """The sum of several runs: counts added, means weighted by requests."""
    known = [side for side in sides if side is not None]
    if not known:
        return None

    def total(name: str) -> int:
        return sum(getattr(side, name) for side in known)

    def mean(name: str) -> float | None:
        parts = [(getattr(side, name), side.requests) for side in known if getattr(side, name) is not None]
        weight = sum(requests for _, requests in parts)
        return sum(value * requests for value, requests in parts) / weight if weight else None

    return known[0].model_copy(
        update={
            **{name: total(name) for name in ("requests", "failures", "inferences", "executions", "cache_hits")},
            **{name: mean(name) for name in ("queue_us", "compute_input_us", "compute_infer_us", "compute_output_us")},
            "mean_batch": total("inferences") / total("executions") if total("executions") else None,
        }
    )


def _steps(points: Sequence[Point]) -> tuple[ServerSide, ...]:
    names = dict.fromkeys(step.model for point in points for step in point.steps)
    sides = [_side([step for point in points for step in point.steps if step.model == name]) for name in names]
    return tuple(side for side in sides if side is not None)


def _usage(usages: Sequence[Usage]) -> Usage | None:
    if not usages:
        return None

    def of(name: str, join: Callable[[list[float]], float]) -> float | None:
        values = [value for usage in usages if (value := getattr(usage, name)) is not None]
        return join(values) if values else None

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    memory, gpu_memory = of("memory_bytes", max), of("gpu_memory_bytes", max)
    return Usage(
        cpu_percent=of("cpu_percent", mean),
        memory_bytes=int(memory) if memory is not None else None,
        gpu_percent=of("gpu_percent", mean),
        gpu_memory_bytes=int(gpu_memory) if gpu_memory is not None else None,
        gpu_power_w=of("gpu_power_w", mean),
        gpu_clock_mhz=of("gpu_clock_mhz", mean),
    )


def _total(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
