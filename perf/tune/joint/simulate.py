"""Several batchers on one machine as a discrete-event simulation: models side by side, and the steps of ensembles.

A *station* is a model with its instances and its batcher, a *stream* a load with the way its requests take through the
stations: one step for a plain model, several for an ensemble, side by side where they do not wait for one another.
Executions share the cores: while more threads are busy than there are cores each goes on more slowly, from the moment
another begins to the moment it ends. One station under one load is :mod:`perf.tune.simulate`, and agrees with it.

Microseconds (``_us``) throughout, rates per second.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from perf.tune.joint.network import Played, Served, Station, Stream
from perf.tune.simulate import GROWING_RATIO, SEED, US_PER_S, WARM_UP_SHARE, Prediction, leaving

_ARRIVE, _QUEUED, _TIMER = range(3)


@dataclass(eq=False)
class _Request:
    stream: int
    sent_us: float
    waits_for: list[int]
    left: int


@dataclass(eq=False)
class _Execution:
    station: int
    jobs: list[tuple[_Request, int]]
    left: float = 1.0
    lasts_us: float = 1.0
    worked_us: float = 0.0


@dataclass
class _Queue:
    jobs: deque[tuple[_Request, int, float]] = field(default_factory=deque)
    running: int = 0
    executions: int = 0
    requests: int = 0
    waited_us: float = 0.0
    computed_us: float = 0.0
    timer_us: float = float("inf")


def play(
    stations: Sequence[Station],
    streams: Sequence[Stream],
    *,
    requests: int = 2000,
    most: int | None = None,
    cores: int | None = None,
    seed: int = SEED,
) -> Played:
    """Play loads against stations that share a machine.

    Args:
        requests: of the slowest stream, warm-up included; the others get as many as fall into the same time. In closed
            loops: of all streams together.
        most: requests of all streams together at a rate, where that is fewer.
        cores: Triton's rate limiter with so many resources, of which an execution takes one for each of its threads;
            None without it: whoever has a free instance begins.
    """
    run = _Run(stations, streams, requests, most, cores, seed)
    run.play()
    return run.played()


class _Run:
    """The state of one simulation."""

    def __init__(
        self,
        stations: Sequence[Station],
        streams: Sequence[Stream],
        requests: int,
        most: int | None,
        cores: int | None,
        seed: int,
    ) -> None:
        self.stations, self.streams, self.cores = stations, streams, cores
        self.queues = [_Queue() for _ in stations]
        self.running: list[_Execution] = []
        self.events: list[tuple[float, int, int, _Request | None, int]] = []
        self.number = 0
        self.now = 0.0
        self.aged_us = 0.0
        self.busy_us = 0.0
        self.answers: list[list[tuple[float, float]]] = [[] for _ in streams]
        self.answered = 0
        self.front_free = [0.0] * len(streams)
        self.closed = [stream.arrivals.concurrency is not None for stream in streams]
        self.needed = [[sum(1 for _ in step.after) for step in stream.steps] for stream in streams]
        self.followers = [
            [
                [later for later, other in enumerate(stream.steps) if place in other.after]
                for place in range(len(stream.steps))
            ]
            for stream in streams
        ]
        self.enough = requests if any(self.closed) else None
        self._arrivals(requests, most, seed)

    def _arrivals(self, requests: int, most: int | None, seed: int) -> None:
        rates = [stream.arrivals.rate_per_s for stream in self.streams]
        known = [rate for rate in rates if rate]
        horizon_us = requests / min(known) * US_PER_S if known else 0.0
        if known and most is not None:
            horizon_us = min(horizon_us, most / sum(known) * US_PER_S)
        for place, stream in enumerate(self.streams):
            generator = np.random.default_rng(seed if place == 0 else (seed, place))
            if stream.arrivals.concurrency is not None:
                station = self.stations[stream.steps[0].station]
                first_us = max(1.0, station.time_us(1, float(station.threads)))
                starts = np.sort(generator.uniform(0.0, first_us, stream.arrivals.concurrency))
            else:
                assert stream.arrivals.rate_per_s is not None
                gap_us = US_PER_S / stream.arrivals.rate_per_s
                count = max(1, round(horizon_us / gap_us))
                poisson = stream.arrivals.distribution == "poisson"
                if poisson and len(self.streams) > 1:  # as they are measured: as many as the rate says, anywhere
                    for start in np.sort(generator.uniform(0.0, horizon_us, count)).tolist():
                        self._arrive(place, start)
                    continue
                starts = np.cumsum(generator.exponential(gap_us, count) if poisson else np.full(count, gap_us))
            for start in starts.tolist():
                self._arrive(place, start)

    def _arrive(self, stream: int, at_us: float) -> None:
        request = _Request(stream, at_us, list(self.needed[stream]), len(self.needed[stream]))
        self._at(at_us, _ARRIVE, request, 0)

    def _at(self, time_us: float, kind: int, request: _Request | None, place: int) -> None:
        self.number += 1
        heapq.heappush(self.events, (time_us, self.number, kind, request, place))

    def play(self) -> None:
        """Run until every request is answered (in closed loops: so many)."""
        while (self.events or self.running) and (self.enough is None or self.answered < self.enough):
            ended = min(self.running, key=lambda each: each.left * each.lasts_us, default=None)
            ends_us = self.aged_us + ended.left * ended.lasts_us if ended is not None else float("inf")
            if self.events and self.events[0][0] <= ends_us:
                self.now, _, kind, request, place = heapq.heappop(self.events)
                touched = self._event(kind, request, place)
            else:
                assert ended is not None
                self.now = ends_us
                touched = self._end(ended)
            if touched:
                self._begin()

    def _event(self, kind: int, request: _Request | None, place: int) -> bool:
        """True where an execution may begin now."""
        if kind == _TIMER:
            self.queues[place].timer_us = float("inf")
            return True
        assert request is not None
        stream = self.streams[request.stream]
        if kind == _ARRIVE and stream.front_us:
            free = max(self.now, self.front_free[request.stream]) + stream.front_us
            self.front_free[request.stream] = free
            self._at(free, _QUEUED, request, 0)
            return False
        for number, needed in enumerate(request.waits_for):
            if not needed:
                self._wait(request, number)
        return True

    def _wait(self, request: _Request, number: int) -> None:
        station = self.streams[request.stream].steps[number].station
        self.queues[station].jobs.append((request, number, self.now))

    def _end(self, ended: _Execution) -> bool:
        self._age()
        self.running.remove(ended)
        queue = self.queues[ended.station]
        queue.running -= 1
        queue.computed_us += ended.worked_us * len(ended.jobs)
        for request, number in ended.jobs:
            request.left -= 1
            for later in self.followers[request.stream][number]:
                request.waits_for[later] -= 1
                if not request.waits_for[later]:
                    self._wait(request, later)
            if not request.left:
                answered_us = self.now + self.streams[request.stream].rest_us
                self.answers[request.stream].append((request.sent_us, answered_us))
                self.answered += 1
                if self.closed[request.stream]:
                    self._arrive(request.stream, answered_us)
        self._pace()
        return True

    def _begin(self) -> None:
        """Give free instances what their batchers would give them now."""
        began = False
        places = range(len(self.stations))
        if self.cores is not None:  # the limiter goes by priority, and then by how often each had its turn
            order = sorted(
                places, key=lambda place: self.stations[place].priority * (self.queues[place].executions + 1)
            )
        else:
            order = list(places)
        for place in order:
            station, queue = self.stations[place], self.queues[place]
            while queue.jobs and queue.running < station.batching.instances and self._is_room(station):
                size, due_us = leaving(station.batching, len(queue.jobs), queue.jobs[0][2], self.now)
                if not size:
                    if due_us < queue.timer_us:
                        queue.timer_us = due_us
                        self._at(due_us, _TIMER, None, place)
                    break
                if not began:
                    self._age()
                    began = True
                taken = [queue.jobs.popleft() for _ in range(size)]
                queue.running += 1
                queue.executions += 1
                queue.requests += size
                queue.waited_us += sum(self.now - came for _, _, came in taken)
                self.running.append(_Execution(place, [(request, number) for request, number, _ in taken]))
        if began:
            self._pace()

    def _is_room(self, station: Station) -> bool:
        if self.cores is None or not self.running:
            return True
        taken = sum(min(self.cores, self.stations[each.station].threads) for each in self.running)
        return taken + min(self.cores, station.threads) <= self.cores

    def _age(self) -> None:
        """What the executions under way got done since the last time."""
        passed_us = self.now - self.aged_us
        if passed_us > 0:
            for each in self.running:
                each.left = max(0.0, each.left - passed_us / each.lasts_us)
                each.worked_us += passed_us
                self.busy_us += passed_us * self.stations[each.station].threads
        self.aged_us = self.now

    def _pace(self) -> None:
        """How fast each goes on with all that are under way now."""
        busy = float(sum(self.stations[each.station].threads for each in self.running))
        for each in self.running:
            each.lasts_us = max(1e-3, self.stations[each.station].time_us(len(each.jobs), busy))

    def played(self) -> Played:
        """The figures, without the warm-up."""
        stations = tuple(
            Served(
                queue.executions,
                queue.requests / max(1, queue.executions),
                queue.computed_us / max(1, queue.requests),
                queue.waited_us / max(1, queue.requests),
            )
            for queue in self.queues
        )
        streams = tuple(self._figures(place, stations) for place in range(len(self.streams)))
        return Played(streams, stations, self.busy_us / max(self.now, 1e-9))

    def _figures(self, place: int, stations: Sequence[Served]) -> Prediction:
        stream, answers = self.streams[place], self.answers[place] or [(0.0, float("inf"))]
        skipped = int(len(answers) * WARM_UP_SHARE)
        counted = np.array(answers[skipped:])
        latency_us = counted[:, 1] - counted[:, 0]
        began = answers[skipped - 1][1] if skipped else 0.0
        rate = len(latency_us) / max(float(counted[-1, 1]) - began, 1e-9) * US_PER_S
        third = max(1, len(latency_us) // 3)
        first, last = float(latency_us[:third].mean()), float(latency_us[-third:].mean())
        asked = stream.arrivals.rate_per_s
        used = [stations[step.station] for step in stream.steps]
        return Prediction(
            inferences_per_s=rate,
            latency_us=latency_us,
            queue_us=sum(each.queue_us for each in used),
            compute_us=sum(each.compute_us for each in used),
            mean_batch=used[-1].mean_batch,
            busy=min(1.0, self._busy(stream)),
            growing=asked is not None and last > GROWING_RATIO * first and rate < 0.98 * asked,
        )

    def _busy(self, stream: Stream) -> float:
        """Of the busiest station on its way: the share of the time that an instance executes."""
        shares = [0.0]
        for step in stream.steps:
            queue, batching = self.queues[step.station], self.stations[step.station].batching
            worked_us = queue.computed_us / max(1, queue.requests) * queue.executions
            shares.append(worked_us / max(self.now, 1e-9) / batching.instances)
        return max(shares)
