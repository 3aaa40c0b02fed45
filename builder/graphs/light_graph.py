"""An ONNX file read without the weights inside it: a walk over protobuf's wire format that leaves them on disk.

Parsing a 2 GB file takes 4 GB of memory and several seconds, and a build looks at the graph more than once.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from builder.graphs.wire import BYTES, Field, fields

_GRAPH = 7  # ModelProto.graph
_INITIALIZER = 5  # GraphProto.initializer
_PAYLOAD = {4, 5, 6, 7, 9, 10, 11}  # TensorProto: float, int32, string, int64, raw, double and uint64 data
_SMALL = 1024


def light_bytes(path: Path) -> bytes:
    """The serialized model without the contents of its initializers; their names, types and dimensions stay.

    Raises:
        ValueError: it is no protobuf message, or cut short.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return b"".join(_model(data))


def _model(data: mmap.mmap) -> Iterator[bytes]:
    for field in fields(data, 0, len(data)):
        if field.number == _GRAPH and field.kind == BYTES:
            yield _nested(_GRAPH, b"".join(_graph(data, field)))
        else:
            yield data[field.begin : field.end]


def _graph(data: mmap.mmap, graph: Field) -> Iterator[bytes]:
    for field in fields(data, graph.value, graph.end):
        if field.number == _INITIALIZER and field.kind == BYTES and field.end - field.value > _SMALL:
            kept = [f for f in fields(data, field.value, field.end) if f.number not in _PAYLOAD]
            yield _nested(_INITIALIZER, b"".join(data[f.begin : f.end] for f in kept))
        else:
            yield data[field.begin : field.end]


def _nested(number: int, content: bytes) -> bytes:
    head = bytearray()
    for value in (number << 3 | BYTES, len(content)):
        while value >= 0x80:
            head.append(value & 0x7F | 0x80)
            value >>= 7
        head.append(value)
    return bytes(head) + content
