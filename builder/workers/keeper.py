"""Stands between build-repo and the processes that build models, and ends them all, however build-repo ends.

It does nothing but wait. When its standard input says so or closes, when build-repo is gone, or when the warm process
has ended, every process that came from it is killed: also one that moved to another session or lost its parent.
"""

from __future__ import annotations

import os
import select
import signal

from serving.watchdog import adopt_orphans, die_with_parent, end_children

_PARENT_CHECK_S = 1.0


def keep(commander: int, control_fd: int) -> None:
    """Go on in a child, the warm process; this process stays behind as its keeper and does not return.

    Args:
        commander: process id of build-repo, our parent.
        control_fd: the warm process's alone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that commands us
    adopt_orphans()
    keeper = os.getpid()
    warm = os.fork()
    if warm == 0:
        die_with_parent()
        if os.getppid() != keeper:
            os._exit(1)
        _read_nothing()
        return
    status = 1
    try:
        os.close(control_fd)
        status = _watch(warm, commander)
        end_children()
    finally:
        os._exit(status)


def _read_nothing() -> None:
    """Our standard input is the keeper's; the user's code gets an empty one."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _watch(warm: int, commander: int) -> int:
    """Wait for the end; the warm process's exit status as a shell would say it, 0 where it has to be ended."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    while True:
        status = _reaped(warm)
        if status is not None:
            return 128 - status if status < 0 else status
        readable, _, _ = select.select([0, reader], [], [], _PARENT_CHECK_S)
        if reader in readable:
            os.read(reader, 64)
        if 0 in readable or os.getppid() != commander:
            return 0


def _reaped(warm: int) -> int | None:
    """Reap the warm process, whose exit status is given, and orphans."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == warm:
            return os.waitstatus_to_exitcode(status)
        if pid == 0:
            return None
