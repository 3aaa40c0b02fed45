"""What an ONNX file says of itself, read in a millisecond: signature, opsets, external data, and how its nodes connect.

``import onnx`` takes longer than a thousand models may; the walk over the wire format needs nothing, leaves the weights
on disk, and ends after a bounded number of fields, whatever the file is.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.graphs.wire import BYTES, VARINT, Buffer, Field, fields, varint

CONFIG_TYPES = {
    1: "TYPE_FP32", 2: "TYPE_UINT8", 3: "TYPE_INT8", 4: "TYPE_UINT16", 5: "TYPE_INT16", 6: "TYPE_INT32",
    7: "TYPE_INT64", 8: "TYPE_STRING", 9: "TYPE_BOOL", 10: "TYPE_FP16", 11: "TYPE_FP64", 12: "TYPE_UINT32",
    13: "TYPE_UINT64", 16: "TYPE_BF16",
}  # fmt: skip
"""``TensorProto.DataType`` by number, in config.pbtxt's spelling; the others Triton has no type for."""

PROTOBUF_LIMIT_BYTES = 2**31 - 1
MAX_FIELDS = 150_000
"""A graph of 15,000 nodes has that many; looking at more would take longer than half a second."""
_READ_WHOLE_BYTES = 4 * 1024 * 1024
_KINDS = {1: "tensor", 4: "sequence", 5: "map", 9: "optional", 8: "sparse tensor", 7: "opaque"}
_SIGN = 1 << 63
_MAX_RANK = 64
# Bytes of one element, by the number of its type; types that are packed, and strings, are not in it.
_WIDTHS = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 16: 2}


class TooLargeError(ValueError):
    """There is more in the file than is looked at."""


@dataclass(frozen=True)
class OnnxValue:
    """An input or output of the graph.

    Attributes:
        name: as in the file.
        kind: ``tensor``, ``sequence``, ...; empty where the file does not say its type.
        type: config.pbtxt's spelling; empty where Triton has none.
        elem_type: the number in the file.
        shape: -1 where the size is open; None where the file says nothing of the shape.
    """

    name: str
    kind: str
    type: str
    elem_type: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class ExternalData:
    """Where a tensor lies outside of the file: texts as they stand there, and how many bytes its shape needs."""

    tensor: str
    location: str
    offset: str = "0"
    length: str = "0"
    size_bytes: int = 0


@dataclass
class OnnxSummary:
    """What is known of an ONNX file without its weights.

    Attributes:
        ir_version: 0 where the file says none.
        opsets: version by domain; the official domain is ``""``.
        inputs: what has to be given.
        overridable: inputs with a value of their own, which may be given.
        outputs: in the order of the file.
        external: every tensor that lies in another file.
        domains: domains that nodes of the main graph are of.
        function_domains: domains that the file brings functions for.
        op_types: ``(domain, operator)`` of the main graph's nodes.
        problems: sentences: why ONNX Runtime cannot build a graph of this.
        has_graph: False where the file holds none.
    """

    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, OnnxValue] = field(default_factory=dict)
    overridable: dict[str, OnnxValue] = field(default_factory=dict)
    outputs: dict[str, OnnxValue] = field(default_factory=dict)
    external: list[ExternalData] = field(default_factory=list)
    domains: set[str] = field(default_factory=set)
    function_domains: set[str] = field(default_factory=set)
    op_types: set[tuple[str, str]] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    has_graph: bool = False

    @property
    def batches(self) -> bool:
        """True when the first dimension of every input and output is open: what Triton takes for a batch."""
        values = [*self.inputs.values(), *self.outputs.values()]
        return bool(values) and all(value.shape and value.shape[0] == -1 for value in values)


def summary_of(path: Path) -> OnnxSummary:
    """The summary of a file; asked twice for the same one, it is read once.

    Raises:
        ValueError: it is no ONNX file, or cut short; :class:`TooLargeError` where it is too large to be looked at.
        OSError: it cannot be read.
    """
    facts = path.stat()
    found = _kept(str(path), facts.st_mtime_ns, facts.st_size, facts.st_ino)
    if isinstance(found, ValueError):
        raise found
    return found


@functools.lru_cache(maxsize=512)
def _kept(path: str, _mtime_ns: int, size: int, _inode: int) -> OnnxSummary | ValueError:
    try:
        return _summary(path, size)
    except ValueError as error:
        return error


def _summary(path: str, size: int) -> OnnxSummary:
    if size > PROTOBUF_LIMIT_BYTES:
        raise ValueError(f"{size} bytes, and an ONNX file ends at 2 GiB: larger weights must be external data")
    if size == 0:
        raise ValueError("an empty file")
    with Path(path).open("rb") as stream:
        if os.fstat(stream.fileno()).st_size <= _READ_WHOLE_BYTES:
            return summary_of_bytes(stream.read())
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return summary_of_bytes(data)


