"""The loads of a baseline that runs in process: the same as a client's, without the client.

Requests wait in one queue, first come first served, for one of so many runners, as they do at a server with so many
instances. Nothing is handed from thread to thread: a runner takes the next request itself, so what is measured is what
the calls take and the wait for them, and nothing that a server adds. Imports numpy only: it runs in the child process.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]
Runner = Callable[[Tensors], Tensors]
NS_PER_S = 1_000_000_000


@dataclass
class Trace:
    """What a load left.

    Attributes:
        rows: (begun, answered) of each request, nanoseconds of the monotonic clock; of a schedule (due, answered).
        answers: by the number of the request, the answer that came last.
        edges_ns: of the measured windows; empty where a schedule says them.
    """

    rows: list[tuple[int, int]] = field(default_factory=list)
    answers: dict[int, Tensors] = field(default_factory=dict)
    edges_ns: Sequence[int] = ()


def closed_load(
    runners: Sequence[Runner],
    requests: Sequence[Tensors],
    concurrency: int,
    lead_s: float,
    window_s: float,
    windows: int,
    *,
    first: int = 0,
) -> Trace:
    """So many requests are under way at once: each that is answered is followed by the next, at the end of the queue.

    Args:
        runners: each is called by one thread.
        requests: taken in turn, beginning with number ``first``.
        lead_s: how long the load runs before it is measured.

    Raises:
        Exception: the first that a runner raised.
    """
    begin_ns = time.monotonic_ns()
    first_edge = begin_ns + round(lead_s * NS_PER_S)
    edges = [first_edge + round(number * window_s * NS_PER_S) for number in range(windows + 1)]
    waiting = deque([begin_ns] * concurrency)
    turn = itertools.count(first)
    answers: dict[int, Tensors] = {}

    def work(runner: Runner, rows: list[tuple[int, int]], stop: threading.Event) -> None:
        now = begin_ns
        while now < edges[-1] and not stop.is_set():
            begun, number = waiting.popleft(), next(turn) % len(requests)
            answers[number] = runner(requests[number])
            now = time.monotonic_ns()
            rows.append((begun, now))
            waiting.append(now)

    rows = _all(runners[:concurrency], work)
    return Trace([row for row in rows if edges[0] < row[1] <= edges[-1]], answers, edges)


def scheduled_load(runners: Sequence[Runner], requests: Sequence[Tensors], due_us: NDArray[np.int64]) -> Trace:
    """Each request is begun when it is due, or as soon after that as a runner is free.

    Args:
        due_us: microseconds from the start, not falling.
    """
    begin_ns = time.monotonic_ns()
    due_ns = [begin_ns + int(due) * 1000 for due in due_us]
    turn = itertools.count()
    answers: dict[int, Tensors] = {}

    def work(runner: Runner, rows: list[tuple[int, int]], stop: threading.Event) -> None:
        while (place := next(turn)) < len(due_ns) and not stop.is_set():
            if (ahead := due_ns[place] - time.monotonic_ns()) > 0 and stop.wait(ahead / NS_PER_S):
                return
            number = place % len(requests)
            answers[number] = runner(requests[number])
            rows.append((due_ns[place], time.monotonic_ns()))

    return Trace(sorted(_all(runners, work)), answers)


_Work = Callable[[Runner, list[tuple[int, int]], threading.Event], None]


def _all(runners: Sequence[Runner], work: _Work) -> list[tuple[int, int]]:
    """Each runner in a thread of its own; all end when one fails."""
    parts: list[list[tuple[int, int]]] = [[] for _ in runners]
    failures: list[BaseException] = []
    stop = threading.Event()

    def guarded(runner: Runner, rows: list[tuple[int, int]]) -> None:
        try:
            work(runner, rows, stop)
        except BaseException as exc:
            failures.append(exc)
            stop.set()

    threads = [threading.Thread(target=guarded, args=pair) for pair in zip(runners, parts, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [row for part in parts for row in part]
