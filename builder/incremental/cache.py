"""What steps made, kept under ``.build/cache`` by what they were made from; safe to delete at any time.

``objects/`` holds files by their sha256; ``models/<repository>/<model>.json`` holds, per step, what its last results
depended on and which objects they are. An object is hashed again whenever it is used, a record carries its own hash:
what is damaged is dropped and made anew. Objects that were used longest ago go first when the size limit is reached.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from builder.errors import CacheError, describe
from builder.incremental.file_memory import FileMemory

SCHEMA_VERSION = 1
DEFAULT_LIMIT_BYTES = 20_000_000_000
KEPT_PER_STEP = 4
_PIECE = 1 << 22
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by build-repo; may be deleted at any time.\n"


@dataclass(frozen=True)
class Record:
    """One result of one step.

    Attributes:
        inputs: all that is known before the step runs and decides its result, by name.
        reads: what the user's code was seen to read while it ran, by key of :mod:`builder.incremental.fingerprint`.
        digest: of the result; what the steps after it depend on.
        objects: files of the result, their sha256 by name.
        data: the rest of the result, as plain data.
        seconds: how long it took to make.
    """

    inputs: Mapping[str, str]
    reads: Mapping[str, str]
    digest: str
    objects: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


Records = dict[str, list[Record]]


def digest_of(value: Any) -> str:
    """sha256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


class Cache:
    """The store of one ``.build`` folder.

    Args:
        build_dir: the ``.build`` folder.
        repository: name of the model repository, which the models' records are kept apart by.
        limit_bytes: how large the objects may become.
    """

    def __init__(self, build_dir: Path, repository: str, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.folder = build_dir / "cache"
        self._objects = self.folder / "objects"
        self._models = self.folder / "models" / repository
        self._limit_bytes = limit_bytes
        self.files = FileMemory(self.folder / "files.json")

    def prepare(self) -> None:
        """Make the folders, and remove what a killed build left half written. For who holds the build lock.

        Raises:
            CacheError: they cannot be made.
        """
        with _explained("the cache cannot be made", self.folder):
            self._objects.mkdir(parents=True, exist_ok=True)
            self._models.mkdir(parents=True, exist_ok=True)
            tag = self.folder.parent / "CACHEDIR.TAG"
            if not tag.exists():
                tag.write_text(_TAG, encoding="utf-8")
                (self.folder.parent / ".gitignore").write_text("*\n", encoding="utf-8")
            for left in (*self._objects.glob(".*"), *self._models.glob(".*"), *self.folder.glob("files.json.*")):
                left.unlink(missing_ok=True)

    # -- records -------------------------------------------------------------------------------------------------

    def records(self, model: str) -> Records:
        """The records of a model by step, newest first; none of a file that is missing or damaged."""
        return self._read(model)[0]

    def damaged(self, model: str) -> bool:
        """True where there is a file of records that cannot be read; that of another release is none."""
        return self._read(model)[1]

    def _read(self, model: str) -> tuple[Records, bool]:
        """The records, and whether they are damaged."""
        try:
            text = self._record_file(model).read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}, False
        except (OSError, ValueError):
            return {}, True
        try:
            outer = json.loads(text)
            if outer["schema_version"] != SCHEMA_VERSION:
                return {}, not isinstance(outer["schema_version"], int)
            body = outer["records"]
            if outer["sha256"] == digest_of(body):
                return {step: [Record(**row) for row in rows] for step, rows in body.items()}, False
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        return {}, True

    def add(self, model: str, step: str, record: Record) -> None:
        """Remember a result as the newest of its step.

        Raises:
            CacheError: it cannot be written.
        """
        records = self.records(model)
        rest = [old for old in records.get(step, []) if (old.inputs, old.reads) != (record.inputs, record.reads)]
        records[step] = [record, *rest][:KEPT_PER_STEP]
        body = {name: [asdict(row) for row in rows] for name, rows in records.items()}
        text = json.dumps({"schema_version": SCHEMA_VERSION, "sha256": digest_of(body), "records": body}, default=str)
        path = self._record_file(model)
        with _explained("the cache cannot be written", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_folder(path)
            with _replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")

    def _record_file(self, model: str) -> Path:
        return self._models / f"{model}.json"

    # -- objects -------------------------------------------------------------------------------------------------

    def put(self, file: Path) -> str:
        """Keep a copy of a file; its sha256.

        Raises:
            CacheError: it cannot be written.
        """
        with _explained("the cache cannot be written", self._objects):
            self._objects.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=".", dir=self._objects)
            os.close(descriptor)
            temporary = Path(name)
            try:
                digest = _copy(file, temporary)
                target = self._object(digest)
                target.parent.mkdir(parents=True, exist_ok=True)
                _remove_folder(target)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        return digest

    def has(self, digest: str) -> bool:
        """True where the object is there; whether it is whole is seen when it is fetched."""
        return self._object(digest).is_file()

    def fetch(self, digest: str, to: Path) -> bool:
        """Copy an object out and check it on the way; False where it is missing or damaged (and dropped).

        Raises:
            CacheError: ``to`` cannot be written.
        """
        source = self._object(digest)
        if not source.is_file():
            return False
        with _explained("a file from the cache cannot be copied", to):
            try:
                whole = _copy(source, to) == digest
            except _UnreadableError:
                whole = False
            if not whole:
                to.unlink(missing_ok=True)
        if not whole:
            with contextlib.suppress(OSError):
                source.unlink()
            return False
        self.touch(digest)
        return True

    def touch(self, digest: str) -> None:
        """Note that an object was used."""
        with contextlib.suppress(OSError):
            os.utime(self._object(digest))

    def _object(self, digest: str) -> Path:
        return self._objects / digest[:2] / digest

    def size_bytes(self) -> int:
        """Of all objects."""
        return sum(size for _, size, _ in self._listing())

    def evict(self) -> int:
        """Delete the objects that were used longest ago until the rest fits the limit; how many bytes that freed."""
        rows = sorted(self._listing())
        over, freed = sum(size for _, size, _ in rows) - self._limit_bytes, 0
        for _, size, path in rows:
            if freed >= over:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                freed += size
        return freed

    def _listing(self) -> Iterator[tuple[int, int, Path]]:
        for path in self._objects.glob("*/*"):
            with contextlib.suppress(OSError):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode):
                    yield found.st_mtime_ns, found.st_size, path


class _UnreadableError(OSError):
    """What is to be copied cannot be read."""


def _copy(source: Path, target: Path) -> str:
    """Copy a file; sha256 of what was read.

    Raises:
        _UnreadableError: ``source`` cannot be read.
        OSError: ``target`` cannot be written.
    """
    digest = hashlib.sha256()
    with contextlib.ExitStack() as files:
        try:
            reader = files.enter_context(source.open("rb"))
        except OSError as exc:
            raise _UnreadableError(describe(exc)) from exc
        writer = files.enter_context(target.open("wb"))
        while piece := _read(reader):
            digest.update(piece)
            writer.write(piece)
    return digest.hexdigest()


def _read(reader: BinaryIO) -> bytes:
    try:
        return reader.read(_PIECE)
    except OSError as exc:
        raise _UnreadableError(describe(exc)) from exc


def _remove_folder(path: Path) -> None:
    """Whoever put a folder where a file of ours belongs: it is in the way."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(what: str, where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise CacheError(
            what,
            where=str(where),
            expected="room and permission to write",
            got=describe(exc),
            fix="free some space, or give a smaller --cache-size; .build/ may be deleted at any time",
        ) from exc
