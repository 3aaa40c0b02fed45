"""What the user's code asks without opening anything: whether a file is there, what an environment variable says.

``if Path("tuned.pt").exists()`` decides a result as surely as reading the file does, and the interpreter has no audit
event for it. So ``os.stat``, ``os.access`` and ``os.environ`` are listened to while the user's code runs, and what it
asks by itself, through the standard library or not, is told. What other packages ask is not: they ask for hundreds of
files.
"""

from __future__ import annotations

import _collections_abc
import contextlib
import genericpath
import glob
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

_STANDARD = {module.__file__ for module in (_collections_abc, genericpath, glob, os, os.path)} | {__file__}
_PATHLIB = pathlib.__file__.removesuffix("/__init__.py").removesuffix(".py")
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
    getitem, iterate = _Environ.__getitem__, _Environ.__iter__
    accepted: list[set[Any]] = [os.supports_dir_fd, os.supports_effective_ids, os.supports_fd]
    accepted.append(os.supports_follow_symlinks)
    copied: list[str] = []

    def get(self: Any, key: Any) -> Any:
        if copied and copied[-1] == key:
            copied.pop()
        elif self is os.environ and isinstance(key, str) and is_the_users(_asker()):
            copied.clear()
            variable(key)
        return getitem(self, key)

    def go_through(self: Any) -> Iterator[Any]:
        # A copy of the whole environment, for a subprocess say, asks for no variable: it takes the names, then each.
        names = list(iterate(self))
        copied[:] = reversed(names)
        yield from names

    with contextlib.ExitStack() as patches:
        for name in ("stat", "access"):
            function = getattr(os, name)
            listened = _listened(function, is_the_users, asked)
            for functions in accepted:
                if function in functions:
                    functions.add(listened)
                    patches.callback(functions.discard, listened)
            patches.enter_context(_put(os, name, listened))
            if hasattr(pathlib, "_NormalAccessor") and hasattr(pathlib._NormalAccessor, name):  # Python 3.10
                patches.enter_context(_put(pathlib._NormalAccessor, name, staticmethod(listened)))
        patches.enter_context(_put(_Environ, "__getitem__", get))
        patches.enter_context(_put(_Environ, "__iter__", go_through))
        yield


@contextlib.contextmanager
def _put(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _listened(
    function: Callable[..., Any], is_the_users: Callable[[str], bool], asked: Callable[[str], None]
) -> Callable[..., Any]:
    def listened(path: Any, *args: Any, **kwargs: Any) -> Any:
        of_a_path = isinstance(path, (str, bytes, os.PathLike)) and kwargs.get("dir_fd") is None
        if of_a_path and is_the_users(_asker()):
            asked(os.fsdecode(path))
        return function(path, *args, **kwargs)

    return listened


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
