"""What every rule about files asks of them: what lies at a path, and how that is called in a message."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from builder.check.model import ModelOnDisk

Found = Literal["file", "folder", "other", "nothing", "dangling", "loop", "refused"]
INSTANCE_KINDS = {0: "KIND_AUTO", 1: "KIND_GPU", 2: "KIND_CPU", 3: "KIND_MODEL"}


def look(path: Path) -> Found:
    """What lies at a path, links followed: ``dangling`` is a link to nothing, ``refused`` what we may not look at."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.ELOOP:
            return "loop"
        if number in (errno.EACCES, errno.EPERM):
            return "refused"
        return "dangling" if path.is_symlink() else "nothing"
    if stat.S_ISREG(mode):
        return "file"
    return "folder" if stat.S_ISDIR(mode) else "other"


def in_words(path: Path, found: Found) -> str:
    """What was found there, for a message."""
    if found == "dangling":
        return f"a link to {_target(path)}, which is not there"
    return {
        "nothing": "no such file",
        "loop": "a link that leads to itself",
        "refused": "a place that may not be looked at",
        "folder": "a folder",
        "file": "a file",
        "other": "neither a file nor a folder",
    }[found]


def _target(path: Path) -> str:
    try:
        return repr(str(path.readlink()))
    except OSError:
        return "somewhere"


def artifacts(model: ModelOnDisk) -> Iterator[tuple[int, Path]]:
    """Each version that is served, and the file or folder that the backend loads of it, there or not.

    A folder ``model.onnx/`` with ``model.onnx`` inside is taken apart as ONNX Runtime's backend takes it.
    """
    if model.config is None or not model.filename:
        return
    for version in model.served:
        if version not in model.versions:
            continue
        path = model.versions[version] / model.filename.lstrip("/")
        if model.backend == "onnxruntime" and look(path) == "folder":
            path = path / "model.onnx"
        yield version, path


def present(model: ModelOnDisk) -> Iterator[tuple[int, Path]]:
    """Likewise, those that are files with something in them."""
    for version, path in artifacts(model):
        if look(path) == "file" and size_of(path):
            yield version, path


def size_of(path: Path) -> int:
    """In bytes; 0 where it cannot be asked."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def first_bytes(path: Path, count: int) -> bytes:
    """The beginning of a file; empty where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(count)
    except OSError:
        return b""


def leads_out(location: str) -> bool:
    """Whether a path that is written in a file leads out of the folder that it is meant for."""
    where = PurePosixPath(location)
    depth = 0
    for part in where.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return where.is_absolute()


def enum_name(message: Any, name: str) -> str:
    """The spelling of an enum's value: ``TYPE_FP32``."""
    number = getattr(message, name)
    found = message.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number.get(number)
    return str(found.name) if found is not None else str(number)


def parameters_of(config: Any) -> Mapping[str, str]:
    """``parameters`` of a configuration as text."""
    return {key: value.string_value for key, value in config.parameters.items()}


def show(shape: Sequence[int]) -> str:
    """``[-1, 8, 8]``."""
    return "[" + ", ".join(map(str, shape)) + "]"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names for a message, the first of them where there are many."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "") or "none"
