"""When not to believe a number. Each rule gives a doubt that is written into the result beside the number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perf.result import Doubt, Latency, ServerSide, Window

MEANINGS = {
    "unstable": "the windows of a point disagree (marked ? at the throughput): a quieter machine or longer --seconds",
    "few_requests": "fewer than 10 requests lie beyond a percentile (marked ?): longer --seconds",
    "other_traffic": "others used the model too: queue, compute and mean batch are not only ours",
    "failed_requests": "some requests were answered with an error",
    "client_behind": "perf_analyzer could not keep up with the load it was to make",
    "cut_short": "the server or the model failed in a later round",
    "wrong_answers": "answers were not the right ones: the figures are of a server that does something else",
    "client_saturated": "perf_analyzer was short of processor time: the server can do more than this",
    "throttled": "processors were slowed down by heat, or by the limit of a container",
    "clock_throttled": "a GPU ran below its clock: heat or a power limit, not the model, set its speed",
    "queue_growing": "the server answers slower than requests come: the latencies only say how long it was measured",
    "slow_start": "the first requests took much longer than the rest: they are in the percentiles",
    "cache_hits": "answers came from the response cache; the requests repeat, real ones may not",
}
"""What each doubt of a point means, for a table that has no room for its numbers; keyed by :attr:`Doubt.code`."""

MINIMUM_BEYOND = 10
"""Requests that must be slower than a percentile for it to mean something: with fewer, one of them moves it by more
than a tenth of its rank. p99 thus wants 1000 requests, p95 200, p90 100."""

OTHER_TRAFFIC_RATIO = 1.5
"""The end of short windows may be noticed late (see ``borders.py``); half as many again are not perf_analyzer's."""

STEAL_PERCENT = 2.0
"""Time the hypervisor kept from us: from here on it shows in the percentiles."""

OFFERED_FACTOR = 3.0
"""How much more the windows of a given load may differ in latency."""

LATE_PERCENTILE, LATE_US, LATE_SHARE = 95, 1000.0, 0.25
"""So many of a hundred requests must leave within a millisecond, or a quarter of the median latency, of their time."""

KEPT_UP, GROWTH = 0.97, 1.5
"""Below this share of the offered load, and with such a rise of the latency over a point, the queue was growing."""

SLOW_START = 2.0
"""How many times the 99th percentile of the rest the first hundredth of the requests must take to be mentioned."""

BUSY_LOAD_PER_CORE = 0.5
"""Load average per core before the run from which the machine counts as busy."""


def spread_percent(values: Sequence[float]) -> float:
    """How far the largest lies above the smallest, in percent of the smallest (as perf_analyzer's ``-s``)."""
    low, high = min(values), max(values)
    return (high / low - 1.0) * 100.0 if low > 0 else float("inf")


def unstable(
    windows: Sequence[Window], limit_percent: float, *, offered: bool = False, of: str = "windows"
) -> list[Doubt]:
    """The windows of one point disagree in throughput or in mean latency.

    Args:
        offered: the load was given, and so is the throughput: only the latency can disagree, and by
            :data:`OFFERED_FACTOR` times as much: a queue is long at times, and short at others, by itself.
        of: what the windows are called: whole rounds may take their place.
    """
    if len(windows) < 2:
        return []
    if offered:
        limit_percent *= OFFERED_FACTOR
    rates = [1.0] if offered else [window.inferences_per_s for window in windows]
    means = [window.mean_us for window in windows if window.mean_us is not None]
    parts = []
    if (spread := spread_percent(rates)) > limit_percent:
        parts.append(f"throughput differs by {spread:.0f}%")
    if len(means) > 1 and (spread := spread_percent(means)) > limit_percent:
        parts.append(f"mean latency by {spread:.0f}%" if parts else f"mean latency differs by {spread:.0f}%")
    if not parts:
        return []
    what = " and ".join(parts)
    message = f"not stable: {what} between {len(windows)} {of} (limit {limit_percent:g}%); longer --seconds may help"
    return [Doubt(code="unstable", message=message)]


