"""YAML that remembers where it stood: plain data, and the line of every key path.

Only what a spec needs: mappings, sequences, text, numbers, true, false and null; dates stay text. What a reader could
be surprised by is a problem, not a guess: duplicate keys (PyYAML keeps the last without a word), numbers that YAML 1.1
and 1.2 read differently (``010``, ``1:20``), tags. Aliases, with which a few lines can grow to gigabytes, are refused,
and so is a file that is too large, too deep or has too many values: the parser's events are gone through one at a time,
and left as soon as one of these is met.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from builder.errors import SpecError
from builder.findings import KeyPath
from serving.errors import Problem

T = TypeVar("T")
MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 40
MAX_VALUES = 200_000
"""Keys and values of a whole spec; one with 200 models has about 10 000."""
_MAX_DIGITS = 400

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WORD = re.compile(r"[\w$<~/*-]{1,200}")
_LINE_BREAK = re.compile(r"\r\n?|\n")
_DECIMAL = re.compile(r"^[-+]?(0|[1-9][0-9_]*)$")
_BASED = re.compile(r"^[-+]?0[xb][0-9a-fA-F_]+$")
_ODD_NUMBER = re.compile(r"^[-+]?[0-9][0-9_:.]*$")
_TRUE = ("yes", "true", "on")
_FALSE = ("no", "false", "off")
_QUOTE = "quote values that hold : # [ ] { } or start with @ * & ! | > %"


@dataclass
class Document:
    """A parsed file.

    Attributes:
        path: the file.
        data: its content as plain Python data.
        lines: 1-based line of every key path, of the key where there is one.
        texts: numbers, booleans and nulls as they are written, by key path.
        problems: what is wrong with it as YAML, though it could be read: duplicate keys, odd numbers, tags.
        files: of key paths that are from another file, which was laid over this one.
    """

    path: Path
    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    texts: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    files: dict[KeyPath, Path] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """``file:line, key.path`` of the nearest enclosing thing that has a line."""
        probe = path
        while probe and probe not in self.lines:
            probe = probe[:-1]
        line = f":{self.lines[probe]}" if probe in self.lines else ""
        return f"{self.files.get(probe, self.path)}{line}" + (f", {spell(path)}" if path else "")

    def take(self, other: Document, at: KeyPath) -> None:
        """Know the lines of all below ``at`` as another file's, which was laid over this one there."""
        for path, line in other.lines.items():
            if len(path) > len(at) and path[: len(at)] == at:
                self.lines[path], self.files[path] = line, other.path
                self.texts.pop(path, None)
        self.texts.update({path: text for path, text in other.texts.items() if path in self.files})

    def rename(self, path: KeyPath, key: str) -> None:
        """Know the lines of all at and below ``path`` under another last key, too."""
        depth = len(path)

        def renamed(known: dict[KeyPath, T]) -> dict[KeyPath, T]:
            return {(*path[:-1], key, *old[depth:]): value for old, value in known.items() if old[:depth] == path}

        self.lines.update(renamed(self.lines))
        self.texts.update(renamed(self.texts))


def spell(path: KeyPath) -> str:
    """``models.digits.variants[0]``; ``models['a.b']`` where a key is no plain word."""
    text = ""
    for part in path:
        if isinstance(part, str) and _WORD.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    return text


def read(path: Path) -> Document:
    """Read a YAML file.

    Returns:
        The document; its ``problems`` are for the caller to report, together with its own.

    Raises:
        SpecError: it cannot be read, is no YAML, is too large or too deep, or uses aliases.
    """
    text = _decoded(_content(path), path)
    document = Document(path)
    try:
        _Composer(text, document).compose()
    except yaml.YAMLError as exc:
        raise SpecError([_syntax_problem(exc, text, path)]) from exc
    return document


def _refuse(what: str, where: object, *, expected: str = "", got: str = "", fix: str = "") -> NoReturn:
    raise SpecError([Problem(what, str(where), expected=expected, got=got, fix=fix)])


