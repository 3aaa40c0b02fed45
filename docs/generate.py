"""Makes the reference of ``models.yaml``, ``manifest.json`` and ``check-repo``'s rules, and the JSON schema, from code.

    python docs/generate.py            # writes docs/reference/{spec.md,manifest.md,rules.md,models.schema.json}
    python docs/generate.py --check    # exit status 1 if one of them is not what the code says

The prose is in ``docs/reference/*.md.in``; a line ``{{ table NAME }}`` there becomes the table of that class.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from builder import spec
from builder.check.judging import groups
from builder.check.output import sentence
from builder.names import MODEL_NAME_PATTERN
from builder.repository import manifest
from builder.spec import parts as spec_parts
from builder.spec import sequence_parts, serving_parts, tuning_parts, variant_parts
from builder.triton_fields import DECIDED, is_map, model_config_class

_PARTS = (spec_parts, serving_parts, sequence_parts, tuning_parts, variant_parts)
SPEC_ROOM = {name: value for room in (*_PARTS, spec) for name, value in vars(room).items()}
REFERENCE = Path(__file__).parent / "reference"
SCHEMA = "models.schema.json"
# What a whole number may be, by protobuf's CPPTYPE.
_INTEGERS = {1: (-(2**31), 2**31 - 1), 2: (-(2**63), 2**63 - 1), 3: (0, 2**32 - 1), 4: (0, 2**64 - 1)}


def documentation(model: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """What a class says of itself in its first paragraph, and of each of its keys.

    A key's text is its field's description, or stands in the ``Attributes`` of the class or of one it derives from.
    """
    texts: dict[str, str] = {}
    for cls in reversed([cls for cls in model.__mro__ if issubclass(cls, BaseModel) and cls is not BaseModel]):
        section = inspect.cleandoc(cls.__dict__.get("__doc__") or "").partition("Attributes:\n")[2]
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            texts[name] = " ".join(text.split())
    for name, field in model.model_fields.items():
        if field.description:
            texts[field.alias or name] = field.description
    about = " ".join(inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0].split())
    return about, texts


def table(model: type[BaseModel], anchors: dict[str, str]) -> str:
    """A class as a table of its keys.

    Args:
        model: the class.
        anchors: where other classes are explained on the page, by class name.

    Raises:
        KeyError: a key has no text.
    """
    about, texts = documentation(model)
    properties = model.model_json_schema(by_alias=True)["properties"]
    rows = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        cells = (f"`{key}`", _kind(properties[key], anchors), texts[key], _default(field))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([about, "", "| key | value | what | default |", "|---|---|---|---|", *rows])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None or default in ({}, ()) or isinstance(default, BaseModel):
        return ""
    return f"`{json.dumps(default)}`"


def _kind(node: dict[str, Any], anchors: dict[str, str]) -> str:
    """What a value may be, in words."""
    if "$ref" in node:
        return anchors[node["$ref"].rpartition("/")[2]]
    if "anyOf" in node:
        kinds = [_kind(option, anchors) for option in node["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in node:
        choices = [f"`{choice}`" for choice in node["enum"]]
        return f"{choices[0]} to {choices[-1]}" if len(choices) > 9 else ", ".join(choices)
    kind = node.get("type", "")
    if isinstance(kind, list):
        return " or ".join(_kind({"type": each}, anchors) for each in kind)
    if kind == "array":
        return f"list of {_kind(node['items'], anchors)}"
    if kind == "object":
        inner = node.get("additionalProperties")
        return f"mapping to {_kind(inner, anchors)}" if isinstance(inner, dict) and inner else "mapping"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true, false"}
    signs = (("minimum", "≥"), ("maximum", "≤"))
    limits = [f"{sign} {node[key]:g}" for key, sign in signs if key in node and abs(node[key]) < 1e9]
    return " ".join([words.get(kind, "anything"), ", ".join(limits)]).strip()


def page(name: str) -> str:
    """A page: its prose, with the tables put in."""
    rooms: dict[str, Any] = {"spec": SPEC_ROOM, "manifest": vars(manifest)}
    text = (REFERENCE / f"{name}.md.in").read_text(encoding="utf-8")
    headed = re.findall(r"^#+ (.+)\n\n\{\{ table (\w+) \}\}$", text, re.MULTILINE)
    anchors = {
        cls: f"[{title}](#{re.sub('[^a-z0-9 -]', '', title.lower()).replace(' ', '-')})" for title, cls in headed
    }

    def put(match: re.Match[str]) -> str:
        return table(rooms[name][match[1]], anchors)

    note = f"<!-- Made by docs/generate.py from the code and from {name}.md.in: change those, not this file. -->\n"
    return note + re.sub(r"^\{\{ table (\w+) \}\}$", put, text, flags=re.MULTILINE)


def schema() -> str:
    """The JSON schema of ``models.yaml``, for editors."""
    made = spec.Root.model_json_schema(by_alias=True)
    classes = {cls.__name__: cls for cls in SPEC_ROOM.values() if _is_model(cls)}
    _describe(made, spec.Root)
    for name, node in made["$defs"].items():
        _describe(node, classes[name])
    made["properties"]["models"]["propertyNames"] = {"pattern": MODEL_NAME_PATTERN}
    definitions = made["$defs"]
    definitions["ModelSpec"]["properties"]["config"] = {
        "$ref": "#/$defs/ModelConfig",
        "description": definitions["ModelSpec"]["properties"]["config"]["description"],
    }
    _protobuf(model_config_class().DESCRIPTOR, definitions, without=DECIDED)
    made["title"] = "models.yaml of triton-repo"
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}
    return json.dumps(_plain(whole), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel) and value is not BaseModel


def _describe(node: dict[str, Any], model: type[BaseModel]) -> None:
    node["description"], texts = documentation(model)
    for key, inner in node["properties"].items():
        inner["description"] = texts[key]


def _protobuf(descriptor: Any, definitions: dict[str, Any], *, without: Any = ()) -> dict[str, str]:
    """A message of Triton's configuration as a definition, with all that it is made of."""
    name = descriptor.full_name.removeprefix("inference.")
    if name not in definitions:
        node: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {}}
        definitions[name] = node
        for field in descriptor.fields:
            if field.name not in without:
                node["properties"][field.name] = _protobuf_field(field, definitions)
    return {"$ref": f"#/$defs/{name}"}