def few_requests(latency: Latency) -> list[Doubt]:
    """A percentile rests on a handful of requests."""
    weak = [
        (percentile, round(latency.requests * (100 - percentile) / 100))
        for percentile in (90, 95, 99)
        if latency.requests * (100 - percentile) / 100 < MINIMUM_BEYOND
    ]
    if not weak:
        return []
    names = ", ".join(f"p{percentile} ({beyond} slower)" for percentile, beyond in weak)
    message = (
        f"few requests: of {latency.requests}, {names}; {MINIMUM_BEYOND} are wanted: --seconds with a larger number"
    )
    return [Doubt(code="few_requests", message=message)]


def server_doubts(server: ServerSide, measured_requests: int) -> list[Doubt]:
    """What the server's statistics say against the client's figures."""
    doubts = []
    if server.failures:
        doubts.append(
            Doubt(code="failed_requests", message=f"{server.failures} of {server.requests + server.failures} failed")
        )
    if measured_requests and server.requests > measured_requests * OTHER_TRAFFIC_RATIO + 50:
        message = (
            f"the server answered {server.requests} requests while {measured_requests} were measured: others use this "
            "model too, so queue, compute and mean batch are not only ours"
        )
        doubts.append(Doubt(code="other_traffic", message=message))
    if server.cache_hits:
        share = server.cache_hits / max(1, server.requests) * 100
        message = f"{share:.0f}% of the answers came from the response cache; the requests repeat, real ones may not"
        doubts.append(Doubt(code="cache_hits", message=message))
    return doubts


def client_behind(output: str) -> list[Doubt]:
    """perf_analyzer says itself that it could not keep up."""
    if "not able to keep up" not in output:
        return []
    return [Doubt(code="client_behind", message="perf_analyzer could not keep up with the load it was to make")]


def late_client(late_us: NDArray[np.float64], latency_us: NDArray[np.float64]) -> list[Doubt]:
    """The client sent many requests late.

    Args:
        late_us: how long after it was due each request left.
        latency_us: from when each was due.
    """
    late, typical = float(np.percentile(late_us, LATE_PERCENTILE)), float(np.median(latency_us))
    if late < LATE_US or late < LATE_SHARE * typical:
        return []
    message = (
        f"1 of {round(100 / (100 - LATE_PERCENTILE))} requests left more than {late / 1000:.3g} ms after it was due: "
        "the client is too busy for this rate (its lateness is in the latencies); run it on another machine"
    )
    return [Doubt(code="client_behind", message=message)]


def queue_growing(windows: Sequence[Window], offered_per_s: float, answered_per_s: float) -> list[Doubt]:
    """Requests waited longer and longer, and fewer were answered than came."""
    means = [window.mean_us for window in windows if window.mean_us is not None]
    if len(means) < 2 or answered_per_s > KEPT_UP * offered_per_s or means[-1] < GROWTH * means[0]:
        return []
    message = (
        f"the queue grew: {answered_per_s:.4g} of {offered_per_s:.4g} inferences a second were answered, and the "
        f"mean latency rose from {means[0] / 1000:.3g} to {means[-1] / 1000:.3g} ms; measuring longer makes it worse"
    )
    return [Doubt(code="queue_growing", message=message)]


def slow_start(latency_us: NDArray[np.float64]) -> list[Doubt]:
    """The first few requests were far slower than any that came later (of those that were measured).

    Args:
        latency_us: in the order in which the requests were sent.
    """
    count = max(1, len(latency_us) // 100)
    first, rest = latency_us[:count], latency_us[count:]
    if len(rest) < 50 or float(np.median(first)) < SLOW_START * float(np.percentile(rest, 99)):
        return []
    message = (
        f"the first {count} of {len(latency_us)} requests took {np.median(first) / 1000:.3g} ms, p99 of all others is "
        f"{np.percentile(rest, 99) / 1000:.3g} ms: something was not warm yet"
    )
    return [Doubt(code="slow_start", message=message)]


def machine_doubts(load_1min: float | None, cores: int, steal_percent: float | None) -> list[Doubt]:
    """The machine was busy before we began, or was not all ours."""
    doubts = []
    if load_1min is not None and cores and load_1min > BUSY_LOAD_PER_CORE * cores:
        message = f"the machine was busy before the run: load {load_1min:.2f} on {cores} cores"
        doubts.append(Doubt(code="busy_machine", message=message))
    if steal_percent is not None and steal_percent > STEAL_PERCENT:
        message = f"the hypervisor kept {steal_percent:.1f}% of the processor time from this machine during the run"
        doubts.append(Doubt(code="cpu_steal", message=message))
    return doubts
