"""Where native code crashed: the line of the user's Python that was running, as the fault handler saw it."""

from __future__ import annotations

import contextlib
import faulthandler
import re
from pathlib import Path

_FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>.+)$', re.M)


def watch(log: Path) -> None:
    """From now on, let a crash of this process write its Python frames to a file."""
    with contextlib.suppress(OSError):
        faulthandler.enable(log.open("w"), all_threads=False)


def place(log: Path, folder: Path) -> str:
    """``file:line, in function`` of the innermost frame below ``folder``, or of any; empty without a crash.

    Args:
        log: what :func:`watch` was given.
        folder: the folder of the user's code.
    """
    try:
        frames = list(_FRAME.finditer(log.read_text(errors="replace")))
    except OSError:
        return ""
    own = [frame for frame in frames if Path(frame["file"]).is_relative_to(folder)]
    frame = next(iter(own or frames), None)
    return f"{frame['file']}:{frame['line']}, in {frame['function']}" if frame else ""
