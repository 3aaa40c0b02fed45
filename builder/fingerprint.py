"""What a file, a folder, an installed package or an environment variable is right now, as a short text to compare.

Files are read once: their sha256 is remembered with size, times and inode, and read again when any of these differs. A
file that changed within the last moments is never remembered, because a second change in the same tick of the clock
would not be seen (what git calls racily clean).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from builder.artifact import sha256_of

ABSENT = "absent"
_SETTLED_NS = 2_000_000_000


class Fingerprints:
    """Fingerprints of what a result depends on; every one is taken at most once per object.

    Args:
        folder: what relative names are relative to: the folder of the spec.
        memory: where hashes of files are remembered between runs; None for nowhere.
    """

    def __init__(self, folder: Path, memory: FileMemory | None = None) -> None:
        self._folder = folder
        self._memory = memory or FileMemory(None)
        self._known: dict[str, str] = {}

    def of(self, key: str) -> str:
        """The fingerprint of a key: ``file:NAME``, ``folder:NAME``, ``package:NAME`` or ``env:NAME``."""
        if key not in self._known:
            kind, _, name = key.partition(":")
            self._known[key] = _KINDS[kind](self, name)
        return self._known[key]

    def changed_since(self, keys: Iterable[str], moment_s: float) -> bool:
        """True where the file of one of these keys changed after a moment (seconds since the epoch)."""
        for key in keys:
            kind, _, name = key.partition(":")
            if kind == "file":
                with contextlib.suppress(OSError):
                    if (self._folder / name).stat().st_ctime > moment_s:
                        return True
        return False

    def file_key(self, path: Path) -> str:
        """``file:NAME``, relative where the file is below the spec's folder."""
        return f"file:{self._name(path)}"

    def folder_key(self, path: Path) -> str:
        """``folder:NAME``: which entries a folder has."""
        return f"folder:{self._name(path)}"

    def _name(self, path: Path) -> str:
        with contextlib.suppress(ValueError):
            return str(path.relative_to(self._folder))
        return str(path)

    def _file(self, name: str) -> str:
        return self._memory.sha256(self._folder / name)

    def _listing(self, name: str) -> str:
        try:
            names = sorted(entry for entry in _names(self._folder / name) if entry != "__pycache__")
        except OSError:
            return ABSENT
        return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()

    def _package(self, name: str) -> str:
        return installed().get(normal(name), ABSENT)

    def _environment(self, name: str) -> str:
        value = os.environ.get(name)
        # The value itself may be a secret: it goes into a file.
        return ABSENT if value is None else hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()[:16]


_KINDS: dict[str, Any] = {
    "file": Fingerprints._file,
    "folder": Fingerprints._listing,
    "package": Fingerprints._package,
    "env": Fingerprints._environment,
}


class FileMemory:
    """sha256 by path, with the size, times and inode it was taken at.

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

    def sha256(self, path: Path) -> str:
        """Hex digest of a file, or ``absent``; of a folder, of all that is in it."""
        try:
            found = path.stat()
        except OSError:
            return ABSENT
        if not os.path.isfile(path):  # noqa: PTH113 - a pipe or device has no content to compare
            return self._tree(path) if path.is_dir() else ABSENT
        facts = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
        row = self._rows.get(str(path))
        if isinstance(row, list) and row[:4] == facts and len(row) == 5:
            return str(row[4])
        try:
            digest = sha256_of(path)
        except OSError:
            return ABSENT
        if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED_NS:
            self._rows[str(path)] = [*facts, digest]
            self._changed = True
        return digest

    def _tree(self, folder: Path) -> str:
        whole = hashlib.sha256()
        for base, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
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
        temporary.unlink(missing_ok=True)


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


_installed: dict[str, str] = {}


def normal(name: str) -> str:
    """A distribution's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, str]:
    """Version of every installed distribution by normalised name; read from folder names, which is quick.

    One that was installed from a folder or an archive of the user's, and so may change under the same version, has the
    hash of its list of files added.
    """
    if not _installed:
        for entry in sys.path:
            for folder, version in _distributions(Path(entry or ".")):
                name = normal(folder.name.rpartition(".")[0].split("-")[0])
                if name not in _installed:
                    _installed[name] = version + _local(folder)
    return _installed


def _distributions(place: Path) -> Iterable[tuple[Path, str]]:
    try:
        names = _names(place)
    except OSError:
        return
    for name in sorted(names):
        if name.endswith((".dist-info", ".egg-info")):
            parts = name.rpartition(".")[0].split("-")
            yield place / name, parts[1] if len(parts) > 1 else ""


def _local(folder: Path) -> str:
    if not (folder / "direct_url.json").exists():
        return ""
    with contextlib.suppress(OSError):
        return "+" + sha256_of(folder / "RECORD")[:12]
    return ""


def distributions_of(modules: Iterable[str]) -> set[str]:
    """Names of the distributions that these top-level modules came with."""
    table = _packages()
    return {normal(name) for module in modules for name in table.get(module, ())}


_table: dict[str, list[str]] = {}


def _packages() -> dict[str, list[str]]:
    if not _table:
        _table.update(importlib.metadata.packages_distributions())
    return _table
