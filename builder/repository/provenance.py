"""Where a spec comes from: the git commit of its folder, and whether anything there differs from it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_TIMEOUT_S = 20


@dataclass(frozen=True)
class GitState:
    """A folder of a git work tree.

    Attributes:
        commit: the commit that is checked out.
        dirty: something below the folder is changed, or is new and not ignored.
    """

    commit: str
    dirty: bool


def git_state(folder: Path, *, without: Sequence[Path] = ()) -> GitState | None:
    """The commit of a folder; None where there is no git, no work tree or no commit yet. Asked once per process.

    Args:
        folder: the folder of a spec.
        without: what below it does not count: the repository that is built, ``.build``.
    """
    return _git_state(folder.resolve(), tuple(path.resolve() for path in without))


@lru_cache(maxsize=64)
def _git_state(folder: Path, without: tuple[Path, ...]) -> GitState | None:
    top = next((path for path in (folder, *folder.parents) if (path / ".git").exists()), None)
    if top is None:
        return None
    commit = _git(top, "rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    excluded = [
        f":(exclude,top){path.relative_to(top)}" for path in without if path.is_relative_to(top) and path != top
    ]
    where = str(folder.relative_to(top))
    changes = _git(top, "status", "--porcelain", "--", where, *excluded)
    return GitState(commit.strip(), dirty=changes is None or bool(changes.strip()))


def _git(top: Path, *arguments: str) -> str | None:
    """What git says; None where it fails.

    A folder that belongs to somebody else (a mount, a checkout of root's) is read as any other: where its place is
    named outright, git does not ask for ``safe.directory``.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"GIT_DIR": str(top / ".git"), "GIT_WORK_TREE": str(top), "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=top,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
