"""What git takes for a commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

_TIMEOUT_S = 20.0


def commit_of(name: str, folder: Path | None = None) -> str | None:
    """The full name of the commit that git means by a branch, a tag, ``HEAD~2``; None if it knows none."""
    if name.startswith("-"):
        return None
    command = ["git", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
