"""This side's end of the warm process (:mod:`.worker`): started when it is needed, asked to fork, ended."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Any

from builder.workers import failures
from builder.workers.worker import Task

_BOOT = (
    "import sys; sys.path[:] = {path!r}; from builder.workers.worker import main; main({fd}, {preload!r}, {commander})"
)
_EXIT_S = 2.0


class Warm:
    """The warm process, and another one after it where it died. For several threads.

    Args:
        preload: modules that it imports.
        threads: how many threads the frameworks may use.
    """

    def __init__(self, preload: Sequence[str], threads: int) -> None:
        self._preload = list(preload)
        self._threads = threads
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Connection | None = None
        self._count = 0
        self._exits: dict[int, int] = {}
        self._children: set[int] = set()  # of the present warm process
        self._orphaned: set[int] = set()
        self._news = threading.Condition()
        self._killed = threading.Event()

    @property
    def killed(self) -> bool:
        """True once :meth:`kill` was called."""
        return self._killed.is_set()

    def fork(self, task: Task, log: Path) -> tuple[int, Connection]:
        """Begin a model in a child; its number and the connection to it.

        Raises:
            WorkerError: the build was interrupted, or no warm process comes to life.
            OSError: ``log`` cannot be written.
        """
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.callback(ours.close)
            with self._lock, theirs, log.open("wb") as output:
                try:
                    self._begin(task, theirs.fileno(), output.fileno())
                except ConnectionError:  # it died since the last model, which has heard of it
                    self._begin_anew(task, theirs.fileno(), output.fileno())
                number = self._count
            stack.pop_all()
        return number, Connection(ours.detach())

    def _begin(self, task: Task, channel_fd: int, log_fd: int) -> None:
        if self.killed:
            raise failures.interrupted()
        if self._control is None or (self._process is not None and self._process.poll() is not None):
            self._start()
        assert self._control is not None and self._process is not None
        self._count += 1
        with self._news:
            self._children.add(self._count)
        self._control.send((self._count, task))
        for handle in (channel_fd, log_fd):
            send_handle(self._control, handle, self._process.pid)

    def _begin_anew(self, task: Task, channel_fd: int, log_fd: int) -> None:
        self._control = None
        try:
            self._begin(task, channel_fd, log_fd)
        except ConnectionError as exc:
            assert self._process is not None
            raise failures.no_warm_process(self._process.wait()) from exc

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        code = _BOOT.format(path=sys.path, fd=theirs.fileno(), preload=self._preload, commander=os.getpid())
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TRITON_REPO_THREADS": str(self._threads)}
        environment.setdefault("OMP_NUM_THREADS", str(self._threads))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,  # its lifeline: see builder.workers.keeper
                bufsize=0,
                stdout=sys.stderr if _has_fileno(sys.stderr) else subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        self._control, self._children = Connection(ours.detach()), set()
        hearing = [self._control, self._process, self._children]
        threading.Thread(target=self._hear_exits, args=hearing, daemon=True).start()
        if self.killed:  # asked after it can be seen that there is one: see kill()
            self._end(self._process)
            raise failures.interrupted()

    def _hear_exits(self, control: Connection, process: subprocess.Popen[bytes], children: set[int]) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                number, status = control.recv()
                with self._news:
                    self._exits[number] = status
                    self._news.notify_all()
        # It is gone, its keeper with it, and all its children.
        status = process.wait()
        with self._news:
            for number in children - set(self._exits):
                self._exits[number] = 128 - status if status > 128 else status
                self._orphaned.add(number)
            self._news.notify_all()

    def has_ended(self, number: int) -> bool:
        """True where a child is known to have ended."""
        with self._news:
            return number in self._exits

    def was_orphaned(self, number: int) -> bool:
        """True where it was the warm process that ended, and the child with it."""
        with self._news:
            return number in self._orphaned

    def exit_status(self, number: int) -> int | None:
        """How a child ended, minus the signal where it was one; it is killed if it does not end by itself."""
        if self.killed:
            return None
        with self._news:
            if self._news.wait_for(lambda: number in self._exits, timeout=_EXIT_S):
                return self._exits[number]
        with self._lock, contextlib.suppress(OSError):
            if self._control is not None:
                self._control.send((number, None))
        return None

    def kill(self) -> None:
        """End the warm process and all that came from it, at once; no other is started."""
        self._killed.set()
        self._end(self._process)  # first of all: whoever holds the lock may be waiting for it
        with self._lock:
            self._end(self._process)

    def _end(self, process: subprocess.Popen[bytes] | None) -> None:
        if process is None or process.stdin is None:
            return
        # An order is said, not only shown by closing the pipe: a process forked from ours may hold it open too.
        with contextlib.suppress(OSError, ValueError):
            process.stdin.write(b"k")
            process.stdin.close()
        try:
            process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            process.kill()  # its children die with it


def _has_fileno(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True
