"""The columns and rows of a result's table, and how numbers are spelled for people. Milliseconds appear only here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from perf.loads import load_of
from perf.result import BenchResult, Point, ServerSide
from perf.spread import p99_interval, rate_interval
from perf.stability import MINIMUM_BEYOND

_FIGURES = ("queue ms", "compute ms", "mean batch", "requests", "doubts")


TOO_NOISY = 3.0


class Columns:
    """Which columns the table of a result has, and its rows; a column that would be empty is left out.

    Attributes:
        headings: of the columns, from the left.
    """

    def __init__(self, result: BenchResult) -> None:
        self.result = result
        points = result.points
        self.rated = any(point.concurrency is None for point in points)
        self.tail = any(point.latency is not None and point.latency.p99_9_us is not None for point in points)
        self.streams = any(point.first_response is not None for point in points)
        self.checked = any(point.checked for point in points)
        latencies = ("p50 ms", "p90 ms", "p95 ms", "p99 ms", *(("p99.9 ms",) if self.tail else ()))
        load = "load" if self.rated else "concurrency"
        *server, doubts = _FIGURES
        wrong = ("wrong",) if self.checked else ()
        streams = ("first p50 ms", "first p99 ms", "responses/s") if self.streams else ()
        self.headings = ("model", load, "inferences/s", *latencies, *streams, *server, *wrong, doubts)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """One a point, and one for each step of an ensemble below it."""
        for point in self.result.points:
            name = point.model + (f" (batch {point.batch_size})" if point.batch_size > 1 else "")
            if point.latency is None or point.inferences_per_s is None:
                yield (name, self._load(point), "failed", *[""] * (len(self.headings) - 3))
                continue
            percentiles = [50.0, 90.0, 95.0, 99.0, *([99.9] if self.tail else [])]
            wrong = (f"{point.wrong} of {point.checked}" if point.checked else "-",) if self.checked else ()
            yield (
                name,
                self._load(point),
                _speed(point),
                *(_percentile(point, percentile) for percentile in percentiles),
                *(_stream_cells(point) if self.streams else ()),
                *_server_cells(point.server),
                str(point.latency.requests),
                *wrong,
                ", ".join(words(doubt.code) for doubt in point.doubts),
            )
            for step in point.steps:
                empty = [""] * (2 + len(percentiles) + (3 if self.streams else 0))
                yield (f"  {step.model}", *empty, *_server_cells(step), "", *[""] * len(wrong), "")

    def _load(self, point: Point) -> str:
        """The number alone where the heading says what it is."""
        return str(load_of(point)._replace(batch_size=1)) if self.rated else str(point.concurrency)


def _stream_cells(point: Point) -> tuple[str, str, str]:
    first, responses = point.first_response, point.responses_per_s
    if first is None:
        return ("-", "-", "-")
    return milliseconds(first.p50_us), milliseconds(first.p99_us), rate(responses) if responses else "-"


def _speed(point: Point) -> str:
    """The rate with half the width of its interval where it was measured in rounds; ``?`` where it is not stable."""
    assert point.inferences_per_s is not None
    mark = "?" if any(doubt.code == "unstable" for doubt in point.doubts) else ""
    interval = rate_interval(point) if len(point.rounds) > 1 else None
    return rate(point.inferences_per_s) + plus_minus(point.inferences_per_s, interval) + mark


def plus_minus(value: float, interval: tuple[float, float] | None) -> str:
    """`` ±3%``: how far the further end of an interval lies from its value; nothing without one."""
    if interval is None or value <= 0:
        return ""
    percent = max(interval[1] / value - 1, 1 - interval[0] / value) * 100
    if percent >= 100:
        return " ±>100%"
    return f" ±{percent:.1f}%" if percent < 10 else f" ±{percent:.0f}%"


def with_interval(value: float, interval: tuple[float, float] | None, spell: Callable[[float], str]) -> str:
    """``100 [95, 105]``; an interval whose end is more than three times as much says only that nothing is known."""
    if interval is None:
        return spell(value)
    if interval[1] > TOO_NOISY * value:
        return f"{spell(value)} [too noisy]"
    return f"{spell(value)} [{spell(interval[0])}, {spell(interval[1])}]"


def _percentile(point: Point, percentile: float) -> str:
    latency = point.latency
    assert latency is not None
    value = getattr(latency, f"p{percentile:g}_us".replace(".", "_"))
    if value is None:
        return "-"
    interval = p99_interval(point) if percentile == 99 else None
    return milliseconds(value) + plus_minus(value, interval) + _weak(percentile, latency.requests)


def _server_cells(server: ServerSide | None) -> tuple[str, str, str]:
    if server is None:
        return ("-", "-", "-")
    batch = f"{server.mean_batch:.2f}" if server.mean_batch is not None else "-"
    return (milliseconds(server.queue_us), milliseconds(server.compute_us), batch)


def _weak(percentile: float, requests: int) -> str:
    return "?" if requests * (100 - percentile) / 100 < MINIMUM_BEYOND else ""


def rate(value: float) -> str:
    """A rate per second with three significant digits, whole from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def milliseconds(value_us: float | None) -> str:
    """Microseconds as milliseconds with three significant digits."""
    if value_us is None:
        return "-"
    value_ms = value_us / 1000
    return f"{value_ms:,.0f}" if value_ms >= 100 else f"{value_ms:.3g}"


def words(code: str) -> str:
    """A code for people."""
    return code.replace("_", " ")
