"""What a repository says of a model beside the artifact: its ``manifest.json``, read as plain JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_KEPT = ("variant", "format", "precision", "size_bytes")


def about_model(repository: Path | None, model: str, version: str) -> dict[str, Any]:
    """``variant``, ``format``, ``precision``, ``size_bytes``, ``accuracy`` of a version; empty where nothing is said.

    A manifest that cannot be read is nothing here: ``check-repo`` says what is wrong with it.
    """
    if repository is None or not version.isdigit():
        return {}
    try:
        manifest = json.loads((repository / model / version / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(manifest, dict):
        return {}
    found = {key: manifest[key] for key in _KEPT if manifest.get(key) is not None}
    verification = manifest.get("verification")
    accuracy = verification.get("accuracy") if isinstance(verification, dict) else None
    if isinstance(accuracy, dict) and isinstance(accuracy.get("value"), (int, float)):
        found["accuracy"] = accuracy["value"]
    return found
