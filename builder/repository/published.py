"""What lies in a repository, read without changing anything and without anything heavy.

A model folder is ours if one of its version folders has a ``manifest.json`` that names the model. Version folders
without one, and everything else that we did not make, are seen, stepped around and left alone.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ManifestError, PublishError
from builder.repository.durable import files_below
from builder.repository.manifest import NAME, PINNED, Manifest, load, read_manifest
from serving.errors import UsageError

CONFIG = "config.pbtxt"
GOLDEN = "golden.npz"
# What Triton takes for a version; a name with a leading zero, or beyond its integers, it ignores.
_VERSION = re.compile("[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class ModelFolder:
    """One model in a repository; every property reads the disk anew.

    Attributes:
        repository: where it is.
        name: its folder there.
    """

    repository: Path
    name: str

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.repository / self.name

    @property
    def next_config(self) -> Path:
        """Where the next ``config.pbtxt`` waits: a file of the repository, which Triton passes over."""
        return self.repository / f".build-repo.{self.name}.next"

    def folder(self, version: int) -> Path:
        """The folder of a version."""
        return self.path / str(version)

    def numbers(self) -> list[int]:
        """Every number that is taken, ours or not, rising."""
        try:
            names = [entry.name for entry in self.path.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(int(name) for name in names if _VERSION.fullmatch(name))

    def is_ours(self, version: int) -> bool:
        """Whether its manifest names this model."""
        folder = self.folder(version)
        return not folder.is_symlink() and (read_manifest(folder) or {}).get("model") == self.name

    def versions(self) -> list[int]:
        """Our versions, rising."""
        return [number for number in self.numbers() if self.is_ours(number)]

    def newest(self) -> int | None:
        """Our highest version; found without reading the others."""
        return next((number for number in reversed(self.numbers()) if self.is_ours(number)), None)

    def manifest(self, version: int) -> Manifest:
        """What a version is; :class:`ManifestError` if its manifest is not as we wrote it."""
        return load(self.folder(version))

    def config(self, version: int | None = None) -> bytes | None:
        """``config.pbtxt`` of the model, or a version's own copy; None where there is none."""
        path = self.path if version is None else self.folder(version)
        try:
            return (path / CONFIG).read_bytes()
        except OSError:
            return None

    def served(self) -> int | None:
        """The version that ``config.pbtxt`` was written for; None where it is missing or not ours.

        Where a user's own ``version_policy`` gives several versions one configuration, the newest of them.
        """
        current = self.config()
        if current is None:
            return None
        taken = hashlib.sha256(current).hexdigest()
        for version in reversed(self.numbers()):
            own = self.config(version)
            if own == current and self.is_ours(version):
                return version
            if own is None and _version_1_config(self.folder(version)) == taken and self.is_ours(version):
                return version
        return None

    def pending(self) -> int | None:
        """The newest version if it is in place but was never served: publishing it was cut short, or is under way."""
        newest = self.newest()
        try:
            waiting = self.next_config.read_bytes()
        except OSError:
            return None
        if newest is None or waiting != self.config(newest) or waiting == self.config():
            return None
        return newest

    def to_serve(self) -> int | None:
        """The version that is served, or that waits to be: what an ensemble gets as a step."""
        return self.pending() or self.served()

    def whole(self, version: int) -> Manifest | None:
        """A version's manifest if every file that it lists is there with its size; contents are not read."""
        try:
            manifest = self.manifest(version)
        except ManifestError:
            return None
        own = self.config(version)
        if own is None or hashlib.sha256(own).hexdigest() != manifest.config_sha256:
            return None
        for name, entry in manifest.files.items():
            try:
                size = (self.folder(version) / name).stat().st_size
            except OSError:
                return None
            if size != entry.size_bytes:
                return None
        return manifest


