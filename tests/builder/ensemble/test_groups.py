"""Which steps could be one model, and why others could not."""

from dataclasses import replace

import pytest

from builder.ensemble.checks import check
from builder.ensemble.groups import fused_graph, fused_model, group_of, groups, why_not
from tests.builder.ensemble.broken import BROKEN
from tests.builder.ensemble.small import graph, model, search, step

F4 = "float32[batch, 4]"
ONE = model("one", {"x": F4}, {"y": F4}, format="onnx")
JOIN = model("join", {"a": F4, "b": F4}, {"c": F4}, format="onnx")


def chain(*models, outputs=None):
    """x -> m0 -> m1 -> ... -> y"""
    names = ["x", *(f"m{k}" for k in range(len(models) - 1)), "y"]
    steps = [step(one, {"x": names[k]}, {"y": names[k + 1]}) for k, one in enumerate(models)]
    return graph({"x": F4}, outputs or {"y": F4}, *steps)


def named(count, **fields):
    return [replace(ONE, name=f"s{k}", **fields) for k in range(count)]


def diamond(*, middle=ONE):
    """a -> (b, c) -> d"""
    return graph(
        {"x": F4},
        {"y": F4},
        step(JOIN, {"a": "p", "b": "q"}, {"c": "y"}, name="d"),
        step(ONE, {"x": "t"}, {"y": "p"}, name="b"),
        step(middle, {"x": "t"}, {"y": "q"}, name="c"),
        step(ONE, {"x": "x"}, {"y": "t"}, name="a"),
    )


def members(whole):
    return [[whole.steps[index].name for index in group.steps] for group in groups(whole)]


def test_a_chain_of_onnx_steps_is_one_group():
    found = groups(chain(*named(3), outputs={"m1": F4, "y": F4}))
    assert [(group.steps, group.inputs, group.outputs) for group in found] == [((0, 1, 2), ("x",), ("m1", "y"))]


def test_what_is_not_onnx_cuts_a_chain():
    a, b, c, d, e = named(5)
    assert members(chain(a, b, replace(c, format="python"), d, e)) == [["s0", "s1"], ["s3", "s4"]]
    assert members(chain(a, replace(b, format="python"), c)) == []


def test_a_branch_is_in_the_group_only_if_nothing_lies_between():
    assert members(diamond()) == [["a", "b", "c", "d"]]
    cut = diamond(middle=replace(ONE, name="c", format="python"))
    assert members(cut) == [["a", "b"]]
    indices = [index for index, one in enumerate(cut.steps) if one.name in ("a", "b", "d")]
    assert why_not(cut, indices) == ["c lies between a and d"]


REASONS = [
    ({"format": "python"}, "s1 is no ONNX model, but python"),
    ({"format": ""}, "s1 is no ONNX model, but of an unknown backend"),
    ({"decoupled": True}, "s1 is decoupled"),
    ({"sequence": True}, "s1 keeps the state of sequences"),
    ({"response_cache": True}, "s1 has its answers cached, which would be lost"),
    ({"inputs": None}, "s1: its model is not known"),
    ({"inputs": (replace(ONE.inputs[0], ragged=True),)}, "s1.x takes ragged batches"),
    ({"inputs": (*ONE.inputs, replace(ONE.inputs[0], name="w", optional=True))}, "s1.w is not connected"),
    ({"max_batch_size": 0}, "s0 batches, s1 does not"),
    ({"instance_kinds": ("KIND_GPU",)}, "s0 runs on wherever the server decides, s1 on KIND_GPU"),
]


@pytest.mark.parametrize(("fields", "reason"), REASONS, ids=[row[1] for row in REASONS])
def test_what_keeps_steps_apart_is_said(fields, reason):
    one, two = named(2)
    apart = chain(one, replace(two, **fields))
    assert why_not(apart, [0, 1]) == [reason]
    assert groups(apart) == []


def test_steps_that_do_not_touch_are_no_group():
    lonely = graph(
        {"x": F4}, {"p": F4, "q": F4}, step(ONE, {"x": "x"}, {"y": "p"}), step(ONE, {"x": "x"}, {"y": "q"}, name="two")
    )
    assert why_not(lonely, [0, 1]) == ["no tensor goes between one and two"]
    assert groups(lonely) == []


def test_a_circle_has_no_groups():
    assert groups(next(row[2] for row in BROKEN if row[0] == "ensemble-cycle")) == []


def test_the_ensemble_with_the_group_as_one_step_is_as_good_as_before():
    whole = chain(*named(2), replace(ONE, name="s2", format="python"), outputs={"m0": F4, "y": F4})
    group = group_of(whole, [0, 1])
    fused = fused_graph(whole, group, "s0_s1")
    assert [one.name for one in fused.steps] == ["s0_s1", "s2"]
    assert (fused.steps[0].inputs, fused.steps[0].outputs) == ({"x": "x"}, {"m0": "m0", "m1": "m1"})
    assert fused_model(whole, group, "s0_s1") == model("s0_s1", {"x": F4}, {"m0": F4, "m1": F4}, format="onnx")
    assert check(fused) == []
    assert [rule.id for rule, _ in check(whole)] == ["ensemble-fusable"]


def test_a_group_whose_tensors_are_not_known_is_no_model():
    whole = search()
    lost = replace(whole, steps=(replace(whole.steps[0], model=None), whole.steps[1]))
    with pytest.raises(ValueError, match="tensor 'text' is not known"):
        fused_model(lost, group_of(lost, [0, 1]), "m")
