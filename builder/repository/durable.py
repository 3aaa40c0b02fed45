"""Writing that is on the disk when it returns, and renames that are. Everything that publishing does to a disk is here.

A rename is atomic, but after a power cut only what was synced is there: a file before its folder, a folder's content
before the folder is renamed, the folder it was renamed into afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from builder.errors import PublishError, describe


def write(path: Path, data: bytes) -> None:
    """Write a file whole and sync it; its folder is the caller's to sync."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def sync(path: Path) -> None:
    """Sync one file, or which entries one folder has."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Sync everything below a folder, and the folder."""
    for path in [*files_below(folder), *sorted(path for path in folder.rglob("*") if path.is_dir()), folder]:
        sync(path)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below, links included, sorted by path."""
    return (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, those that were not there synced."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


def move(source: Path, target: Path) -> None:
    """Rename to a name that is not taken, on the same filesystem, and sync the folder it goes to."""
    source.rename(target)
    sync(target.parent)


def move_out(source: Path, target: Path) -> None:
    """Rename out of a folder that is published, and sync that folder."""
    source.rename(target)
    sync(source.parent)


def replace(source: Path, target: Path) -> None:
    """Put a file in the place of another at once, and sync the folder."""
    source.replace(target)
    sync(target.parent)


def keep_copy(source: Path, target: Path) -> None:
    """The same content under a second name that is not taken; a link where the filesystem has links.

    Raises:
        FileExistsError: the name is taken.
    """
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:
        with target.open("xb") as stream:
            stream.write(source.read_bytes())
            stream.flush()
            os.fsync(stream.fileno())
    sync(target.parent)


def remove(path: Path) -> None:
    """Remove a file that may not be there, and sync its folder."""
    path.unlink(missing_ok=True)
    sync(path.parent)


def remove_tree(folder: Path) -> None:
    """Remove a folder that nobody needs any more, as far as it can be removed."""
    shutil.rmtree(folder, ignore_errors=True)


_NO_SPACE = ("space on the disk of the repository", "make space (build-repo --keep 2 removes old versions), run again")
_NO_PERMISSION = ("permission to write to the repository", "run as its owner, or change the permissions of the folder")
_REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EROFS: ("a repository that is not mounted read-only", "mount it for writing, or build elsewhere and copy"),
    errno.EXDEV: (
        "a repository on the same filesystem as the .build folder beside it",
        "mount the folder above the repository instead of the repository itself",
    ),
    errno.ENOTEMPTY: ("a version that is not taken: a version is never overwritten", "run build-repo again"),
    errno.ENOTDIR: ("a repository that is a folder", "move the file away, or name another repository in the spec"),
    errno.EEXIST: ("a repository that is a folder", "move the file away, or name another repository in the spec"),
}


@contextlib.contextmanager
def explained(name: str, repository: Path, *, doing: str = "published") -> Iterator[None]:
    """What the system refuses, as a :class:`PublishError` that says what to do: "NAME cannot be DOING"."""
    try:
        yield
    except OSError as exc:
        expected, fix = _REASONS.get(exc.errno or 0, ("a repository that can be written", ""))
        raise PublishError(
            f"{name} cannot be {doing}",
            where=str(exc.filename or repository),
            expected=expected,
            got=describe(exc),
            fix=f"{fix or 'mend what the message above says'}; what is served is as it was",
        ) from exc
