"""A decided configuration as text, and text as a message. The only place that uses jinja2 for ``config.pbtxt``."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builder.config.model_config import ModelConfig
from builder.errors import ConfigError
from builder.triton_fields import is_map, message_of, model_config_class


@dataclass(frozen=True)
class Node:
    """One field as the template writes it: a ``scalar``, a ``list`` of them, a ``block``, or a list of ``blocks``."""

    name: str
    kind: str
    value: Any = None
    children: list[Any] = field(default_factory=list)
    comment: str = ""


def render(config: ModelConfig, *, header: tuple[str, ...] = ()) -> str:
    """The text of ``config.pbtxt``, parsed back and equal to what was decided.

    Raises:
        ConfigError: a field does not exist or has a value of the wrong type.
    """
    name = str(config.tree.get("name", ""))
    try:
        decided = message_of(config.tree)
    except ValueError as exc:
        raise ConfigError(
            f"the configuration of {name} is no valid ModelConfig",
            where=f"models.{name}",
            expected="fields and values of Triton's ModelConfig",
            got=str(exc),
            fix="mend the field in the spec: under `config`, or in the short form that sets it",
        ) from exc
    nodes = _nodes(config.tree, model_config_class().DESCRIPTOR, config.comments)
    lines = tuple(_one_line(line) for line in header)
    text = str(_template().render(header=lines, nodes=nodes)).rstrip() + "\n"
    written = parse(text, name)
    if _bytes(written) != _bytes(decided):
        raise ConfigError(
            f"config.pbtxt of {name} does not say what was decided",
            where=f"models.{name}",
            expected=str(decided),
            got=str(written),
            fix="take the field that differs out of `config`, and report this message: it is a mistake of build-repo's",
        )
    return text


@functools.cache
def _template() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda file: importlib.resources.files("templates").joinpath(file).read_text()),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # not HTML: a quote must stay a quote
        keep_trailing_newline=True,
        trim_blocks=False,
    ).get_template("config.pbtxt.j2")


def _one_line(text: str) -> str:
    """A comment must not end before it does: it has the name of the user's file in it."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _bytes(message: Any) -> bytes:
    """What two equal messages have in common; by value, NaN would differ from itself."""
    encoded: bytes = message.SerializeToString(deterministic=True)
    return encoded


def parse(text: str, name: str = "") -> Any:
    """``config.pbtxt`` as a ``ModelConfig`` message.

    Raises:
        ConfigError: it does not parse; with the line.
    """
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, model_config_class()())
    except text_format.ParseError as exc:
        raise ConfigError(
            f"config.pbtxt of {name} does not parse",
            where=f"{name}/config.pbtxt".lstrip("/"),
            expected="a ModelConfig of Triton's, in protobuf's text format",
            got=str(exc),
            fix="mend the file at that line (line:column), or bring it back as it was published",
        ) from exc


def _nodes(tree: Any, descriptor: Any, comments: Mapping[str, str]) -> list[Node]:
    nodes = []
    if not isinstance(tree, Mapping):  # protobuf's JSON takes an empty text for an empty block
        fields = ", ".join(descriptor.fields_by_name)
        raise ConfigError(
            f"{descriptor.name} is no block",
            where="`config` in the spec",
            expected=f"a mapping of {fields}" if fields else "an empty mapping: {}",
            got=repr(tree),
            fix="write {} for a block that sets nothing, else {field: value}",
        )
    for name, value in tree.items():
        if value is None:  # "not set", as in protobuf's JSON
            continue
        spec = descriptor.fields_by_name[name]
        nodes += _field(name, value, spec, comments.get(name, ""))
    return nodes


def _field(name: str, value: Any, spec: Any, comment: str) -> list[Node]:
    if is_map(spec):
        entries = []
        for key, inner in value.items():
            kinds = spec.message_type.fields_by_name
            entries.append(_field("key", key, kinds["key"], "") + _field("value", inner, kinds["value"], ""))
        return [
            Node(name, "block", children=entry, comment=comment if not i else "") for i, entry in enumerate(entries)
        ]
    repeated = isinstance(value, (list, tuple))
    if spec.message_type is None:
        text = [_scalar(item, spec) for item in value] if repeated else _scalar(value, spec)
        return [Node(name, "list" if repeated else "scalar", text, comment=comment)]
    if repeated:
        blocks = [_nodes(item, spec.message_type, {}) for item in value]
        return [Node(name, "blocks", children=blocks, comment=comment)]
    return [Node(name, "block", children=_nodes(value, spec.message_type, {}), comment=comment)]


def _scalar(value: Any, spec: Any) -> str:
    """A value as the text format spells it; numbers may be text, and whole ones floats, as in protobuf's JSON."""
    from google.protobuf import text_encoding

    if spec.cpp_type == spec.CPPTYPE_BOOL:
        return "true" if value else "false"
    if spec.cpp_type in (spec.CPPTYPE_FLOAT, spec.CPPTYPE_DOUBLE):
        return repr(float(value))
    if spec.cpp_type == spec.CPPTYPE_STRING:
        return '"' + text_encoding.CEscape(str(value).encode(), as_utf8=True) + '"'
    return value if spec.enum_type is not None and isinstance(value, str) else str(int(value))
