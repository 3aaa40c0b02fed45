"""The client's figures of one run, from the timestamps of its requests: percentiles, histogram, windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perf.parse import NS_PER_S, NS_PER_US, PERCENTILES, Profile
from perf.result import Histogram, Latency, Window
from perf.schedule import Schedule


def on_schedule(profile: Profile, schedule: Schedule, windows: int, wake_up_us: float = 0.0) -> Profile:
    """The profile of a run by schedule: when each request was due, and the measured time as so many equal windows.

    Args:
        wake_up_us: by which the most punctual request was late.

    Raises:
        RawFileError: it does not hold every request of the schedule.
    """
    due_ns = schedule.times_ns(profile.start_ns, wake_up_us)
    begin_ns = int(due_ns.min()) - int(schedule.due_us[0]) * NS_PER_US
    edges_us = np.linspace(schedule.start_us, schedule.end_us, windows + 1)
    return replace(profile, due_ns=due_ns, boundaries_ns=begin_ns + np.round(edges_us).astype(np.int64) * NS_PER_US)


BINS_PER_DECADE = 20
"""Of a histogram: the bins stand at the same places in every result, each 12% wider than the one before."""


def histogram_of(latency_us: NDArray[np.float64]) -> Histogram:
    """How many requests took how long."""
    place = np.floor(np.log10(np.maximum(latency_us, 1.0)) * BINS_PER_DECADE).astype(np.int64)
    first, last = int(place.min()), int(place.max())
    counts = np.bincount(place - first, minlength=last - first + 1)
    edges = 10.0 ** (np.arange(first, last + 2) / BINS_PER_DECADE)
    return Histogram(
        edges_us=tuple(round(float(edge), 3) for edge in edges), counts=tuple(int(count) for count in counts)
    )


def nearest_rank(ordered: NDArray[np.float64], percent: float) -> float:
    """A percentile as perf_analyzer takes it: the time of the request nearest to the rank."""
    return float(ordered[int(percent / 100 * (len(ordered) - 1) + 0.5)])


def latency_of(profile: Profile) -> Latency:
    """Percentiles over all requests, by :func:`nearest_rank`."""
    return latency_from(profile.latency_us, scheduled=profile.due_ns is not None)


def latency_from(latency_us: NDArray[np.float64], *, scheduled: bool) -> Latency:
    """The same of latencies in microseconds; p99.9 is None where not one request lies beyond it."""
    ordered = np.sort(latency_us)
    p50, p90, p95, p99, p99_9 = (nearest_rank(ordered, percent) for percent in (*PERCENTILES, 99.9))
    return Latency(
        requests=len(latency_us),
        mean_us=float(latency_us.mean()),
        p50_us=p50,
        p90_us=p90,
        p95_us=p95,
        p99_us=p99,
        min_us=float(latency_us.min()),
        max_us=float(latency_us.max()),
        p99_9_us=p99_9 if len(latency_us) >= 1000 else None,
        measured_from="scheduled" if scheduled else "sent",
        histogram=histogram_of(latency_us),
    )


def windows_of(profile: Profile, batch_size: int) -> tuple[Window, ...]:
    """Each window's own figures.

    A request belongs to the window in which its response came; of a schedule it counts for the rate where its response
    came, and for the latency where it was due.
    """
    edges = profile.boundaries_ns
    last = len(edges) - 2
    came = np.searchsorted(edges, profile.end_ns, side="left") - 1
    if profile.due_ns is None:
        came = belongs = np.clip(came, 0, last)
    else:
        belongs = np.minimum(np.searchsorted(edges, profile.due_ns, side="right") - 1, last)
    latency_us = profile.latency_us
    windows = []
    for number in range(last + 1):
        inside = latency_us[belongs == number]
        duration_s = float(edges[number + 1] - edges[number]) / NS_PER_S
        windows.append(
            Window(
                duration_s=duration_s,
                requests=len(inside),
                inferences_per_s=int((came == number).sum()) * batch_size / duration_s if duration_s else 0.0,
                mean_us=float(inside.mean()) if len(inside) else None,
            )
        )
    return tuple(windows)
