"""Where a build works before it publishes: a folder below ``.build/staging``, on the filesystem of the repository.

A folder belongs to the process that holds its lock. One that nobody holds was left by a build that was killed, and is
removed by the next.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from builder.errors import PublishError, describe
from builder.repository.locks import held_folder, is_held
from builder.workers.interrupts import held_back


@contextlib.contextmanager
def staging_for(build_dir: Path) -> Iterator[Path]:
    """An empty folder, removed afterwards; what killed builds left is removed first.

    Args:
        build_dir: the ``.build`` folder beside the repository.

    Raises:
        PublishError: it cannot be made.
    """
    base = build_dir / "staging"
    held = contextlib.ExitStack()
    try:
        base.mkdir(parents=True, exist_ok=True)
        with held_folder(base):  # or somebody who sweeps would find the new folder before it is held
            _sweep(base)
            folder = Path(tempfile.mkdtemp(prefix="build-", dir=base))
            held.enter_context(held_folder(folder))
    except OSError as exc:
        raise PublishError(
            "the staging folder cannot be made",
            where=str(base),
            expected="a folder beside the repository that can be written",
            got=describe(exc),
            fix="give the repository a parent folder that you may write to",
        ) from exc
    try:
        with held:
            yield folder
    finally:
        with held_back():
            shutil.rmtree(folder, ignore_errors=True)


def sweep(build_dir: Path) -> list[Path]:
    """Remove the folders that no process holds; which they were."""
    base = build_dir / "staging"
    try:
        if not any(base.iterdir()):
            return []
        with held_folder(base):
            return _sweep(base)
    except OSError:  # there is none, or none that can be read: whoever wants to work in it says so
        return []


def _sweep(base: Path) -> list[Path]:
    left = [folder for folder in base.iterdir() if folder.is_dir() and not is_held(folder)]
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    return left
