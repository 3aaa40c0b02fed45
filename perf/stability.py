"""When not to believe a number. Each rule gives a doubt that is written into the result beside the number."""

from __future__ import annotations

from collections.abc import Sequence

from perf.result import Doubt, Latency, ServerSide, Window

MEANINGS = {
    "unstable": "the windows of a point disagree (marked ? at the throughput): a quieter machine or longer --seconds",
    "few_requests": "fewer than 10 requests lie beyond a percentile (marked ?): longer --seconds",
    "other_traffic": "others used the model too: queue, compute and mean batch are not only ours",
    "failed_requests": "some requests were answered with an error",
    "client_behind": "perf_analyzer could not keep up with the load it was to make",
    "cache_hits": "answers came from the response cache; the requests repeat, real ones may not",
}
"""What each doubt of a point means, for a table that has no room for its numbers; keyed by :attr:`Doubt.code`."""

MINIMUM_BEYOND = 10
"""Requests that must be slower than a percentile for it to mean something: with fewer, one of them moves it by more
than a tenth of its rank. p99 thus wants 1000 requests, p95 200, p90 100."""

OTHER_TRAFFIC_RATIO = 1.5
"""perf_analyzer sends a few requests outside its windows; half as many again are not its own."""

STEAL_PERCENT = 2.0
"""Time the hypervisor kept from us: from here on it shows in the percentiles."""

BUSY_LOAD_PER_CORE = 0.5
"""Load average per core before the run from which the machine counts as busy."""


def spread_percent(values: Sequence[float]) -> float:
    """How far the largest lies above the smallest, in percent of the smallest (as perf_analyzer's ``-s``)."""
    low, high = min(values), max(values)
    return (high / low - 1.0) * 100.0 if low > 0 else float("inf")


def unstable(windows: Sequence[Window], limit_percent: float) -> list[Doubt]:
    """The windows of one point disagree in throughput or in mean latency."""
    if len(windows) < 2:
        return []
    rates = [window.inferences_per_s for window in windows]
    means = [window.mean_us for window in windows if window.mean_us is not None]
    parts = []
    if (spread := spread_percent(rates)) > limit_percent:
        parts.append(f"throughput differs by {spread:.0f}%")
    if len(means) > 1 and (spread := spread_percent(means)) > limit_percent:
        parts.append(f"mean latency by {spread:.0f}%" if parts else f"mean latency differs by {spread:.0f}%")
    if not parts:
        return []
    what = " and ".join(parts)
    message = f"not stable: {what} between {len(windows)} windows (limit {limit_percent:g}%); longer --seconds may help"
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
