"""How late a process wakes from a sleep on this machine, and how it is made less late.

perf_analyzer sleeps until a request is due. Linux lets such a sleep end up to 50 us late by itself, to save power, and
then it takes the processor some time to wake. The export does not say when the schedule began, only when each request
left: so what even the most punctual one was late by has to be known from elsewhere.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SET_SLACK, _GET_SLACK = 29, 30
"""Of prctl: how late a sleep may end, nanoseconds; child processes take it over."""

_SLEEPS, _SLEEP_S = 60, 0.0005


@contextmanager
def punctual() -> Iterator[None]:
    """Within the block, this thread and the processes that it starts end their sleeps as soon as they can."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):  # not Linux
        yield
        return
    before = prctl(_GET_SLACK, 0, 0, 0, 0)
    prctl(_SET_SLACK, 1, 0, 0, 0)
    try:
        yield
    finally:
        if before > 0:
            prctl(_SET_SLACK, before, 0, 0, 0)


def wake_up_us() -> float:
    """How late the most punctual of some sleeps ends within :func:`punctual`, microseconds; takes about 40 ms."""
    with punctual():
        return late_us()


def late_us() -> float:
    """The same for sleeps as this thread has them now."""
    late = []
    for _ in range(_SLEEPS):
        started_s = time.perf_counter()
        time.sleep(_SLEEP_S)
        late.append(time.perf_counter() - started_s - _SLEEP_S)
    return max(0.0, min(late) * 1e6)
