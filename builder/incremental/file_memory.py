"""sha256 of files, each read once: remembered with size, times and inode, and read again when any of these differs.

A file that changed within the last moments is never remembered, because a second change in the same tick of the clock
would not be seen (what git calls racily clean).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from builder.artifact import sha256_of

ABSENT = "absent"
_SETTLED_NS = 2_000_000_000
_NOT_CONTENT = ("__pycache__", ".git")
_stat = os.stat  # as it is before anybody watches who calls it

Facts = tuple[int, int, int, int]


def facts_of(path: str | Path) -> Facts | None:
    """Size, times and inode of a regular file; None of anything else. Where they are the same, the content is."""
    try:
        found = _stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


class FileMemory:
    """sha256 by path, with the facts it was taken at.

    Args:
        path: the JSON file it lives in between runs; damaged or missing means an empty memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._rows: dict[str, list[Any]] = {}
        self._changed = False
        if path is not None:
            with contextlib.suppress(OSError, ValueError):
                rows = json.loads(path.read_text(encoding="utf-8"))
                self._rows = rows if isinstance(rows, dict) else {}

    def sha256(self, path: Path, *, without: Collection[Path] = ()) -> str:
        """Hex digest of a file, or ``absent``; of a folder, of all that is in it.

        Args:
            path: the file or folder.
            without: what in a folder does not count.
        """
        now_ns = time.time_ns()
        facts = facts_of(path)
        if facts is None:  # a pipe or device has no content to compare
            return self._tree(path, without) if path.is_dir() else ABSENT
        row = self._rows.get(str(path))
        if isinstance(row, list) and len(row) == 5 and tuple(row[:4]) == facts:
            return str(row[4])
        try:
            digest = sha256_of(path)
        except OSError:
            return ABSENT
        if now_ns - max(facts[1], facts[2]) > _SETTLED_NS:
            self._rows[str(path)] = [*facts, digest]
            self._changed = True
        return digest

    def _tree(self, folder: Path, without: Collection[Path]) -> str:
        """Of every file below a folder, linked folders once; virtual environments and what git keeps are left out."""
        whole = hashlib.sha256()
        seen: set[str] = set()
        for base, folders, files in os.walk(folder, followlinks=True):
            real = os.path.realpath(base)
            if real in seen or "pyvenv.cfg" in files:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(
                name for name in folders if name not in _NOT_CONTENT and Path(base, name) not in without
            )
            for name in sorted(files):
                path = Path(base, name)
                whole.update(f"{path.relative_to(folder)}\0{self.sha256(path)}\n".encode(errors="surrogateescape"))
        return whole.hexdigest()

    def save(self) -> None:
        """Keep what was learnt, for the next run; losing it costs time only."""
        if self._path is None or not self._changed:
            return
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._rows), encoding="utf-8")
            temporary.replace(self._path)
            self._changed = False
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
