"""Ensembles and Python classes in a spec: what is refused, where, and which models are built before which."""

import json

import pytest

from builder.api import load_spec
from builder.errors import SpecError
from builder.spec.ensembles import depth_of, steps_of, target_of, with_steps

WORDS = {
    "source": {"python_model": "words.py:Words"},
    "inputs": {"text": "string[batch, 1]"},
    "outputs": {"ids": "int64[batch, seq: 1..8]"},
}
ENCODER = {
    "source": {"python": "words.py:load"},
    "inputs": {"ids": "int64[batch, seq: 1..8]"},
    "outputs": {"vector": "float32[batch, 4]"},
    "samples": {"python": "words.py:samples"},
    "variants": ["onnx-fp32", "onnx-int8"],
}


def read(folder, **models):
    (folder / "words.py").write_text("")
    (folder / "models.yaml").write_text(json.dumps({"models": models}))
    return load_spec(folder / "models.yaml")


def problems(folder, **models):
    with pytest.raises(SpecError) as caught:
        read(folder, **models)
    return caught.value.problems


def ensemble(*steps, **more):
    return {"ensemble": {"steps": list(steps)}, **more}


def test_a_step_is_a_model_or_a_variant_of_one(tmp_path):
    spec = read(tmp_path, words=WORDS, encoder=ENCODER, embed=ensemble("words", "encoder_onnx_int8"))
    models = spec.models
    assert target_of(models, "encoder_onnx_int8") == ("encoder", "onnx-int8")
    assert target_of(models, "encoder") == ("encoder", "")
    assert target_of(models, "decoder") is None
    assert steps_of(models, "embed") == ["words", "encoder"]
    assert models["embed"].kind == "ensemble"
    assert models["embed"].served == "ensemble"
    assert models["words"].served == "python"


def test_what_an_ensemble_needs_is_built_before_it(tmp_path):
    spec = read(
        tmp_path, both=ensemble("embed"), other=WORDS, embed=ensemble("words", "encoder"), words=WORDS, encoder=ENCODER
    )
    assert [depth_of(spec.models, name) for name in spec.models] == [2, 0, 1, 0, 0]
    assert with_steps(spec.models, ["both"]) == ["both", "embed", "words", "encoder"]
    assert with_steps(spec.models, ["other"]) == ["other"]


def test_a_step_that_is_no_model(tmp_path):
    (found,) = problems(tmp_path, words=WORDS, encoder=ENCODER, embed=ensemble("words", "encodr"))
    assert found.what == "step 'encodr' is no model of this spec"
    assert found.expected == "words, encoder, encoder_onnx_fp32, encoder_onnx_int8"
    assert found.fix == "did you mean `encoder`?"
    assert "models.embed.ensemble.steps[1]" in found.where


@pytest.mark.parametrize(
    ("models", "what", "way"),
    [
        ({"a": ensemble("a")}, "an ensemble that needs itself", "a -> a"),
        ({"a": ensemble("b"), "b": ensemble("a")}, "ensembles that need each other", "a -> b -> a"),
    ],
)
def test_a_circle(tmp_path, models, what, way):
    (found,) = problems(tmp_path, **models)
    assert found.what == what
    assert found.got == way
    assert found.fix == "take one of these steps out"


def test_two_steps_of_one_name(tmp_path):
    (found,) = problems(tmp_path, words=WORDS, twice=ensemble("words", "words"))
    assert found.what == "two steps are called 'words'"
    assert found.fix == "give one of them a `name`: {name: words_2, model: words}"


def test_a_source_or_an_ensemble_and_not_both(tmp_path):
    (found,) = problems(tmp_path, words=WORDS | ensemble("words"))
    assert found.what == "a model has a `source`, or is an `ensemble`: not both"
    (found,) = problems(tmp_path, words={key: value for key, value in WORDS.items() if key != "source"})
    assert found.what == "`source` is missing; an ensemble has `ensemble` in its place"
    assert found.fix == 'for example source: {python: "model.py:load"}'


@pytest.mark.parametrize(
    ("entry", "key", "kind"),
    [
        (WORDS | {"variants": ["onnx-fp32"]}, "variants", "a Python class"),
        (WORDS | {"export": {"opset": 17}}, "export", "a Python class"),
        (ensemble("words", precision={"io": "fp16"}), "precision", "an ensemble"),
        (ensemble("words", instances={"count": 2}), "instances", "an ensemble"),
    ],
)
def test_what_is_for_models_that_are_converted(tmp_path, entry, key, kind):
    models = {"words": WORDS, "one": entry}
    (found,) = problems(tmp_path, **models)
    assert found.what == f"`{key}` is not for {kind}"
    assert found.fix == f"take it out, or write it at a step: {kind} is served as it is"
    assert f"models.one.{key}" in found.where


def test_a_variant_that_cannot_be_asked_for(tmp_path):
    found = problems(tmp_path, encoder=ENCODER | {"variants": ["onnx-fp32", "python"]})
    assert found[0].what == "'python' cannot be asked for"
    assert found[0].fix == "leave `variants` out: a Python class, or an ensemble, is built in one way"


def test_what_is_only_for_a_class(tmp_path):
    source = {"python": "words.py:load", "requirements": ["tokenizers==1"], "files": ["words.py"]}
    found = problems(tmp_path, encoder=ENCODER | {"source": source})
    assert [each.what for each in found] == ["`requirements` are for `python_model`", "`files` are for `python_model`"]


def test_a_file_of_a_class_that_is_not_there(tmp_path):
    found = problems(tmp_path, words=WORDS | {"source": {"python_model": "wrds.py:Words", "files": ["vocab.txt"]}})
    assert [each.what for each in found] == ["wrds.py is not there", "vocab.txt is not there"]
    assert found[0].fix == "did you mean words.py?"