def models_of(repository: Path) -> tuple[list[ModelFolder], list[str]]:
    """Our models in a repository, by name, and the names of the folders that are not ours."""
    ours, others = [], []
    for entry in sorted(repository.iterdir()):
        if entry.is_dir():
            folder = ModelFolder(repository, entry.name)
            if not entry.is_symlink() and folder.newest() is not None:
                ours.append(folder)
            else:
                others.append(entry.name)
    return ours, others


def versions_of(model_dir: Path) -> list[int]:
    """Every version folder of a model, rising, whoever made it."""
    folder = ModelFolder(model_dir.parent, model_dir.name)
    return [number for number in folder.numbers() if folder.folder(number).is_dir()]


def next_version(model_dir: Path) -> int:
    """One above the highest number that is taken; 1 for a new model."""
    return max(ModelFolder(model_dir.parent, model_dir.name).numbers(), default=0) + 1


def is_pinned(manifest: Manifest) -> bool:
    """Whether its ``config.pbtxt`` names its version alone."""
    return manifest.version_policy == PINNED


def why_not_ours(folder: ModelFolder) -> str:
    """In words: what is found where our manifest should be."""
    if folder.path.is_symlink():
        return f"a link to {folder.path.readlink()}"
    if not folder.path.is_dir():
        return "a file"
    numbers = folder.numbers()
    if not numbers:
        return "a folder without a version"
    said: list[Any] = []
    for number in reversed(numbers):
        data = read_manifest(folder.folder(number))
        if data is not None:
            return f"{number}/{NAME} names the model {data.get('model')!r}"
        said.append(
            f"{number}/{NAME} " + ("cannot be read" if (folder.folder(number) / NAME).exists() else "is missing")
        )
    return ", ".join(said[:3])


def _version_1_config(version_dir: Path) -> str | None:
    manifest = read_manifest(version_dir) or {}
    digest = manifest.get("config_sha256")
    return digest if manifest.get("schema_version") == 1 and isinstance(digest, str) else None


def require_ours(model: ModelFolder) -> int | None:
    """The newest version of a model that is ours; None where there is nothing of its name.

    Raises:
        PublishError: there is something that we did not make.
    """
    newest = None if model.path.is_symlink() else model.newest()
    if newest is None and os.path.lexists(model.path):
        raise PublishError(
            f"{model.name} in the repository was not made by build-repo, and is not touched",
            where=str(model.path),
            expected=f"no such folder, or one with a version whose {NAME} names the model {model.name!r}",
            got=why_not_ours(model),
            fix="give the model another name in the spec, or move the folder away",
        )
    return newest


def known_files(manifest: Manifest) -> set[str]:
    """Every file that belongs in a version folder."""
    return {*manifest.files, NAME} | ({manifest.signature.file} if manifest.signature else set())


def files_there(version_dir: Path) -> set[str]:
    """Every file of a version folder; bytecode, which Python leaves beside a model in Python, is nobody's."""
    paths = (path.relative_to(version_dir) for path in files_below(version_dir))
    return {path.as_posix() for path in paths if "__pycache__" not in path.parts}


def require_folder(repository: Path) -> Path:
    """The repository; :class:`UsageError` where there is none."""
    if not repository.is_dir():
        raise UsageError(
            "there is no such repository",
            where=str(repository),
            expected="the folder that build-repo publishes to",
            got="a file" if repository.exists() else "nothing there",
            fix="name it with --repository DIR, or run build-repo first",
        )
    return repository


def require_model(repository: Path, name: str) -> ModelFolder:
    """A model of ours; :class:`UsageError` where there is none of this name, with the nearest that is."""
    models, others = models_of(require_folder(repository))
    found = next((model for model in models if model.name == name), None)
    if found is not None:
        return found
    names = [model.name for model in models]
    close = difflib.get_close_matches(name, names, n=1)
    raise UsageError(
        f"the repository has no model {name!r} of build-repo's",
        where=str(repository),
        expected=", ".join(names) or "a model that build-repo published",
        got=f"a folder {name} that build-repo did not make" if name in others else "",
        fix=f"did you mean {close[0]}?" if close else "build-repo --list",
    )
