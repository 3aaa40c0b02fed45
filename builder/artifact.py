"""A file that can be served, with all that is known of it: a label never travels apart from its file."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.tensors import Interface

EXTERNAL_DATA_SUFFIX = ".data"


@dataclass(frozen=True)
class Artifact:
    """One built file.

    Attributes:
        path: the file; external data, if any, lies beside it: the other names in ``sha256``.
        format: ``onnx``.
        precision: ``fp32``.
        interface: the tensors it really has, read back from it.
        sha256: of every file it consists of, by name.
        size_bytes: of all of them together.
        tools: versions of what made it.
        notes: how it was made, and what the user should know (a fallback that was taken, say).
    """

    path: Path
    format: str
    precision: str
    interface: Interface
    sha256: Mapping[str, str]
    size_bytes: int
    tools: Mapping[str, str]
    notes: tuple[str, ...] = field(default=())


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def artifact_of(
    path: Path,
    *,
    precision: str,
    interface: Interface,
    tools: Mapping[str, str],
    data: Collection[str] = (),
    notes: tuple[str, ...] = (),
) -> Artifact:
    """The :class:`Artifact` of an ONNX file that was just written, with its external data: names beside it."""
    files = [path, *(path.with_name(name) for name in data)]
    return Artifact(
        path=path,
        format="onnx",
        precision=precision,
        interface=interface,
        sha256={file.name: sha256_of(file) for file in files},
        size_bytes=sum(file.stat().st_size for file in files),
        tools=dict(tools),
        notes=notes,
    )
