"""The parent's end of :mod:`serving.watchdog`: start a server under it, hear how it goes, order its end."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from serving import watchdog
from serving.pipes import readable

_KILLED = 128 + 9
# Nothing of the environment leaks in (-I, -S); our own package is looked up last, after the standard library.
_SCRIPT = "import sys; sys.path.append(sys.argv[1]); from serving.watchdog import main; sys.exit(main())"


class Supervised:
    """One server process under its watchdog.

    Attributes:
        pid: of the server.
        exit_status: as a shell gives it; None while it runs.
        error: why the program could not be run at all, or empty.
    """

    def __init__(self, orders: watchdog.Orders) -> None:
        self.pid = 0
        self.exit_status: int | None = None
        self.error = ""
        self._said = b""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _SCRIPT, str(Path(__file__).parents[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C in the terminal is for this process alone
        )
        try:
            self._write(json.dumps(vars(orders)).encode() + b"\n")
            while not self.pid and self.exit_status is None:
                self.hear(None)
        except BaseException:
            self.end(at_once=True)
            raise

    def hear(self, timeout_s: float | None) -> None:
        """Take in what the watchdog says, waiting at most ``timeout_s`` (None: until it says something)."""
        if self.exit_status is not None or self._process.stdout is None:
            return
        handle = self._process.stdout.fileno()
        if not readable(handle, timeout_s):
            return
        chunk = os.read(handle, 4096)
        self._said += chunk
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            message = json.loads(line)
            self.pid = message.get("pid", self.pid)
            self.exit_status = message.get("exit", self.exit_status)
            self.error = message.get("error", self.error)
        if not chunk and self.exit_status is None:
            self.exit_status = _KILLED  # the watchdog itself was killed, and its server with it

    def end(self, *, at_once: bool = False) -> None:
        """Order the end and wait for it; an interrupt meanwhile turns it into a kill."""
        try:
            self._write(b"k" if at_once else b"t")
            self._drain()
        except BaseException:
            self._write(b"k")
            self._drain()
            raise
        finally:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def _drain(self) -> None:
        self._process.wait()
        self.hear(0)

    def _write(self, data: bytes) -> None:
        # An order is said, not only shown by closing the pipe: a forked child of ours may hold it open.
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(data)
