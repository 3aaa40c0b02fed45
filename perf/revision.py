"""The git commit that a folder is at."""

from __future__ import annotations

import subprocess
from pathlib import Path

_TIMEOUT_S = 20.0


def git_revision(folder: Path | None = None) -> str | None:
    """The commit's full name, with ``+`` where tracked files differ from it; None outside of a git checkout."""
    commit = commit_of("HEAD", folder)
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit + ("+" if changes else "")


def commit_of(name: str, folder: Path | None = None) -> str | None:
    """The full name of the commit that git means by a branch, a tag, ``HEAD~2``; None if it knows none."""
    if name.startswith("-"):
        return None
    return _git(folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") or None


def _git(folder: Path | None, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