def _protobuf_field(field: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if is_map(field):
        return {
            "type": "object",
            "additionalProperties": _single(field.message_type.fields_by_name["value"], definitions),
        }
    value = _single(field, definitions)
    return {"type": "array", "items": value} if field.is_repeated else value


def _single(field: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None:
        return _protobuf(field.message_type, definitions)
    if field.enum_type is not None:
        return {"enum": list(field.enum_type.values_by_name)}
    if field.cpp_type in _INTEGERS:
        low, high = _INTEGERS[field.cpp_type]
        return {"type": "integer", "minimum": low, "maximum": high}
    kinds = {field.CPPTYPE_BOOL: "boolean", field.CPPTYPE_STRING: "string"}
    return {"type": kinds.get(field.cpp_type, "number")}


def _plain(node: Any) -> Any:
    """Without pydantic's titles, defaults that say nothing, and the null that an optional key may have."""
    if isinstance(node, list):
        return [_plain(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    options = [option for option in node.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        node = {key: value for key, value in node.items() if key != "anyOf"} | options[0]
    titled = {"type", "$ref", "anyOf", "enum"} & set(node)  # else it may be a key that is called `title`
    return {
        key: _plain(value)
        for key, value in node.items()
        if not (key == "default" and value in (None, {}, [])) and not (key == "title" and titled)
    }


def rules_page() -> str:
    """A section for every rule of ``check-repo``; what ``--explain`` says."""
    lines = ["# The rules of check-repo", "", _RULES_INTRODUCTION, ""]
    for title, group in groups():
        lines += [f"## {title}", "", "| rule | | what |", "|---|---|---|"]
        lines += [f"| [{rule.id}](#{rule.id}) | {rule.severity} | {_cell(rule.title)} |" for rule in group]
        for rule in group:
            lines += ["", f"### {rule.id}", f"{sentence(rule.title)} ({rule.severity})", "", rule.reason, ""]
            lines += [f"**Fix:** {rule.fix}"]
            for label, example in (("bad", rule.bad), ("good", rule.good)):
                if example:
                    lines += ["", f"{label.capitalize()}:", "```text", example, "```"]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


_RULES_INTRODUCTION = """Made from the code by `docs/generate.py`; `check-repo --explain RULE` prints the same section.
An *error* is what the server refuses when it loads the model, a *warning* what it serves worse than it could, with the
gain that is expected of the change, an *info* is good to know. What the server says is in quotes."""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


FILES: dict[str, Callable[[], str]] = {
    "spec.md": lambda: page("spec"),
    "manifest.md": lambda: page("manifest"),
    "rules.md": rules_page,
    SCHEMA: schema,
}


def main() -> int:
    """Write the files, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a file would change")
    check = parser.parse_args().check
    stale = []
    for name, make in FILES.items():
        path, text = REFERENCE / name, make()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    sys.stderr.write(f"{'stale' if check else 'written'}: {', '.join(stale) or 'none'}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
