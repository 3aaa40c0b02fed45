"""A ``config.pbtxt`` as a message, or everything that keeps it from being one: with line, column and the nearest "
"name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

from builder.check.pbtxt import Node, tree_of
from builder.check.quick_parse import quick_parse
from builder.findings import did_you_mean
from builder.rules.rule import Hit, Rule
from builder.triton_fields import is_map, model_config_class

SYNTAX = Rule(
    id="config-syntax",
    severity="error",
    title="config.pbtxt is no protobuf text",
    reason="The server reads the file with protobuf's text parser and refuses the model at the first thing that it "
    "does "
    'not understand: "failed to read text proto from ...".',
    fix="Mend the line; most often a bracket, a quote or a comma is missing before it.",
    bad='name: "encoder',
    good='name: "encoder"',
)
FIELD = Rule(
    id="config-unknown-field",
    severity="error",
    title="config.pbtxt has a field that ModelConfig does not have there",
    reason='"Message type inference.ModelConfig has no field named ..": the server refuses the model, however small '
    "the "
    "difference is.",
    fix="Write the field's name as in Triton's model_config.proto, in the message that it belongs to.",
    bad="max_batchsize: 8",
    good="max_batch_size: 8",
)
VALUE = Rule(
    id="config-value",
    severity="error",
    title="a field of config.pbtxt has a value that it cannot have",
    reason="An enumeration takes its own words, a number takes no quotes, a field that is no list comes once, and of "
    "some fields only one may be there.",
    fix="Write a value of the field's type.",
    bad='input [ { name: "x", data_type: FP32, dims: [4] } ]',
    good='input [ { name: "x", data_type: TYPE_FP32, dims: [4] } ]',
)
RULES: tuple[Rule, ...] = (SYNTAX, FIELD, VALUE)

_BOOLEANS = ("true", "false", "True", "False", "t", "f", "0", "1")
_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|\d+)\Z")
_MOST = 50
_RANGES = {1: (-(2**31), 2**31 - 1), 2: (-(2**63), 2**63 - 1), 3: (0, 2**32 - 1), 4: (0, 2**64 - 1)}
"""By ``FieldDescriptor.CPPTYPE_*``."""

Problems = list[tuple[Rule, Hit]]


def parse(text: str, file: str = "config.pbtxt") -> tuple[Any | None, Problems]:
    """The message, or what is wrong with the text.

    Args:
        text: of the file, a byte order mark is passed over as protobuf does.
        file: its name, for the hits.

    Raises:
        MissingDependencyError: tritonclient is not installed.
    """
    from google.protobuf import text_format

    message = quick_parse(text)
    if message is not None:
        return message, []
    message = model_config_class()()
    try:
        text_format.Parse(text.removeprefix("\ufeff"), message)
    except text_format.ParseError as error:
        return None, _problems(text, error, file)
    except (ValueError, TypeError, RecursionError) as error:  # lone surrogates, messages nested without end
        line = "the file is not UTF-8" if "surrogate" in str(error) else f"the file cannot be parsed: {error}"
        return None, [(SYNTAX, Hit(line[:200], "write it anew", file=file, line=1))]
    if "+" in text and (problems := _plus_signs(text, file)):
        return None, problems
    return message, []


def _plus_signs(text: str, file: str) -> Problems:
    """Numbers with a plus before them, which Python's parser takes and the server's does not."""
    found = []
    for _, node, message, fix in _walk(tree_of(text), model_config_class().DESCRIPTOR):
        if node.value is not None and node.value.startswith("+") and not node.quoted:
            hit = Hit(f"{message} (column {node.column})", fix, file=file, line=node.line)
            found.append((VALUE, hit))
    return found


def _problems(text: str, error: Any, file: str) -> Problems:
    root = tree_of(text)
    found = []
    said: set[tuple[str, int]] = set()  # a list of an unknown name is one mistake
    for rule, node, message, fix in _walk(root, model_config_class().DESCRIPTOR):
        if rule is FIELD and (message, node.line) in said:
            continue
        said.add((message, node.line))
        found.append((rule, Hit(f"{message} (column {node.column})", fix, file=file, line=node.line)))
        if len(found) == _MOST:
            break
    if found:
        return found
    line, column = error.GetLine(), error.GetColumn()
    what = re.sub(r"^\d+:\d+ ?:? ?", "", str(error)).strip()
    where = f" (column {column})" if column else ""
    fix = "look for a missing bracket, quote or comma there or before it"
    last = text.count("\n") + 1
    return [(SYNTAX, Hit(f"cannot be read: {what[:300]}{where}", fix, file=file, line=min(line or last, last)))]


_Problem = tuple[Rule, Node, str, str]


def _walk(root: Node, descriptor: Any) -> Iterator[_Problem]:
    waiting = [(root, descriptor)]
    while waiting:
        node, kind = waiting.pop(0)
        yield from _once(node, kind)
        for child in node.children:
            known = _named(kind.fields_by_name, child.name)
            if known is None:
                yield _unknown(child, kind)
            elif known.message_type is None:
                yield from _scalar(child, known)
            elif child.value is not None:
                names = ", ".join(known.message_type.fields_by_name)
                yield (
                    VALUE,
                    child,
                    f"`{child.name}` is a message, not `{child.value[:40]}`",
                    f"write {{ ... }}: {names}",
                )
            else:
                waiting.append((child, known.message_type))


def _named(table: Any, name: str) -> Any:
    """A field or a value by its name: protobuf's tables fail at names that are no UTF-8."""
    return table.get(name) if name.isascii() else None


