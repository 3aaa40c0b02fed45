"""Waiting for what another process says."""

from __future__ import annotations

import math
import select


def readable(handle: int, timeout_s: float | None) -> bool:
    """True as soon as there is something to read, or the end; False where there is nothing within the time.

    Unlike ``select.select``, of use in a process that has more than 1024 files open.

    Args:
        handle: a file descriptor.
        timeout_s: None to wait for as long as it takes.
    """
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else math.ceil(timeout_s * 1000)))
