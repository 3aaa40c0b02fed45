"""Old versions go: moved out of the repository whole, and removed only then, so that nobody sees half of one."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ManifestError
from builder.repository import durable
from builder.repository.durable import explained
from builder.repository.locks import publish_lock
from builder.repository.publish import build_dir
from builder.repository.published import (
    CONFIG,
    ModelFolder,
    files_there,
    known_files,
    models_of,
    require_folder,
    require_model,
)
from builder.repository.served import served_versions
from serving.errors import UsageError

_SERVED = "it is served"


@dataclass(frozen=True)
class Pruned:
    """What :func:`keep` removed.

    Attributes:
        removed: ``(model, version)`` of each.
        freed_bytes: their size.
        left: ``(model, version, why)`` of old versions that had to stay; the ones that are served are not named.
    """

    removed: tuple[tuple[str, int], ...]
    freed_bytes: int
    left: tuple[tuple[str, int, str], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        return {
            "removed": [{"model": model, "version": version} for model, version in self.removed],
            "freed_bytes": self.freed_bytes,
            "left": [{"model": model, "version": version, "why": why} for model, version, why in self.left],
        }


def keep(repository: Path, count: int, models: Sequence[str] | None = None) -> Pruned:
    """Remove old versions: the newest ``count`` of each model stay, and whatever is served.

    Args:
        repository: where they are.
        count: how many to keep, at least 1.
        models: only these; all of ours by default.

    Raises:
        UsageError: ``count`` is below 1, or there is no such repository or model.
        PublishError: the repository cannot be written.
    """
    if count < 1:
        raise UsageError(
            "the number of versions to keep is too small",
            where=str(repository),
            expected="at least 1",
            got=str(count),
            fix="keep 1 at least; to be rid of a whole model, remove its folder from the repository",
        )
    require_folder(repository)
    chosen = models_of(repository)[0] if models is None else [require_model(repository, name) for name in models]
    trash = build_dir(repository) / "trash"
    removed: list[tuple[str, int]] = []
    left: list[tuple[str, int, str]] = []
    freed = 0
    with explained("the old versions", repository, doing="removed"), publish_lock(repository):
        for model in chosen:
            served = served_versions(model)
            for version in model.versions()[:-count]:
                why, size = _why_it_stays(model, version, served)
                if not why:
                    durable.make_folder(trash)
                    durable.move_out(model.folder(version), trash / f"{model.name}-{version}-{secrets.token_hex(4)}")
                    removed.append((model.name, version))
                    freed += size
                elif why != _SERVED:
                    left.append((model.name, version, why))
    sweep_trash(build_dir(repository))
    return Pruned(tuple(removed), freed, tuple(left))


def sweep_trash(build_folder: Path) -> None:
    """Remove what was moved out of repositories, also by a process that was killed before it could."""
    trash = build_folder / "trash"
    for entry in trash.iterdir() if trash.is_dir() else ():
        durable.remove_tree(entry)


def _why_it_stays(model: ModelFolder, version: int, served: frozenset[int] | None) -> tuple[str, int]:
    """Why an old version is not removed, or empty; and how large it is."""
    if served is None:
        return f"{CONFIG} does not say which version is served", 0
    if version in served or version == model.pending():
        return _SERVED, 0
    try:
        manifest = model.manifest(version)
    except ManifestError as error:
        return error.what, 0
    extra = sorted(files_there(model.folder(version)) - known_files(manifest))
    if extra:
        return f"it holds {extra[0]}, which build-repo did not put there", 0
    return "", sum(path.stat().st_size for path in durable.files_below(model.folder(version)))