def summary_of_bytes(data: Buffer) -> OnnxSummary:
    """Likewise, of a file's content.

    Raises:
        ValueError: as :func:`summary_of`.
    """
    return _Reader(data).read()


class _Reader:
    """The walk; one object for one file."""

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self._left = MAX_FIELDS
        self._found = OnnxSummary()
        self._given: dict[str, OnnxValue] = {}
        self._constants: set[str] = set()
        self._sources: dict[str, list[str]] = {}  # what a node makes -> what it is made of
        self._used: dict[str, str] = {}  # what a node takes -> the node

    def read(self) -> OnnxSummary:
        found = self._found
        for part in self._fields(0, len(self._data)):
            if part.number == 1 and part.kind == VARINT:
                found.ir_version = self._int(part)
            elif part.number == 7 and part.kind == BYTES:
                found.has_graph = True
                self._graph(part)
            elif part.number == 8 and part.kind == BYTES:
                texts, numbers = self._flat(part)
                domain = texts.get(1, "")
                found.opsets["" if domain == "ai.onnx" else domain] = numbers.get(2, 0)
            elif part.number == 25 and part.kind == BYTES:
                found.function_domains.add(self._flat(part)[0].get(10, ""))
        self._sort_inputs()
        if found.has_graph:
            self._connect()
        return found

    # --- the graph ------------------------------------------------------------------------------------------------

    def _graph(self, graph: Field) -> None:
        for part in self._fields(graph.value, graph.end):
            if part.kind != BYTES:
                continue
            if part.number == 1:
                self._node(part)
            elif part.number == 5:
                name = self._tensor(part)
                self._constants.add(name)
            elif part.number == 15:
                for inner in self._fields(part.value, part.end):
                    if inner.number == 1 and inner.kind == BYTES:
                        self._constants.add(self._tensor(inner))
            elif part.number in (11, 12):
                self._port(part)

    def _port(self, part: Field) -> None:
        value = self._value(part)
        if part.number == 11 and value.kind == "tensor" and value.shape is None:
            value = dataclasses.replace(value, shape=())  # as ONNX Runtime takes it
        ports = self._given if part.number == 11 else self._found.outputs
        if not value.name:
            self._found.problems.append("an input or output of the graph has no name")
        elif value.name in ports and part.number == 11:
            self._found.problems.append(f"input {value.name!r} is there twice")
        ports[value.name] = value

    def _node(self, part: Field) -> None:
        taken: list[str] = []
        made: list[str] = []
        texts = {3: "", 4: "", 7: ""}
        for inner in self._fields(part.value, part.end):
            if inner.kind != BYTES:
                continue
            if inner.number == 1:
                taken.append(self._text(inner))
            elif inner.number == 2:
                made.append(self._text(inner))
            elif inner.number in texts:
                texts[inner.number] = self._text(inner)
            elif inner.number == 5 and self._data.find(b"location", inner.value, inner.end) >= 0:
                self._attribute(inner, 0)
        domain = "" if texts[7] == "ai.onnx" else texts[7]
        node = f"{texts[4] or 'node'} {texts[3]!r}" if texts[3] else texts[4] or "a node"
        if not texts[4]:
            self._found.problems.append(f"node {texts[3]!r} has no operator")
        self._found.domains.add(domain)
        self._found.op_types.add((domain, texts[4]))
        taken = [name for name in taken if name]
        for name in taken:
            self._used.setdefault(name, node)
        for name in filter(None, made):
            if name in self._sources:
                self._found.problems.append(f"{name!r} is made by two nodes")
            self._sources[name] = taken

    def _attribute(self, part: Field, depth: int) -> None:
        """External data inside a node: in a tensor, or in a graph below it."""
        if depth > 20:
            raise TooLargeError("graphs within graphs within graphs")
        for inner in self._fields(part.value, part.end):
            if inner.kind == BYTES and inner.number in (5, 10):
                self._tensor(inner)
            elif inner.kind == BYTES and inner.number in (6, 11):
                self._below(inner, depth)

    def _below(self, graph: Field, depth: int) -> None:
        for part in self._fields(graph.value, graph.end):
            if part.kind == BYTES and part.number == 5:
                self._tensor(part)
            elif part.kind == BYTES and part.number == 1:
                for inner in self._fields(part.value, part.end):
                    if inner.kind == BYTES and inner.number == 5:
                        self._attribute(inner, depth + 1)

    def _tensor(self, part: Field) -> str:
        name, outside, entries, dims, kind, raw = "", False, {}, [], 0, -1
        for inner in self._fields(part.value, part.end):
            if inner.number == 1:
                dims += self._ints(inner)
            elif inner.number == 2 and inner.kind == VARINT:
                kind = self._int(inner)
            elif inner.number == 9 and inner.kind == BYTES:
                raw = inner.end - inner.value
            elif inner.number == 8 and inner.kind == BYTES:
                name = self._text(inner)
            elif inner.number == 13 and inner.kind == BYTES:
                texts, _ = self._flat(inner)
                entries[texts.get(1, "")] = texts.get(2, "")
            elif inner.number == 14 and inner.kind == VARINT:
                outside = self._int(inner) == 1
        known = kind in _WIDTHS and len(dims) <= _MAX_RANK
        needed = _WIDTHS[kind] * math.prod(dims) if known else 0
        if outside:
            where = (entries.get("offset") or "0", entries.get("length") or "0")
            self._found.external.append(ExternalData(name, entries.get("location", ""), *where, needed))
        elif known and raw >= 0 and raw != needed:
            self._found.problems.append(f"{name!r} of shape {dims} holds {raw} bytes in place of {needed}")
        return name

    # --- what follows from it -------------------------------------------------------------------------------------

    def _sort_inputs(self) -> None:
        for name, value in self._given.items():
            if name not in self._constants:
                self._found.inputs[name] = value
            elif self._found.ir_version >= 4:
                self._found.overridable[name] = value

    def _connect(self) -> None:
        """What ONNX Runtime refuses when it resolves the graph."""
        problems = self._found.problems
        known = self._sources.keys() | self._given.keys() | self._constants
        for name, node in self._used.items():
            if name not in known:
                problems.append(f"{node} takes {name!r}, which no node makes and is no input or initializer")
        for name in self._found.outputs:
            if name and name not in known:
                problems.append(f"output {name!r} is made by no node")
        problems += [f"{name!r} is an input and made by a node" for name in self._given if name in self._sources]
        if not problems and _has_cycle(self._sources):
            problems.append("the nodes run in a circle")

    # --- parts of messages ----------------------------------------------------------------------------------------

    def _value(self, part: Field) -> OnnxValue:
        name, kind, elem_type = "", "", 0
        shape: tuple[int, ...] | None = None
        for inner in self._fields(part.value, part.end):
            if inner.number == 1 and inner.kind == BYTES:
                name = self._text(inner)
            elif inner.number == 2 and inner.kind == BYTES:
                for of_type in self._fields(inner.value, inner.end):
                    kind = _KINDS.get(of_type.number, kind)
                    if of_type.number == 1 and of_type.kind == BYTES:
                        elem_type, shape = self._tensor_type(of_type)
        return OnnxValue(name, kind, CONFIG_TYPES.get(elem_type, ""), elem_type, shape)

    def _tensor_type(self, part: Field) -> tuple[int, tuple[int, ...] | None]:
        elem_type, shape = 0, None
        for inner in self._fields(part.value, part.end):
            if inner.number == 1 and inner.kind == VARINT:
                elem_type = self._int(inner)
            elif inner.number == 2 and inner.kind == BYTES:
                dims = self._fields(inner.value, inner.end)
                shape = tuple(self._dim(dim) for dim in dims if dim.number == 1 and dim.kind == BYTES)
        return elem_type, shape

    def _dim(self, part: Field) -> int:
        size = -1
        for inner in self._fields(part.value, part.end):
            if inner.number in (1, 2):
                size = self._int(inner) if inner.number == 1 and inner.kind == VARINT else -1
        return max(size, -1)

    def _flat(self, part: Field) -> tuple[Mapping[int, str], Mapping[int, int]]:
        texts, numbers = {}, {}
        for inner in self._fields(part.value, part.end):
            if inner.kind == BYTES and inner.end - inner.value <= 4096:
                texts[inner.number] = self._text(inner)
            elif inner.kind == VARINT:
                numbers[inner.number] = self._int(inner)
        return texts, numbers

    def _fields(self, begin: int, end: int) -> list[Field]:
        found = []
        for part in fields(self._data, begin, end):
            found.append(part)
            if len(found) > self._left:
                raise TooLargeError(f"more than {MAX_FIELDS} parts")
        self._left -= len(found)
        return found

    def _text(self, part: Field) -> str:
        return self._data[part.value : part.end].decode("utf-8", errors="replace")

    def _ints(self, part: Field) -> list[int]:
        """A repeated number, packed or not."""
        if part.kind == VARINT:
            return [self._int(part)]
        found: list[int] = []
        at = part.value
        while part.kind == BYTES and at < part.end and len(found) < 100:
            value, at = varint(self._data, at, part.end)
            found.append(value)
        return found

    def _int(self, part: Field) -> int:
        value, _ = varint(self._data, part.value, part.end)
        return value - 2 * _SIGN if value >= _SIGN else value


def _has_cycle(sources: Mapping[str, list[str]]) -> bool:
    waiting = {name: {source for source in taken if source in sources} for name, taken in sources.items()}
    users: dict[str, list[str]] = {}
    for name, taken in waiting.items():
        for source in taken:
            users.setdefault(source, []).append(name)
    ready = [name for name, taken in waiting.items() if not taken]
    done = 0
    while ready:
        name = ready.pop()
        done += 1
        for user in users.get(name, ()):
            waiting[user].discard(name)
            if not waiting[user]:
                ready.append(user)
    return done < len(waiting)
