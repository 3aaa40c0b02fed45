"""Protobuf's text format, read for its places: which field stands on which line.

It takes anything: what is no text format at all gives a tree of what could be made out. Whether a file is right is
asked of protobuf itself, in ``parsing.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from builder.findings import KeyPath

_TOKEN = re.compile(
    r"(?P<skip>[ \t\r\f\v]+|#[^\n]*)|(?P<newline>\n)"
    r"|(?P<string>\"(?:\\.|[^\"\\\n])*\"?|'(?:\\.|[^'\\\n])*'?)"
    r"|(?P<word>[A-Za-z0-9_.+\-]+)|(?P<mark>[{}<>\[\]:,;])|(?P<other>.)",
    re.DOTALL,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(slots=True)
class Node:
    """A field as it is written.

    Attributes:
        name: of the field.
        line: from 1, of the value; of the name where the value is a message.
        column: of the name, or of the value in a list, from 1.
        value: as written, None for a message.
        quoted: the value is a string.
        children: fields of a message, in their order.
    """

    name: str
    line: int = 1
    column: int = 1
    value: str | None = None
    quoted: bool = False
    children: list[Node] = field(default_factory=list)


def tree_of(text: str) -> Node:
    """The fields of a text, below a node without a name."""
    root = Node("")
    # Where we are: a message, or the list of a field's values. A field that has a name and no value yet is `pending`.
    stack: list[tuple[Node, Node | None]] = [(root, None)]
    pending: Node | None = None
    awaits = False  # a value, after a colon
    last: Node | None = None  # for strings that are written in pieces
    for kind, token, line, column in _tokens(text):
        message, listed = stack[-1]
        if kind == "string" and last is not None and not awaits and pending is None and last.quoted:
            last.value = f"{last.value}{_unquoted(token)}"
            continue
        if kind in ("word", "string"):
            last = None
            if listed is not None or awaits:
                named = listed or pending or Node("", line, column)
                begins = column if listed is not None or named.line != line else named.column
                value = _unquoted(token) if kind == "string" else token
                last = Node(named.name, line, begins, value, kind == "string")
                message.children.append(last)
                pending, awaits = None, False
            else:
                if pending is not None:  # a name and nothing else
                    message.children.append(pending)
                pending = Node(token, line, column)
            continue
        last = None
        if token in "{<":
            named = listed or pending or Node("", line, column)
            child = Node(named.name, line, column) if listed is not None else Node(named.name, named.line, named.column)
            message.children.append(child)
            stack.append((child, None))
        elif token == "[" and (pending is not None):
            stack.append((message, pending))
        elif token in "}>]":
            closes = token == "]"
            if len(stack) > 1 and (stack[-1][1] is not None) == closes:
                stack.pop()
        elif token in ",;" and pending is not None:
            message.children.append(pending)
        awaits = token == ":"
        if not awaits:
            pending = None
    if pending is not None:
        stack[-1][0].children.append(pending)
    return root


def _tokens(text: str) -> Iterator[tuple[str, str, int, int]]:
    line, begin = 1, 0
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "other"
        if kind == "newline":
            line, begin = line + 1, match.end()
        elif kind not in ("skip", "other"):
            yield kind, match[0], line, match.start() - begin + 1


def _unquoted(token: str) -> str:
    body = token[1:-1] if len(token) > 1 and token[-1] == token[0] else token[1:]
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), body, flags=re.DOTALL)


def line_of(root: Node, path: KeyPath) -> int | None:
    """The line of the field that a path leads to, or of the nearest around it that is written.

    Args:
        root: of :func:`tree_of`.
        path: names of fields, indices into lists, keys of maps.
    """
    node, found = root, None
    rest = list(path)
    while rest:
        name = rest.pop(0)
        candidates = [child for child in node.children if child.name == name]
        if not candidates:
            break
        chosen = candidates[0]
        if rest:
            keyed = _entry(candidates, rest[0])
            if keyed is not None:
                chosen = keyed
                rest.pop(0)
                inside = [child for child in keyed.children if child.name == "value"]
                if rest and inside:
                    found, chosen = keyed, inside[0]
            elif isinstance(rest[0], int):
                index = rest.pop(0)
                assert isinstance(index, int)
                if not 0 <= index < len(candidates):
                    found = found or candidates[0]
                    break
                chosen = candidates[index]
        node = found = chosen
    return found.line if found is not None else None


def _entry(candidates: list[Node], key: str | int) -> Node | None:
    """The entry of a map, written as messages with `key` and `value`."""
    for node in candidates:
        for child in node.children:
            if child.name == "key" and child.value == str(key):
                return node
    return None
