"""What is simulated: stations that share the cores of a machine, streams of requests through them; what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from perf.tune.simulate import Arrivals, Batching, Prediction

ExecutionTime = Callable[[int, float], float]
"""``(batch size, threads that are busy on the machine with this one's) -> microseconds`` of one execution."""


@dataclass(frozen=True)
class Station:
    """A model with its settings.

    Attributes:
        threads: that one execution keeps busy.
        priority: of its executions where cores are shared out (``cores`` of :func:`play`); the smallest goes first.
    """

    batching: Batching
    threads: int
    time_us: ExecutionTime
    priority: int = 1


@dataclass(frozen=True)
class Step:
    """One step of a way.

    Attributes:
        station: its place among the stations.
        after: steps, by their place in the way, whose answers it needs.
    """

    station: int
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stream:
    """A load and its way.

    Attributes:
        front_us: what one request takes of the part that handles this stream's requests one at a time.
        rest_us: what is added to each latency without keeping anything busy.
    """

    arrivals: Arrivals
    steps: tuple[Step, ...]
    front_us: float = 0.0
    rest_us: float = 0.0


@dataclass(frozen=True)
class Served:
    """What a station did: its executions, how many requests in each, how long they took and waited (means, us)."""

    executions: int
    mean_batch: float
    compute_us: float
    queue_us: float


@dataclass(frozen=True)
class Played:
    """What came of it: for each stream, for each station, and the threads that were busy on average."""

    streams: tuple[Prediction, ...]
    stations: tuple[Served, ...]
    busy_threads: float
