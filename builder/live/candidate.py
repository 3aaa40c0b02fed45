"""A version under another name: a model folder ``<model>.candidate``, which a server loads beside the model itself.

It is made in staging, of links to the version's files, and renamed into the repository as a whole; taken out of it the
same way. One that a killed process left behind is told by its lock, which nobody holds, and removed by the next.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from builder.errors import ReloadError
from builder.repository import durable
from builder.repository.durable import explained
from builder.repository.locks import held_folder, is_held
from builder.repository.places import make_places
from builder.repository.publish import build_dir
from builder.repository.published import CONFIG, ModelFolder
from builder.workers.staging import staging_for

SUFFIX = ".candidate"
MARK = "made-by-build-repo-reload"
"""A file that tells our candidates from a model that somebody named so."""


@contextlib.contextmanager
def candidate(model: ModelFolder, version: int) -> Iterator[str]:
    """Put a version into the repository as a model of its own, for a ``with`` block; gives that model's name.

    Raises:
        ReloadError: the name is taken by another model, or another process reloads this one.
        PublishError: the repository cannot be written.
    """
    name = model.name + SUFFIX
    target = model.repository / name
    with staging_for(build_dir(model.repository)) as staging:
        folder = staging / name
        with explained(name, model.repository):
            _write(model, version, folder)
        with held_folder(folder):
            _require_free(model, target)
            with explained(name, model.repository):
                durable.move(folder, target)
            try:
                yield name
            finally:
                _take_out(target, staging / "removed")


def stale_candidates(repository: Path) -> list[str]:
    """Candidates of ours that no process holds, by name: what a killed reload left."""
    found = (entry for entry in sorted(repository.glob(f"*{SUFFIX}")) if (entry / MARK).is_file())
    return [entry.name for entry in found if not is_held(entry)]


def remove_stale(repository: Path, name: str) -> None:
    """Take a candidate that nobody holds out of the repository."""
    with staging_for(build_dir(repository)) as staging:
        _take_out(repository / name, staging / "removed")


def _write(model: ModelFolder, version: int, folder: Path) -> None:
    """The folder: the version alone, and its configuration without the model's name, which Triton then takes from it.

    With one version there any ``version_policy`` means that one, unless it names others.
    """
    source = model.folder(version)
    config = (source / CONFIG).read_text(encoding="utf-8")
    folder.mkdir()
    (folder / MARK).write_text(f"{model.name} {version}\n", encoding="utf-8")
    (folder / CONFIG).write_text(re.sub(r'^name: "[^"]*"\n', "", config, count=1, flags=re.M), encoding="utf-8")
    shutil.copytree(source, folder / str(version), copy_function=_link)
    make_places(folder, source)
    for path in (folder, folder / str(version)):
        path.chmod(model.repository.stat().st_mode & 0o777)


def _link(source: str, target: str) -> None:
    """A second name for a file; a copy where the filesystem, or the file's owner, allows none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _require_free(model: ModelFolder, target: Path) -> None:
    if not os.path.lexists(target):
        return
    if (target / MARK).is_file() and is_held(target):
        raise ReloadError(
            f"another process is reloading {model.name} just now",
            where=str(target),
            expected="one reload of a model at a time",
            fix="wait for it, and run build-repo --reload again; nothing was changed",
        )
    raise ReloadError(
        f"the name that a new version of {model.name} needs for a moment is taken",
        where=str(target),
        expected=f"no model named {target.name}",
        fix="give that model another name; nothing was changed",
    )


def _take_out(target: Path, to: Path) -> None:
    """One rename, so that a server never sees half of it; staging is removed afterwards."""
    with explained(target.name, target.parent), contextlib.suppress(FileNotFoundError):
        durable.move_out(target, to)
