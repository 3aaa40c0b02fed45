"""Lets a server that is being stopped go of HTTP clients that only keep their connection open.

Triton waits for every HTTP *connection* to close, up to its exit timeout, before it stops its models: one idle client
(tritonclient's pool, a load balancer) holds it for 30 s and makes it exit with 1. So the receiving side of such
connections is shut from outside, through a duplicate of the server's descriptor. A request in flight is not hurt:
Triton does not read while it answers, sends the answer, and only then sees the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from pathlib import Path

IDLE_MS = 200  # a client that sent something more recently may still be sending its request

_PIDFD_OPEN, _PIDFD_GETFD = 434, 438  # the same on every architecture
_LAST_DATA_RECV = 52  # offset in Linux's struct tcp_info, milliseconds


def shut_idle(pid: int, port: int) -> int:
    """Shut the receiving side of connections to ``port`` that brought nothing for :data:`IDLE_MS`; how many.

    Needs the right to look into the process (a child of the same user; in a container perhaps CAP_SYS_PTRACE): without
    it nothing happens and the server waits as it always did.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    process = libc.syscall(_PIDFD_OPEN, pid, 0)
    if process < 0:
        return 0
    try:
        return sum(_shut(libc, process, number, port) for number in _sockets(pid))
    finally:
        os.close(process)


def _sockets(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(handle.readlink()).startswith("socket:"):
                    found.append(int(handle.name))
    return found


def _shut(libc: ctypes.CDLL, process: int, number: int, port: int) -> bool:
    duplicate = libc.syscall(_PIDFD_GETFD, process, number, 0)
    if duplicate < 0:
        return False
    with contextlib.suppress(OSError, IndexError), socket.socket(fileno=duplicate) as connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6) or connection.getsockname()[1] != port:
            return False
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return False
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECV + 4)
        if struct.unpack_from("I", info, _LAST_DATA_RECV)[0] >= IDLE_MS:
            connection.shutdown(socket.SHUT_RD)
            return True
    return False
