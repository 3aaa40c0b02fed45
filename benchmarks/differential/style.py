"""A configuration as text in the ways in which people write it: lists or repeated blocks, quotes, comments, order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

_COMMENTS = ("# see the model card", "# TODO: tune", "# do not change", "#", "# {")


class _Style:
    """The habits of one author."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.brackets = rng.random() < 0.6
        self.colon = rng.random() < 0.3
        self.quote = "'" if rng.random() < 0.1 else '"'
        self.commas = rng.choice((", ", ", ", ",", " , "))
        self.indent = rng.choice(("  ", "    ", "\t"))
        self.shuffled = rng.random() < 0.3
        self.comments = 0.1 if rng.random() < 0.4 else 0.0
        self.inline = rng.random() < 0.3


def styled(config: Message, rng: random.Random) -> str:
    """The message in text format; parses to an equal message."""
    style = _Style(rng)
    return "\n".join(_fields(config, style, "", top=True)) + "\n"


def _fields(message: Message, style: _Style, pad: str, *, top: bool = False) -> list[str]:
    fields = list(message.ListFields())
    if top and style.shuffled:
        style.rng.shuffle(fields)
    lines = []
    for field, value in fields:
        if style.rng.random() < style.comments:
            lines.append(pad + style.rng.choice(_COMMENTS))
        if _is_map(field):
            lines += _map(field, value, style, pad)
        elif field.type == field.TYPE_MESSAGE:
            values = list(value) if _is_repeated(field) else [value]
            lines += _messages(field.name, values, style, pad)
        elif _is_repeated(field):
            items = [_scalar(field, item, style) for item in value]
            if style.brackets:
                lines.append(f"{pad}{field.name}: [ {style.commas.join(items)} ]")
            else:
                lines += [f"{pad}{field.name}: {item}" for item in items]
        else:
            lines.append(f"{pad}{field.name}: {_scalar(field, value, style)}")
    return lines


def _messages(name: str, values: Sequence[Message], style: _Style, pad: str) -> list[str]:
    head = f"{pad}{name}{':' if style.colon else ''}"
    if style.brackets and len(values) > 1:
        blocks = [_block(f"{pad}{style.indent}", value, style, pad + style.indent) for value in values]
        return [f"{head} [", *",\n".join(blocks).split("\n"), f"{pad}]"]
    return [line for value in values for line in _block(f"{head} ", value, style, pad).split("\n")]


def _block(head: str, message: Message, style: _Style, pad: str) -> str:
    inner = _fields(message, style, pad + style.indent)
    if not inner:
        return f"{head}{{ }}"
    if style.inline and len(inner) <= 4 and not any("#" in line for line in inner):
        return f"{head}{{ {' '.join(line.strip() for line in inner)} }}"
    return "\n".join([f"{head}{{", *inner, f"{pad}}}"])


def _map(field: Any, value: Any, style: _Style, pad: str) -> list[str]:
    lines = []
    key_field = field.message_type.fields_by_name["key"]
    value_field = field.message_type.fields_by_name["value"]
    for key in sorted(value):  # maps are in no order of their own
        inner = f"key: {_scalar(key_field, key, style)} "
        if value_field.type == value_field.TYPE_MESSAGE:
            item = " ".join(line.strip() for line in _fields(value[key], _plain(style), ""))
            inner += f"value: {{ {item} }}"
        else:
            inner += f"value: {_scalar(value_field, value[key], style)}"
        lines.append(f"{pad}{field.name} {{ {inner} }}")
    return lines


def _plain(style: _Style) -> _Style:
    copy = _Style(style.rng)
    copy.comments, copy.quote, copy.brackets = 0.0, style.quote, True
    return copy


def _scalar(field: Any, value: Any, style: _Style) -> str:
    if field.type == field.TYPE_ENUM:
        return str(field.enum_type.values_by_number[value].name) if value in field.enum_type.values_by_number else "0"
    if field.type == field.TYPE_STRING:
        escaped = value.replace("\\", "\\\\").replace(style.quote, "\\" + style.quote).replace("\n", "\\n")
        return f"{style.quote}{escaped}{style.quote}"
    if field.type == field.TYPE_BOOL:
        return "true" if value else "false"
    return str(value)


def _is_repeated(field: Any) -> bool:
    return bool(field.is_repeated) if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
