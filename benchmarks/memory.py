"""Memory of a process and everything it started, sampled while it runs: what a build costs the machine.

Linux only. The figure is the proportional set size (PSS) out of ``/proc/<pid>/smaps_rollup``: a page that several
processes share is counted once, divided among them. It has two parts that differ in what they mean: *anonymous* memory
(heap, stacks, shared memory segments) is only given back when its owner frees it; *file-backed* pages are files mapped
into a process (libraries, memory-mapped weights), which the kernel can drop and read again whenever memory is short.
Page cache that nobody has mapped belongs to no process and is in neither.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """Memory at one moment, bytes.

    Attributes:
        anonymous: heap, stacks and shared memory.
        file_backed: mapped files.
    """

    anonymous: int = 0
    file_backed: int = 0

    @property
    def total(self) -> int:
        """Both."""
        return self.anonymous + self.file_backed

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.anonymous + other.anonymous, self.file_backed + other.file_backed)


@dataclass(frozen=True)
class Peak:
    """The largest figures seen during a phase; they need not be of the same moment."""

    total: int = 0
    anonymous: int = 0

    def seen(self, usage: Usage) -> Peak:
        """With one more sample."""
        return Peak(max(self.total, usage.total), max(self.anonymous, usage.anonymous))

    def __or__(self, other: Peak) -> Peak:
        return Peak(max(self.total, other.total), max(self.anonymous, other.anonymous))


def descendants(root: int) -> list[int]:
    """A process and all that came from it, however deep; those that are gone are left out."""
    parents: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += parents.get(pid, [])
    return found


def proportional(pid: int) -> Usage:
    """PSS of one process; nothing where it is gone or may not be looked at."""
    values = _kilobytes(pid, "smaps_rollup")
    return Usage(1024 * (values.get("Pss_Anon", 0) + values.get("Pss_Shmem", 0)), 1024 * values.get("Pss_File", 0))


def resident(pid: int) -> Usage:
    """RSS of one process: at least its PSS, and read in no time."""
    values = _kilobytes(pid, "status")
    return Usage(1024 * (values.get("RssAnon", 0) + values.get("RssShmem", 0)), 1024 * values.get("RssFile", 0))


def _kilobytes(pid: int, file: str) -> dict[str, int]:
    try:
        lines = (PROC / str(pid) / file).read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {key: int(value.removesuffix("kB")) for key, value in pairs}


class Sampler:
    """Samples a process tree until it is stopped; a context manager.

    Reading a process's PSS walks its page tables, and holds up its page faults meanwhile: 50 ms for 2 GB. So the cheap
    resident set sizes are read at every tick, and the PSS, which is never larger, only where they could be a new peak;
    and never for more than a third of the time.

    Args:
        root: the process at the top of the tree.
        phase: says what is being done at this moment; peaks are kept apart by its answers.
        interval_s: time between samples.

    Attributes:
        peaks: by phase.
        holders: by phase, at its largest total: what each process held, under ``<name> <pid>``.
    """

    def __init__(self, root: int, phase: Callable[[], str] = lambda: "", interval_s: float = 0.05) -> None:
        self.peaks: dict[str, Peak] = {}
        self.holders: dict[str, dict[str, Usage]] = {}
        self._root = root
        self._phase = phase
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        self._thread.join()

    @property
    def peak(self) -> Peak:
        """Over all phases."""
        result = Peak()
        for peak in self.peaks.values():
            result |= peak
        return result

    def _run(self) -> None:
        while not self._stopped.is_set():
            started = time.monotonic()
            self._sample()
            took = time.monotonic() - started
            self._stopped.wait(max(self._interval_s - took, 2 * took))

    def _sample(self) -> None:
        phase = self._phase()
        known = self.peaks.setdefault(phase, Peak())
        pids = descendants(self._root)
        bound = sum(map(resident, pids), Usage())
        if bound.total <= known.total and bound.anonymous <= known.anonymous:
            return
        usages = {pid: proportional(pid) for pid in pids}
        usage = sum(usages.values(), Usage())
        if usage.total > known.total:
            self.holders[phase] = {f"{_name(pid)} {pid}": used for pid, used in usages.items() if used.total}
        self.peaks[phase] = known.seen(usage)


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "?"
