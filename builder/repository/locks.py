"""One at a time: a build per ``.build`` folder, and, for a moment, one process that changes a repository.

Both are ``flock`` on the folder itself: the system gives it back when its holder dies, however it dies, and there is no
file that could be left behind. Who holds the build lock is written beside it, for the message.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builder.errors import LockedError, PublishError, describe
from builder.repository.durable import make_folder
from serving.progress import SILENT, Reporter

HOLDER = "holder.json"
_held: set[int] = set()


@dataclass(frozen=True)
class Holder:
    """Who holds a build lock.

    Attributes:
        pid: its process, on ``host``.
        host: its machine.
        since: when it took the lock, ISO 8601 with the zone.
        command: its command line.
    """

    pid: int
    host: str
    since: str
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}: {self.command}"


@contextlib.contextmanager
def build_lock(build_dir: Path, *, wait: bool = False, reporter: Reporter = SILENT) -> Iterator[None]:
    """Hold the lock of a ``.build`` folder, which is made if it is not there.

    Args:
        build_dir: the folder.
        wait: wait for who holds it, instead of saying who it is.
        reporter: told while we wait.

    Raises:
        LockedError: another process holds it and we do not wait; says which, where, since when.
        PublishError: the folder cannot be made or locked.
    """
    with _explained(build_dir):
        make_folder(build_dir)
        descriptor = _locked(build_dir, wait=False)
    if descriptor is None:
        if not wait:
            raise _locked_error(build_dir)
        holder = holder_of(build_dir)
        with reporter.step(f"wait for {holder or 'another build'}"), _explained(build_dir):
            descriptor = _locked(build_dir, wait=True)
    assert descriptor is not None
    try:
        with _explained(build_dir):
            _write_holder(build_dir)
        yield
    finally:
        with contextlib.suppress(OSError):
            (build_dir / HOLDER).unlink(missing_ok=True)
        _give_back(descriptor)


@contextlib.contextmanager
def publish_lock(repository: Path) -> Iterator[None]:
    """Hold the lock of a repository, which is there; waits for who holds it, which is never long.

    Raises:
        PublishError: the folder cannot be locked.
    """
    with _explained(repository):
        descriptor = _locked(repository, wait=True)
    assert descriptor is not None
    try:
        yield
    finally:
        _give_back(descriptor)


@contextlib.contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Mark a folder as in use for as long as this process, or the block, lasts; see :func:`is_held`."""
    with _explained(folder):
        descriptor = _locked(folder, wait=True)
    assert descriptor is not None
    try:
        yield
    finally:
        _give_back(descriptor)


def is_held(folder: Path) -> bool:
    """True while some process is in :func:`held_folder` with it."""
    try:
        descriptor = _locked(folder, wait=False)
    except OSError:
        return False
    if descriptor is None:
        return True
    _give_back(descriptor)
    return False


def holder_of(build_dir: Path) -> Holder | None:
    """Who wrote that it holds the lock; None where nobody did, or it cannot be read."""
    try:
        data: dict[str, Any] = json.loads((build_dir / HOLDER).read_text(encoding="utf-8"))
        return Holder(int(data["pid"]), str(data["host"]), str(data["since"]), str(data["command"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _locked(folder: Path, *, wait: bool) -> int | None:
    """A descriptor that holds the lock; None where another one does and we do not wait."""
    while True:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            same = _is_at(descriptor, folder)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        if same:
            _held.add(descriptor)
            return descriptor
        os.close(descriptor)  # somebody removed the folder while we waited: the lock is that of the new one
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)


def _is_at(descriptor: int, folder: Path) -> bool:
    try:
        now = folder.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (ours.st_dev, ours.st_ino) == (now.st_dev, now.st_ino)


def _give_back(descriptor: int) -> None:
    _held.discard(descriptor)
    # Closing alone would not do: a process that is being forked just now may still have the descriptor too.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _close_in_child() -> None:
    """A forked process must not keep a lock alive after its parent died: it has the same descriptors."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


def _write_holder(build_dir: Path) -> None:
    command = " ".join([Path(sys.argv[0]).name or "python", *sys.argv[1:]])[:200]
    holder = Holder(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%dT%H:%M:%S%z"), command)
    draft = build_dir / f"{HOLDER}.new"
    draft.write_text(json.dumps(asdict(holder)), encoding="utf-8")
    draft.replace(build_dir / HOLDER)


def _locked_error(build_dir: Path) -> LockedError:
    holder = holder_of(build_dir)
    return LockedError(
        "another build is at work on this repository",
        where=str(build_dir),
        expected="one build at a time",
        got=str(holder) if holder else "a process that has only just begun",
        fix="wait for it, or let build-repo wait: build-repo --wait",
    )


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        no_locks = exc.errno in (errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP)
        raise PublishError(
            "the folder cannot be locked" if no_locks else "the folder cannot be used",
            where=str(folder),
            expected="a filesystem that locks folders" if no_locks else "a folder that can be made, read and written",
            got=describe(exc),
            fix="use a folder on a local disk" if no_locks else "mend what the message above says",
        ) from exc
