"""Stands between a process and the server it started, and outlives both: nothing is left behind, however they die.

Run by :mod:`serving.supervised` as a process of its own, with nothing but the standard library: it reads one JSON line
(:class:`Orders`) from stdin, starts the server in a session of its own, writes ``{"pid": N}`` and, at the end,
``{"exit": N}`` to stdout. The server is stopped when stdin says ``t`` (in order) or ``k`` (at once), when stdin closes,
or when the parent is gone: SIGKILL of the parent closes its pipe, and is noticed by its process id where a forked child
still holds the pipe. Then every process that came from the server is killed, and its shared memory removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.connections import shut_idle

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "triton_repo"
PREFIX_HERE = "@SHARED_MEMORY_PREFIX@"

_WAITING_FOR_CLIENTS = b"HTTP service connections"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PARENT_CHECK_S = 1.0
_STOP_CHECK_S = 0.03
_KILL_MARGIN_S = 5.0  # beyond the server's own exit timeout


@dataclass(frozen=True)
class Orders:
    """What to start and how to stop it.

    Attributes:
        command: the server's argv; :data:`PREFIX_HERE` in it becomes the prefix of its shared memory.
        env: its whole environment.
        log: where its output goes (appended).
        parent: process id of the one who ordered.
        http_port: connections to it that only wait are let go when the server is stopped.
        exit_timeout_s: how long the server itself waits for requests in flight.
        quick: end the server once its models are stopped, instead of after its own seconds of polling.
        only_stubs: every model lives in a stub process, so "no stub left" means "all models unloaded".
    """

    command: list[str]
    env: dict[str, str]
    log: str
    parent: int
    http_port: int
    exit_timeout_s: float
    quick: bool
    only_stubs: bool


def shared_memory_prefix() -> str:
    """A prefix that names its owner, this process, so that :func:`sweep` can tell whether the owner still lives."""
    return f"{PREFIX}_{_pid_namespace()}_{os.getpid()}_{_start_time(os.getpid())}_"


def sweep() -> list[str]:
    """Remove segments of owners that are dead with their watchdogs (power, the OOM killer); gives their names."""
    removed = []
    for segment in SHARED_MEMORY.glob(f"{PREFIX}_{_pid_namespace()}_*"):
        fields = segment.name.removeprefix(PREFIX + "_").split("_")
        if len(fields) < 4 or not fields[1].isdigit() or _start_time(int(fields[1])) == fields[2]:
            continue
        segment.unlink(missing_ok=True)
        removed.append(segment.name)
    return removed


def session_pids(session: int) -> list[int]:
    """Living processes of a session (zombies do not count)."""
    return [pid for pid, fields in _processes() if int(fields[3]) == session and fields[0] != "Z"]


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Process id and the fields of ``/proc/PID/stat`` from the state on."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                yield int(entry.name), fields


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return "0"


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def die_with_parent() -> None:
    """Let this process be killed when the one that started it ends, however that ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Let every descendant of this process that loses its parent become a child of it, to be killed and reaped."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_children(group: int | None = None) -> None:
    """Kill and reap every child of this process, and those it adopts meanwhile; ``group`` is killed as a whole."""
    while True:
        if group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        for pid, fields in _processes():
            if int(fields[1]) == os.getpid() and fields[0] != "Z":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break


