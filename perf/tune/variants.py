"""The variants of a model in a repository, by the manifests that ``build-repo`` leaves; any other model has one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perf.tune.errors import TuneUsageError
from serving.errors import Problem

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Variant:
    """One way in which a model was built.

    Attributes:
        name: ``onnx-fp16``; empty where no manifest says one.
        folder: of the model in the repository, with its ``config.pbtxt``.
        version: the newest one there.
        size_bytes: of its artifact.
        inputs: ``float32[batch, 1, 8, 8]`` by name; None where no manifest says so.
        accuracy: by the user's metric, higher is better.
        is_engine: it was compiled for certain shapes.
        digest: of what was published; what a search found holds for this alone.
    """

    name: str
    folder: Path
    version: int
    size_bytes: int
    inputs: Mapping[str, str] | None = None
    accuracy: float | None = None
    is_engine: bool = False
    digest: str = ""
    served: bool = field(default=False)

    @property
    def model(self) -> str:
        """The name that it has in the repository."""
        return self.folder.name

    @property
    def batches_freely(self) -> bool:
        """True where the artifact is known to take any batch: its first dimension is free, and no profile bounds it."""
        shapes = [text.partition("[")[2] for text in (self.inputs or {}).values()]
        return bool(shapes) and not self.is_engine and all(shape.startswith("batch") for shape in shapes)


def find_variants(repository: Path, model: str) -> tuple[Variant, ...]:
    """All that a model may be served with; the one that is served now comes first.

    Raises:
        TuneUsageError: there is no such repository or model, or the model has no version.
    """
    folder = repository / model
    if not repository.is_dir():
        fix = "build one with build-repo, or name another with --repository"
        expected, got = "a folder with one folder per model", "a file" if repository.exists() else "nothing there"
        raise TuneUsageError([Problem("no such model repository", str(repository), expected, got, fix)])
    if not model or "/" in model or not folder.is_dir():
        known = sorted(path.name for path in repository.iterdir() if path.is_dir() and not path.name.startswith("."))
        close = difflib.get_close_matches(model, known, n=1)
        fix = f"did you mean {close[0]}?" if close else f"build it with build-repo --only {model}"
        expected = ", ".join(known) or "at least one model"
        raise TuneUsageError([Problem("no such model", str(repository), expected, model, fix)])
    served = _variant(folder, served=True)
    if served is None:
        expected = "a folder with a number for a name (an ensemble has an empty one)"
        got, fix = "no such folder with a file in it", f"build it again: build-repo --only {model}"
        raise TuneUsageError([Problem("the model has no version", str(folder), expected, got, fix)])
    others = []
    for path in sorted(repository.iterdir()):
        other = _variant(path) if path.is_dir() and path.name.startswith(f"{model}_") else None
        if other is None or not other.name or path.name != f"{model}_{other.name.replace('-', '_')}":
            continue
        if other.name != served.name and other.inputs == served.inputs:
            others.append(other)
    return (served, *others)


def _variant(folder: Path, *, served: bool = False) -> Variant | None:
    versions = [int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdigit()]
    if not versions:
        return None
    place = folder / str(max(versions))
    manifest = read_manifest(place)
    size_bytes = manifest.get("size_bytes") or sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    verification = manifest.get("verification") or {}
    return Variant(
        name=str(manifest.get("variant") or ""),
        folder=folder,
        version=max(versions),
        size_bytes=int(size_bytes),
        inputs=manifest.get("inputs"),
        accuracy=(verification.get("accuracy") or {}).get("value"),
        is_engine=manifest.get("engine") is not None,
        digest=str(manifest.get("digest") or ""),
        served=served,
    )


def read_manifest(place: Path) -> dict[str, Any]:
    """The manifest of a version folder; empty where there is none that can be read."""
    try:
        found = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
