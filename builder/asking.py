"""What the user's code asks without opening anything: whether a file is there, what an environment variable says.

``if Path("finetuned.pt").exists()`` decides a result as surely as reading the file does, and the interpreter raises no
audit event for it. So ``os.stat`` and ``os.environ`` are listened to while the user's code runs, and what it asks by
itself, through the standard library or not, is told. What other packages ask is not: they ask for hundreds of files.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

_STANDARD = {os.__file__, os.path.__file__, glob.__file__, __file__}
_PATHLIB = pathlib.__file__.removesuffix("/__init__.py").removesuffix(".py")
_stat = os.stat
_Environ: Any = type(os.environ)


@contextlib.contextmanager
def listening(
    is_the_users: Callable[[str], bool], asked: Callable[[str], None], variable: Callable[[str], None]
) -> Iterator[None]:
    """Listen while the block runs; not to be nested.

    Args:
        is_the_users: whether a source file is the user's.
        asked: told of every path whose presence the user's code asks for, as it is given.
        variable: told of every environment variable that the user's code reads.
    """
    stat, getitem, iterate = _listened_stat(is_the_users, asked), _Environ.__getitem__, _Environ.__iter__
    accepted: list[set[Any]] = [os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks]
    going_through: list[bool] = []

    def get(self: Any, key: Any) -> Any:
        if self is os.environ and not going_through and isinstance(key, str) and is_the_users(_asker()):
            variable(key)
        return getitem(self, key)

    def go_through(self: Any) -> Iterator[Any]:
        # A copy of the whole environment, for a subprocess say, asks for no variable.
        going_through.append(True)
        try:
            yield from iterate(self)
        finally:
            going_through.pop()

    with contextlib.ExitStack() as patches:
        patches.enter_context(_put(os, "stat", stat))
        patches.enter_context(_put(_Environ, "__getitem__", get))
        patches.enter_context(_put(_Environ, "__iter__", go_through))
        if hasattr(pathlib, "_NormalAccessor"):  # Python 3.10
            patches.enter_context(_put(pathlib._NormalAccessor, "stat", staticmethod(stat)))
        for functions in accepted:
            functions.add(stat)
            patches.callback(functions.discard, stat)
        yield


@contextlib.contextmanager
def _put(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _listened_stat(is_the_users: Callable[[str], bool], asked: Callable[[str], None]) -> Callable[..., Any]:
    def stat(path: Any, *, dir_fd: Any = None, follow_symlinks: bool = True) -> os.stat_result:
        if dir_fd is None and isinstance(path, (str, bytes, os.PathLike)) and is_the_users(_asker()):
            asked(os.fsdecode(path))
        return _stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    return stat


def _asker() -> str:
    """The source file of the code that asks, whatever of the standard library it asks through."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not (name in _STANDARD or name.startswith(("<frozen ", _PATHLIB))):
            return name
        if frame.f_back is None:
            break
        frame = frame.f_back
    return ""
