"""Which files below a folder this process opened, as the kernel saw it: also those that a C library opened by itself.

Linux's fanotify tells it, to any user since 5.13, with no need to answer: nothing can hang on it. Where it is not to be
had (in a container that forbids it), :attr:`Watch.is_complete` is False.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

_CLOEXEC, _NONBLOCK, _REPORT_DIR_AND_NAME = 0x1, 0x2, 0xC00
_ADD, _ONLY_FOLDERS = 0x1, 0x8
_MODIFY, _CLOSE_WRITE, _OPEN, _OVERFLOW, _ON_CHILD = 0x2, 0x8, 0x20, 0x4000, 0x08000000
_EVENT = struct.Struct("IBBHQii")
_INFO = struct.Struct("BBHiiIi")  # type, padding, length, two halves of the filesystem, then the folder's handle
_FOLDER_AND_NAME = 2
_HANDLE_BYTES = 128
_HERE = -100  # AT_FDCWD
_MAX_FOLDERS = 4096
_LEFT_OUT = ("__pycache__", ".git")
_PIECE = 1 << 18


class _Handle(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint), ("kind", ctypes.c_int), ("data", ctypes.c_ubyte * _HANDLE_BYTES))


class Watch:
    """Watches from the moment it is made until :meth:`end`.

    Args:
        folder: which files: those below it.
        without: folders that are left out.

    Attributes:
        is_complete: whether every file was seen.
        read: files that this process opened.
        written: files that it may have changed.
    """

    def __init__(self, folder: Path, without: Collection[Path] = ()) -> None:
        self.is_complete = False
        self.read: set[str] = set()
        self.written: set[str] = set()
        self._folders: dict[tuple[int, bytes], str] = {}
        self._descriptor = -1
        try:
            self._libc: Any = ctypes.CDLL(None, use_errno=True)
            self._descriptor = self._libc.fanotify_init(_CLOEXEC | _NONBLOCK | _REPORT_DIR_AND_NAME, os.O_RDONLY)
            self.is_complete = self._descriptor >= 0 and all(self._mark(each) for each in _folders(folder, without))
        except (OSError, AttributeError):  # a C library without it
            self.is_complete = False

    def end(self) -> None:
        """Take what the kernel saw, and watch no more."""
        if self._descriptor < 0:
            return
        try:
            while piece := self._read():
                self._take(piece)
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def _mark(self, folder: str) -> bool:
        path = os.fsencode(folder)
        handle, mount = _Handle(size=_HANDLE_BYTES), ctypes.c_int()
        if self._libc.name_to_handle_at(_HERE, path, ctypes.byref(handle), ctypes.byref(mount), 0) != 0:
            return False
        self._folders[handle.kind, bytes(handle.data[: handle.size])] = folder
        events = ctypes.c_uint64(_OPEN | _MODIFY | _CLOSE_WRITE | _ON_CHILD)
        return bool(self._libc.fanotify_mark(self._descriptor, _ADD | _ONLY_FOLDERS, events, _HERE, path) == 0)

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, _PIECE)
        except OSError:  # nothing more, or nothing that can be read
            return b""

    def _take(self, piece: bytes) -> None:
        offset = 0
        while offset < len(piece):
            length, _, _, header, mask, _, pid = _EVENT.unpack_from(piece, offset)
            if mask & _OVERFLOW:
                self.is_complete = False
            elif pid == os.getpid():
                self._note(piece[offset + header : offset + length], mask)
            offset += length

    def _note(self, info: bytes, mask: int) -> None:
        kind, _, _, _, _, size, handle_kind = _INFO.unpack_from(info)
        start = _INFO.size
        folder = self._folders.get((handle_kind, info[start : start + size]))
        if kind != _FOLDER_AND_NAME or folder is None:
            self.is_complete = False
            return
        name = info[start + size :].split(b"\0")[0]
        path = f"{folder}/{os.fsdecode(name)}"
        if mask & _OPEN:  # and not only closed now, having been opened before
            self.read.add(path)
        if mask & (_MODIFY | _CLOSE_WRITE):
            self.written.add(path)


def _folders(folder: Path, without: Collection[Path]) -> list[str]:
    """The folder and those below it, but for git's, byte code, virtual environments and those left out.

    Raises:
        OSError: they are too many.
    """
    found = []
    for base, folders, files in os.walk(folder):
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        found.append(base)
        if len(found) > _MAX_FOLDERS:
            raise OSError("too many folders to watch")
        folders[:] = [name for name in folders if name not in _LEFT_OUT and Path(base, name) not in without]
    return found