class Watchdog:
    """One server, from start to the last trace of it."""

    def __init__(self, orders: Orders, wakeup: int) -> None:
        self._orders = orders
        self._wakeup = wakeup
        self._prefix = shared_memory_prefix()
        adopt_orphans()  # what the server leaves becomes ours
        with Path(orders.log).open("ab") as log:
            self._server = subprocess.Popen(
                [part.replace(PREFIX_HERE, self._prefix) for part in orders.command],
                env=orders.env,
                # The stubs import from their working directory first: a user's model.py there must not be the backend.
                cwd="/" if orders.only_stubs else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.pid = self._server.pid

    def run(self) -> int:
        """Wait for the end, whoever causes it; gives the server's exit status as a shell would."""
        request = self._until(lambda: False, deadline=None)
        status = self._server.returncode
        if status is None:
            if request == "k":
                self._server.kill()
                status = -signal.SIGKILL
            else:
                status = self._stop()
        self._clean()
        return 128 - status if status < 0 else status

    def _until(self, condition: Callable[[], bool], deadline: float | None) -> str:
        """Wait until the server ended (""), is to be stopped ("t") or killed ("k"), or the condition holds ("c")."""
        stdin: list[int] = [0]
        while self._server.poll() is None:
            if condition():
                return "c"
            if deadline is not None and time.monotonic() > deadline:
                return "k"
            interval = _PARENT_CHECK_S if deadline is None else _STOP_CHECK_S
            readable, _, _ = select.select([*stdin, self._wakeup], [], [], interval)
            if self._wakeup in readable:
                received = os.read(self._wakeup, 64)
                if signal.SIGTERM in received and deadline is None:
                    return "t"
            if 0 in readable:
                order = os.read(0, 1)
                if order == b"k":
                    return "k"
                if deadline is None:
                    return "t"
                stdin = []  # closed while stopping: nothing more to hear
            if deadline is None and os.getppid() != self._orders.parent:
                return "t"
        return ""

    def _stop(self) -> int:
        """SIGTERM, requests in flight finish, then the end; what takes longer than the exit timeout is killed."""
        log = Path(self._orders.log)
        before = log.stat().st_size
        had_stubs = len(session_pids(self.pid)) > 1

        def models_are_stopped() -> bool:
            with log.open("rb") as handle:
                handle.seek(before)
                said = handle.read()
            if _WAITING_FOR_CLIENTS in said and b"Waiting for in-flight" not in said:
                shut_idle(self.pid, self._orders.http_port)
            if not self._orders.quick:
                return False
            if b"Found 0 live models" in said:
                return True
            finished = b"All models are stopped" in said and had_stubs and self._orders.only_stubs
            return finished and session_pids(self.pid) == [self.pid]

        for pid in self._to_terminate():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + self._orders.exit_timeout_s + _KILL_MARGIN_S
        how = self._until(models_are_stopped, deadline)
        if how == "":
            return int(self._server.returncode)
        self._server.kill()
        return 0 if how == "c" else -signal.SIGKILL

    def _to_terminate(self) -> list[int]:
        """The server itself, also where the command is a script that runs it and would die of the signal alone."""
        session = set(session_pids(self.pid))
        servers = {pid for pid in session if _name(pid) == "tritonserver"}
        starters = {int(fields[1]) for pid, fields in _processes() if pid in servers}
        return sorted(servers - starters) or [self.pid]

    def _clean(self) -> None:
        """Kill and reap every descendant, wherever it moved, and remove the shared memory."""
        end_children(self.pid)
        for segment in SHARED_MEMORY.glob(f"{self._prefix}*"):
            segment.unlink(missing_ok=True)


def _tell(message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the parent is gone; there is nobody to tell
        os.write(1, json.dumps(message).encode() + b"\n")


def _read_orders() -> Orders:
    line = b""
    while not line.endswith(b"\n"):  # byte by byte: what follows the line is a later order
        byte = os.read(0, 1)
        if not byte:
            raise SystemExit(1)
        line += byte
    return Orders(**json.loads(line))


def main() -> int:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    signal.signal(signal.SIGTERM, lambda signum, frame: None)
    orders = _read_orders()
    sweep()
    try:
        watchdog = Watchdog(orders, reader)
    except OSError as exc:
        _tell({"exit": 127, "error": f"{exc.strerror}: {exc.filename}"})
        return 127
    _tell({"pid": watchdog.pid})
    status = watchdog.run()
    _tell({"exit": status})
    return status