def _content(path: Path) -> bytes:
    """The bytes of a regular file, at most :data:`MAX_BYTES`; a pipe is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as exc:
        if isinstance(exc, FileNotFoundError) and not path.is_symlink():
            fix = "give the spec as an argument: build-repo path/to/models.yaml"
            _refuse("no such file", path, expected="a spec (models.yaml)", fix=fix)
        _refuse("cannot be read", path, got=getattr(exc, "strerror", None) or str(exc), expected="a readable file")
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            _refuse("this is a folder", path, expected="a spec", fix=f"build-repo {path}/models.yaml")
        if not stat.S_ISREG(status.st_mode):
            _refuse("this is no regular file", path, expected="a spec in a file: its paths are relative to its folder",
                    got="a pipe, socket or device", fix="write it to a file first")  # fmt: skip
        content = _at_most(descriptor, MAX_BYTES + 1) if status.st_size <= MAX_BYTES else None
        if content is None or len(content) > MAX_BYTES:
            _refuse("the spec is too large", path, expected=f"at most {MAX_BYTES} bytes",
                    got=f"{max(status.st_size, MAX_BYTES + 1)} bytes",
                    fix="is this the right file? A spec with 200 models has about 100 000 bytes")  # fmt: skip
        return content
    finally:
        os.close(descriptor)


def _at_most(descriptor: int, limit: int) -> bytes:
    parts: list[bytes] = []
    while limit > 0 and (part := os.read(descriptor, min(limit, 1 << 20))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def _decoded(content: bytes, path: Path) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = 1 + len(_LINE_BREAK.findall(content[: exc.start].decode("latin-1")))
        utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        got = "UTF-16" if utf16 else f"byte 0x{content[exc.start]:02x}"
        _refuse("this is no UTF-8 text", f"{path}:{line}", expected="a YAML file in UTF-8", got=got,
                fix="save it as UTF-8" if utf16 or exc.start > 100 else "is this the right file?")  # fmt: skip
    strange = _UNPRINTABLE.search(text)
    if strange:
        line = 1 + len(_LINE_BREAK.findall(text[: strange.start()]))
        fix = "take it out" if strange.start() > 100 else "is this the right file?"
        _refuse("a character that YAML does not allow", f"{path}:{line}", expected="text without control characters",
                got=f"U+{ord(strange[0]):04X}", fix=fix)  # fmt: skip
    return text


def _syntax_problem(exc: yaml.YAMLError, text: str, path: Path) -> Problem:
    mark = getattr(exc, "problem_mark", None)
    what = getattr(exc, "problem", None) or str(exc).splitlines()[0]
    if mark is None:
        return Problem(f"not valid YAML: {what}", str(path), fix=_QUOTE)
    where = f"{path}:{mark.line + 1}, column {mark.column + 1}"
    lines = _LINE_BREAK.split(text)
    line = lines[mark.line] if mark.line < len(lines) else ""
    if line[: mark.column + 1].strip(" ")[:1] == "\t":
        return Problem("a tab indents this line", where, expected="spaces", fix="YAML wants spaces: replace the tab")
    begun = getattr(exc, "context_mark", None)
    context = f"{exc.context}, which began on line {begun.line + 1}" if begun and begun.line != mark.line else ""  # type: ignore[attr-defined]
    got = "\n".join(part for part in (line.strip()[:100], context) if part)
    return Problem(f"not valid YAML: {what}", where, got=got, fix=_QUOTE)


class _Composer:
    """Turns the parser's events into plain data, and remembers lines. Recursion is bounded by :data:`MAX_DEPTH`."""

    def __init__(self, text: str, document: Document) -> None:
        self._document = document
        self._events: Iterator[Any] = yaml.parse(text, Loader=yaml.CSafeLoader)
        self._resolver: Any = yaml.resolver.Resolver()
        self._count = 0

    def compose(self) -> None:
        """Fill ``document.data``."""
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if self._count:
                    fix = "one file, one spec: take out the `---` and what follows, or give it a file of its own"
                    _refuse("a second document begins here", self._line(event), expected="one document", fix=fix)
            elif isinstance(event, yaml.NodeEvent):
                self._document.data = self._value(event, ())

    def _line(self, event: Any) -> str:
        return f"{self._document.path}:{event.start_mark.line + 1}"

    def _value(self, event: Any, path: KeyPath) -> Any:
        self._count += 1
        if self._count > MAX_VALUES:
            _refuse("the spec has too many values", self._line(event), expected=f"at most {MAX_VALUES}",
                    fix="is this the right file? Data belongs into files of its own")  # fmt: skip
        if len(path) > MAX_DEPTH:
            _refuse("nested too deeply", self._line(event), expected=f"at most {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            _refuse(f"alias *{event.anchor}", self._line(event), expected="plain YAML without anchors and aliases",
                    fix="write the value out")  # fmt: skip
        self._document.lines.setdefault(path, event.start_mark.line + 1)
        if isinstance(event, yaml.MappingStartEvent):
            self._plain_tag(event, path, "map")
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            self._plain_tag(event, path, "seq")
            return self._sequence(path)
        return self._scalar(event, path)

    def _problem(self, what: str, path: KeyPath, *, expected: str = "", got: str = "", fix: str = "") -> None:
        where = self._document.where(path)
        self._document.problems.append(Problem(what, where, expected=expected, got=got, fix=fix))

    def _plain_tag(self, event: Any, path: KeyPath, *allowed: str) -> bool:
        tag = str(event.tag or "")
        if tag in ("", "!", *(f"tag:yaml.org,2002:{name}" for name in allowed)):
            return True
        short = tag.replace("tag:yaml.org,2002:", "!!")
        self._problem(f"tag {short} is not for specs", path, expected="plain YAML", fix=f"take out `{short}`")
        return False

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent):
                _refuse("a key is a list, a mapping or an alias", f"{self._line(event)}, {spell(path)}",
                        expected="text, then `: value`", fix=_QUOTE)  # fmt: skip
            key = str(event.value)
            below = (*path, key)
            if key in result:
                first = self._document.lines[below]
                self._document.problems.append(
                    Problem(
                        f"key {key!r} is here twice",
                        f"{self._document.path}:{line}, {spell(below)}",
                        got=f"first on line {first}, again on line {line}",
                        fix="keep one of them",
                    )
                )
                self._value(next(self._events), (*path, f"{key} (again)"))  # read over: the first one holds
                continue
            self._document.lines[below] = line
            result[key] = self._value(next(self._events), below)
        return result

    def _sequence(self, path: KeyPath) -> list[Any]:
        result: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            result.append(self._value(event, (*path, len(result))))
        return result

    def _scalar(self, event: Any, path: KeyPath) -> str | int | float | bool | None:
        text = str(event.value)
        if not self._plain_tag(event, path, "str", "int", "float", "bool", "null"):
            return text
        tag = str(event.tag or self._resolver.resolve(yaml.ScalarNode, text, event.implicit))
        kind = tag.rpartition(":")[2]
        try:
            value = _SCALARS[kind](text) if kind in _SCALARS else text
        except ValueError as exc:
            self._problem(str(exc), path, got=text[:60], expected="a plain decimal number, true, false, or quoted text")
            return text
        if not isinstance(value, str):
            self._document.texts[path] = text
        return value


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    if _DECIMAL.match(text):
        return int(text.replace("_", ""))
    if _BASED.match(text):
        return int(text.replace("_", ""), 0)
    raise _odd(text)


def _real(text: str) -> float:
    plain = text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan")
    try:
        return float(plain)
    except ValueError:
        raise _odd(text) from None


def _odd(text: str) -> ValueError:
    if _ODD_NUMBER.match(text):
        return ValueError(f"{text} is one number to YAML 1.1 and another to YAML 1.2")
    return ValueError(f"{text[:60]!r} is no number")


def _boolean(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError(f"{text[:60]!r} is neither true nor false")
    return text.lower() in _TRUE


_SCALARS: dict[str, Any] = {"int": _integer, "float": _real, "bool": _boolean, "null": lambda _: None}
