"""Names that become folders, files and URLs: what a model, a tensor and a label file may be called.

A model's name is a folder of the repository, a path segment of Triton's HTTP protocol and a metric label. So it is one
plain path segment of ASCII letters, digits, ``_``, ``-`` and ``.``: nothing that could leave the repository (``..``,
``/``, ``\\``, NUL), be hidden in it (a leading dot) or be cut by a file system (a trailing dot, more than 200 bytes of
the usual 255, which leaves room for what is added to a name). Two models whose names differ in case only are refused:
they are one folder wherever the repository is copied to a file system that ignores case.

Files that a spec *reads* may be anywhere: ``../weights/model.pt`` and absolute paths are the user's own business. What
is *written* from such a path is its last segment only: a label file is copied into the version folder under its own
name, so that name must not be one that the version folder has already.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from builder.findings import Finding, refuse

MAX_NAME_BYTES = 200
CANDIDATE_SUFFIX = ".candidate"
"""A new version that is being tried beside the one that is served has this after its name."""
MODEL_NAME_PATTERN = r"^[A-Za-z0-9_]([A-Za-z0-9_.\-]*[A-Za-z0-9_\-])?$"
_MODEL_NAME = re.compile(MODEL_NAME_PATTERN[:-1] + r"\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MODEL_FILES = ("config.pbtxt", "manifest.json", "golden.npz")
_RESERVED: dict[str, str] = {
    "stats": "GET /v2/models/stats is Triton's statistics of all models",
    **dict.fromkeys(_MODEL_FILES, "a model has a file of that name"),
}
_VERSION_FILES = ("config.pbtxt", "manifest.", "golden.", "model.")
"""How the names begin of what a version folder has beside label files: artifacts, their data, signatures."""


def model_name(name: str) -> Finding | None:
    """What is wrong with a model's name, or None."""
    rule = f"letters, digits, `_`, `-`, `.`; no `.` or `-` first, no `.` last; at most {MAX_NAME_BYTES}"
    got = name if len(name) <= 60 else f"{name[:40]}... ({len(name.encode())} bytes)"
    if not _MODEL_NAME.match(name) or len(name) > MAX_NAME_BYTES:
        fix = _plain(name)
        return Finding(f"{got!r} is no model name", rule, "", f"for example `{fix}`" if fix else "")
    if name.endswith(CANDIDATE_SUFFIX):
        what = f"{name!r} is a reserved name: a version that is being tried beside the served one is called so"
        return Finding(what, f"a name that does not end in {CANDIDATE_SUFFIX}")
    if name.lower() in _RESERVED:
        return Finding(f"{name!r} is a reserved name: {_RESERVED[name.lower()]}", "another name")
    return None


def _plain(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.\-]+", "_", name).lstrip(".-").rstrip(".")[:MAX_NAME_BYTES]
    return plain if re.search("[A-Za-z0-9]", plain) and len(name) <= MAX_NAME_BYTES else ""


def same_but_for_case(names: Iterable[str]) -> dict[str, str]:
    """Each name that equals an earlier one but for upper and lower case, with that earlier one."""
    seen: dict[str, str] = {}
    clashes: dict[str, str] = {}
    for name in names:
        first = seen.setdefault(name.lower(), name)
        if first != name:
            clashes[name] = first
    return clashes


def tensor_name(name: str) -> str:
    """A tensor's name as pydantic checks it: Triton takes any text; an empty or unprintable one helps nobody.

    Raises:
        Findings: it is empty, too long or holds control characters.
    """
    if not name or _CONTROL.search(name) or len(name.encode()) > MAX_NAME_BYTES:
        rule = f"printable text, at most {MAX_NAME_BYTES} bytes"
        raise refuse(f"{name[:60]!r} is no name for a tensor", expected=rule)
    return name


def label_files(labels: Mapping[str, str]) -> list[Finding]:
    """What is wrong with the names under which label files are copied into the version folder."""
    found = []
    first_use: dict[str, str] = {}
    for output, file in labels.items():
        name = PurePosixPath(file).name
        if _CONTROL.search(file) or not name or len(name.encode()) > MAX_NAME_BYTES:
            what = f"{file[:60]!r} is no label file"
            rule = f"a path to a text file; its name printable, at most {MAX_NAME_BYTES} bytes"
            found.append(Finding(what, rule, path=(output,)))
            continue
        if name.lower().startswith(_VERSION_FILES) or name.startswith("."):
            what = f"a label file cannot be called {name}: it is copied into the version folder, which keeps that name"
            found.append(Finding(what, fix="give the file another name, such as labels.txt", path=(output,)))
        first = first_use.setdefault(name.lower(), output)
        if posixpath.normpath(labels[first]) != posixpath.normpath(file):
            what = f"two label files would be one: {labels[first]} and {file} are both copied as {name}"
            found.append(Finding(what, fix=f"give one another name, such as {output}_{name}", path=(output,)))
    return found
