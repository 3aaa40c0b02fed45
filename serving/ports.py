"""TCP ports: free ones, who holds one, and whether a process of ours is the one that listens."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from pathlib import Path

_LISTEN = "0A"


def free_ports(host: str, count: int) -> list[int]:
    """Different ports that are free just now; another process may still be faster to take one."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_socket(host)) for _ in range(count)]
        for each in sockets:
            each.bind((host, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def can_bind(host: str, port: int) -> bool:
    """True when a server could listen there now."""
    with _socket(host) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: connections in TIME_WAIT are no bar
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def listeners(port: int) -> dict[int, str]:
    """Processes that listen on a port: id and name; only those this user may look at."""
    inodes = _listening_inodes(port)
    found = {}
    for entry in Path("/proc").iterdir():
        if inodes and entry.name.isdigit() and _holds(int(entry.name), inodes):
            with contextlib.suppress(OSError):
                found[int(entry.name)] = (entry / "comm").read_text().strip()
    return found


def listened_by(pids: Iterable[int], port: int) -> bool:
    """True when one of these processes listens on the port, so that no other server answers for it."""
    inodes = _listening_inodes(port)
    return bool(inodes) and any(_holds(pid, inodes) for pid in pids)


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    return inodes


def _holds(pid: int, inodes: set[str]) -> bool:
    try:
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(handle.readlink())
                if target.startswith("socket:[") and target[8:-1] in inodes:
                    return True
    except OSError:
        return False
    return False
