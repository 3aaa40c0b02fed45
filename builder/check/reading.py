"""A repository on disk, read as the server reads it: its folders, their configurations, their versions.

Nothing is imported or run, nothing is followed further than a version's folder, and no file is opened that is none.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.check.folder_rules import CONFIG_FILE, FOLDER, INTERNAL, LINK
from builder.check.model import ModelOnDisk
from builder.check.parsing import Problems, parse
from builder.check.target import ANY, Server
from builder.rules.rule import Hit
from builder.rules.subject import Subject, served_by
from builder.rules.table import completes
from builder.triton_fields import model_config_class
from serving.errors import MissingDependencyError

CONFIG = "config.pbtxt"
_NO_VERSIONS = ("warmup", "initial_state", "configs")
_LARGEST = 4 << 20
_LARGEST_CODE = 1 << 20


@dataclass(frozen=True)
class Target:
    """What a repository is judged for.

    Attributes:
        server: that is to serve it.
        config_only: as if each model's files were there.
    """

    server: Server = ANY
    config_only: bool = False


@dataclass(frozen=True)
class Entry:
    """One name in a folder.

    Attributes:
        name: of the file or folder.
        is_dir: True for a folder, links followed; False for all else that is there; None where a link leads nowhere,
            or in circles.
    """

    name: str
    is_dir: bool | None


@dataclass(frozen=True)
class Reading:
    """A model, and what was found while it was read.

    Attributes:
        model: None where not even its folder could be read.
        subject: what the rules about configurations are given; None where there is none to judge.
        file: the configuration's, relative to the model's folder.
        name: the folder's.
        folder: of the model.
        entries: what the folder holds.
        problems: found already.
    """

    model: ModelOnDisk | None
    subject: Subject | None
    name: str
    folder: Path
    file: str = CONFIG
    entries: tuple[Entry, ...] = ()
    problems: tuple[Any, ...] = ()


def entries_of(folder: Path) -> list[Entry]:
    """What a folder holds, sorted by name.

    Raises:
        OSError: it cannot be read.
    """
    found = []
    with os.scandir(folder) as listed:
        for each in listed:
            try:
                each.stat()
                is_dir = each.is_dir()
            except OSError:
                found.append(Entry(each.name, None))
            else:
                found.append(Entry(each.name, is_dir))
    return sorted(found, key=lambda entry: entry.name)


def read_text(path: Path) -> tuple[str | None, str]:
    """The text of a file, or None and why not. Bytes that are no UTF-8 are kept as what they are."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            return None, "it is no file"
        if about.st_size > _LARGEST:
            return None, f"it has {about.st_size / 1e6:.0f} MB, a configuration has a few kB"
        return path.read_bytes().decode("utf-8", "surrogateescape"), ""
    except (OSError, ValueError) as error:
        return None, getattr(error, "strerror", None) or str(error)


def read_models(repository: Path, target: Target) -> Iterator[Reading]:
    """Every folder of a repository, one after the other; per-host configurations as readings of their own.

    Raises:
        OSError: the repository's folder cannot be read.
    """
    for entry in entries_of(repository):
        if entry.is_dir:
            try:
                yield from list(read_model(repository, entry.name, target))
            except MissingDependencyError:
                raise
            except Exception as error:  # a mistake of ours: it is said, and the other models are judged
                what = f"reading the model failed: {type(error).__name__}: {error}"[:300]
                folder = repository / entry.name
                problem = (INTERNAL, Hit(what, "report it, with the folder", file=""))
                yield Reading(None, None, entry.name, folder, file="", problems=(problem,))


def read_model(repository: Path, name: str, target: Target) -> Iterator[Reading]:
    """One folder of a repository."""
    folder = repository / name
    try:
        entries = entries_of(folder)
    except OSError as error:
        hit = Hit(f"the folder cannot be read: {error.strerror}", "give the server the right to read it", file="")
        yield Reading(None, None, name, folder, file="", problems=((FOLDER, hit),))
        return
    names = {entry.name for entry in entries}
    if target.config_only and CONFIG not in names:
        return
    problems: Problems = []
    if not target.config_only:
        for entry in entries:
            if entry.is_dir is None:
                fix = "remove the link, or mend where it leads"
                problems.append((LINK, Hit(f"`{entry.name}` is a link that leads nowhere", fix, file=entry.name)))
    for file in [CONFIG, *_others(folder, entries)]:
        yield _reading(repository / name, entries, file, problems if file == CONFIG else [], target)


