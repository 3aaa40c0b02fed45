"""Versions that build-repo published: their manifest, and whether their files are still what it says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from builder.check.artifacts.reading import in_words, leads_out, look, size_of
from builder.check.model import ModelOnDisk
from builder.rules.rule import Hit, Rule

CHANGED = Rule(
    "manifest-mismatch",
    "warning",
    "a file is not what build-repo published",
    "Its manifest.json says which files the version has, with size and sha256: what was verified through a server "
    "is no longer what is served. Sizes are always compared, contents of files up to 2 MB.",
    "Publish it again, or bring the file back.",
    bad="1/model.onnx, replaced by hand beside its manifest.json",
    good="1/model.onnx as it was published",
)
MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 4_000_000
_LARGEST_HASHED = 2_000_000


def manifest_of(folder: Path) -> dict[str, Any]:
    """A version's manifest, unchecked; empty where there is none that can be read."""
    path = folder / MANIFEST
    if look(path) != "file" or size_of(path) > _LARGEST_MANIFEST:
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) and "schema_version" in data else {}


def changed(model: ModelOnDisk) -> Iterator[Hit]:
    """Files that are missing, or another size or content."""
    if model.config is None:
        return
    for version in model.served:
        files = manifest_of(model.versions[version]).get("files")
        for name, entry in sorted(files.items()) if isinstance(files, dict) else ():
            if leads_out(name):
                continue
            path = model.versions[version] / name
            problem = _problem(path, entry if isinstance(entry, dict) else {"sha256": entry})
            if problem:
                shown = f"{version}/{name}"
                yield Hit(f"{shown} is not what was published: {problem}", "publish it again", file=shown)


def _problem(path: Path, entry: dict[str, Any]) -> str:
    found = look(path)
    if found != "file":
        return in_words(path, found)
    size, published = size_of(path), entry.get("size_bytes")
    if isinstance(published, int) and size != published:
        return f"{size} bytes, and {published} were published"
    if size > _LARGEST_HASHED or not isinstance(entry.get("sha256"), str):
        return ""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "it cannot be read"
    return "" if digest == entry["sha256"] else "its content differs"


OUR_RULES = ((CHANGED, changed),)
