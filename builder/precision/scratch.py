"""What a search must not take from one before: graphs of another model, and verdicts on other calibration samples."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.precision.recipe import Feeds
from builder.precision.trials import remove


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A place for graphs that are made of the model's, and no graph left of a search: not of one that was killed.

    What lies there before is cut off, or of another model.
    """
    derived = folder / "derived"

    def clear() -> None:
        shutil.rmtree(derived, ignore_errors=True)
        for left in folder.glob("*.onnx"):
            remove(left)

    clear()
    derived.mkdir(parents=True)
    try:
        yield derived
    finally:
        clear()


def digest_of(feeds: Feeds) -> str:
    """sha256 of all that calibrates: with other samples every candidate is another one."""
    whole = hashlib.sha256()
    for request in feeds():
        for name, array in sorted(request.items()):
            whole.update(f"{name} {array.dtype} {array.shape} ".encode())
            whole.update(repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes())
    return whole.hexdigest()
