"""Each rule fires where it should, says what it should, and points to the right place; good ensembles pass."""

from dataclasses import replace

import pytest

from builder.ensemble.checks import check
from builder.ensemble.places import SPEC_PLACES
from builder.ensemble.rules import AT_REQUEST, RULES
from tests.builder.ensemble.broken import BROKEN, GOOD
from tests.builder.ensemble.small import ENCODER, TOKENIZE, graph, model, search, step


@pytest.mark.parametrize(("rule", "message", "broken"), BROKEN, ids=[f"{k}-{row[0]}" for k, row in enumerate(BROKEN)])
def test_each_broken_ensemble_is_told_in_these_words(rule, message, broken):
    found = [(found.id, hit.message) for found, hit in check(broken)]
    assert (rule, message) in found
    assert all(hit.fix for _, hit in check(broken))


def test_every_rule_has_an_ensemble_that_breaks_it_and_a_page():
    assert {row[0] for row in BROKEN} == {rule.id for rule in RULES}
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.reason and rule.fix and rule.bad and not rule.title.endswith(".")
        assert rule.good or rule.severity == "info"
    assert {rule.severity for rule in RULES if rule.id in AT_REQUEST} == {"error"}


@pytest.mark.parametrize("good", GOOD, ids=range(len(GOOD)))
def test_a_good_ensemble_has_nothing_said_against_it(good):
    assert [(rule.id, hit.message) for rule, hit in check(good) if rule.severity != "info"] == []


FIXES = [
    ("ensemble-model-missing", "did you mean 'encoder'?"),
    ("ensemble-unknown-input", "did you mean 'ids'? It has ids int64[batch, seq], mask int64[batch, seq]"),
    ("ensemble-input-unconnected", "what fits: tokenize.ids int64[batch, seq], tokenize.mask int64[batch, seq]"),
    ("ensemble-not-produced", "did you mean 'mask'?"),
    ("ensemble-version", "let the model's version_policy serve it, or write -1 for the latest"),
    ("ensemble-dtype", "cast int64 to int32 in the one, or take int64 in the other"),
    ("ensemble-unused-input", "take it out"),
    ("ensemble-unused-tensor", "take 'scores' out of the step's outputs, or make 'scores' an output of the ensemble"),
    ("ensemble-max-batch-size", "write max_batch_size: 8 for the ensemble, or raise that of 'tokenize'"),
]


@pytest.mark.parametrize(("rule", "fix"), FIXES)
def test_the_fix_names_what_is_near(rule, fix):
    broken = next(row[2] for row in BROKEN if row[0] == rule)
    assert next(hit.fix for found, hit in check(broken) if found.id == rule) == fix


def test_without_anything_near_the_fix_lists_what_there_is():
    lost = search()
    lost = replace(lost, steps=(replace(lost.steps[0], model=None, model_name="qqq"), lost.steps[1]))
    assert [
        hit.fix for rule, hit in check(replace(lost, models=("a", "b"))) if rule.id == "ensemble-model-missing"
    ] == ["one of a, b"]
    assert "Add the model" in next(hit.fix for rule, hit in check(lost) if rule.id == "ensemble-model-missing")
    alone = graph(
        {"x": "float32[1]"},
        {"y": "float32[1]"},
        step(model("m", {"z": "int8[2, 2]"}, {"y": "float32[1]"}), {"q": "x"}, {"y": "y"}),
    )
    fixes = [hit.fix for rule, hit in check(alone) if rule.id == "ensemble-input-unconnected"]
    assert fixes == ["nothing here fits: make it an input of the ensemble"]


def test_paths_lead_to_the_place_in_either_notation():
    bad = search(
        encoder=model(
            "encoder", {"ids": "int32[batch, seq]", "mask": "int64[batch, seq]"}, {"embedding": "float32[batch, 384]"}
        ),
        batch=64,
    )
    paths = {rule.id: hit.path for rule, hit in check(bad)}
    assert paths["ensemble-dtype"] == ("ensemble_scheduling", "step", 1, "input_map", "ids")
    assert paths["ensemble-max-batch-size"] == ("ensemble_scheduling", "step", 1, "model_name")
    spec = {rule.id: hit.path for rule, hit in check(bad, SPEC_PLACES)}
    assert spec["ensemble-dtype"] == ("steps", 1, "inputs", "ids")
    assert spec["ensemble-max-batch-size"] == ("steps", 1, "model")
    unused = search(inputs={"text": "string[batch, 1]", "language": "string[batch, 1]"})
    assert [hit.path for _, hit in check(unused)] == [("input", 1)]
    assert [hit.path for _, hit in check(unused, SPEC_PLACES)] == [("inputs", "language")]


def test_one_ensemble_may_have_many_faults_told_in_a_fixed_order():
    worst = search(
        inputs={"text?": "string[batch, 1]", "spare": "string[batch, 1]"},
        outputs={"embedding": "float16[batch, 3]"},
        batch=64,
    )
    found = [rule.id for rule, _ in check(worst)]
    assert found == [
        "ensemble-unused-input", "ensemble-dtype", "ensemble-shape", "ensemble-max-batch-size",
        "ensemble-max-batch-size", "ensemble-optional",
    ]  # fmt: skip
    assert check(worst) == check(worst)


def test_a_circle_is_told_once_and_does_not_hide_the_rest():
    a = model("a", {"x": "int8[1]", "b": "int8[1]"}, {"y": "int8[1]"}, batch=0)
    ring = graph(
        {"x": "int8[1]"},
        {"y": "int8[1]"},
        *(step(replace(a, name=n), {"x": "x", "b": f"t{k}"}, {"y": f"t{(k + 1) % 3}"}) for k, n in enumerate("abc")),
        batch=0,
    )
    found = [(rule.id, hit.message) for rule, hit in check(ring)]
    assert ("ensemble-cycle", "steps wait for each other: a -(t1)-> b, b -(t2)-> c, c -(t0)-> a") in found
    assert [rule for rule, _ in found].count("ensemble-cycle") == 1
    assert ("ensemble-not-produced", "output 'y' is made by no step") in found


def test_versions_of_a_model_that_none_serves():
    none = replace(ENCODER, served=(), versions=())
    bad = search(encoder=none)
    bad = replace(bad, steps=(bad.steps[0], replace(bad.steps[1], model_version=1)))
    assert [hit.message for _, hit in check(bad)] == ["step 'encoder' asks for version 1 of 'encoder'; served: none"]
    assert check(search(encoder=replace(none, served=None), tokenize=replace(TOKENIZE, versions=None))) == []
