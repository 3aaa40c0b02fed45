"""check-repo never crashes, and no rule of it: whatever lies in the folder."""

import os
import random

import pytest

pytest.importorskip("tritonclient", reason="tritonclient carries the ModelConfig message")

from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.check import check_repositories
from builder.check.parsing import parse
from builder.check.pbtxt import tree_of
from builder.check.quick_parse import quick_parse
from builder.rules import CONFIG_RULES, config_hits
from builder.triton_fields import is_map, model_config_class

EXAMPLES = [text for rule, _ in CONFIG_RULES for text in (rule.bad, rule.good)]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
WORDS = ["", "x", "y", "a/b", "..", "é", "\n", "ensemble", "onnxruntime", "tensorrt", "python", "pytorch", "model.pt2"]
NUMBERS = [0, 1, 2, 3, 8, 64, 2**31 - 1]


def fill(message, pick, depth=0):
    """Set a few fields of a message at random; numbers at the ends of their ranges too."""
    for field in message.DESCRIPTOR.fields:
        if pick.random() > (0.35 if depth else 0.3):
            continue
        if is_map(field):
            kinds = field.message_type.fields_by_name
            key = pick.choice(WORDS) if kinds["key"].cpp_type == kinds["key"].CPPTYPE_STRING else pick.choice(NUMBERS)
            if kinds["value"].message_type is None:
                getattr(message, field.name)[key] = pick.choice(WORDS)
            else:
                fill(getattr(message, field.name)[key], pick, depth + 1)
        elif field.is_repeated:
            for _ in range(pick.randrange(4)):
                if field.message_type is None:
                    getattr(message, field.name).append(scalar(field, pick))
                else:
                    fill(getattr(message, field.name).add(), pick, depth + 1)
        elif field.message_type is None:
            setattr(message, field.name, scalar(field, pick))
        else:
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name), pick, depth + 1)


def scalar(field, pick):
    if field.enum_type is not None:
        return pick.choice([*field.enum_type.values_by_number, 77])
    if field.cpp_type == field.CPPTYPE_STRING:
        return pick.choice(WORDS)
    if field.cpp_type == field.CPPTYPE_BOOL:
        return pick.random() < 0.5
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return pick.choice([0.0, 0.5, -1.0, float("inf"), float("nan")])
    unsigned = field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64)
    return pick.choice(NUMBERS if unsigned else [*NUMBERS, -1, -2, -(2**31)])


@QUICK
@given(st.integers(0, 2**32))
def test_no_rule_fails_on_any_message(seed):
    config = model_config_class()()
    fill(config, random.Random(seed))
    for rule, hit in config_hits(config, name="m"):
        assert rule.id and hit.message
    # What is written parses again, and as what it was.
    again, problems = parse(text_format.MessageToString(config))
    assert problems == []
    assert again.SerializeToString(deterministic=True) == config.SerializeToString(deterministic=True)


@QUICK
@given(st.text(max_size=300))
def test_any_text_is_parsed_or_said_to_be_none(text):
    message, problems = parse(text)
    assert (message is None) == bool(problems)
    assert all(hit.line >= 1 for _, hit in problems)
    tree_of(text)


@QUICK
@given(st.sampled_from(EXAMPLES), st.data())
def test_cut_and_changed_configurations_are_judged(text, data):
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        piece = data.draw(st.sampled_from(["", "{", "}", "[", "]", '"', ":", "-1", "\x00", " input ", "<", "}" * 30]))
        text = text[:at] + piece + text[at + data.draw(st.integers(0, 12)) :]
    message, problems = parse(text)
    assert (message is None) == bool(problems)
    if message is not None:
        list(config_hits(message, name="m"))


def agrees_with_protobuf(text):
    """The quick parser says what protobuf says, or nothing."""
    quick = quick_parse(text)
    if quick is None:
        return False
    slow = text_format.Parse(text, model_config_class()())  # raises where protobuf refuses what the quick one took
    assert quick.SerializeToString(deterministic=True) == slow.SerializeToString(deterministic=True)
    return True


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_quick_parser_reads_the_examples_as_protobuf_does(text):
    try:
        text_format.Parse(text, model_config_class()())
    except text_format.ParseError:
        assert quick_parse(text) is None
    else:
        assert agrees_with_protobuf(text)


PIECES = [
    *"{}<>[]:,;#\n \"'",
    "-1",
    "0",
    "08",
    "1.5",
    "1e3",
    "2147483648",
    "0x1",
    "true",
    "t",
    "TYPE_FP32",
    "1",
    "8abc",
]
PIECES += [
    "max_batch_size",
    "input",
    "name",
    "dims",
    "data_type",
    '"a" "b"',
    "'x'",
    '"\\n"',
    "all",
    "latest",
    "- 1",
    "é",
]


@settings(QUICK, max_examples=200)
@given(st.sampled_from(EXAMPLES), st.data())
def test_the_quick_parser_never_takes_what_protobuf_refuses(text, data):
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from(PIECES)) + text[at + data.draw(st.integers(0, 3)) :]
    agrees_with_protobuf(text)


@QUICK
@given(st.integers(0, 2**32))
def test_the_quick_parser_reads_any_message_as_protobuf_does(seed):
    config = model_config_class()()
    fill(config, random.Random(seed))
    agrees_with_protobuf(text_format.MessageToString(config))


def test_brackets_without_end():
    for text in ("{" * 50_000, "input [ " * 20_000, "dynamic_batching { " * 5_000, "[" * 50_000):
        message, problems = parse(text)
        assert message is None
        assert problems


def rubbish(folder, pick, depth=0):
    """Files and folders with names that mean something, and contents that mean nothing."""
    names = [
        "config.pbtxt",
        "1",
        "2",
        "01",
        "model.onnx",
        "model.py",
        "model.plan",
        "model.pt",
        "labels.txt",
        "configs",
    ]
    for name in pick.sample([*names, "warmup", ".git", "a b", "x\ny", "\udce9"], 6):
        path = folder / name
        kind = pick.randrange(7 if depth < 3 else 5)
        if kind == 0:
            path.symlink_to(pick.choice([name, "..", "nowhere", "/dev/zero", "/proc/self/mem"]))
        elif kind == 1:
            os.mkfifo(path)
        elif kind == 2:
            path.write_bytes(pick.randbytes(pick.randrange(200)))
        elif kind in (3, 4):
            path.write_text(pick.choice(EXAMPLES))
        else:
            path.mkdir()
            rubbish(path, pick, depth + 1)


@pytest.mark.parametrize("seed", range(25))
def test_folders_of_rubbish_are_judged(tmp_path, seed):
    rubbish(tmp_path, random.Random(seed))
    for config_only in (False, True):
        judged = check_repositories([tmp_path], config_only=config_only)
        assert [one for one in judged.found if one.rule == "internal"] == []


def test_a_sparse_file_of_ten_gigabytes_is_not_read(tmp_path):
    for name in ("model.onnx", "model.plan", "model.pt", "model.py"):
        folder = tmp_path / name.replace(".", "_") / "1"
        folder.mkdir(parents=True)
        with (folder / name).open("wb") as file:
            file.truncate(10 << 30)
    judged = check_repositories([tmp_path])
    assert [one for one in judged.found if one.rule == "internal"] == []
