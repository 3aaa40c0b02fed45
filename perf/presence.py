"""Whether another benchmark runs on this machine: two at once measure each other.

Each holds a socket in the kernel's abstract namespace for as long as it runs. Unlike a lock file it needs no folder
that all users may write to, and it is gone with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from pathlib import Path
from types import TracebackType

from perf.result import Doubt

_NAME = "triton-repo-bench-"


class Presence:
    """Says for the length of a ``with`` block that a benchmark runs here, and knows of others."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._seen: set[int] = set()

    def __enter__(self) -> Presence:
        with contextlib.suppress(OSError):  # no such sockets here (not Linux): then nothing is known of others
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.bind(f"\0{_NAME}{os.getpid()}-{id(self)}")
        self.look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    def look(self) -> set[int]:
        """The processes of all others that were seen so far."""
        with contextlib.suppress(OSError):
            text = Path("/proc/net/unix").read_text()
            found = {int(pid) for pid in re.findall(rf"@{_NAME}(\d+)-", text)}
            self._seen |= found - {os.getpid()}
        return self._seen

    def doubts(self) -> list[Doubt]:
        """Another benchmark was running when this one began, or is now that it ends."""
        if not (others := self.look()):
            return []
        pids = ", ".join(str(pid) for pid in sorted(others))
        message = f"another bench-repo ran on this machine (process {pids}): both measured each other"
        return [Doubt(code="two_benches", message=message)]
