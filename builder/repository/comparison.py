"""Two versions of a model side by side: configuration, files, accuracy, parity, size, tools."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.repository.manifest import Manifest
from builder.repository.published import CONFIG, ModelFolder, require_model
from serving.errors import UsageError

Pair = tuple[Any, Any]


@dataclass(frozen=True)
class Diff:
    """What differs between two versions; a pair is (in ``a``, in ``b``), None where one has no such thing.

    Attributes:
        model, a, b: which.
        config: unified diff of ``config.pbtxt``, the versions' own numbers in it written as ``VERSION``.
        files: sha256 of the files that differ, by name.
        size_bytes: of what the server loads.
        accuracy: the user's metric on the artifact.
        parity: per output, the largest absolute difference from PyTorch.
        facts: what else differs: variant, precision, tools, the git commit.
    """

    model: str
    a: int
    b: int
    config: tuple[str, ...]
    files: Mapping[str, Pair]
    size_bytes: Pair
    accuracy: Pair
    parity: Mapping[str, Pair]
    facts: Mapping[str, Pair]

    @property
    def same(self) -> bool:
        """True when both serve the same files under the same configuration."""
        return not self.config and not self.files

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        return {**vars(self), "same": self.same}


def diff(repository: Path, model: str, a: int, b: int) -> Diff:
    """Hold version ``b`` of a model against version ``a``, by their manifests and configurations.

    Raises:
        UsageError: there is no such repository, model or version.
        ManifestError: a version's manifest is not as it was published.
    """
    folder = require_model(repository, model)
    first, second = _manifest(folder, a), _manifest(folder, b)
    return Diff(
        model,
        a,
        b,
        tuple(_config(folder, a, b)),
        _differing(_hashes(first), _hashes(second)),
        (first.size_bytes, second.size_bytes),
        (_accuracy(first), _accuracy(second)),
        _together(_parity(first), _parity(second)),
        _differing(_facts(first), _facts(second)),
    )


def _manifest(folder: ModelFolder, version: int) -> Manifest:
    if version not in folder.versions():
        raise UsageError(
            f"{folder.name} has no version {version} of build-repo's",
            where=str(folder.path),
            expected=f"one of {', '.join(map(str, folder.versions()))}",
            got=str(version),
            fix="build-repo --list shows every version",
        )
    return folder.manifest(version)


def _config(folder: ModelFolder, a: int, b: int) -> list[str]:
    texts = [_neutral((folder.config(version) or b"").decode("utf-8", "replace"), version) for version in (a, b)]
    before, after = (f"{folder.name}/{version}/{CONFIG}" for version in (a, b))
    return list(difflib.unified_diff(texts[0].splitlines(), texts[1].splitlines(), before, after, lineterm=""))


def _neutral(text: str, version: int) -> str:
    """Without the version's own number, which differs in any case."""
    text = re.sub(rf'(label_filename: "){version}/', r"\1VERSION/", text)
    return re.sub(rf"(version_policy {{\s*specific {{\s*versions: \[){version}\]", r"\1VERSION]", text)


def _hashes(manifest: Manifest) -> dict[str, str]:
    # The configuration differs by its number alone already; it is compared as text.
    return {name: entry.sha256 for name, entry in manifest.files.items() if name != CONFIG}


def _accuracy(manifest: Manifest) -> float | None:
    return manifest.verification.accuracy.value if manifest.verification.accuracy else None


def _parity(manifest: Manifest) -> dict[str, float]:
    parity = manifest.verification.parity
    return {output.output: output.max_abs for output in parity.outputs} if parity else {}


def _facts(manifest: Manifest) -> dict[str, Any]:
    git = manifest.provenance.git
    commit = f"{git.commit[:12]}{' and changes' if git.dirty else ''}" if git else None
    tools = {f"tool {name}": version for name, version in manifest.provenance.tools.items()}
    return {"variant": manifest.variant, "precision": manifest.precision, "git commit": commit, **tools}


def _together(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Pair]:
    return {name: (first.get(name), second.get(name)) for name in {**first, **second}}


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Pair]:
    return {name: pair for name, pair in _together(first, second).items() if pair[0] != pair[1]}
