"""The reference pages and the JSON schema are what the code says, and the schema takes what the code takes."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given

from builder.triton_fields import DECIDED, model_config_class
from tests.builder.test_spec_properties import SETTINGS, _in, _spec

ROOT = Path(__file__).parent.parent.parent
SCHEMA = json.loads((ROOT / "docs/reference/models.schema.json").read_text())
KINDS = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["spec.md", "manifest.md", "rules.md", "models.schema.json"])
def test_the_committed_file_is_what_is_generated(generate, name):
    committed = (ROOT / "docs/reference" / name).read_text()
    assert committed == generate.FILES[name](), "run: python docs/generate.py"
    assert "{{" not in committed


def _errors(value, node, at="$"):
    """The part of JSON Schema that ours uses."""
    if "$ref" in node:
        yield from _errors(value, SCHEMA["$defs"][node["$ref"].rpartition("/")[2]], at)
        return
    if "anyOf" in node:
        if all(list(_errors(value, option, at)) for option in node["anyOf"]):
            yield f"{at}: none of anyOf"
        return
    kind = node.get("type")
    if kind in KINDS and not isinstance(value, KINDS[kind]):
        yield f"{at}: no {kind}"
        return
    if kind in ("integer", "number"):
        if isinstance(value, bool) or not isinstance(value, int if kind == "integer" else (int, float)):
            yield f"{at}: no {kind}"
        elif not node.get("minimum", value) <= value <= node.get("maximum", value):
            yield f"{at}: out of range"
    if "enum" in node and value not in node["enum"]:
        yield f"{at}: not in enum"
    if "pattern" in node and not re.search(node["pattern"], value):
        yield f"{at}: not {node['pattern']}"
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _errors(item, node.get("items", {}), f"{at}[{index}]")
    if isinstance(value, dict):
        yield from (f"{at}: {key} is missing" for key in node.get("required", []) if key not in value)
        if len(value) < node.get("minProperties", 0):
            yield f"{at}: too few"
        for key, inner in value.items():
            yield from _errors(key, node.get("propertyNames", {}), f"{at} {key!r}")
            allowed = node.get("properties", {}).get(key, node.get("additionalProperties", {}))
            if allowed is False:
                yield f"{at}: {key} is not allowed"
            elif isinstance(allowed, dict):
                yield from _errors(inner, allowed, f"{at}.{key}")


@given(spec=_spec())
@SETTINGS
def test_the_schema_takes_every_valid_spec(spec):
    here = type("Folder", (), {"name": "spec"})
    assert list(_errors(_in(here, spec), SCHEMA)) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*/models.yaml")), ids=lambda path: path.parent.name)
def test_the_schema_takes_the_examples(path):
    assert list(_errors(yaml.safe_load(path.read_text()), SCHEMA)) == []


GOOD = "{models: {m: {source: {python: 'm.py:f'}, inputs: {x: 'float32[2]'}, outputs: {y: 'float32[2]'}%s}}}"


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ("", None),
        (", bacth: {}", "bacth is not allowed"),
        (", batch: {max: many}", "no integer"),
        (", batch: {max: -1}", "out of range"),
        (", variants: [onnx-fp23]", "not in enum"),
        (", instances: {kind: GPU}", "none of anyOf"),
        (", samples: {python: data.py}", "not ^.+:"),
        (", samples: {args: {}}", "python is missing"),
        (", config: {version_polcy: {}}", "version_polcy is not allowed"),
        (", config: {instance_group: [{kind: KIND_TPU}]}", "not in enum"),
        (", config: {name: m}", "name is not allowed"),
        (", config: {parameters: {a: {string_value: 'b'}}, metric_tags: {a: b}, input: [{name: x}]}", None),
    ],
)
def test_the_schema_refuses_what_the_code_refuses(more, error):
    found = list(_errors(yaml.safe_load(GOOD % more), SCHEMA))
    assert (found == []) if error is None else any(error in text for text in found), found


def test_every_key_of_the_schema_is_explained():
    for name, node in SCHEMA["$defs"].items():
        if "description" in node:  # ours; Triton's own have none
            assert all(inner.get("description") for inner in node["properties"].values()), name
    fields = set(model_config_class().DESCRIPTOR.fields_by_name) - set(DECIDED)
    assert set(SCHEMA["$defs"]["ModelConfig"]["properties"]) == fields


def test_the_page_names_every_key_in_its_own_words():
    page = (ROOT / "docs/reference/spec.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .+? \| (.+?) \| .*\|$", page, re.MULTILINE)
    assert len(rows) > 40
    assert [key for key, what in rows if len(what) < 5] == []
