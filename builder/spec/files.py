"""The files a spec names: whether they are there and can be read, and which ones a ``depends`` entry stands for."""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from builder.findings import Finding, KeyPath, nearest, refuse

_VARIABLE = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*")
_URL = re.compile(r"[a-z][a-z0-9+.\-]+://", re.IGNORECASE)


def is_variable(entry: str) -> bool:
    """True for a ``depends`` entry that names an environment variable (``$NAME``), not files."""
    return bool(_VARIABLE.fullmatch(entry))


def depends_text(text: str) -> str:
    """A ``depends`` entry as pydantic checks it.

    Raises:
        Findings: it is empty, or begins with ``$`` and names no variable.
    """
    if not text.strip() or "\0" in text:
        raise refuse("an empty entry in `depends`", expected="a file, a glob (data/**/*.csv) or $NAME")
    if text.startswith("$") and not is_variable(text):
        raise refuse(f"{text!r} names no environment variable", expected="$NAME alone", fix=f"for a file: ./{text}")
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


def file_findings(model: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    """What is wrong with the files that one model's entry names; paths begin at the model.

    Args:
        model: the entry as it was read, valid or not: what is no text is somebody else's problem.
        folder: the spec's folder.
    """
    for path, text, kind in _named(model):
        found = _problem_of(text, kind, folder)
        if found is not None:
            yield Finding(found.what, found.expected, found.got, found.fix, path)
    depends = model.get("depends")
    for index, entry in enumerate(depends if isinstance(depends, list) else []):
        if isinstance(entry, str) and entry.strip() and "\0" not in entry and not entry.startswith("$"):
            yield from _unmatched(entry, folder, ("depends", index))


def _unmatched(entry: str, folder: Path, path: KeyPath) -> Iterator[Finding]:
    try:
        matched = bool(files_of(entry, folder))
    except (OSError, ValueError, RecursionError, re.error):
        matched = False
    if not matched:
        fix = _similar(folder / entry) or "mend the glob, or take it out; $NAME for a variable"
        what = f"`depends` entry {entry!r} matches no file"
        yield Finding(what, f"at least one file, seen from {folder}", fix=fix, path=path)


def _named(model: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str, str]]:
    """``(key path, path as written, "file" or "folder")`` of everything but ``depends``."""
    given: list[tuple[KeyPath, Any, str]] = []
    source = model.get("source")
    if isinstance(source, Mapping):
        onnx = source.get("onnx")
        onnx = onnx.get("python") if isinstance(onnx, Mapping) else onnx
        given += [(("source", key), source.get(key), "file") for key in ("python", "factory", "exported", "checkpoint")]
        given.append((("source", "python_model"), source.get("python_model"), "file"))
        files = source.get("files")
        given += [
            (("source", "files", n), file, "file") for n, file in enumerate(files if isinstance(files, list) else [])
        ]
        given += [(("source", "onnx"), onnx, "file"), (("source", "huggingface"), source.get("huggingface"), "folder")]
    for key in ("samples", "evaluate"):
        part = model.get(key)
        if isinstance(part, Mapping):
            given.append(((key, "python"), part.get("python"), "file"))
    given += _named_for_variants(model)
    labels = model.get("labels")
    if isinstance(labels, Mapping):
        given += [(("labels", output), file, "file") for output, file in labels.items()]
    sequence = model.get("sequence")
    states = sequence.get("state") if isinstance(sequence, Mapping) else None
    for index, state in enumerate(states if isinstance(states, list) else []):
        file = state.get("initial_state") if isinstance(state, Mapping) else None
        if file != "zero":
            given.append((("sequence", "state", index, "initial_state"), file, "file"))
    for path, text, kind in given:
        if not isinstance(text, str) or not text or "\0" in text:
            continue
        module, colon, name = text.rpartition(":")
        if colon and name.isidentifier() and path[-1] != "huggingface":  # file.py:function; package.module:function
            if module.endswith(".py"):
                yield path, module, kind
        elif path[-1] not in ("python", "factory", "python_model"):
            yield path, text, kind


def _named_for_variants(model: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Any, str]]:
    precision, engine = model.get("precision"), model.get("engine")
    if isinstance(precision, Mapping):
        calibration, recipes = precision.get("calibration"), precision.get("recipes")
        if isinstance(calibration, Mapping):
            yield ("precision", "calibration", "python"), calibration.get("python"), "file"
        if isinstance(recipes, Mapping):
            yield from ((("precision", "recipes", variant), file, "file") for variant, file in recipes.items())
    if isinstance(engine, Mapping):
        yield ("engine", "timing_cache"), engine.get("timing_cache"), "file"
        plugins = engine.get("plugins")
        for index, file in enumerate(plugins if isinstance(plugins, list) else []):
            yield ("engine", "plugins", index), file, "file"


def _problem_of(text: str, kind: str, folder: Path) -> Finding | None:
    """What is wrong with one file or folder, or None."""
    full = folder / text
    expected = f"a {kind} at {os.path.abspath(full)}"  # noqa: PTH100 (resolve() would follow links)
    if _URL.match(text):
        return Finding(f"{text} is a URL", "a local path: nothing is downloaded", fix="fetch it first")
    try:
        status = full.stat()
    except OSError as exc:
        return _unreachable(text, full, folder, expected, exc)
    if kind == "folder" and not stat.S_ISDIR(status.st_mode):
        return Finding(f"{text} is no folder", expected, "a file", "name the folder, not a file in it")
    if kind == "file" and not stat.S_ISREG(status.st_mode):
        got = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        return Finding(f"{text} is no file", expected, got, "name the file")
    if not os.access(full, os.R_OK | (os.X_OK if kind == "folder" else 0)):
        return Finding(f"{text} cannot be read", expected, f"mode {stat.filemode(status.st_mode)}", f"chmod u+r {text}")
    return None


def _unreachable(text: str, full: Path, folder: Path, expected: str, exc: OSError) -> Finding:
    if exc.errno == errno.ELOOP:
        return Finding(f"{text} is a link that leads in a circle", expected, fix="make it a file, or a link to one")
    if exc.errno not in (errno.ENOENT, errno.ENOTDIR):
        return Finding(f"{text[:100]} cannot be read", expected[:300], exc.strerror or str(exc))
    if full.is_symlink():
        return Finding(f"{text} is not there", expected, f"a link to {os.readlink(full)}, which is not there")  # noqa: PTH115
    fix = _similar(full) or "write the path relative to the spec's folder"
    if text.startswith("~"):
        fix = f"~ is not expanded: write {Path(text).expanduser()}"
    elif Path(text).exists() and not Path(text).is_absolute():
        fix = f"paths are relative to the spec's folder: write {os.path.relpath(text, folder)}"
    return Finding(f"{text} is not there", expected, fix=fix)


def _similar(path: Path) -> str:
    try:
        close = nearest(path.name, [entry.name for entry in path.parent.iterdir()], cutoff=0.6)
    except OSError:
        return ""
    return f"did you mean {close}?" if close else ""
