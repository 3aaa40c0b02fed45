"""overrides.yaml over models.yaml: what is merged, what gives way, and what is said where it does not fit."""

import pytest
import yaml

from builder.api import load_spec
from builder.errors import SpecError
from builder.incremental.keys import Subject, fingerprints_of
from builder.spec.overrides import overrides_path

MODEL = {
    "source": {"python": "model.py:load"},
    "inputs": {"x": "float32[batch, 4]"},
    "outputs": {"y": "float32[batch, 2]"},
    "variants": ["onnx-fp32", "onnx-fp16"],
    "serve": "onnx-fp32",
}


@pytest.fixture
def write(tmp_path):
    """``write(model, overrides)``: a spec with one model, ``m``, and a text of overrides beside it; gives its path."""

    def make(model=None, overrides=None, name="models.yaml"):
        path = tmp_path / name
        (tmp_path / "model.py").write_text("def load(): ...\n")
        path.write_text(yaml.safe_dump({"repository": "repo", "models": {"m": {**MODEL, **(model or {})}}}))
        if overrides is not None:
            overrides_path(path).write_text(overrides)
        return path

    return make


def test_fields_are_laid_over_those_of_the_spec(write):
    batch = {"max": 16, "preferred": [4], "max_queue_delay_microseconds": 300, "preserve_ordering": True}
    model = {"batch": batch, "instances": {"kind": "KIND_CPU"}, "parameters": {"execution_mode": "1"}}
    text = """\
models:
  m:
    serve: onnx-fp16
    batch: {preferred: [], max: 32}
    instances: {count: 2}
    parameters: {intra_op_thread_count: "1"}
evidence:
  m: {anything: [1, 2]}
"""
    spec = load_spec(write(model, text))
    tuned = spec.models["m"]
    assert spec.overridden == ("m",) and tuned.serve == "onnx-fp16"
    assert (tuned.batch.max, tuned.batch.preferred, tuned.batch.max_queue_delay_microseconds) == (32, (), 300)
    assert tuned.batch.preserve_ordering and (tuned.instances[0].count, tuned.instances[0].kind) == (2, "KIND_CPU")
    assert dict(tuned.parameters) == {"execution_mode": "1", "intra_op_thread_count": "1"}


def test_a_field_under_config_gives_way_to_an_overridden_short_form(write):
    config = {
        "instance_group": [{"count": 4, "kind": "KIND_CPU"}],
        "dynamic_batching": {"preferred_batch_size": [4], "preserve_ordering": True},
        "parameters": {"a": {"string_value": "1"}, "b": {"string_value": "2"}},
    }
    text = "models: {m: {instances: {count: 2}, batch: {preferred: [8]}, parameters: {a: '7'}}}"
    tuned = load_spec(write({"config": config}, text)).models["m"]
    assert tuned.config == {"dynamic_batching": {"preserve_ordering": True}, "parameters": {"b": {"string_value": "2"}}}
    assert tuned.instances[0].count == 2 and tuned.batch.preferred == (8,)


def test_a_list_of_one_group_keeps_what_is_not_overridden(write):
    tuned = load_spec(write({"instances": [{"kind": "KIND_CPU"}]}, "models: {m: {instances: {count: 3}}}")).models["m"]
    assert [(group.count, group.kind) for group in tuned.instances] == [(3, "KIND_CPU")]


def test_an_override_changes_what_the_steps_depend_on(write):
    def said():
        spec = load_spec(path)
        return Subject("m", spec, spec.models["m"], fingerprints_of(spec)).said("batch", "instances", "serve")

    path = write()
    before = said()
    overrides_path(path).write_text("models: {m: {instances: {count: 2}}}")
    after = said()
    assert {key for key in before if before[key] != after[key]} == {"spec:instances"}
    overrides_path(path).unlink()
    assert said() == before


def test_another_spec_has_overrides_of_its_own_name(write):
    path = write(None, "models: {m: {instances: {count: 2}}}", name="mine.yaml")
    assert overrides_path(path).name == "mine.overrides.yaml" and load_spec(path).models["m"].instances[0].count == 2


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("models:\n  m:\n    batch:\n      max: many\n", 4, "batch.max"),
        ("models:\n  m:\n    instances: {count: 0}\n", 3, "instances"),
        ("models:\n  m:\n    serve: onnx-int9\n", 3, "onnx-int9"),
        ("models:\n  m:\n    source: {}\n", 3, "cannot be overridden"),
        ("models:\n  m: 3\n", 2, "no mapping"),
        ("models:\n  other: {}\n", 2, "does not have"),
        ("model:\n  m: {}\n", 1, "unknown key"),
        ("models:\n  m:\n    batch: {preferred: [99]}\n", 3, "preferred"),
        ("models:\n  m: {}\n  m: {}\n", 3, "twice"),
        ("models: [\n", 2, "not valid YAML"),
    ],
)
def test_what_does_not_fit_is_said_with_file_and_line(write, text, line, what):
    path = write(None, text)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    said = str(caught.value)
    assert f"{overrides_path(path)}:{line}" in said and what in said, said


def test_without_the_file_and_with_an_empty_one_nothing_changes(write):
    assert load_spec(write()).overridden == ()
    assert load_spec(write(None, "")).overridden == ()
    assert load_spec(write(None, "models: {}\nevidence: {}\n")).overridden == ()


def test_the_rate_limiter_of_a_joint_search_wins_over_the_instances_of_the_spec(write):
    group = "{count: 2, kind: KIND_CPU, rate_limiter: {resources: [{name: cores, count: 1}]}}"
    text = f"models:\n  m: {{batch: {{preferred: []}}, config: {{instance_group: [{group}]}}}}\n"
    tuned = load_spec(write({"instances": {"count": 4}}, text)).models["m"]
    (found,) = tuned.config["instance_group"]
    assert found["rate_limiter"]["resources"][0]["name"] == "cores" and found["count"] == 2
