"""The files a spec names: whether they are there, and which ones a ``depends`` entry stands for."""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from builder.yaml_source import Document, KeyPath
from serving.errors import Problem

if TYPE_CHECKING:
    from builder.spec import ModelSpec, Spec

_VARIABLE = re.compile(r"^\$[A-Za-z_][A-Za-z0-9_]*$")


def is_variable(entry: str) -> bool:
    """True for a ``depends`` entry that names an environment variable (``$NAME``), not files."""
    return bool(_VARIABLE.match(entry))


def depends_text(text: str) -> str:
    """A ``depends`` entry as pydantic checks it.

    Raises:
        ValueError: it is empty, or begins with ``$`` and names no variable.
    """
    if not text.strip() or "\0" in text:
        raise ValueError("an empty entry in `depends`: write a file, a glob (data/**/*.csv) or $NAME")
    if text.startswith("$") and not is_variable(text):
        raise ValueError(f"{text!r} names no environment variable: write $NAME alone (for a file: ./{text})")
    return text


def files_of(entry: str, folder: Path) -> list[Path]:
    """Every file that a ``depends`` glob stands for, sorted; a folder stands for all files below it.

    Args:
        entry: a glob; ``**`` goes through folders. Relative to ``folder``; absolute, and ``..``, are allowed.
        folder: the spec's folder.
    """
    found: set[Path] = set()
    for match in glob.glob(entry, root_dir=folder, recursive=True):  # noqa: PTH207 (Path.glob takes no absolute pattern)
        path = folder / match
        found |= set(path.rglob("*")) if path.is_dir() else {path}
    return sorted(path for path in found if path.is_file())


def missing_files(spec: Spec, document: Document) -> Iterator[Problem]:
    """One problem for every file that the spec names and that is not there."""
    for name, model in spec.models.items():
        for at, file in _named(model):
            full = spec.folder / file
            if not full.exists():
                yield Problem(
                    f"{file} is not there",
                    document.where(("models", name, *at)),
                    expected=f"a file at {full.resolve()}",
                    fix=_similar(full) or "write the path relative to the spec's folder",
                )
        for index, entry in enumerate(model.depends):
            if not is_variable(entry) and not files_of(entry, spec.folder):
                yield Problem(
                    f"`depends` entry {entry!r} matches no file",
                    document.where(("models", name, "depends", index)),
                    expected=f"at least one file, seen from {spec.folder}",
                    fix=_similar(spec.folder / entry) or "mend the glob, or take it out; $NAME for a variable",
                )


def _named(model: ModelSpec) -> Iterator[tuple[KeyPath, str]]:
    """``(key path, file)`` of everything but ``depends``."""
    for key, file in model.source.files():
        yield ("source", key), file
    for output, file in model.labels.items():
        yield ("labels", output), file
    references: list[tuple[KeyPath, str]] = [(("source", key), text) for key, text in model.source.references()]
    for key in ("samples", "evaluate"):
        callable_ = getattr(model, key)
        if callable_ is not None:
            references.append(((key, "python"), callable_.python))
    for at, reference in references:
        module = reference.rpartition(":")[0]
        if module.endswith(".py"):
            yield at, module


def _similar(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    close = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f"did you mean {close[0]}?" if close else ""
