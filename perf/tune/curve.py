"""How long one execution takes: by batch size, and with so many instances executing side by side.

Measured once for each variant and number of threads, with requests of that batch size and without the dynamic batcher,
so that each is one execution; the times are the server's own (``batch_stats``), not the client's.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perf.inputs import ModelSpec, Request
from serving import Client
from serving.errors import TritonRepoError

NS_PER_US = 1000.0
FEWEST_EXECUTIONS = 2
PASSES = 3
"""How often all points are gone through. Of a point the fastest pass counts: what disturbs an execution from outside is
no property of the batch, and is in the measurements that the simulation is brought to the level of."""

PARTS = ("compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True)
class Timing:
    """One point of a curve: mean time of one execution, and on how many it rests."""

    batch: int
    busy: int
    us: float
    executions: int


@dataclass(frozen=True)
class Curve:
    """Times of one variant with so many threads.

    Attributes:
        timings: at least one.
        rest_us: what a lone request takes beside its execution: network, server and client.
    """

    variant: str
    threads: int | None
    timings: tuple[Timing, ...]
    rest_us: float
    _rows: dict[int, list[tuple[int, float]]] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for timing in sorted(self.timings, key=lambda timing: (timing.busy, timing.batch)):
            self._rows.setdefault(timing.busy, []).append((timing.batch, timing.us))

    def time_us(self, batch: int, busy: float) -> float:
        """One execution of this batch while so many instances are executing; linear between what was measured."""
        levels = list(self._rows)
        place = bisect.bisect_left(levels, busy)
        if place < len(levels) and levels[place] == busy:
            return _between(self._rows[levels[place]], batch)
        if place == 0 or place == len(levels):
            return _between(self._rows[levels[min(place, len(levels) - 1)]], batch)
        low, high = levels[place - 1], levels[place]
        one, other = _between(self._rows[low], batch), _between(self._rows[high], batch)
        return one + (other - one) * (busy - low) / (high - low)

    def as_dict(self) -> dict[str, Any]:
        """For a journal."""
        rows = [[t.batch, t.busy, round(t.us, 1), t.executions] for t in self.timings]
        return {"variant": self.variant, "threads": self.threads, "rest_us": self.rest_us, "timings": rows}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Curve:
        """What :meth:`as_dict` gave."""
        timings = tuple(Timing(int(b), int(k), float(us), int(n)) for b, k, us, n in data["timings"])
        return cls(str(data["variant"]), data["threads"], timings, float(data["rest_us"]))


def supposed(curve: Curve, threads: int | None, seen: Curve, other: Curve) -> Curve:
    """The curve of a variant at a number of threads that was not timed, from those of another variant.

    Args:
        curve: of the variant, at the threads of ``seen``.
        seen: of another variant; ``other``: of that one at the threads that are wanted.
    """
    timings = tuple(
        Timing(each.batch, each.busy, each.us * _factor(each, seen, other), each.executions) for each in curve.timings
    )
    return Curve(curve.variant, threads, timings, curve.rest_us)


def _factor(at: Timing, seen: Curve, other: Curve) -> float:
    return other.time_us(at.batch, at.busy) / max(seen.time_us(at.batch, at.busy), 1e-9)


def _between(row: Sequence[tuple[int, float]], batch: int) -> float:
    """Linear between neighbours; beyond the largest on the line through the last two, never falling."""
    sizes = [size for size, _ in row]
    place = bisect.bisect_left(sizes, batch)
    if place < len(row) and sizes[place] == batch:
        return row[place][1]
    if len(row) == 1 or place == 0:
        return row[0][1]
    (low, low_us), (high, high_us) = row[place - 1 : place + 1] if place < len(row) else row[-2:]
    slope = (high_us - low_us) / (high - low)
    return low_us + slope * (batch - low) if place < len(row) else high_us + max(0.0, slope) * (batch - high)


def batches_up_to(largest: int) -> list[int]:
    """1, 2, 4, ... and the largest itself."""
    return sorted({*(2**power for power in range(12) if 2**power <= largest), max(1, largest)})


def levels_up_to(instances: int) -> list[int]:
    """How many instances execute side by side: 1, 2, 4, ... and the largest."""
    return batches_up_to(instances)


def measure_curve(
    client: Client,
    spec: ModelSpec,
    requests: Sequence[Request],
    *,
    variant: str,
    threads: int | None,
    instances: int,
    seconds: float,
) -> Curve:
    """Time the executions of a model that is loaded with so many instances and without a dynamic batcher.

    Args:
        spec: of the loaded model.
        requests: samples of one shape, without the batch dimension where the model batches.
        seconds: for the whole curve, about; each point gets one pass and :data:`FEWEST_EXECUTIONS` executions whatever
            that takes.

    Raises:
        InferenceError: the model does not answer.
    """
    batches = batches_up_to(spec.max_batch_size)[::-2][::-1] if spec.max_batch_size else []
    batches = sorted({1, *batches})  # every second power: between them a straight line does
    levels = levels_up_to(instances)
    points = [(batch, busy) for busy in levels for batch in batches]
    each_s = seconds / (len(points) * PASSES)
    found: dict[tuple[int, int], list[float]] = {point: [] for point in points}
    counts = dict.fromkeys(points, 0)
    rests: list[float] = []
    for batch in batches:
        client.infer(
            spec.name, _batch(requests, batch, batching=spec.max_batch_size > 0)
        )  # the first of a shape is slow
    ends_at_s = time.monotonic() + seconds
    for number in range(PASSES):
        for batch, busy in points:
            if number and time.monotonic() > ends_at_s:
                break
            tensors = _batch(requests, batch, batching=spec.max_batch_size > 0)
            before = _executed(client, spec.name, batch)
            latencies = _send(client, spec.name, tensors, busy, each_s)
            after = _executed(client, spec.name, batch)
            count = after[0] - before[0]
            if count <= 0:
                continue
            found[batch, busy].append((after[1] - before[1]) / count / NS_PER_US)
            counts[batch, busy] += count
            if busy == 1 and batch == 1:
                rests.append(max(0.0, float(np.median(latencies)) - found[batch, busy][-1]))
    timings = tuple(Timing(b, k, min(times), counts[b, k]) for (b, k), times in found.items() if times)
    if not timings:
        raise TritonRepoError(
            "the server counts no executions of the model",
            where=spec.name,
            expected="statistics of each batch size (`batch_stats`) that grow while requests are answered",
            got=f"{sum(map(len, found.values()))} executions in {seconds:.1f} s",
            fix="a response cache answers in its place: build it with `response_cache: false` while it is tuned",
        )
    return Curve(variant, threads, timings, min(rests, default=0.0))


def _batch(requests: Sequence[Request], batch: int, *, batching: bool) -> dict[str, NDArray[Any]]:
    if not batching:
        return dict(requests[0])
    picked = [requests[number % len(requests)] for number in range(batch)]
    return {name: np.stack([request[name] for request in picked]) for name in requests[0]}


def _executed(client: Client, model: str, batch: int) -> tuple[int, float]:
    """How many executions of this batch the server has counted, and their nanoseconds together."""
    for entry in client.statistics(model):
        for row in entry.get("batch_stats") or ():
            if int(row.get("batch_size") or 0) == batch:
                count = int(row["compute_infer"].get("count") or 0)
                return count, float(sum(int(row[part].get("ns") or 0) for part in PARTS if part in row))
    return 0, 0.0


def _send(client: Client, model: str, tensors: Mapping[str, NDArray[Any]], at_once: int, seconds: float) -> list[float]:
    """Keep so many requests under way for a while; microseconds of each."""
    latencies: list[float] = []
    errors: list[Exception] = []
    until = time.monotonic() + seconds

    def keep_asking() -> None:
        done = 0
        try:
            while done < FEWEST_EXECUTIONS or time.monotonic() < until:
                started_s = time.perf_counter()
                client.infer(model, tensors)
                latencies.append((time.perf_counter() - started_s) * 1e6)
                done += 1
        except Exception as error:
            errors.append(error)
        finally:
            client.leave_thread()

    workers = [threading.Thread(target=keep_asking, daemon=True) for _ in range(at_once)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return latencies
