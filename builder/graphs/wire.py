"""Protobuf's wire format walked field by field, without a schema and without copying what is passed over."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Buffer = bytes | mmap.mmap


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: as in the schema.
        kind: ``VARINT``, ``FIXED64``, ``BYTES`` or ``FIXED32``.
        begin: where its key begins.
        value: where its value begins.
        end: where it ends.
    """

    number: int
    kind: int
    begin: int
    value: int
    end: int


def fields(data: Buffer, at: int, end: int) -> Iterator[Field]:
    """The fields of the message that lies between ``at`` and ``end``.

    Raises:
        ValueError: it is no protobuf message, or cut short.
    """
    while at < end:
        begin = at
        key, at = varint(data, at, end)
        kind, value = key & 7, at
        if kind == VARINT:
            _, at = varint(data, at, end)
        elif kind == BYTES:
            size, value = varint(data, at, end)
            at = value + size
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"no field of a protobuf message at byte {begin}")
        if key < 8:
            raise ValueError(f"a field with the number 0 at byte {begin}")
        if at > end:
            raise ValueError(f"a field at byte {begin} ends at byte {at}, beyond byte {end}")
        yield Field(key >> 3, kind, begin, value, at)


def varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    """A number in protobuf's variable length, and where it ends.

    Raises:
        ValueError: it has no end.
    """
    value, shift = 0, 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number at byte {at} has no end")
