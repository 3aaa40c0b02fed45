"""Is every version still what was published? Every file is read again and held against the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builder.artifact import sha256_of
from builder.errors import ManifestError
from builder.repository.manifest import NAME as MANIFEST
from builder.repository.published import CONFIG, ModelFolder, files_there, known_files, models_of, require_folder


@dataclass(frozen=True)
class Mismatch:
    """One thing that is not as it was published.

    Attributes:
        model: which.
        version: None where it is the model's own ``config.pbtxt``.
        file: which.
        problem: in words.
        expected, got: hashes, where there are two.
    """

    model: str
    version: int | None
    file: str
    problem: str
    expected: str = ""
    got: str = ""


@dataclass(frozen=True)
class HashReport:
    """What :func:`verify_hashes` found.

    Attributes:
        repository: which.
        models, versions, files, size_bytes: how much was read.
        mismatches: what is not as it was published.
        others: folders that build-repo did not make, which were not read.
    """

    repository: Path
    models: int
    versions: int
    files: int
    size_bytes: int
    mismatches: tuple[Mismatch, ...]
    others: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True when everything is as it was published."""
        return not self.mismatches

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        return {
            **vars(self),
            "repository": str(self.repository),
            "ok": self.ok,
            "mismatches": [asdict(mismatch) for mismatch in self.mismatches],
            "others": list(self.others),
        }


def verify_hashes(repository: Path) -> HashReport:
    """Read every file of every version again; nothing is changed, and no lock is held.

    Raises:
        UsageError: there is no such repository.
    """
    models, others = models_of(require_folder(repository))
    mismatches: list[Mismatch] = []
    versions = files = size_bytes = 0
    for model in models:
        for version in model.numbers():
            if not model.is_ours(version):
                others.append(f"{model.name}/{version}")
                continue
            found = list(_version(model, version))
            if not model.folder(version).is_dir():
                continue  # removed while we read it
            mismatches += found
            versions += 1
            for name in files_there(model.folder(version)):
                files += 1
                size_bytes += (model.folder(version) / name).stat().st_size
        mismatches += _config(model)
    return HashReport(repository, len(models), versions, files, size_bytes, tuple(mismatches), tuple(sorted(others)))


def _version(model: ModelFolder, version: int) -> Iterator[Mismatch]:
    folder = model.folder(version)
    try:
        manifest = model.manifest(version)
    except ManifestError as error:
        yield Mismatch(model.name, version, MANIFEST, error.what, error.expected, error.got)
        return
    if manifest.version != version:
        problem = f"says that it is version {manifest.version}"
        yield Mismatch(model.name, version, MANIFEST, problem)
    there = files_there(folder)
    for name, entry in manifest.files.items():
        if name not in there:
            yield Mismatch(model.name, version, name, "is missing", entry.sha256)
            continue
        digest = sha256_of(folder / name)
        if digest != entry.sha256:
            yield Mismatch(model.name, version, name, "is not what was published", entry.sha256, digest)
    for name in sorted(there - known_files(manifest)):
        yield Mismatch(model.name, version, name, "was not published with this version")
    for name in sorted(known_files(manifest) - there - set(manifest.files)):
        yield Mismatch(model.name, version, name, "is missing")


def _config(model: ModelFolder) -> Iterator[Mismatch]:
    """The model's own configuration is that of one of its versions."""
    if model.config() is None:
        yield Mismatch(model.name, None, CONFIG, "is missing")
    elif model.served() is None:
        yield Mismatch(model.name, None, CONFIG, "was edited by hand: it is that of none of its versions")
