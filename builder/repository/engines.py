"""``<repository>_engines/`` beside the repository: engines that Triton has no backend for, with what is known of them.

Nothing here could run them, so nothing of them is in the repository. A folder holds the engine and ``engine.json``; it
is replaced as a whole.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.artifact import Artifact
from builder.repository import durable

FACTS = "engine.json"


@dataclass(frozen=True)
class Bundle:
    """An engine to put there.

    Attributes:
        name: of its folder: the model's name with the variant's.
        files: where its files lie now, by name.
        facts: sha256 of each file, the tensors, and how it was built.
    """

    name: str
    files: Mapping[str, Path]
    facts: Mapping[str, Any]


def engines_dir(repository: Path) -> Path:
    """Where they are."""
    return repository.with_name(f"{repository.name}_engines")


def bundle_of(artifact: Artifact, name: str, made: Mapping[str, Any]) -> Bundle:
    """The bundle of an engine.

    Args:
        artifact: its files.
        name: of its folder.
        made: what its stage found.
    """
    facts = {
        "engine": made["engine"],
        "precision": artifact.precision,
        **made["interface"],
        "files": dict(artifact.sha256),
        "size_bytes": artifact.size_bytes,
        "notes": list(artifact.notes),
    }
    return Bundle(name, {file: artifact.path.with_name(file) for file in artifact.sha256}, facts)


def has_engine(repository: Path, name: str, files: Mapping[str, str]) -> bool:
    """True where these files are there, by the sha256 that is written beside them, and of the size they had."""
    folder = engines_dir(repository) / name
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        sizes = sum((folder / file).stat().st_size for file in files)
        return bool(facts["files"] == dict(files) and facts["size_bytes"] == sizes)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def put_engine(bundle: Bundle, repository: Path) -> Path:
    """Put an engine there, in place of the one that is.

    Returns:
        Its folder.

    Raises:
        PublishError: it cannot be written.
    """
    target = engines_dir(repository) / bundle.name
    with durable.explained(bundle.name, target.parent):
        durable.make_folder(target.parent)
        for left in target.parent.glob(f".{bundle.name}-*"):  # of a build that was killed
            durable.remove_tree(left)
        new = target.parent / f".{bundle.name}-{secrets.token_hex(4)}"
        new.mkdir()
        try:
            for name, path in bundle.files.items():
                path.replace(new / name)
            text = json.dumps(bundle.facts, indent=2, sort_keys=True)
            durable.write(new / FACTS, f"{text}\n".encode())
            durable.sync_tree(new)
            if target.exists():
                old = target.parent / f".{bundle.name}-{secrets.token_hex(4)}"
                target.rename(old)
                new.rename(target)
                durable.remove_tree(old)
            else:
                new.rename(target)
        except OSError:
            durable.remove_tree(new)
            raise
    return target