def _once(node: Node, kind: Any) -> Iterator[_Problem]:
    """Fields that are no lists, and choices, each at most once."""
    seen: Counter[str] = Counter()
    chosen: dict[str, str] = {}
    for child in node.children:
        known = _named(kind.fields_by_name, child.name)
        if known is None or known.is_repeated or is_map(known):
            continue
        seen[child.name] += 1
        if seen[child.name] == 2:
            yield VALUE, child, f"`{child.name}` is written a second time", "write it once"
        choice = known.containing_oneof
        if choice is not None:
            other = chosen.setdefault(choice.name, child.name)
            if other != child.name:
                yield VALUE, child, f"`{child.name}` and `{other}` exclude each other", "write one of both"


def _unknown(node: Node, kind: Any) -> _Problem:
    names = kind.fields_by_name
    where = "ModelConfig" if kind.full_name == model_config_class().DESCRIPTOR.full_name else kind.name
    homes = [home for home in _homes().get(node.name, ()) if home]
    if node.name in _homes():
        fix = f"write it in `{homes[0]} {{ ... }}`" if homes else "write it outside of the brackets"
    else:
        fix = did_you_mean(node.name, names)
    return FIELD, node, f"{where} has no field `{node.name[:60]}`", fix or f"it has {', '.join(names)}"


@cache
def _homes() -> dict[str, list[str]]:
    """Where else a field's name occurs: the messages around it, from the top."""
    found: dict[str, list[str]] = {}
    waiting = [(model_config_class().DESCRIPTOR, "", 0)]
    while waiting:
        kind, path, depth = waiting.pop(0)
        for known in kind.fields:
            if not kind.GetOptions().map_entry:
                found.setdefault(known.name, []).append(path)
            if known.message_type is not None and depth < 4:
                waiting.append((known.message_type, f"{path}.{known.name}".strip("."), depth + 1))
    return found


def _scalar(node: Node, known: Any) -> Iterator[_Problem]:
    name, value = node.name, node.value
    if value is None:
        yield VALUE, node, f"`{name}` is a single value, not a message", f"write {name}: ..."
    elif known.enum_type is not None:
        words = known.enum_type.values_by_name
        if _named(words, value) is None and (node.quoted or not _INTEGER.match(value)):
            fix = _word(value, words)
            yield VALUE, node, f"`{name}` has no value `{value[:60]}`", fix or f"one of {', '.join(words)}"
        elif node.quoted:
            yield VALUE, node, f"`{name}` takes no quotes", f"write {name}: {value}"
    elif known.cpp_type == known.CPPTYPE_STRING:
        if not node.quoted:
            yield VALUE, node, f"`{name}` is text and has no quotes", f'write {name}: "{value[:60]}"'
    elif known.cpp_type == known.CPPTYPE_BOOL:
        if node.quoted or value not in _BOOLEANS:
            yield VALUE, node, f"`{name}` is true or false, not `{value[:60]}`", f"write {name}: true"
    elif known.cpp_type in _RANGES:
        yield from _integer(node, known)
    elif node.quoted:
        yield VALUE, node, f"`{name}` takes no quotes", f"write {name}: {value[:60]}"


def _word(value: str, words: Any) -> str:
    """FP32 for TYPE_FP32, float32 likewise: the prefix is what is forgotten most."""
    ends = [word for word in words if word.endswith(f"_{value.upper().removeprefix('TYPE_')}")]
    return f"did you mean `{ends[0]}`?" if len(ends) == 1 else did_you_mean(value, words)


def _integer(node: Node, known: Any) -> Iterator[_Problem]:
    value = node.value or ""
    low, high = _RANGES[known.cpp_type]
    if node.quoted or not _INTEGER.match(value):
        plain = f"write {node.name}: {value}" if _INTEGER.match(value) else f"a whole number, {low} to {high}"
        yield VALUE, node, f"`{node.name}` is a whole number, not `{value[:60]}`", plain
    elif not low <= int(value, 0 if "x" in value.lower() else 10) <= high:
        yield VALUE, node, f"`{node.name}` is {value[:60]}", f"a whole number, {low} to {high}"
