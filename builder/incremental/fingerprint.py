"""What a file, a folder, an installed package or an environment variable is right now, as a short text to compare.

Keys are ``KIND:NAME``; names of files are relative to the spec's folder where they are below it, so that a project that
is moved keeps its cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import sysconfig
from collections.abc import Collection
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from builder.incremental.file_memory import ABSENT, Facts, FileMemory, facts_of
from builder.incremental.packages import version_of

__all__ = ["ABSENT", "FileMemory", "Fingerprints", "kind_at"]

_MODULE_SUFFIXES = (*EXTENSION_SUFFIXES, ".py", ".pyc")
_stat = os.stat  # as it is before anybody watches who calls it


class Fingerprints:
    """Fingerprints of what a result depends on; every one is taken at most once per object.

    To be made before any of the user's code runs: where modules are found, and what variables are, is what ``sys.path``
    and the environment say now.

    Args:
        folder: what relative names are relative to: the folder of the spec.
        memory: where hashes of files are remembered between runs; None for nowhere.
        ours: folders that builds write (``.build``, the repository), which count for nothing.
    """

    def __init__(self, folder: Path, memory: FileMemory | None = None, *, ours: Collection[Path] = ()) -> None:
        self._folder = folder
        self._memory = memory or FileMemory(None)
        self._ours = frozenset(ours)
        self._search = (str(folder), *(entry for entry in sys.path if entry != str(folder)))
        self._environ = dict(os.environ)
        self._known: dict[str, str] = {}
        self._facts: dict[str, Facts | None] = {}

    def of(self, key: str) -> str:
        """The fingerprint of a key.

        ``file:NAME`` its content (of a folder, of all below it); ``folder:NAME`` the names in it; ``there:NAME``
        whether there is a file or a folder; ``module:NAME`` where Python finds it; ``package:NAME`` the version of a
        distribution; ``env:NAME`` a variable's value, hashed; ``cwd:`` the folder that relative paths start at.
        """
        if key not in self._known:
            kind, _, name = key.partition(":")
            if kind == "file":
                self._facts[key] = facts_of(self._folder / name)
            self._known[key] = _KINDS[kind](self, name)
        return self._known[key]

    def holds(self, key: str) -> bool:
        """True while the file or folder of a key is what its fingerprint was taken of; True for what is neither."""
        kind, _, name = key.partition(":")
        if key not in self._known or kind not in ("file", "folder"):
            return True
        if kind == "file" and (self._facts[key] or self._known[key] == ABSENT):
            return facts_of(self._folder / name) == self._facts[key]
        return bool(_KINDS[kind](self, name) == self._known[key])

    def named(self, kind: str, path: str | Path) -> str:
        """The key of a path (absolute)."""
        with contextlib.suppress(ValueError):
            return f"{kind}:{Path(path).relative_to(self._folder)}"
        return f"{kind}:{path}"

    def is_ours(self, path: Path) -> bool:
        """True for what a build writes, and so is no dependency of one."""
        return any(path == place or place in path.parents for place in self._ours)

    def _file(self, name: str) -> str:
        return self._memory.sha256(self._folder / name, without=self._ours)

    def _listing(self, name: str) -> str:
        folder = self._folder / name
        try:
            found = os.listdir(folder)  # noqa: PTH208 - names are all we want
        except OSError:
            return ABSENT
        names = sorted(entry for entry in found if entry != "__pycache__" and folder / entry not in self._ours)
        return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()

    def _there(self, name: str) -> str:
        return kind_at(self._folder / name)

    def _module(self, name: str) -> str:
        """Where the import system finds a top-level module: the first place that has it, as it searches them."""
        portions = []  # folders without __init__.py count when nothing better is found
        for entry in self._search:
            path = os.path.join(entry or os.getcwd(), name)  # noqa: PTH109, PTH118 - a thousand times
            if any(kind_at(f"{path}/__init__{suffix}") == "file" for suffix in _MODULE_SUFFIXES):
                return self._place(path)
            for suffix in _MODULE_SUFFIXES:
                if kind_at(path + suffix) == "file":
                    return self._place(path + suffix)
            if kind_at(path) == "folder":
                portions.append(path)
        return self._place(portions[0]) if portions else ABSENT

    def _place(self, path: str) -> str:
        with contextlib.suppress(ValueError):
            return str(Path(path).relative_to(self._folder))
        if "/site-packages/" in path or "/dist-packages/" in path:
            return "installed"  # in which version, its package's key says
        return "python" if path.startswith(f"{sysconfig.get_paths()['stdlib']}/") else path

    def _package(self, name: str) -> str:
        return version_of(name, without=self._folder)

    def _environment(self, name: str) -> str:
        value = self._environ.get(name)
        # The value itself may be a secret: it goes into a file.
        return ABSENT if value is None else hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()[:16]

    def _cwd(self, name: str) -> str:
        return os.getcwd()  # noqa: PTH109


_KINDS: dict[str, Any] = {
    "file": Fingerprints._file,
    "folder": Fingerprints._listing,
    "there": Fingerprints._there,
    "module": Fingerprints._module,
    "package": Fingerprints._package,
    "env": Fingerprints._environment,
    "cwd": Fingerprints._cwd,
}


def kind_at(path: str | Path) -> str:
    """``file``, ``folder``, or ``absent``."""
    try:
        mode = _stat(path).st_mode
    except (OSError, ValueError):
        return ABSENT
    return "folder" if mode & 0o170000 == 0o040000 else "file"
