"""What the user's code read while it ran: its own modules, the files and folders it opened, the packages it imported.

Nobody has to declare these. An audit hook of the interpreter sees every file that Python opens, in this process and in
those that are forked from it; modules are found in ``sys.modules``; a file that a C library opens is seen by the kernel
(:mod:`.watching`), is in the process's maps, or is named in the source (:mod:`.mentions`); what is only
asked for, :mod:`.asking` hears. What a C library opens outside the spec's folder, what another program reads and
what comes over the network is not seen: ``depends`` in the spec names such things.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

from builder.incremental.asking import listening
from builder.incremental.file_memory import ABSENT, Facts, facts_of
from builder.incremental.fingerprint import Fingerprints, kind_at
from builder.incremental.mentions import mentions_of
from builder.incremental.packages import distributions_of
from builder.incremental.places import Places
from builder.incremental.watching import Watch

_TICK_S = 0.02  # the clock of files may be behind ours by one of its ticks
_READS_FOLDER = ("os.listdir", "os.scandir")
_CHANGES_ENTRY = ("os.mkdir", "os.remove", "os.rmdir")
_MADE = {"os.rename": 1, "os.link": 1, "os.symlink": 1}  # the argument that is made
_FINDERS = ("/importlib/metadata/__init__.py", "/pkgutil.py", "/pkg_resources/__init__.py")
_PRIVATE = "_triton_repo_"  # modules of usercode.py
_OWN_VARIABLES = frozenset({"OMP_NUM_THREADS", "PYTHONUNBUFFERED", "TRITON_REPO_THREADS"})  # a child's differ
_active: list[_Seen] = []
_installed = False


class _Seen:
    """What happened in a traced block, by absolute path."""

    def __init__(self) -> None:
        self.read: dict[str, Facts | None] = {}  # as it was found when it was first opened
        self.unsure: set[str] = set()  # opened, but what it was then is not known
        self.written: set[str] = set()
        self.scratch: set[str] = set()  # written before it was ever read: nothing of it came from outside
        self.folders: set[str] = set()
        self.asked: dict[str, str] = {}
        self.relative: set[str] = set()
        self.variables: set[str] = set()
        self._pid = os.getpid()
        self._forked = os.memfd_create("forked")

    def note(self, what: str, name: str) -> None:
        """Something happened, here or in a forked process, which can only leave a note."""
        path = os.path.abspath(name)  # noqa: PTH100 - a Path here would be audited again, slowly
        if os.getpid() != self._pid:
            os.write(self._forked, f"{what}{path}\0".encode(errors="surrogateescape"))
            return
        if not name.startswith("/"):
            self.relative.add(path)
        if what == "r" and path not in self.scratch and path not in self.read:
            self.read[path] = facts_of(path)
        self._keep(what, path)

    def _keep(self, what: str, path: str) -> None:
        if what == "w":
            self.written.add(path)
            if path not in self.read and path not in self.unsure and path not in self.asked:
                self.scratch.add(path)
        elif what == "l" and path not in self.scratch:
            self.folders.add(path)
        elif what == "a" and path not in self.scratch:
            self.asked.setdefault(path, kind_at(path))

    def end(self) -> None:
        """Read what forked processes noted."""
        with os.fdopen(self._forked, "rb") as notes:
            notes.seek(0)
            for note in notes.read().decode(errors="surrogateescape").split("\0"):
                if note[:1] == "r" and note[1:] not in self.scratch and note[1:] not in self.read:
                    self.unsure.add(note[1:])
                elif note:
                    self._keep(note[0], note[1:])


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _active:
        with contextlib.suppress(TypeError, ValueError, OSError):  # what is wrong with a call, the call itself says
            _hear(event, args)


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if event == "open":
        path, mode, flags = args
        if not isinstance(path, int):
            _tell("w" if _writes(mode, flags) else "r", path)
    elif event in _READS_FOLDER:
        if not isinstance(args[0], int) and not _imports(sys._getframe(2)):
            _tell("l", args[0] or ".")
    elif event in _CHANGES_ENTRY:
        _tell("w", args[0])
    elif event in _MADE:
        _tell("w", args[_MADE[event]])
    elif event == "sqlite3.connect":
        _tell("r", _database(args[0]))
    elif event == "ctypes.dlopen" and args[0] and "/" in os.fsdecode(args[0]):
        _tell("r", args[0])


def _tell(what: str, path: Any) -> None:
    name = os.fsdecode(path)
    if name:
        for seen in _active:
            seen.note(what, name)


def _writes(mode: Any, flags: Any) -> bool:
    """True where nothing of what was there before can be read. ``r+`` can read: np.memmap opens so by default."""
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax")
    both = flags & os.O_RDWR and not flags & (os.O_CREAT | os.O_TRUNC)
    return bool(flags & (os.O_WRONLY | os.O_RDWR)) and not both


def _database(name: Any) -> str:
    """The file of a SQLite database; empty where it has none."""
    text = os.fsdecode(name)
    if text.startswith("file:"):
        parts = urlsplit(text)
        text = "" if "mode=memory" in parts.query else unquote(parts.path)
    return "" if text == ":memory:" else text


def _imports(frame: FrameType) -> bool:
    """True where the import system looks into a folder: what it finds there is seen as modules and packages."""
    name = frame.f_code.co_filename
    return name.startswith("<frozen importlib") or name.endswith(_FINDERS)


def note_read(path: Path) -> None:
    """Tell whoever is tracing of a file that is read by other means (a C library)."""
    _tell("r", path)


class Trace:
    """What was read in a block; filled when it ends.

    Attributes:
        reads: fingerprint by key.
        changed: names of what changed while the block ran: it is not known which content was read, so the result must
            not be kept.
    """

    def __init__(self) -> None:
        self.reads: dict[str, str] = {}
        self.changed: tuple[str, ...] = ()


@contextlib.contextmanager
def tracing(
    fingerprints: Fingerprints, folder: Path, ours: Collection[Path] = (), baseline: Collection[str] = ()
) -> Iterator[Trace]:
    """Trace the block.

    Args:
        fingerprints: gives the value of every key that was found.
        folder: the spec's folder, which is the user's whatever else lies in it.
        ours: folders that builds write, whose files are no dependency.
        baseline: top-level modules that were imported before any of the user's code.
    """
    global _installed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    trace, places, began_s, mapped = Trace(), Places(folder, ours), time.time(), _mapped()
    seen, watch = _Seen(), Watch(folder, ours)
    is_the_users = {"": False}

    def whose(source: str) -> bool:
        if source not in is_the_users:
            is_the_users[source] = source.startswith("/") and places.is_the_users(source)
        return is_the_users[source]

    _active.append(seen)
    try:
        with listening(whose, lambda path: _tell("a", path), seen.variables.add):
            yield trace
    finally:
        _active.remove(seen)
        watch.end()
        seen.end()
    sources = {module: file for module, file in _imported(baseline) if places.is_the_users(file)}
    _Ending(trace, seen, sources, places, fingerprints, began_s).take(watch, _mapped() - mapped, baseline, folder)


class _Ending:
    """From what happened to keys and fingerprints."""

    def __init__(
        self,
        trace: Trace,
        seen: _Seen,
        sources: dict[ModuleType, str],
        places: Places,
        fingerprints: Fingerprints,
        began_s: float,
    ) -> None:
        self._trace = trace
        self._seen = seen
        self._sources = sources  # the user's modules, and their files
        self._places = places
        self._of = fingerprints
        self._began_s = began_s
        self._changed: dict[str, None] = {}

    def take(self, watch: Watch, mapped: set[str], baseline: Collection[str], folder: Path) -> None:
        modules = {file for _, file in _imported(baseline)}
        opened_in_c = {path for path in watch.read if path not in watch.written or not self._is_new(path)}
        loose = modules | mapped | opened_in_c | self._seen.unsure
        for path in sorted(loose | set(self._seen.read)):
            if path not in self._seen.scratch:
                self._file(path)
        for path in self._named_in_sources(folder, complete=watch.is_complete):
            self._file(path)
        for path in self._seen.folders:
            self._folder(path)
        for path, kind in self._seen.asked.items():
            self._asked(path, kind)
        self._modules(modules | set(self._seen.read), baseline)
        for name in self._seen.variables - _OWN_VARIABLES:
            self._keep(f"env:{name}")
        if any(self._is_kept(path) for path in self._seen.relative):
            self._keep("cwd:")
        self._trace.reads = dict(sorted(self._trace.reads.items()))
        self._trace.changed = tuple(self._of.named("", path)[1:] for path in self._changed)

    def _keep(self, key: str) -> str:
        value = self._of.of(key)
        self._trace.reads[key] = value
        return value

    def _is_kept(self, path: str) -> bool:
        return any(self._of.named(kind, path) in self._trace.reads for kind in ("file", "folder", "there"))

    def _file(self, path: str) -> None:
        if kind_at(path) == "folder" or not self._counts(path):
            return
        key = self._of.named("file", path)
        self._keep(key)
        first = self._seen.read.get(path, "unknown")
        if first is None and path in self._seen.written:
            return  # made here because it was missing, as a download or a cache is: it is what it is now
        same = not self._is_new(path) if first == "unknown" else facts_of(path) == first
        if not same or not self._of.holds(key):
            self._changed[path] = None

    def _folder(self, path: str) -> None:
        if not self._counts(path):
            return
        key = self._of.named("folder", path)
        self._keep(key)
        by_us = any(os.path.dirname(written) == path for written in self._seen.written)  # noqa: PTH120
        if not by_us and (self._is_new(path) or not self._of.holds(key)):
            self._changed[path] = None

    def _asked(self, path: str, kind: str) -> None:
        if not self._counts(path) or self._places.holds_the_spec(path) or self._is_kept(path):
            return
        if self._keep(self._of.named("there", path)) != kind and path not in self._seen.written:
            self._changed[path] = None

    def _counts(self, path: str) -> bool:
        if not self._places.is_the_users(path):
            return False
        if self._places.is_below_the_spec(path) or not path.startswith(f"{tempfile.gettempdir()}/"):
            return True
        return kind_at(path) != ABSENT and not self._is_new(path)  # else it is somebody's scratch

    def _is_new(self, path: str) -> bool:
        """True where it changed since the block began."""
        try:
            return os.stat(path).st_ctime > self._began_s - _TICK_S  # noqa: PTH116
        except OSError:
            return False

    def _named_in_sources(self, folder: Path, *, complete: bool) -> Iterator[str]:
        """Files that the user's modules name: all of them where the kernel did not tell, else those it cannot see."""
        for file in self._sources.values():
            here = Path(file).parent
            for found in mentions_of(file).files(folder, here, here.parent, Path.cwd()):
                path = os.path.abspath(found)  # noqa: PTH100
                outside = not self._places.is_below_the_spec(path)
                if (outside or not complete) and path not in self._seen.written:
                    yield path

    def _modules(self, files: set[str], baseline: Collection[str]) -> None:
        """Where modules are found, and the versions of packages."""
        tops: set[str] = set()
        for module, file in self._sources.items():
            mentions = mentions_of(file)
            own = () if module.__name__.startswith(_PRIVATE) else (module.__name__.split(".")[0],)
            for name in {*mentions.imports, *own} - sys.stdlib_module_names - {"__main__"}:
                self._keep(f"module:{name}")
            tops |= mentions.imports | set(_owners(module))
        used = {top for path in files if (top := self._places.package_of(path)) is not None}
        for name in distributions_of(used.difference(baseline) | tops):
            self._keep(f"package:{name}")


def _owners(module: ModuleType) -> Iterator[str]:
    """Top-level modules that a module holds something of."""
    for value in list(vars(module).values()):
        owner = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(owner, str):
            yield owner.split(".")[0]


def _imported(baseline: Collection[str]) -> Iterator[tuple[ModuleType, str]]:
    """Modules that were not there before the user's code, with their files."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and name.split(".")[0] not in baseline:
            yield module, os.path.abspath(file)  # noqa: PTH100


def _mapped() -> set[str]:
    """Files that are mapped into the process to be read; databases (shared and writable) left out."""
    found = set()
    with contextlib.suppress(OSError), open("/proc/self/maps", errors="surrogateescape") as maps:  # noqa: PTH123
        for line in maps:
            parts = line.rstrip("\n").split(None, 5)
            is_file = len(parts) == 6 and parts[5].startswith("/") and not parts[5].endswith(" (deleted)")
            if is_file and parts[1] in ("r--p", "rw-p", "r--s"):
                found.add(parts[5])
    return found
