"""What the user's code read while it ran: its own modules, the files and folders it opened, the packages it imported.

Nobody has to declare these. An audit hook of the interpreter sees every file that Python opens; modules are found in
``sys.modules``; a file that a C library mapped (safetensors, a memory-mapped array) is in the process's maps. What a C
library opens and closes by itself is not seen: ``depends`` in the spec names such files.
"""

from __future__ import annotations

import contextlib
import os
import site
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from builder.fingerprint import Fingerprints, distributions_of

_SYSTEM = ("/proc/", "/sys/", "/dev/", "/run/", "/etc/", "/usr/", "/lib", "/bin/", "/sbin/")
_READS_FOLDER = ("os.listdir", "os.scandir")
_active: list[_Seen] = []
_installed = False


class _Seen:
    def __init__(self) -> None:
        self.opened: set[str] = set()
        self.written: set[str] = set()
        self.folders: set[str] = set()


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _active:
        return
    if event == "open":
        path, mode, flags = args
        if isinstance(path, int):
            return
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a Path here would be audited again, slowly
        writes = (
            any(letter in mode for letter in "wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR)
        )
        for seen in _active:
            (seen.written if writes else seen.opened).add(name)
    elif event in _READS_FOLDER and not isinstance(args[0], int) and not _imports():
        name = os.path.abspath(os.fsdecode(args[0] or "."))  # noqa: PTH100
        for seen in _active:
            seen.folders.add(name)
    elif event == "sqlite3.connect" and isinstance(args[0], (str, bytes)):
        for seen in _active:
            seen.opened.add(os.path.abspath(os.fsdecode(args[0])))  # noqa: PTH100


def _imports() -> bool:
    """True where it is the import system that looks into a folder: what it finds there is seen as modules."""
    frame = sys._getframe(2)
    return frame.f_code.co_filename.startswith("<frozen importlib")


def note_read(path: Path) -> None:
    """Tell whoever is tracing of a file that is read by other means (a C library)."""
    for seen in _active:
        seen.opened.add(str(path.absolute()))


class Trace:
    """What was read in a block; filled when it ends.

    Attributes:
        reads: fingerprint by key.
        began_s: when the block began.
        changed_meanwhile: True where a file that was read changed during the block: it is not known which content was
            read, so the result must not be kept.
    """

    def __init__(self) -> None:
        self.reads: dict[str, str] = {}
        self.began_s = time.time()
        self.changed_meanwhile = False


@contextlib.contextmanager
def tracing(fingerprints: Fingerprints, folder: Path, ignore: Path, baseline: frozenset[str]) -> Iterator[Trace]:
    """Trace the block.

    Args:
        fingerprints: gives the value of every key that was found.
        folder: the spec's folder, which is the user's whatever else lies in it.
        ignore: a folder of ours, whose files are no dependency.
        baseline: top-level modules that were imported before any of the user's code.
    """
    global _installed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    trace, seen, mapped = Trace(), _Seen(), _mapped()
    _active.append(seen)
    try:
        yield trace
    finally:
        _active.remove(seen)
    places = _Places(folder, ignore, trace.began_s)
    packages = set()
    for path in _modules(baseline) | (_mapped() - mapped) | (seen.opened - seen.written):
        top = places.package_of(path)
        if top is not None:
            packages.add(top)
        elif places.is_the_users(path):
            key = fingerprints.file_key(Path(path))
            trace.reads[key] = fingerprints.of(key)
    for path in seen.folders:
        if places.is_the_users(path):
            key = fingerprints.folder_key(Path(path))
            trace.reads[key] = fingerprints.of(key)
    for name in distributions_of((packages - baseline) | _named_by_users_modules(places)):
        trace.reads[f"package:{name}"] = fingerprints.of(f"package:{name}")
    trace.reads = dict(sorted(trace.reads.items()))
    trace.changed_meanwhile = fingerprints.changed_since(trace.reads, trace.began_s)


class _Places:
    """Whose file is it: the user's, a package's, the system's, ours?"""

    def __init__(self, folder: Path, ignore: Path, began_s: float) -> None:
        self._folder = f"{folder}/"
        self._ignore = f"{ignore}/"
        self._ours = tuple(
            f"{Path(__file__).parent.parent / name}/" for name in ("builder", "serving", "perf", "templates")
        )
        paths = sysconfig.get_paths()
        self._site = tuple(
            {f"{place}/" for place in (*site.getsitepackages(), site.getusersitepackages())}
            | {f"{paths[name]}/" for name in ("purelib", "platlib")}
        )
        self._python = tuple(
            {f"{paths['stdlib']}/", f"{paths['platstdlib']}/", f"{sys.prefix}/", f"{sys.base_prefix}/"}
        )
        self._scratch = f"{tempfile.gettempdir()}/"
        self._began_s = began_s

    def package_of(self, path: str) -> str | None:
        """Top-level module of a file in an installed package, None elsewhere."""
        for place in self._site:
            if path.startswith(place):
                return path[len(place) :].split("/")[0].removesuffix(".py").split(".")[0]
        return None

    def is_the_users(self, path: str) -> bool:
        """True for what may change the result and is no installed package's."""
        if path.startswith((self._ignore, *self._ours)) or "/__pycache__" in path:
            return False
        if self.package_of(path) is not None:
            return False
        if path.startswith(self._folder) or f"{path}/" == self._folder:
            return not path.startswith(self._python) or not sys.prefix.startswith(self._folder)
        if path.startswith((*self._python, *_SYSTEM)):
            return False
        return not (path.startswith(self._scratch) and _changed_after(path, self._began_s))


def _changed_after(path: str, moment_s: float) -> bool:
    with contextlib.suppress(OSError):
        return os.stat(path).st_ctime >= moment_s  # noqa: PTH116
    return True  # gone already: it was scratch


def _modules(baseline: frozenset[str]) -> set[str]:
    found = set()
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] not in baseline:
            file = getattr(module, "__file__", None)
            if isinstance(file, str):
                found.add(os.path.abspath(file))  # noqa: PTH100
    return found


def _mapped() -> set[str]:
    """Files that are mapped into the process to be read; libraries and databases (shared and writable) left out."""
    found = set()
    with contextlib.suppress(OSError), open("/proc/self/maps", errors="replace") as maps:  # noqa: PTH123
        for line in maps:
            parts = line.rstrip("\n").split(None, 5)
            is_file = len(parts) == 6 and parts[5].startswith("/") and ".so" not in parts[5]
            if is_file and parts[1] in ("r--p", "rw-p", "r--s"):
                found.add(parts[5])
    return found


def _named_by_users_modules(places: _Places) -> set[str]:
    """Top-level modules that the user's modules hold something of, for packages that we had imported before them."""
    tops = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and places.is_the_users(file):
            for value in list(vars(module).values()):
                owner = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
                if isinstance(owner, str):
                    tops.add(owner.split(".")[0])
    return tops
