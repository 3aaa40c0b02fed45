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


def _messages(descriptor, seen):
    """Every message that can be reached from one, entries of maps included."""
    if descriptor.full_name not in seen:
        seen[descriptor.full_name] = descriptor
        for field in descriptor.fields:
            if field.message_type is not None:
                _messages(field.message_type, seen)
    return seen


def _said(message, seen):
    """The fields that a message sets, at any depth, by full name."""
    for field, value in message.ListFields():
        seen.add(field.full_name)
        if field.message_type is None:
            continue
        values = value if field.is_repeated else (value,)
        if is_map(field):
            entry = field.message_type.fields_by_name
            seen |= {entry["key"].full_name, entry["value"].full_name}
            values = value.values() if entry["value"].message_type is not None else ()
        for each in values:
            _said(each, seen)


def _ways(root):
    """The shortest way to every field of every reachable message: lists of fields from the top down."""
    found, waiting, seen = [], [(root, ())], set()
    while waiting:
        descriptor, way = waiting.pop(0)
        if descriptor.full_name in seen:
            continue
        seen.add(descriptor.full_name)
        for field in descriptor.fields:
            found.append((*way, field))
            below = field.message_type
            if is_map(field):
                below = field.message_type.fields_by_name["value"].message_type
            if below is not None:
                waiting.append((below, (*way, field)))
    return found


@st.composite
def _to(draw, descriptor, way):
    """A tree that sets the field at the end of a way."""
    field, rest = way[0], way[1:]
    of_a_map = field.message_type.fields_by_name if is_map(field) else None
    target = of_a_map["value"] if of_a_map else field
    inner = draw(_to(target.message_type, rest) if rest else _value(target, MAX_DEPTH - 1))
    value = [inner] if field.is_repeated else inner
    if of_a_map:
        value = {draw(SCALARS[of_a_map["key"].cpp_type].map(str)): inner}
    return {field.name: value}


WAYS = _ways(model_config_class().DESCRIPTOR)
SEEN: set = set()


@given(data=st.data())
@settings(SETTINGS, max_examples=2, derandomize=True)
def test_every_field_of_every_message_is_written_and_comes_back(data):
    """One tree for each way through the descriptor: what Triton adds in a later release is tested without a change."""
    for way in WAYS:
        tree = data.draw(_to(model_config_class().DESCRIPTOR, way))
        decided = message_of(tree)
        written = parse(render(ModelConfig(tree)))
        assert _bytes(written) == _bytes(decided)
        _said(written, SEEN)


def test_no_field_was_left_out():
    """Measured in what was parsed back, not in what the strategy was meant to do; zeros leave no trace there."""
    fields = [field for each in _messages(model_config_class().DESCRIPTOR, {}).values() for field in each.fields]
    # Of a choice that has one value, which is 0, nothing can be seen in a message.
    every = {field.full_name for field in fields if field.enum_type is None or len(field.enum_type.values) > 1}
    assert len(every) > 150
    for way in WAYS:
        if way[-1].full_name not in SEEN:
            tree = _plain_tree(way)
            _said(parse(render(ModelConfig(tree))), SEEN)
    assert sorted(every - SEEN) == []


def _plain_tree(way):
    """A tree with one field that is no zero."""
    tree = None
    for field in reversed(way):
        of_a_map = field.message_type.fields_by_name if is_map(field) else None
        target = of_a_map["value"] if of_a_map else field
        if tree is None:
            words = {9: "text", 7: True, 10: {}}
            tree = target.enum_type.values[-1].name if target.enum_type else words.get(target.cpp_type, 1)
        tree = {field.name: {"1": tree} if of_a_map else [tree] if field.is_repeated else tree}
    return tree


def test_a_number_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"no valid ModelConfig(?s:.*)fix: .*under `config`"):
        render(ModelConfig({"max_batch_size": 2**31}))
