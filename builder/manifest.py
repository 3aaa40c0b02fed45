"""``manifest.json``: what a published version is, what it was built from, and how it was verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from builder.artifact import Artifact, sha256_of
from builder.host import host_facts
from builder.samples import Samples
from builder.spec import ModelSpec, Spec
from builder.verify import Accuracy, Parity, Served

NAME = "manifest.json"
SCHEMA_VERSION = 1


def manifest_of(
    *,
    name: str,
    version: int,
    spec: Spec,
    model: ModelSpec,
    artifact: Artifact,
    config_text: str,
    files: Mapping[str, str],
    samples: Samples,
    parity: Parity,
    accuracy: Accuracy | None,
    served: Served,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The manifest as plain data; every number in it comes from the object that measured it.

    Args:
        files: sha256 of every file of the version folder but this one, by name.
        seconds: how long each stage took.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "model": name,
        "version": version,
        "variant": model.served,
        "format": artifact.format,
        "precision": artifact.precision,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "files": dict(files),
        "size_bytes": artifact.size_bytes,
        "config_sha256": hashlib.sha256(config_text.encode()).hexdigest(),
        "inputs": {tensor.name: str(tensor) for tensor in artifact.interface.inputs},
        "outputs": {tensor.name: str(tensor) for tensor in artifact.interface.outputs},
        "notes": list(artifact.notes),
        "spec": {
            "file": spec.path.name,
            "sha256": sha256_of(spec.path),
            "model": model.model_dump(mode="json", by_alias=True, exclude_unset=True),
        },
        "tools": dict(artifact.tools),
        "host": host_facts(),
        "samples": {"origin": samples.origin, "count": len(samples.rows), "real": samples.are_real},
        "verification": {
            "parity": parity.as_dict(),
            "accuracy": accuracy.as_dict() if accuracy else None,
            "serve": served.as_dict(),
        },
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
    }


def read_manifest(version_dir: Path) -> dict[str, Any] | None:
    """The manifest of a published version, None where it has none that can be read."""
    try:
        data = json.loads((version_dir / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def dump(manifest: Mapping[str, Any]) -> str:
    """As JSON text, keys in the order they were put."""
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
