"""One repository to judge: its files in memory, what was changed in it, and how it is named on disk."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2

MARK = "_id"  # ends the name of every model of a case; a hash takes its place on disk
CONFIG = "config.pbtxt"


@dataclass(frozen=True)
class Case:
    """A repository of one or more models.

    Attributes:
        seed: the valid repository it was made from.
        kind: the mutation, ``unchanged`` for none.
        detail: what the mutation did.
        files: content by path below the repository; a path that ends in ``/`` is an empty folder, and a content that
            starts with ``LINK`` a symbolic link.
        target: the model that was changed.
        apart: why the verdicts need not agree, empty where they must: what only running the code tells.
    """

    seed: str
    files: Mapping[str, bytes] = field(repr=False)
    target: str = ""
    kind: str = "unchanged"
    detail: str = ""
    apart: str = ""

    @property
    def models(self) -> list[str]:
        """Folders of the repository."""
        return sorted({path.split("/")[0] for path in self.files if "/" in path})

    def of(self, model: str) -> dict[str, bytes]:
        """The files of one model."""
        return {path: content for path, content in self.files.items() if path.startswith(f"{model}/")}

    def text(self, model: str = "") -> str:
        """A model's ``config.pbtxt``, the target's by default; empty where it has none."""
        return self.files.get(f"{model or self.target}/{CONFIG}", b"").decode("utf-8", "replace")

    def config(self, model: str = "") -> model_config_pb2.ModelConfig:
        """The same, parsed."""
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2

        return text_format.Parse(self.text(model), model_config_pb2.ModelConfig())

    def with_file(self, path: str, content: bytes | str | None) -> Case:
        """This repository with another content at a path; None takes the file away."""
        files = dict(self.files)
        if content is None:
            files.pop(path, None)
        else:
            files[path] = content.encode() if isinstance(content, str) else content
        return replace(self, files=files)

    def with_text(self, text: str | bytes, model: str = "") -> Case:
        """This repository with another ``config.pbtxt``."""
        return self.with_file(f"{model or self.target}/{CONFIG}", text)

    def moved(self, old: str, new: str | None) -> Case:
        """Every path that starts with ``old`` starts with ``new``; None takes them away."""
        kept = {path: content for path, content in self.files.items() if not path.startswith(old)}
        if new is not None:
            kept |= {new + path[len(old) :]: self.files[path] for path in self.files if path.startswith(old)}
        return replace(self, files=kept)

    def is_ensemble(self, model: str) -> bool:
        """True where the model's configuration speaks of an ensemble."""
        return "ensemble" in self.text(model)

    @property
    def key(self) -> str:
        """The content as a hash: equal for equal repositories."""
        return _digest(self.files)[:20]

    def names(self) -> dict[str, str]:
        """The name on disk of each model: its content's hash in it, so that equal models have equal names.

        An ensemble's content is the whole repository's.
        """
        found = {}
        for model in self.models:
            if model.endswith(MARK):
                content = self.files if self.is_ensemble(model) else self.of(model)
                found[model] = f"{model[: -len(MARK)]}_{_digest(content)[:10]}"
            else:
                found[model] = model
        return found

    def write(self, folder: Path, only: str = "") -> list[str]:
        """Write the repository, or one model of it, below ``folder``; returns the models' names there."""
        names = self.names()
        pattern = re.compile(rf"\b\w+{MARK}\b")
        for path, content in self.files.items():
            top, _, rest = path.partition("/")
            if (only and top != only) or (not rest and not path.endswith("/") and only):
                continue
            target = folder / (f"{names.get(top, top)}/{rest}" if "/" in path else path)
            if path.endswith("/"):
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.endswith(".pbtxt"):
                text = content.decode("latin-1")
                content = pattern.sub(lambda found: names.get(found[0], found[0]), text).encode("latin-1")
            if content.startswith(LINK):
                target.symlink_to(content.removeprefix(LINK).decode())
            else:
                target.write_bytes(content)
        return [names[only]] if only else list(names.values())


LINK = b"symbolic link to "


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path, content in sorted(files.items()):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
