"""Triton's dynamic batcher as a discrete-event simulation: what throughput and latency a configuration would give.

A request passes the front (the server's network threads and the client, one at a time, ``front_us`` each), waits in the
queue until the batcher sends it on, is executed on one of the instances together with others, and reaches its client
``rest_us`` later. The batcher does what Triton's does: a batch leaves when an instance is free and the batch is full,
or has a preferred size, or its oldest request has waited long enough.

Nothing here knows a server: times come in, figures go out. Microseconds (``_us``) throughout, rates per second.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

US_PER_S = 1e6
SEED = 20241
WARM_UP_SHARE = 0.1
"""Of the requests, from the start: the queue is empty then, which it is not later."""

GROWING_RATIO = 1.5
"""By how much the last third of the latencies may exceed the first third before the queue counts as growing."""

ServiceTime = Callable[[int, int], float]
"""``(batch size, busy instances with this one) -> microseconds`` of one execution."""

_ARRIVE, _QUEUED, _DONE, _TIMER = range(4)


@dataclass(frozen=True)
class Batching:
    """How the server executes a model.

    Attributes:
        instances: executions at once.
        max_batch_size: the most requests in one execution; 0 or 1 for none together.
        dynamic: whether requests are put together at all.
        preferred: ``preferred_batch_size``; the largest of them is the most that is put together.
        max_queue_delay_us: how long the oldest request may wait for company.
    """

    instances: int = 1
    max_batch_size: int = 1
    dynamic: bool = True
    preferred: tuple[int, ...] = ()
    max_queue_delay_us: float = 0.0

    @property
    def most(self) -> int:
        """The largest batch that the batcher makes."""
        if not self.dynamic or self.max_batch_size <= 1:
            return 1
        return min(self.max_batch_size, max(self.preferred, default=self.max_batch_size))


@dataclass(frozen=True)
class Arrivals:
    """The load: so many requests under way at once, or so many begun each second; one of the two.

    Attributes:
        concurrency: requests under way at once (closed loop).
        rate_per_s: requests begun each second whatever the server does (open loop).
        distribution: how these are spaced.
    """

    concurrency: int | None = None
    rate_per_s: float | None = None
    distribution: Literal["poisson", "constant"] = "poisson"

    def __post_init__(self) -> None:
        if (self.concurrency is None) == (self.rate_per_s is None):
            raise ValueError("a load is a concurrency or a rate")


@dataclass(frozen=True)
class Prediction:
    """What came of a simulation.

    Attributes:
        latency_us: of each request after the warm-up, as its client sees it, float64 [requests].
        queue_us: mean wait between the front and the execution.
        compute_us: mean time of the execution that a request was part of.
        busy: share of the time that an instance executes, mean over the instances.
        growing: the queue grew to the end: the rate is more than the server can take.
    """

    inferences_per_s: float
    latency_us: NDArray[np.float64]
    queue_us: float
    compute_us: float
    mean_batch: float
    busy: float
    growing: bool

    def percentile_us(self, percentile: float) -> float:
        """A percentile of the latency; infinite where the queue grows for ever."""
        return float("inf") if self.growing else float(np.percentile(self.latency_us, percentile))


def leaving(batching: Batching, waiting: int, oldest_us: float, now_us: float) -> tuple[int, float]:
    """How many of the requests that wait the batcher gives to a free instance now, and if none, when it will.

    Args:
        waiting: how many there are, at least one.
        oldest_us: when the oldest of them came.
    """
    delay_us = batching.max_queue_delay_us
    due = oldest_us + delay_us
    if waiting >= batching.most:
        return batching.most, due
    if delay_us and now_us >= due:
        return waiting, due
    fitting = [size for size in batching.preferred if size <= waiting]
    if fitting:
        return (max(fitting) if delay_us else min(fitting)), due  # without a delay a batch closes as soon as it can
    return (0 if delay_us else waiting), due


def simulate(
    batching: Batching,
    arrivals: Arrivals,
    service_us: ServiceTime,
    *,
    front_us: float = 0.0,
    rest_us: float = 0.0,
    requests: int = 2000,
    seed: int = SEED,
) -> Prediction:
    """Play a load against a configuration.

    Args:
        batching: the configuration.
        arrivals: the load; each request holds one sample.
        service_us: how long an execution takes.
        front_us: what one request takes of the part that handles one at a time.
        rest_us: what is added to each latency without keeping anything busy.
        requests: how many are played, warm-up included.
    """
    run = _Run(batching, arrivals, service_us, front_us, rest_us, requests, seed)
    run.play()
    return run.prediction()


class _Run:
    """The state of one simulation."""

    def __init__(
        self,
        batching: Batching,
        arrivals: Arrivals,
        service_us: ServiceTime,
        front_us: float,
        rest_us: float,
        requests: int,
        seed: int,
    ) -> None:
        self.batching, self.arrivals, self.service_us = batching, arrivals, service_us
        self.front_us, self.rest_us, self.requests = front_us, rest_us, requests
        self.events: list[tuple[float, int, int, list[tuple[float, float]]]] = []
        self.queue: deque[tuple[float, float]] = deque()  # (sent, queued)
        self.idle = batching.instances
        self.front_free = 0.0
        self.timer = float("inf")
        self.number = 0
        self.answers: list[tuple[float, float]] = []  # (sent, answered), in the order of the answers
        self.waits: list[float] = []
        self.batches: list[int] = []
        self.busy_us = 0.0
        self.computed_us = 0.0
        self.now = 0.0
        generator = np.random.default_rng(seed)
        if arrivals.concurrency is not None:
            # Not all at once: a client's first requests do not come as one batch either.
            starts = np.sort(generator.uniform(0.0, max(1.0, service_us(1, 1)), arrivals.concurrency))
        else:
            assert arrivals.rate_per_s is not None
            gap_us = US_PER_S / arrivals.rate_per_s
            poisson = arrivals.distribution == "poisson"
            gaps = generator.exponential(gap_us, requests) if poisson else np.full(requests, gap_us)
            starts = np.cumsum(gaps)
        for start in starts.tolist():
            self._at(start, _ARRIVE, [(start, 0.0)])

    def play(self) -> None:
        """Run until every request is answered (in a closed loop: the first so many)."""
        closed = self.arrivals.concurrency is not None
        while self.events and len(self.answers) < self.requests:
            self.now, _, kind, batch = heapq.heappop(self.events)
            if kind == _ARRIVE:
                self.front_free = max(self.now, self.front_free) + self.front_us
                if self.front_us:
                    self._at(self.front_free, _QUEUED, batch)
                    continue
                kind = _QUEUED
            if kind == _QUEUED:
                self.queue.append((batch[0][0], self.now))
            elif kind == _DONE:
                self.idle += 1
                answered = self.now + self.rest_us
                for sent, _ in batch:
                    self.answers.append((sent, answered))
                    if closed:
                        self._at(answered, _ARRIVE, [(answered, 0.0)])
            elif kind == _TIMER:
                self.timer = float("inf")
            if self.queue and self.idle:
                self._send()

    def _at(self, time_us: float, kind: int, batch: list[tuple[float, float]]) -> None:
        self.number += 1
        heapq.heappush(self.events, (time_us, self.number, kind, batch))

    def _send(self) -> None:
        """Give free instances what the batcher would give them now."""
        while self.queue and self.idle:
            size = self._size()
            if not size:
                return
            batch = [self.queue.popleft() for _ in range(size)]
            self.idle -= 1
            lasts_us = self.service_us(size, self.batching.instances - self.idle)
            self.busy_us += lasts_us
            self.computed_us += lasts_us * size
            self.waits.extend(self.now - queued for _, queued in batch)
            self.batches.append(size)
            self._at(self.now + lasts_us, _DONE, batch)

    def _size(self) -> int:
        """How many requests leave now; 0 to wait, with a timer set."""
        size, due = leaving(self.batching, len(self.queue), self.queue[0][1], self.now)
        if not size and due < self.timer:
            self.timer = due
            self._at(due, _TIMER, [])
        return size

    def prediction(self) -> Prediction:
        """The figures, without the warm-up."""
        skipped = int(len(self.answers) * WARM_UP_SHARE)
        counted = np.array(self.answers[skipped:])
        latency_us = counted[:, 1] - counted[:, 0]
        began = self.answers[skipped - 1][1] if skipped else 0.0
        lasted_us = max(float(counted[-1, 1]) - began, 1e-9)
        third = max(1, len(latency_us) // 3)
        first, last = float(latency_us[:third].mean()), float(latency_us[-third:].mean())
        # Growing means both: slower and slower, and behind the rate that was asked for.
        rate = len(latency_us) / lasted_us * US_PER_S
        asked = self.arrivals.rate_per_s
        return Prediction(
            inferences_per_s=rate,
            latency_us=latency_us,
            queue_us=float(np.mean(self.waits)) if self.waits else 0.0,
            compute_us=self.computed_us / max(1, len(self.waits)),
            mean_batch=float(np.mean(self.batches)) if self.batches else 1.0,
            busy=min(1.0, self.busy_us / max(self.now, 1e-9) / self.batching.instances),
            growing=asked is not None and last > GROWING_RATIO * first and rate < 0.98 * asked,
        )
