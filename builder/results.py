"""What a stage made, as plain data and files; and an artifact as such a result, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.artifact import Artifact
from builder.incremental.cache import Record, digest_of
from builder.tensors import Interface, parse_tensor


@dataclass(frozen=True)
class Result:
    """What a stage made.

    Attributes:
        data: plain data.
        files: files to keep, by name.
        digest: what later stages depend on; where it is empty, they depend on all that this stage depended on.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    digest: str = ""


def made_result(made: Artifact, **more: Any) -> Result:
    """A stage's result that is a file, or several."""
    data = {
        "file": made.path.name,
        "format": made.format,
        "precision": made.precision,
        "interface": plain_interface(made.interface),
        "size_bytes": made.size_bytes,
        "tools": dict(made.tools),
        "notes": list(made.notes),
    }
    files = {name: made.path.parent / name for name in made.sha256}
    digest = digest_of([data["precision"], data["interface"], dict(made.sha256)])
    return Result({**data, **more}, files, digest)


def plain_interface(interface: Interface) -> dict[str, dict[str, str]]:
    """Tensors as plain data."""
    return {
        "inputs": {tensor.name: str(tensor) for tensor in interface.inputs},
        "outputs": {tensor.name: str(tensor) for tensor in interface.outputs},
    }


def interface_of(plain: Mapping[str, Mapping[str, str]]) -> Interface:
    """What :func:`plain_interface` gave."""
    inputs, outputs = (
        tuple(parse_tensor(name, text) for name, text in plain[side].items()) for side in ("inputs", "outputs")
    )
    return Interface(inputs, outputs)


def artifact_from(record: Record, folder: Path) -> Artifact:
    """The artifact that a stage made.

    Args:
        record: what is kept of it: of a result of :func:`made_result`.
        folder: where its files lie.
    """
    data = record.data
    return Artifact(
        path=folder / data["file"],
        format=data["format"],
        precision=data["precision"],
        interface=interface_of(data["interface"]),
        sha256=dict(record.objects),
        size_bytes=data["size_bytes"],
        tools=data["tools"],
        notes=tuple(data["notes"]),
    )
