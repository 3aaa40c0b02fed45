"""Any valid ModelConfig survives being written: the strategy is made of Triton's own protobuf descriptors."""

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.config import ModelConfig, parse, render
from builder.errors import ConfigError
from builder.triton_fields import DECIDED, field_findings, is_map, message_of, model_config_class

SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
MAX_DEPTH = 7
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        '"',
        "'",
        "\\",
        "\\n",
        "\n",
        "\r\n",
        "\t",
        "\0",
        "\x7f",
        "é",
        "漢字",
        "🚀",
        '}\nname: "evil"',
        "# no comment",
        "{{ x }}",
    ]
)
INT32 = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-(2**31), 2**31 - 1, 0, -1])
INT64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1])
UINT32 = st.integers(0, 2**32 - 1) | st.sampled_from([0, 2**32 - 1])
UINT64 = st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**64 - 1])
NAMED_FLOATS = st.sampled_from(["Infinity", "-Infinity", "NaN"])
FLOATS = {
    width: st.floats(allow_nan=False, allow_infinity=False, width=width)
    | st.sampled_from([0.0, -0.0, 1e-38, 1.5, 5e-324 if width == 64 else 1e-45])
    | NAMED_FLOATS
    for width in (32, 64)
}
SCALARS = {
    FieldDescriptor.CPPTYPE_INT32: INT32,
    FieldDescriptor.CPPTYPE_INT64: INT64 | INT64.map(str),  # protobuf's JSON has text for 64 bits
    FieldDescriptor.CPPTYPE_UINT32: UINT32 | UINT32.map(float),
    FieldDescriptor.CPPTYPE_UINT64: UINT64,
    FieldDescriptor.CPPTYPE_FLOAT: FLOATS[32],
    FieldDescriptor.CPPTYPE_DOUBLE: FLOATS[64],
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_STRING: TEXT,
}


def _value(field, depth):
    if field.enum_type is not None:
        return st.sampled_from(list(field.enum_type.values_by_name) + [v.number for v in field.enum_type.values])
    return SCALARS[field.cpp_type] if field.message_type is None else _tree(field.message_type, depth + 1)


def _field(field, depth):
    if is_map(field):
        kinds = field.message_type.fields_by_name
        keys = SCALARS[kinds["key"].cpp_type].map(str)
        return st.dictionaries(keys, _value(kinds["value"], depth), max_size=2)
    value = _value(field, depth)
    return st.lists(value, max_size=3) if field.is_repeated else value


@st.composite
def _tree(draw, descriptor, depth=0):
    """A mapping of the fields of one message: any of them, of each oneof at most one, in any order."""
    if depth > MAX_DEPTH:
        return {}
    fields = list(descriptor.fields)
    most = len(fields) if depth < 2 else 3
    chosen = draw(st.lists(st.sampled_from(fields), unique_by=lambda f: f.name, max_size=most)) if fields else []
    tree, taken = {}, set()
    for field in chosen:
        if field.containing_oneof is not None:
            if field.containing_oneof.name in taken:
                continue
            taken.add(field.containing_oneof.name)
        tree[field.name] = draw(_field(field, depth))
    return tree


TREES = st.deferred(lambda: _tree(model_config_class().DESCRIPTOR))


def _bytes(message):
    return message.SerializeToString(deterministic=True)  # equal NaNs are equal, and 0.0 is not -0.0


@given(tree=TREES, header=st.lists(TEXT, max_size=2))
@SETTINGS
def test_what_is_rendered_parses_to_what_was_decided(tree, header):
    decided = message_of(tree)
    text = render(ModelConfig(tree), header=tuple(header))
    assert _bytes(parse(text)) == _bytes(decided)
    assert text == render(ModelConfig(tree), header=tuple(header))


@given(tree=TREES)
@SETTINGS
def test_a_message_that_became_json_renders_the_same(tree):
    message = message_of(tree)
    again = json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert _bytes(parse(render(ModelConfig(again)))) == _bytes(message)


@given(tree=TREES)
@SETTINGS
def test_a_valid_config_has_no_findings_but_for_what_the_spec_decides(tree):
    assert [found for found in field_findings(tree) if "is decided by the spec" not in found.what] == []


JUNK = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.lists(st.integers(), max_size=2)
JUNK |= st.dictionaries(TEXT, st.none() | TEXT, max_size=2)


@st.composite
def _spoilt(draw):
    """A tree with one place overwritten by something else, which may happen to be valid."""
    tree = draw(TREES)
    place = tree
    for _ in range(draw(st.integers(0, 4))):
        inner = (
            [key for key, value in place.items() if isinstance(value, (dict, list)) and value]
            if isinstance(place, dict)
            else [i for i, v in enumerate(place) if isinstance(v, (dict, list)) and v]
        )
        if not inner:
            break
        place = place[draw(st.sampled_from(inner))]
    if isinstance(place, dict):
        place[draw(st.sampled_from([*place, "parameters"]) | TEXT)] = draw(JUNK)
    else:
        place[draw(st.integers(0, len(place) - 1))] = draw(JUNK)
    return tree


@given(tree=_spoilt())
@SETTINGS
def test_a_spoilt_config_is_found_or_renders(tree):
    tree = {key: value for key, value in tree.items() if key not in DECIDED}
    if field_findings(tree):
        return
    assert _bytes(parse(render(ModelConfig(tree)))) == _bytes(message_of(tree))


@given(tree=_spoilt())
@SETTINGS
def test_render_itself_raises_nothing_but_config_errors(tree):
    try:
        text = render(ModelConfig(tree))
    except ConfigError as exc:
        assert all((exc.where, exc.expected, exc.got, exc.fix))
    else:
        parse(text)


@given(text=st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
@SETTINGS
def test_any_text_parses_or_is_refused(text):
    try:
        parse(text, "m")
    except ConfigError as exc:
        assert "does not parse" in exc.what
        assert exc.where == "m/config.pbtxt"
        assert "as it was published" in exc.fix


def test_the_strategy_reaches_every_field():
    """The descriptor's own fields: what Triton adds in a later release is tested without a change here."""
    names = {field.name for field in model_config_class().DESCRIPTOR.fields}
    assert {"sequence_batching", "ensemble_scheduling", "optimization", "model_warmup", "parameters"} <= names
    with pytest.raises(ConfigError, match=r"no valid ModelConfig(?s:.*)fix: .*under `config`"):
        render(ModelConfig({"max_batch_size": 2**31}))
