"""From the staging folder into the repository: a version folder first, ``config.pbtxt`` last, nothing overwritten.

Staging lies beside the repository, on the same filesystem and outside of it: Triton takes every folder in a repository
for a model, and only a rename puts a whole folder there at once.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.artifact import Artifact
from builder.errors import PublishError, describe
from builder.manifest import read_manifest

CONFIG = "config.pbtxt"


@dataclass(frozen=True)
class Published:
    """Where a model stands after publishing.

    Attributes:
        version: the version that is served.
        fresh: False where the newest version was the same already.
        path: its version folder.
    """

    version: int
    fresh: bool
    path: Path


@contextlib.contextmanager
def staging_for(repository: Path) -> Iterator[Path]:
    """An empty folder beside the repository, removed afterwards.

    Raises:
        PublishError: it cannot be made.
    """
    base = repository.parent / ".build" / "staging"
    try:
        base.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="build-", dir=base))
    except OSError as exc:
        raise PublishError(
            "the staging folder cannot be made",
            where=str(base),
            expected="a folder beside the repository that can be written",
            got=describe(exc),
            fix="give the repository a parent folder that you may write to",
        ) from exc
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def versions_of(model_dir: Path) -> list[int]:
    """The versions of a published model, rising."""
    if not model_dir.is_dir():
        return []
    return sorted(int(entry.name) for entry in model_dir.iterdir() if entry.name.isdigit() and entry.is_dir())


def next_version(model_dir: Path) -> int:
    """One above the highest there is; 1 for a new model."""
    return max(versions_of(model_dir), default=0) + 1


def unchanged(model_dir: Path, artifact: Artifact, config_text: str) -> int | None:
    """The newest version, if it holds this very artifact under this very configuration."""
    versions = versions_of(model_dir)
    if not versions:
        return None
    manifest = read_manifest(model_dir / str(versions[-1])) or {}
    try:
        published_config = (model_dir / CONFIG).read_text(encoding="utf-8")
    except OSError:
        return None
    files = manifest.get("files", {})
    same_files = all(files.get(name) == digest for name, digest in artifact.sha256.items())
    present = all((model_dir / str(versions[-1]) / name).is_file() for name in artifact.sha256)
    return versions[-1] if same_files and present and published_config == config_text else None


def publish(staged: Path, repository: Path, version: int) -> Published:
    """Move a staged model into the repository.

    Args:
        staged: the model's folder in staging: ``<version>/``, ``config.pbtxt``, label files.
        repository: where it goes.
        version: the version folder to publish.

    Raises:
        PublishError: the version is there already, or the repository cannot be written.
    """
    target = repository / staged.name
    destination = target / str(version)
    if destination.exists():
        raise PublishError(
            f"version {version} of {staged.name} is there already",
            where=str(destination),
            expected="a version that is not taken: a version is never overwritten",
            fix="run build-repo again",
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
        (staged / str(version)).rename(destination)
        _replace_files(staged, target)
    except OSError as exc:
        raise PublishError(
            f"{staged.name} cannot be published",
            where=str(target),
            expected="a repository that can be written",
            got=describe(exc),
            fix="mend what the message above says; what was published before is untouched",
        ) from exc
    return Published(version, True, destination)


def _replace_files(staged: Path, target: Path) -> None:
    """Label files, then the configuration that names them."""
    files = sorted(entry for entry in staged.iterdir() if entry.is_file())
    for file in sorted(files, key=lambda entry: entry.name == CONFIG):
        file.replace(target / file.name)
