"""The common part of protobuf's text format, parsed three times as fast as by protobuf's own parser in Python.

It knows its limits: of anything that is not plainly right it says nothing, and protobuf's parser is asked. A test holds
both against each other.
"""

from __future__ import annotations

import re
from typing import Any

from builder.triton_fields import is_map, model_config_class

_TOKEN = re.compile(
    r"\s+|\#[^\n]*"
    r"|(?P<string>\"[^\"\\\n]*\"|'[^'\\\n]*')"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?![\w.+\-]))"
    r"|(?P<mark>[{}<>\[\]:,;])"
    r"|(?P<other>.)",
    re.DOTALL,
)
_DEEPEST = 12
_CLOSING = {"{": "}", "<": ">"}
_END = ("mark", "")


class _Unsure(Exception):
    """Not plainly right: ask protobuf."""


def quick_parse(text: str) -> Any | None:
    """The message, or None where it takes protobuf to say what the text is."""
    tokens = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "other":
            return None
        if kind is not None:
            tokens.append((kind, match[0]))
    tokens.append(_END)
    message = model_config_class()()
    try:
        _fields(tokens, 0, message, "", 0)
    except (_Unsure, ValueError, TypeError):
        return None
    return message


def _fields(tokens: list[tuple[str, str]], at: int, message: Any, closing: str, depth: int) -> int:
    """Fields up to the closing bracket; gives the place after it."""
    if depth > _DEEPEST:
        raise _Unsure
    known = message.DESCRIPTOR.fields_by_name
    seen: set[str] = set()
    while tokens[at] != ("mark", closing):
        kind, name = tokens[at]
        if kind != "word" or name not in known:
            raise _Unsure
        field = known[name]
        if not field.is_repeated:
            choice = field.containing_oneof
            if name in seen or (choice is not None and message.WhichOneof(choice.name) is not None):
                raise _Unsure
            seen.add(name)
        colon = tokens[at + 1] == ("mark", ":")
        at += 2 if colon else 1
        if field.message_type is None and not colon:
            raise _Unsure
        at = _values(tokens, at, message, field, depth)
        if tokens[at][1] in (",", ";") and tokens[at][0] == "mark":
            at += 1
    return at + 1


def _values(tokens: list[tuple[str, str]], at: int, message: Any, field: Any, depth: int) -> int:
    """One value, or a list of them where the field is one."""
    if tokens[at] != ("mark", "["):
        return _value(tokens, at, message, field, depth)
    if not field.is_repeated:
        raise _Unsure
    at += 1
    if tokens[at] == ("mark", "]"):
        return at + 1
    while True:
        at = _value(tokens, at, message, field, depth)
        if tokens[at] == ("mark", "]"):
            return at + 1
        if tokens[at] != ("mark", ","):
            raise _Unsure
        at += 1


def _value(tokens: list[tuple[str, str]], at: int, message: Any, field: Any, depth: int) -> int:
    kind, token = tokens[at]
    if field.message_type is None:
        value = _scalar(kind, token, field)
        if tokens[at + 1][0] == "string":  # a string in pieces
            raise _Unsure
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
        return at + 1
    if kind != "mark" or token not in _CLOSING:
        raise _Unsure
    if is_map(field):
        entry = field.message_type._concrete_class()
        at = _fields(tokens, at + 1, entry, _CLOSING[token], depth + 1)
        if field.message_type.fields_by_name["value"].message_type is None:
            getattr(message, field.name)[entry.key] = entry.value
        else:
            getattr(message, field.name)[entry.key].CopyFrom(entry.value)
        return at
    inner = getattr(message, field.name)
    if field.is_repeated:
        inner = inner.add()
    else:
        inner.SetInParent()
    return _fields(tokens, at + 1, inner, _CLOSING[token], depth + 1)


def _scalar(kind: str, token: str, field: Any) -> Any:
    if field.enum_type is not None:
        if kind != "word" or token not in field.enum_type.values_by_name:
            raise _Unsure
        return field.enum_type.values_by_name[token].number
    if field.cpp_type == field.CPPTYPE_STRING:
        if kind != "string":
            raise _Unsure
        return token[1:-1]
    if field.cpp_type == field.CPPTYPE_BOOL:
        if token not in ("true", "false") or kind != "word":
            raise _Unsure
        return token == "true"
    if kind != "number":
        raise _Unsure
    return float(token) if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE) else int(token)
