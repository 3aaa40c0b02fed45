"""The files that the config stage makes, wired to the build: samples for warmup, and what an agent checks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from builder.artifact import Artifact
from builder.building import Build
from builder.config.warmup import FOLDER, sample_files
from builder.incremental.steps import name_of
from builder.samples import Sample

_CHUNK_BYTES = 1 << 20


def warmup_of(build: Build, of: str, artifact: Artifact) -> tuple[list[Sample], dict[str, Path]]:
    """The samples that a model is warmed up with, in the types of its artifact, and the files that hold them.

    Returns:
        The samples, and the files by their name in the version folder; nothing where the spec asks for none.
    """
    model = build.subject.model
    if model.warmup is None or not model.warmup.samples:
        return [], {}
    types = {tensor.name: tensor.dtype.numpy for tensor in artifact.interface.inputs}
    rows = [
        {name: np.asarray(array).astype(types[name] or array.dtype) for name, array in row.items()}
        for row in build.samples.rows[: model.warmup.samples]
    ]
    folder = build.folder(name_of("config", of))
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, content in sample_files(model, artifact.interface, rows):
        (folder / name).write_bytes(content)
        files[f"{FOLDER}/{name}"] = folder / name
    return rows, files


def checksums_of(build: Build, artifact: Artifact, made: Mapping[str, Path]) -> dict[str, str]:
    """MD5 of every file of the version that the server reads, by name, where the spec has an agent check them."""
    model = build.subject.model
    if not any(agent.is_checksum for agent in model.agents):
        return {}
    from builder.config import copies_of

    files = {name: artifact.path.parent / name for name in artifact.sha256}
    files |= {**copies_of(model, build.subject.spec.folder), **made}
    return {name: _md5(path) for name, path in files.items()}


def _md5(path: Path) -> str:
    whole = hashlib.md5(usedforsecurity=False)  # the only algorithm that the agent knows
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            whole.update(chunk)
    return whole.hexdigest()