def _others(folder: Path, entries: list[Entry]) -> list[str]:
    """Configurations for ``--model-config-name``."""
    if not any(entry.name == "configs" and entry.is_dir for entry in entries):
        return []
    try:
        inside = entries_of(folder / "configs")
    except OSError:
        return []
    return [f"configs/{entry.name}" for entry in inside if entry.name.endswith(".pbtxt") and not entry.is_dir]


def _reading(folder: Path, entries: list[Entry], file: str, problems: Problems, target: Target) -> Reading:
    name = folder.name
    has_config = any(entry.name == file for entry in entries) or file != CONFIG
    text, config, wrong = _config(folder, file) if has_config else ("", model_config_class()(), [])
    versions = version_folders(folder, entries)
    files = None if target.config_only else _first_version(folder, entries)
    served = served_by(model_config_class()() if config is None else config, files, name)
    model = ModelOnDisk(
        folder.parent,
        folder,
        name,
        config,
        has_config,
        text=text,
        versions=versions,
        served=() if config is None else served_versions(config, versions),
        backend=served.backend,
        filename=served.filename,
        release=target.server.release,
    )
    subject = None
    if config is not None:
        libraries = frozenset(_libraries(folder, entries, versions))
        whole = completes(served)
        if whole is None and not target.config_only:
            whole = _python_completes(model)
        asked = target.server
        subject = Subject(config, served, name, files, libraries, whole, asked.release, asked.gpu, asked.backends)
    return Reading(model, subject, name, folder, file, tuple(entries), (*problems, *wrong))


def _config(folder: Path, file: str) -> tuple[str, Any, Problems]:
    """The text, the message or None, what is wrong with it."""
    text, why = read_text(folder / file)
    if text is None:
        hit = Hit(f"cannot be read: {why}", "make it a text file that the server may read", file=file)
        return "", None, [(CONFIG_FILE, hit)]
    config, wrong = parse(text, file)
    return text, config, wrong


def version_of(name: str) -> int | None:
    """The number of a version's folder as the server reads it: as many digits as stand at the front."""
    if name in _NO_VERSIONS or (len(name) > 1 and name.startswith("0")):
        return None
    digits = re.match(r"\s*[-+]?\d+", name, re.ASCII)
    return int(digits[0]) if digits else None


def version_folders(folder: Path, entries: list[Entry]) -> dict[int, Path]:
    """By number, rising; of two folders with one number the one that is named by it."""
    found: dict[int, Path] = {}
    for entry in entries:
        number = version_of(entry.name) if entry.is_dir else None
        if number is not None and (number not in found or entry.name == str(number)):
            found[number] = folder / entry.name
    return dict(sorted(found.items()))


def served_versions(config: Any, versions: dict[int, Path]) -> tuple[int, ...]:
    """What the version policy leaves."""
    policy = config.version_policy
    if policy.HasField("specific"):
        return tuple(number for number in versions if number in policy.specific.versions)
    if policy.HasField("all"):
        return tuple(versions)
    count = policy.latest.num_versions if policy.HasField("latest") else 1
    return tuple(versions)[max(len(versions) - count, 0) :]


def _first_version(folder: Path, entries: list[Entry]) -> dict[str, bool]:
    """What the first folder in the order of their names holds: there the server looks for a known file."""
    first = next((entry.name for entry in entries if entry.is_dir), None)
    if first is None:
        return {}
    try:
        return {entry.name: bool(entry.is_dir) for entry in entries_of(folder / first)}
    except OSError:
        return {}


def _libraries(folder: Path, entries: list[Entry], versions: dict[int, Path]) -> Iterator[str]:
    names = [entry.name for entry in entries if entry.name.endswith(".so")]
    for path in versions.values():
        try:
            names += [entry.name for entry in entries_of(path) if entry.name.endswith(".so")]
        except OSError:
            continue
    yield from (name[len("libtriton_") : -len(".so")] for name in names if name.startswith("libtriton_"))


def _python_completes(model: ModelOnDisk) -> bool:
    """Whether a python model may complete its configuration: it says so in its code."""
    if model.backend != "python" or not model.versions:
        return False
    path = model.artifact(model.served[-1] if model.served else max(model.versions))
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > _LARGEST_CODE:
            return False
        return b"auto_complete_config" in path.read_bytes()
    except (OSError, ValueError):
        return False
