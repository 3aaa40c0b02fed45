"""Ctrl-C and SIGTERM where they must not come between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """An interruption that comes meanwhile is heard at the end of the block: keep it short.

    Around the start of a process: Python drops an exception that a signal raises in what it does around a fork, and one
    that comes just after leaves a process that nobody knows. Signals are heard by the main thread alone: on any other
    nothing needs to be done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []

    def later(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = {number: handler for number, handler in before.items() if callable(handler)}
    for number in heard:
        signal.signal(number, later)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
        for came_number, frame in came:
            heard[signal.Signals(came_number)](came_number, frame)
