"""Timing caches: how long each kernel took on one GPU, under one driver, with one version of the library.

Times of another GPU would choose the wrong kernels, so each has a file of its own; a note beside it says where they
are from and what it must hash to. A file that is not as it was written is dropped, and made anew.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from builder.artifact import sha256_of
from builder.engine.targets import sm_name
from builder.errors import EngineError


@dataclass(frozen=True)
class Origin:
    """Where times were taken.

    Attributes:
        kind: ``tensorrt`` or ``tensorrt-rtx``.
        version: of the library.
        capability: of the GPU, ``8.6``.
        gpu: what the GPU is called.
        driver: its version.
    """

    kind: str
    version: str
    capability: str
    gpu: str
    driver: str

    def __str__(self) -> str:
        return f"{self.gpu} ({sm_name(self.capability)}), driver {self.driver}, {self.kind} {self.version}"

    @property
    def file_name(self) -> str:
        """A name that no other origin has."""
        parts = (self.kind, self.version, sm_name(self.capability), self.gpu, self.driver)
        return "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in parts) + ".cache"


@dataclass(frozen=True)
class TimingCache:
    """The file to use, and what there is to say of it."""

    path: Path
    notes: tuple[str, ...] = ()


def timing_cache(place: Path, origin: Origin) -> TimingCache:
    """The timing cache for this GPU.

    Args:
        place: a folder, where each origin has a file; or a file of the user's, which has to be from here.
        origin: the GPU, driver and library of this build.

    Raises:
        EngineError: the user's file was made elsewhere, or is damaged.
    """
    if place.is_file():
        return _own_file(place, origin)
    path = place / origin.file_name
    if path.exists() and (why := _damage(path, origin)):
        path.unlink()
        _note_of(path).unlink(missing_ok=True)
        return TimingCache(path, (f"the timing cache {path.name} was dropped: {why}",))
    place.mkdir(parents=True, exist_ok=True)
    return TimingCache(path)


def sign(path: Path, origin: Origin) -> None:
    """Write beside a timing cache where its times are from."""
    note = asdict(origin) | {"sha256": sha256_of(path)}
    partial = path.with_name(path.name + ".json.partial")
    partial.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    partial.replace(_note_of(path))


def _own_file(path: Path, origin: Origin) -> TimingCache:
    note = _read_note(path)
    if note is None:
        # Made by other hands: the library itself compares the GPU, and refuses what is not from it.
        return TimingCache(path, (f"{path.name} does not say where it was made: TensorRT has the last word",))
    made, digest = note
    if made != origin:
        raise EngineError(
            "the timing cache was made elsewhere: its times would choose the wrong kernels here",
            where=str(path),
            expected=str(origin),
            got=str(made),
            fix="leave the file out: a new one is made and kept; or build on that machine",
        )
    if digest != sha256_of(path):
        raise EngineError(
            "the timing cache is damaged",
            where=str(path),
            expected=f"sha256 {digest}, as {_note_of(path).name} says",
            got=f"sha256 {sha256_of(path)}",
            fix=f"delete {path.name}: a new one is made",
        )
    return TimingCache(path)


def _damage(path: Path, origin: Origin) -> str:
    note = _read_note(path)
    if note is None:
        return "nothing says where it was made"
    made, digest = note
    if made != origin:
        return f"it was made elsewhere ({made})"
    return "" if digest == sha256_of(path) else "it is not as it was written"


def _read_note(path: Path) -> tuple[Origin, str] | None:
    try:
        data = json.loads(_note_of(path).read_text(encoding="utf-8"))
        digest = data.pop("sha256")
        return Origin(**data), str(digest)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _note_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")
