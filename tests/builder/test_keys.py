"""Every key is changed alone: exactly the steps that depend on it run again, and the reason says what changed.

What is keyed by nobody is a stale artifact in somebody's repository: a field that is added to the spec fails here until
somebody says what it changes.
"""

import json
import os
import textwrap
import types
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from builder.api import load_spec
from builder.incremental import file_memory, keys, packages
from builder.incremental.cache import Record, digest_of
from builder.incremental.file_memory import FileMemory
from builder.incremental.keys import Subject, fingerprints_of
from builder.incremental.steps import inputs_of, steps_of
from builder.pipeline import STAGES
from builder.planning import decide, wanted_of
from builder.spec import ModelSpec, Spec

# A step and those after it, written down once more: what decide() says is held against this.
WITH_WHAT_FOLLOWS = {
    "source": "source reference baseline export parity accuracy config contract serve",
    "samples": "samples reference export parity accuracy config contract serve",
    "reference": "reference parity serve",
    "baseline": "baseline accuracy",
    "export": "export parity accuracy config contract serve",
    "config": "config contract serve",
    "contract": "contract",
    "parity": "parity",
    "accuracy": "accuracy",
    "serve": "serve",
}
USERS_CODE = "source samples baseline accuracy"
TORCH = {
    "source": {"checkpoint": "weights.pt", "factory": "factory.py:build", "args": {"hidden": 4, "vocab": "vocab.txt"}},
    "inputs": {"x": "float32[batch, 2]"},
    "outputs": {"y": "float32[batch, 2]"},
    "batch": {"max": 8, "preferred": [2]},
    "samples": {"python": "data.py:samples", "args": {"count": 4, "where": [{"file": "rows.csv"}]}},
    "evaluate": {"python": "metric.py:accuracy", "args": {"k": 1}, "max_drop": 0.1},
    "labels": {"y": "labels.txt"},
    "depends": ["extra.txt", "tables/*.csv", "$FLAVOUR"],
}
MODELS = {
    "torch": TORCH,
    "existing": {"source": {"onnx": "existing.onnx"}},
    "hub": TORCH | {"source": {"huggingface": "hub"}, "depends": []},
    "words": {
        "source": {"python_model": "words.py:Words", "args": {"vocab": "vocab.txt"}, "files": ["extra.txt"]},
        "inputs": {"text": "string[batch, 1]"},
        "outputs": {"x": "float32[batch, 2]"},
        "samples": {"python": "data.py:samples"},
    },
    "both": {"ensemble": {"steps": ["words", "torch"]}, "evaluate": {"python": "metric.py:accuracy"}},
}
FILES = (
    *("weights.pt", "factory.py", "vocab.txt", "data.py", "rows.csv", "metric.py", "labels.txt", "extra.txt"),
    *("tables/a.csv", "existing.onnx", "hub/config.json", "hub/deep/model.safetensors", "unrelated.txt"),
    "words.py",
)


class Project:
    """A spec's folder, and what is kept of one of its models, as if it had been built."""

    def __init__(self, folder):
        self.folder = folder
        self.memory = FileMemory(folder / "files.json")
        for name in FILES:
            self.write(name, f"content of {name}")
        self.spec = self.load()

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def load(self, name="models.yaml", **root):
        (self.folder / name).write_text(json.dumps({"models": MODELS, "repository": "out"} | root))  # is YAML
        return load_spec(self.folder / name)

    def subject(self, model="torch", spec=None):
        spec = spec or self.spec
        return Subject(model, spec, spec.models[model], fingerprints_of(spec, self.memory))

    def records(self, subject, reads=None):
        """What a build would keep: every step's inputs as they are, a digest made of them."""
        digests, records = {}, {}
        for step in steps_of(subject):
            inputs = inputs_of(step, subject, digests)
            digests[step.name] = digest_of(inputs)
            seen = {key: subject.now.of(key) for key in reads or () if step.runs_user_code}
            records[step.name] = [Record(inputs, seen, digests[step.name])]
        return records


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(file_memory, "_SETTLED_NS", -1)  # hashes are remembered at once: a change must be seen by facts
    monkeypatch.setattr(keys, "own_version", lambda: "0.1.0+same")
    monkeypatch.setattr(keys, "_host", lambda: {"host:cpu": "A CPU", "host:machine": "x86_64"})
    monkeypatch.setattr(keys, "_triton", lambda *places: "Triton 1")
    monkeypatch.setattr(keys, "unavailable", lambda *of: None)
    monkeypatch.setenv("FLAVOUR", "vanilla")
    return Project(tmp_path)


def wanted(subject, records):
    return {decision.step for decision in decide(subject, records) if decision.record is None}


def following(steps, subject):
    """These steps and all that follow, of those that the model has."""
    all_of_them = {name for step in steps.split() for name in WITH_WHAT_FOLLOWS[step].split()}
    return all_of_them & {step.name for step in steps_of(subject)}


def reasons(subject, records):
    return [reason for decision in decide(subject, records) for reason in decision.why if "will run" not in reason]


def check(subject, records, steps, reason=None):
    """Exactly these steps and those after them run; each of these says the reason."""
    assert wanted(subject, records) == following(steps, subject)
    said = {decision.step: decision.why for decision in decide(subject, records)}
    for step in steps.split():
        if step in said and not any("will run" in why for why in said[step]):
            assert said[step] == (reason,), step
    if steps:
        assert reason in reasons(subject, records)


# -- the ground ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_nothing_changed_and_nothing_runs(project, model):
    records = project.records(project.subject(model), reads=["file:unrelated.txt", "folder:tables", "module:numpy"])
    decisions = decide(project.subject(model), records)
    assert [decision.step for decision in decisions] == list(records)
    assert wanted(project.subject(model), records) == set()
    project.memory.save()
    project.memory = FileMemory(project.folder / "files.json")
    assert wanted(project.subject(model), records) == set()


def test_nothing_is_kept_and_everything_runs(project):
    decisions = decide(project.subject(), {})
    assert all(decision.record is None for decision in decisions)
    said = {decision.step: decision.why for decision in decisions}
    assert said["source"] == ("it has not run yet",)
    assert said["serve"] == ("export and config and reference will run",)
    assert wanted_of(project.subject(), decisions) is None


def test_force_runs_everything(project):
    decisions = decide(project.subject(), project.records(project.subject()), force=True)
    assert {decision.why for decision in decisions} == {("--force",)}


EVERYTHING = {
    "samples": {"python": "data.py:samples"},
    "variants": ["onnx-fp32", "onnx-int8", "onnx-fp16", "tensorrt-rtx-int8"],
    "serve": "fastest",
}


def test_every_stage_is_keyed_in_the_order_it_runs(project):
    plain = steps_of(project.subject())
    assert [step.name for step in plain] == WITH_WHAT_FOLLOWS["source"].replace("source ", "source samples ").split()
    steps = steps_of(Subject("m", project.spec, _model(EVERYTHING), project.subject().now))
    fused = ModelSpec.model_validate(MODELS["both"] | {"ensemble": {"steps": ["torch"], "fuse": True}})
    as_it_is = steps_of(Subject("both", project.spec, fused, project.subject().now))
    assert {step.stage for step in (*steps, *as_it_is)} == set(STAGES)
    for number, step in enumerate(steps):
        assert set(step.after) <= {before.name for before in steps[:number]}


def test_an_older_result_is_found_again(project):
    """Back to the old spec: what is kept of it is used."""
    subject = project.subject()
    records = project.records(subject)
    project.write("factory.py", "changed")
    newer = project.records(project.subject())
    both = {name: newer[name] + records[name] for name in records}
    assert wanted(project.subject(), both) == set()
    project.write("factory.py", "content of factory.py")
    assert wanted(project.subject(), both) == set()
    project.write("factory.py", "something else")
    assert reasons(project.subject(), both) == ["factory.py changed"]


# -- the spec ------------------------------------------------------------------------------------------------------


def _leaves(model: type[BaseModel], prefix=""):
    """Every field of the spec to the depth that is typed: ``batch.max``; free mappings are one field."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = [kind for kind in _kinds(field.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if inner:
            yield from _leaves(inner[0], f"{path}.")
        else:
            yield path


def _kinds(annotation):
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple):  # a list of parts is as its part
        return [kind for part in typing.get_args(annotation) for kind in _kinds(part)]
    return [annotation]


def _config(field, before, after, known=None):
    """A row of FIELDS: a field that changes the configuration alone, beside what it needs."""
    both: list = []
    for value in (before, after):
        for depth, name in enumerate(reversed(field.split("."))):
            value = (known or {}) | {name: value} if depth == 0 and "." in field else {name: value}
        both.append(value)
    return {field: (*both, "reference config" if field.startswith("sequence") else "config", None)}


LEVELS = {"priority_levels": 3, "default_priority_level": 2}


def _source(**source):
    return {"source": source}


CODE = "factory.py:build"
CHECKPOINT = {"checkpoint": "weights.pt", "factory": CODE}
# field: (the model before, after, steps that run, the reason)
FIELDS = {
    "source.python": (
        _source(python=CODE),
        _source(python="factory.py:other"),
        "source",
        'the spec: source.python "factory.py:build" -> "factory.py:other"',
    ),
    "source.args": (
        _source(python=CODE, args={"deep": {"a": 1}}),
        _source(python=CODE, args={"deep": {"a": 2}}),
        "source",
        "the spec: source.args.deep.a 1 -> 2",
    ),
    "source.exported": (
        _source(exported="weights.pt"),
        _source(exported="./weights.pt"),
        "source",
        None,
    ),
    "source.checkpoint": (_source(**CHECKPOINT), _source(**CHECKPOINT | {"checkpoint": "vocab.txt"}), "source", None),
    "source.factory": (
        _source(**CHECKPOINT),
        _source(**CHECKPOINT | {"factory": "factory.py:other"}),
        "source",
        'the spec: source.factory "factory.py:build" -> "factory.py:other"',
    ),
    "source.allow_pickle": (
        _source(**CHECKPOINT),
        _source(**CHECKPOINT, allow_pickle=True),
        "source",
        "the spec: source.allow_pickle false -> true",
    ),
    "source.huggingface": (_source(huggingface="hub"), _source(huggingface="tables"), "source", None),
    "source.class": (
        _source(huggingface="hub"),
        {"source": {"huggingface": "hub", "class": "AutoModelForMaskedLM"}},
        "source",
        'the spec: source.class "AutoModel" -> "AutoModelForMaskedLM"',
    ),
    "source.onnx": (_source(onnx="existing.onnx"), _source(onnx="weights.pt"), "source", None),
    "inputs": (
        {"inputs": {"x": "float32[batch, 2]"}},
        {"inputs": {"x": "float32[batch, n: 1..4]"}},
        "source samples",
        'the spec: inputs.x "float32[batch, 2]" -> "float32[batch, n: 1..4]"',
    ),
    "outputs": (
        {"outputs": {"y": "float32[batch, 2]"}},
        {"outputs": {"y": "float32[batch, 3]"}},
        "source",
        'the spec: outputs.y "float32[batch, 2]" -> "float32[batch, 3]"',
    ),
    "batch.max": ({"batch": {"max": 8}}, {"batch": {"max": 16}}, "reference config", "the spec: batch.max 8 -> 16"),
    "batch.preferred": (
        {"batch": {"preferred": [2]}},
        {"batch": {"preferred": [4]}},
        "config",
        "the spec: batch.preferred [2] -> [4]",
    ),
    "batch.max_queue_delay_microseconds": (
        {"batch": {}},
        {"batch": {"max_queue_delay_microseconds": 9}},
        "config",
        "the spec: batch.max_queue_delay_microseconds 0 -> 9",
    ),
    "batch.dynamic": ({"batch": {}}, {"batch": {"dynamic": False}}, "config", "the spec: batch.dynamic true -> false"),
    "samples.python": (
        {"samples": {"python": "data.py:samples"}},
        {"samples": {"python": "data.py:others"}},
        "samples",
        'the spec: samples.python "data.py:samples" -> "data.py:others"',
    ),
    "samples.args": (
        {"samples": {"python": "data.py:samples", "args": {"count": 4}}},
        {"samples": {"python": "data.py:samples", "args": {"count": 5}}},
        "samples",
        "the spec: samples.args.count 4 -> 5",
    ),
    "evaluate.python": (
        {"evaluate": {"python": "metric.py:accuracy"}},
        {"evaluate": {"python": "metric.py:recall"}},
        "baseline accuracy",
        None,
    ),
    "evaluate.args": (
        {"evaluate": {"python": "metric.py:accuracy", "args": {"k": 1}}},
        {"evaluate": {"python": "metric.py:accuracy", "args": {"k": 2}}},
        "baseline accuracy",
        None,
    ),
    "evaluate.max_drop": (
        {"evaluate": {"python": "metric.py:accuracy"}},
        {"evaluate": {"python": "metric.py:accuracy", "max_drop": 0.5}},
        "accuracy",
        "the spec: evaluate.max_drop 0.0 -> 0.5",
    ),
    "labels": ({"labels": {"y": "labels.txt"}}, {"labels": {}}, "config", None),
    "instances.count": (
        {"instances": {"count": 1}},
        {"instances": {"count": 2}},
        "config",
        "the spec: instances.count 1 -> 2",
    ),
    "instances.kind": (
        {"instances": {"kind": "KIND_CPU"}},
        {"instances": {"kind": "KIND_MODEL"}},
        "config",
        'the spec: instances.kind "KIND_CPU" -> "KIND_MODEL"',
    ),
    "instances.gpus": (
        {"instances": {"gpus": [0]}},
        {"instances": {"gpus": [1]}},
        "config",
        "the spec: instances.gpus [0] -> [1]",
    ),
    "warmup.batch_sizes": (
        {"warmup": {"batch_sizes": [1]}},
        {"warmup": {"batch_sizes": [2]}},
        "config",
        "the spec: warmup.batch_sizes [1] -> [2]",
    ),
    "response_cache": ({}, {"response_cache": True}, "config", "the spec: response_cache false -> true"),
    "export.exporter": (
        {},
        {"export": {"exporter": "torchscript"}},
        "export",
        'the spec: export.exporter "auto" -> "torchscript"',
    ),
    "export.opset": ({}, {"export": {"opset": 17}}, "export", None),
    "depends": ({}, {"depends": ["extra.txt", "tables/*.csv"]}, USERS_CODE, "$FLAVOUR changed"),
    **_config("batch.preserve_ordering", False, True),
    **_config("batch.priority_levels", 3, 4, {"default_priority_level": 2}),
    **_config("batch.default_priority_level", 1, 2, {"priority_levels": 3}),
    **_config("batch.priority_queue_policy", {}, {1: {"max_queue_size": 3}}, LEVELS),
    **{
        row: known
        for name, value in {
            "timeout_action": "DELAY",
            "default_timeout_microseconds": 9,
            "allow_timeout_override": True,
            "max_queue_size": 7,
        }.items()
        for row, known in {
            f"batch.default_queue_policy.{name}": (
                {"batch": {"default_queue_policy": {}}},
                {"batch": {"default_queue_policy": {name: value}}},
                "config",
                None,
            )
        }.items()
    },
    **_config("instances.name", "a", "b"),
    **_config("instances.host_policy", "a", "b"),
    **_config("instances.passive", False, True),
    **_config("instances.profile", ["0"], ["1"]),
    "instances.rate_limiter.priority": (
        {"instances": {"rate_limiter": {"priority": 1}}},
        {"instances": {"rate_limiter": {"priority": 2}}},
        "config",
        "the spec: instances.rate_limiter.priority 1 -> 2",
    ),
    **{
        f"instances.rate_limiter.resources.{name}": (
            {"instances": {"rate_limiter": {"resources": [{"name": "a"}]}}},
            {"instances": {"rate_limiter": {"resources": [{"name": "a", name: value}]}}},
            "config",
            None,
        )
        for name, value in {"name": "b", "count": 2, "global": True}.items()
    },
    **{
        f"instances.secondary_devices.{name}": (
            {"instances": {"secondary_devices": []}},
            {"instances": {"secondary_devices": [{name: value}]}},
            "config",
            None,
        )
        for name, value in {"kind": "KIND_NVDLA", "device_id": 1}.items()
    },
    **_config("warmup.data", "zero", "random"),
    **_config("warmup.samples", 1, 2),
    **_config("warmup.count", 1, 2),
    **{
        f"sequence.{strategy}.{name}": (
            {"sequence": {strategy: least}},
            {"sequence": {strategy: least | {name: value}}},
            "reference config",
            None,
        )
        for strategy, least, changes in (
            ("direct", {}, {"max_queue_delay_microseconds": 5, "minimum_slot_utilization": 0.5}),
            (
                "oldest",
                {"max_candidate_sequences": 8},
                {
                    "max_candidate_sequences": 9,
                    "preferred_batch_size": [2],
                    "max_queue_delay_microseconds": 5,
                    "preserve_ordering": True,
                },
            ),
        )
        for name, value in changes.items()
    },
    **_config("sequence.max_sequence_idle_microseconds", 1, 2),
    **_config("sequence.controls", {}, {"x": {"START": [0, 1]}}),
    **_config("sequence.iterative", False, True),
    **{
        f"sequence.state.{name}": (
            {"sequence": {"state": [{"input_name": "x", "output_name": "y"}]}},
            {"sequence": {"state": [{"input_name": "x", "output_name": "y", name: value}]}},
            "reference config",
            None,
        )
        for name, value in {
            "initial_state": "zero",
            "use_same_buffer_for_input_output": True,
            "use_growable_memory": True,
        }.items()
    },
    "sequence.state.input_name": (
        {"sequence": {"state": []}},
        {"sequence": {"state": [{"input_name": "x", "output_name": "y"}]}},
        "reference config",
        None,
    ),
    "sequence.state.output_name": (
        {"sequence": {"state": [{"input_name": "x", "output_name": "y", "initial_state": "zero"}]}},
        {"sequence": {"state": [{"input_name": "x", "output_name": "y", "initial_state": "vocab.txt"}]}},
        "reference config",
        None,
    ),
    **_config("tensors", {}, {"x": {"format": "FORMAT_NCHW"}}),
    **_config("versions", "all", "latest 2"),
    **_config("optimization.graph_level", 1, 2),
    **_config("optimization.priority", "PRIORITY_MAX", "PRIORITY_MIN"),
    **_config("optimization.gpu_execution_accelerator.name", "a", "b"),
    **_config("optimization.cpu_execution_accelerator.name", "a", "b"),
    **_config("optimization.gpu_execution_accelerator.parameters", {}, {"a": "b"}, {"name": "n"}),
    **_config("optimization.cpu_execution_accelerator.parameters", {}, {"a": "b"}, {"name": "n"}),
    **_config("optimization.cuda.graphs", False, True),
    **_config("optimization.cuda.busy_wait_events", False, True),
    **_config("optimization.cuda.output_copy_stream", False, True),
    **{
        f"optimization.cuda.graph_spec.{key}": (
            {"optimization": {"cuda": {"graphs": True, "graph_spec": [{}]}}},
            {"optimization": {"cuda": {"graphs": True, "graph_spec": [graph]}}},
            "config",
            None,
        )
        for key, graph in {
            "batch_size": {"batch_size": 2},
            "input": {"input": {"x": [2]}},
            "graph_lower_bound.batch_size": {"graph_lower_bound": {"batch_size": 1}},
            "graph_lower_bound.input": {"graph_lower_bound": {"input": {"x": [1]}}},
        }.items()
    },
    **_config("optimization.input_pinned_memory", True, False),
    **_config("optimization.output_pinned_memory", True, False),
    **_config("optimization.gather_kernel_buffer_threshold", 1, 2),
    **_config("optimization.eager_batching", True, False),
    **_config("parameters", {"a": "1"}, {"a": "2"}),
    **_config("metric_tags", {"a": "1"}, {"a": "2"}),
    **_config("metrics", {"a": [1]}, {"a": [1, 2]}),
    **_config("operations", ["a.so"], ["b.so"]),
    **_config("agents.name", "a", "b"),
    **_config("agents.parameters", {"a": "1"}, {"a": "2"}, {"name": "n"}),
    **_config("hosts", {"a": {}}, {"b": {}}),
    "config": (
        {"config": {"parameters": {"a": {"string_value": "1"}}}},
        {"config": {"parameters": {"a": {"string_value": "2"}}}},
        "config",
        'the spec: config.parameters.a.string_value "1" -> "2"',
    ),
}


# The same for what only other variants have: (before, after, steps that run without those that follow).
ALONE = {"variants": ["onnx-int8"], "samples": {"python": "data.py:samples"}}
ENGINE = {"variants": ["onnx-fp32", "tensorrt-rtx-fp32"]}
BOTH = {"variants": ["onnx-fp32", "onnx-fp16"], "serve": "fastest"}
SEARCHED = "precision onnx-int8"


def _engine(**engine):
    return ENGINE | {"engine": engine}


OF_VARIANTS = {
    "variants": (ALONE, ALONE | {"variants": ["onnx-fp16"]}, None),
    "required": (BOTH, BOTH | {"required": ["onnx-fp16"]}, ""),
    "serve": (BOTH, BOTH | {"serve": "onnx-fp32"}, None),
    "load.concurrency": (BOTH, BOTH | {"load": {"concurrency": 3}}, "choose"),
    "load.latency_limit_ms": (BOTH, BOTH | {"load": {"latency_limit_ms": 3}}, "choose"),
    "precision.io": (ALONE, ALONE | {"precision": {"io": "fp16"}}, SEARCHED),
    "precision.calibration.python": (
        ALONE | {"precision": {"calibration": {"python": "data.py:a"}}},
        ALONE | {"precision": {"calibration": {"python": "data.py:b"}}},
        SEARCHED,
    ),
    "precision.calibration.args": (
        ALONE | {"precision": {"calibration": {"python": "data.py:a"}}},
        ALONE | {"precision": {"calibration": {"python": "data.py:a", "args": {"k": 1}}}},
        SEARCHED,
    ),
    "precision.calibrator": (ALONE, ALONE | {"precision": {"calibrator": "entropy"}}, SEARCHED),
    "precision.percentile": (ALONE, ALONE | {"precision": {"percentile": 99.0}}, SEARCHED),
    "precision.keep": (ALONE, ALONE | {"precision": {"keep": ["Softmax"]}}, SEARCHED),
    "precision.recipes": (ALONE, ALONE | {"precision": {"recipes": {"onnx-int8": "vocab.txt"}}}, SEARCHED),
    **{
        f"agreement.{name}": (
            ALONE,
            ALONE | {"agreement": {name: 0.5}},
            "precision onnx-int8, accuracy onnx-int8",
        )
        for name in ("cosine", "top1", "top1_in_top5", "spearman", "recall_at_10")
    },
    **{
        f"engine.{name}": (ENGINE, _engine(**{name: value}), "engine tensorrt-rtx-fp32, config onnx-fp32, config")
        for name, value in {
            "gpu": ["sm86"],
            "profiles": [{"x": {"min": [1, 2], "opt": [8, 2], "max": [8, 2]}}],
            "workspace": "1GB",
            "optimization_level": 2,
            "version_compatible": True,
            "hardware_compatibility": "ampere_plus",
            "sparsity": True,
            "refit": True,
            "weight_streaming": True,
            "plugins": ["vocab.txt"],
            "dla_core": 1,
            "timing_cache": "vocab.txt",
            "server_tensorrt": "10.13.3.9",
        }.items()
    },
}


# And for what is served as it is: (model, changes of its entry, steps that run without those that follow).
AS_IT_IS = {
    "source.python_model": ("words", {"source": {"python_model": "words.py:Others"}}, "source, package"),
    "source.requirements": (
        "words",
        {"source": MODELS["words"]["source"] | {"requirements": ["tokenizers==0.22.1"]}},
        "source, package",
    ),
    "source.dependencies": (
        "words",
        {"source": MODELS["words"]["source"] | {"dependencies": False}},
        "source, package",
    ),
    "source.files": ("words", {"source": MODELS["words"]["source"] | {"files": ["rows.csv"]}}, "source, package"),
    "source.calls": (
        "words",
        {"source": MODELS["words"]["source"] | {"calls": ["torch"]}},
        "source, package",
    ),
    "decoupled": ("words", {"decoupled": True, "batch": {"max": 0}}, "source, package"),
    "ensemble.steps": ("both", {"ensemble": {"steps": ["words", "torch", "existing"]}}, "source, package"),
    "ensemble.fuse": ("both", {"ensemble": {"steps": ["words", "torch"], "fuse": True}}, "source, package"),
}


@pytest.mark.parametrize("field", AS_IT_IS)
def test_a_field_of_what_is_served_as_it_is_changes(project, field):
    name, changes, first = AS_IT_IS[field]
    records = project.records(project.subject(name))
    model = ModelSpec.model_validate(MODELS[name] | changes)
    changed = Subject(name, project.spec, model, project.subject(name).now)
    assert wanted(changed, records) == _with_all_that_follows(first.split(", "), steps_of(changed))


@pytest.mark.parametrize("file", ["words.py", "vocab.txt", "extra.txt", "factory.py", "weights.pt"])
def test_a_file_of_a_step_changes_the_ensemble(project, file):
    before = project.subject("both")
    records = project.records(before)
    assert wanted(before, records) == set()
    project.write(file, "other")
    assert "source" in wanted(project.subject("both"), records)


def test_a_library_of_operations_changes_what_is_run_with_it(project):
    def subject():
        model = ModelSpec.model_validate(MODELS["existing"] | {"operations": ["ops.so"]})
        return Subject("existing", project.spec, model, project.subject("existing").now)

    project.write("ops.so", "a library")
    records = project.records(subject())
    assert wanted(subject(), records) == set()
    project.write("ops.so", "another")
    assert {"source", "config"} <= wanted(subject(), records)


def test_another_version_of_a_step_changes_the_ensemble(project, monkeypatch):
    records = project.records(project.subject("both"))
    monkeypatch.setattr(keys, "step_content", lambda repository, name: f"another {name}")
    now = project.subject("both")
    assert {"source", "package"} <= wanted(now, records)
    assert "words in the repository is another" in reasons(now, records)
    assert "torch will be built" in reasons_of(decide(now, records, changing=["torch"]))


def reasons_of(decisions):
    return [reason for decision in decisions for reason in decision.why]


def _with_all_that_follows(first, steps):
    found = set()
    for step in steps:
        if step.name in first or found & set(step.after):
            found.add(step.name)
    return found


@pytest.mark.parametrize("field", OF_VARIANTS)
def test_a_field_for_variants_changes(project, field):
    before, after, first = OF_VARIANTS[field]
    subject, changed = (
        Subject("torch", project.spec, _model(changes), fingerprints_of(project.spec, project.memory))
        for changes in (before, after)
    )
    records = project.records(subject)
    assert wanted(subject, records) == set()
    if first is None:  # other steps than before: those that it had run no more
        assert {step.name for step in steps_of(changed)} != {step.name for step in steps_of(subject)}
        assert not wanted(changed, records) & {"source", "samples", "reference", "export", "parity"}
        return
    assert wanted(changed, records) == _with_all_that_follows(first.split(", "), steps_of(changed))


def test_what_is_allowed_is_not_taken_for_what_is_within_the_limits(project):
    strict, lax = (
        Subject("torch", project.spec, _model(ALONE), project.subject().now, allow) for allow in (False, True)
    )
    assert "accuracy onnx-int8" in wanted(strict, project.records(lax))
    assert "accuracy onnx-int8" in wanted(lax, project.records(strict))


def test_the_recipe_that_is_replayed_changes(project):
    project.write("recipe.yaml", "one")
    model = _model(ALONE | {"precision": {"recipes": {"onnx-int8": "recipe.yaml"}}})
    records = project.records(Subject("torch", project.spec, model, project.subject().now))
    project.write("recipe.yaml", "two")
    after = Subject("torch", project.spec, model, project.subject().now)
    assert wanted(after, records) == _with_all_that_follows([SEARCHED], steps_of(after))


def test_every_field_of_the_spec_is_in_the_table():
    """A new field: say in FIELDS what it changes, and key it in builder/incremental/keys.py."""
    assert sorted([*FIELDS, *OF_VARIANTS, *AS_IT_IS]) == sorted(_leaves(ModelSpec))
    # What lies in `overrides.yaml` is in the models; `overridden` only says of which.
    assert sorted(Spec.model_fields) == ["models", "overridden", "path", "repository", "server"]


def _model(changes):
    if "sequence" in changes:  # which has no preferred sizes beside it
        changes = {"batch": {"max": 8}} | changes
    return ModelSpec.model_validate(TORCH | changes)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_the_spec_changes(project, field):
    before, after, steps, reason = FIELDS[field]
    subject, changed = (
        Subject("torch", project.spec, _model(changes), fingerprints_of(project.spec, project.memory))
        for changes in (before, after)
    )
    records = project.records(subject)
    assert wanted(changed, records) == following(steps, changed)
    if reason is not None:
        check(changed, records, steps, reason)
    assert wanted(subject, records) == set()


def test_a_metric_or_samples_that_come_and_go(project):
    full = project.subject()
    without = Subject("torch", project.spec, _model({"samples": None, "evaluate": None}), full.now)
    assert wanted(without, project.records(full)) == following("samples", without)
    assert wanted(full, project.records(without)) == following("samples baseline", full)
    assert {step.name for step in steps_of(without)} == set(WITH_WHAT_FOLLOWS) - {"baseline", "accuracy"}


def test_the_server_that_it_is_for_counts_by_the_opset_it_takes(project):
    records = project.records(project.subject())
    same, older = project.load("models.yaml", server="26.08"), project.load("models.yaml", server="24.10")
    check(project.subject(spec=same), records, "")
    change = "opset: 23 (dynamo), 20 (torchscript) -> 21 (dynamo), 20 (torchscript)"
    check(project.subject(spec=older), records, "export", change)


def test_the_name_of_the_spec_counts_because_it_is_written_into_the_configuration(project):
    records = project.records(project.subject())
    other = project.load("others.yaml")
    check(project.subject(spec=other), records, "config", "spec file: models.yaml -> others.yaml")


def test_the_name_of_the_model_counts_because_it_is_written_into_the_configuration(project):
    subject = project.subject()
    renamed = Subject("another", subject.spec, subject.model, subject.now)
    check(renamed, project.records(subject), "config", "name: torch -> another")


# -- files ---------------------------------------------------------------------------------------------------------


def hidden_change(path):
    """Other content of the same size, and the times as they were."""
    facts = path.stat()
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)


CONTENT = [
    ("torch", "weights.pt", "source"),
    ("torch", "factory.py", "source"),
    ("torch", "vocab.txt", "source"),  # a string in args names it
    ("torch", "data.py", "samples"),
    ("torch", "rows.csv", "samples"),  # deep in args
    ("torch", "metric.py", "baseline accuracy"),
    ("torch", "labels.txt", "config"),
    ("torch", "extra.txt", USERS_CODE),
    ("torch", "tables/a.csv", USERS_CODE),
    ("torch", "unrelated.txt", ""),
    ("torch", "existing.onnx", ""),
    ("torch", "models.yaml", ""),  # its meaning counts, not its text
    ("existing", "existing.onnx", "source samples"),
    ("existing", "weights.pt", ""),
]


@pytest.mark.parametrize(("model", "name", "steps"), CONTENT)
def test_the_content_of_a_file_changes_though_its_size_and_time_do_not(project, model, name, steps):
    records = project.records(project.subject(model))
    hidden_change(project.folder / name)
    check(project.subject(model), records, steps, f"{name} changed")


@pytest.mark.parametrize("name", ["hub/config.json", "hub/deep/model.safetensors"])
def test_a_file_of_a_hugging_face_folder_changes(project, name):
    records = project.records(project.subject("hub"))
    hidden_change(project.folder / name)
    check(project.subject("hub"), records, "source", "hub changed")


@pytest.mark.parametrize(
    ("name", "steps", "reason"),
    [
        ("tables/b.csv", USERS_CODE, "tables/b.csv is named now"),
        ("tables/b.txt", "", None),
        ("another.txt", "", None),
    ],
)
def test_a_file_appears(project, name, steps, reason):
    records = project.records(project.subject())
    project.write(name, "new")
    check(project.subject(), records, steps, reason)


@pytest.mark.parametrize(
    ("name", "steps", "reason"),
    [
        ("weights.pt", "source", "weights.pt is gone"),
        ("labels.txt", "config", "labels.txt is gone"),
        ("tables/a.csv", USERS_CODE, "tables/a.csv is named no more"),
        ("unrelated.txt", "", None),
    ],
)
def test_a_file_goes(project, name, steps, reason):
    records = project.records(project.subject())
    (project.folder / name).unlink()
    check(project.subject(), records, steps, reason)


def test_a_link_leads_elsewhere(project):
    (project.folder / "vocab.txt").unlink()
    (project.folder / "vocab.txt").symlink_to("extra.txt")
    records = project.records(project.subject())
    (project.folder / "vocab.txt").unlink()
    (project.folder / "vocab.txt").symlink_to("rows.csv")
    check(project.subject(), records, "source", "vocab.txt changed")


def test_a_label_file_is_added(project):
    before = Subject("torch", project.spec, _model({"labels": {}}), fingerprints_of(project.spec))
    assert wanted(project.subject(), project.records(before)) == following("config", before)
    assert "labels.txt is named now" in reasons(project.subject(), project.records(before))


@pytest.mark.parametrize(
    ("text", "keys_of_it"),
    [
        ("vocab.txt", ["file:vocab.txt"]),
        ("tables", ["file:tables"]),  # a folder below the spec's: all that is in it
        ("hub/", ["file:hub/"]),
        ("out", []),  # the repository
        (".", []),
        ("..", []),
        ("/", []),
        ("/etc", []),
        ("", []),
        ("no file", []),
        ("x" * 5000, []),
        ("nul\0", []),
    ],
)
def test_only_what_an_argument_can_mean_is_taken_for_a_file(project, text, keys_of_it):
    """``{separator: "/"}`` must not hash the whole disk."""
    (project.folder / "out").mkdir()
    subject = project.subject()
    found = subject.code(["factory.py:build"], {"a": {"b": [text, 3, None]}})
    assert sorted(found) == sorted(["file:factory.py", *keys_of_it])


def test_what_builds_write_is_no_dependency_whatever_a_glob_says(project):
    model = _model({"depends": ["**/*", "out", "./out", "."]})
    subject = Subject("torch", project.spec, model, fingerprints_of(project.spec))
    records = project.records(subject)
    project.write("out/torch/1/model.onnx", "published")
    project.write(".build/cache/x", "kept")
    again = Subject("torch", project.spec, model, fingerprints_of(project.spec))
    assert wanted(again, records) == set()
    project.write("unrelated.txt", "changed")
    changed = Subject("torch", project.spec, model, fingerprints_of(project.spec))
    assert wanted(changed, records) == following(USERS_CODE, changed)


def test_a_module_that_is_named_without_a_file_counts_by_where_it_is(project, monkeypatch):
    """The files that it has are seen when they are imported; another PYTHONPATH shows before."""
    for place in ("one", "two"):
        project.write(f"../{place}/factories.py", "")
    monkeypatch.syspath_prepend(str(project.folder.parent / "one"))
    model = _model(_source(python="factories:build"))
    records = project.records(Subject("torch", project.spec, model, fingerprints_of(project.spec)))
    monkeypatch.syspath_prepend(str(project.folder.parent / "two"))
    (where_one, where_two) = (project.folder.parent / place / "factories.py" for place in ("one", "two"))
    change = f"import factories finds another file: {where_one} -> {where_two}"
    check(Subject("torch", project.spec, model, fingerprints_of(project.spec)), records, "source", change)


# -- what was read while it ran ------------------------------------------------------------------------------------

ALL_USERS_CODE = "source samples reference baseline export accuracy"


@pytest.mark.parametrize(
    ("key", "change", "reason"),
    [
        ("file:helper.py", lambda p: p.write("helper.py", "x"), "helper.py appeared"),
        ("file:unrelated.txt", lambda p: hidden_change(p.folder / "unrelated.txt"), "unrelated.txt changed"),
        ("file:unrelated.txt", lambda p: (p.folder / "unrelated.txt").unlink(), "unrelated.txt is gone"),
        ("folder:images", lambda p: p.write("images/a.png", ""), "images appeared"),
        ("folder:tables", lambda p: p.write("tables/b.txt", ""), "tables/ has other entries"),
        ("there:tuned.pt", lambda p: p.write("tuned.pt", ""), "tuned.pt appeared"),
        ("there:unrelated.txt", lambda p: (p.folder / "unrelated.txt").unlink(), "unrelated.txt is gone"),
        ("module:fast", lambda p: p.write("fast.py", ""), "import fast finds another file: absent -> fast.py"),
    ],
)
def test_what_was_read_while_it_ran_changes(project, key, change, reason):
    records = project.records(project.subject(), reads=[key])
    assert wanted(project.subject(), records) == set()
    change(project)
    check(project.subject(), records, ALL_USERS_CODE, reason)


def test_the_environment_that_was_read_while_it_ran_changes(project, monkeypatch, tmp_path):
    records = project.records(project.subject(), reads=["env:SIZE", "cwd:", "package:numpy"])
    monkeypatch.setenv("SIZE", "large")
    check(project.subject(), records, ALL_USERS_CODE, "$SIZE changed")
    monkeypatch.delenv("SIZE")
    here = Path.cwd()
    monkeypatch.chdir(tmp_path)
    change = f"relative paths start at another folder: {here} -> {tmp_path}"
    check(project.subject(), records, ALL_USERS_CODE, change)


# -- tools and machines --------------------------------------------------------------------------------------------

# distribution: steps that it changes, by model
TOOLS = {
    "torch": ("source samples baseline export accuracy", "samples export"),
    "numpy": ("samples reference baseline export parity accuracy serve", "samples reference export parity serve"),
    "onnx": ("export contract", "source export contract"),
    "onnxscript": ("export", "export"),
    "onnx-ir": ("export", "export"),
    "onnxruntime": ("export parity accuracy", "source export parity"),
    "safetensors": ("source", ""),
    "jinja2": ("config", "config"),
    "protobuf": ("config contract", "config contract"),
    "tritonclient": ("config contract serve", "config contract serve"),
}


def _keyed_tools(project):
    subjects = [project.subject(model) for model in MODELS]
    inputs = [step.inputs(subject) for subject in subjects for step in steps_of(subject)]
    return {key.removeprefix("tool:") for each in inputs for key in each if key.startswith("tool:")}


def test_every_tool_that_is_keyed_is_in_the_table(project):
    assert _keyed_tools(project) == {*TOOLS, "transformers", "python", "triton-repo"}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_changes(project, monkeypatch, tool):
    before = dict(packages.installed())
    records = {model: project.records(project.subject(model)) for model in ("torch", "existing")}
    monkeypatch.setattr(packages, "installed", lambda without=None: before | {tool: "99"})
    change = f"{tool} {before[tool]} -> 99"
    check(project.subject("torch"), records["torch"], TOOLS[tool][0], change)
    steps = TOOLS[tool][1]  # an existing ONNX file: the samples are made for the tensors of the source
    check(project.subject("existing"), records["existing"], f"{steps} samples" if "source" in steps else steps, change)


def test_a_tool_that_only_one_kind_of_source_uses_changes(project, monkeypatch):
    before = dict(packages.installed())
    records = {model: project.records(project.subject(model)) for model in MODELS}
    monkeypatch.setattr(packages, "installed", lambda without=None: before | {"transformers": "99"})
    check(project.subject("hub"), records["hub"], "source", f"transformers {before['transformers']} -> 99")
    check(project.subject("torch"), records["torch"], "")


def test_a_tool_is_taken_away(project, monkeypatch):
    before = dict(packages.installed())
    records = project.records(project.subject())
    monkeypatch.setattr(packages, "installed", lambda without=None: {k: v for k, v in before.items() if k != "jinja2"})
    check(project.subject(), records, "config", f"jinja2 {before['jinja2']} -> absent")


@pytest.mark.parametrize(
    ("what", "value", "reason"),
    [
        ("platform.python_version", "3.99.0", "-> 3.99.0"),
        ("own_version", "0.1.0+other", "triton-repo 0.1.0+same -> 0.1.0+other"),
    ],
)
def test_python_and_our_own_code_change_everything(project, monkeypatch, what, value, reason):
    records = project.records(project.subject())
    monkeypatch.setattr(f"builder.incremental.keys.{what}", lambda: value)
    assert wanted(project.subject(), records) == set(WITH_WHAT_FOLLOWS)
    assert any(reason in said for said in reasons(project.subject(), records))


def test_another_machine_changes_what_is_measured_not_what_is_made(project, monkeypatch):
    records = project.records(project.subject())
    monkeypatch.setattr(keys, "_host", lambda: {"host:cpu": "B CPU", "host:machine": "x86_64"})
    check(project.subject(), records, "reference baseline parity accuracy serve", "another machine: A CPU -> B CPU")


def test_the_machine_is_its_processor(monkeypatch):
    keys._host.cache_clear()
    monkeypatch.setattr(keys, "cpu_model", lambda: "A CPU")
    monkeypatch.setattr(keys.platform, "machine", lambda: "riscv64")
    assert keys._host() == {"host:cpu": "A CPU", "host:machine": "riscv64"}
    keys._host.cache_clear()


def test_another_triton_is_asked_again(project, monkeypatch):
    records = project.records(project.subject())
    monkeypatch.setattr(keys, "_triton", lambda *places: "Triton 2")
    check(project.subject(), records, "serve", "triton: Triton 1 -> Triton 2")


def test_which_triton_it_is_follows_the_environment(tmp_path, monkeypatch):
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    model = ModelSpec.model_validate(TORCH)
    subject = types.SimpleNamespace(model=model)
    embedded = keys.of_serve(subject)["triton"]
    monkeypatch.setenv("TRITONSERVER", str(program))
    assert str(program) in keys.of_serve(subject)["triton"] != embedded


def test_a_variable_that_depends_names_changes(project, monkeypatch):
    records = project.records(project.subject())
    monkeypatch.setenv("FLAVOUR", "chocolate")
    check(project.subject(), records, USERS_CODE, "$FLAVOUR changed")


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("builder/samples.py", True),
        ("builder/verify/parity.py", True),
        ("serving/dtypes.py", True),
        ("serving/backends/onnxruntime/model.py", True),
        ("templates/config.pbtxt.j2", True),
        ("builder/cli.py", False),
        ("perf/report.py", False),
    ],
)
def test_our_own_code_counts_where_it_can_change_a_result(tmp_path, monkeypatch, name, counts):
    for path in ("builder/incremental/keys.py", name):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("before")
    monkeypatch.setattr(keys, "__file__", str(tmp_path / "builder" / "incremental" / "keys.py"))
    keys.own_version.cache_clear()
    before = keys.own_version()
    (tmp_path / name).write_text("after")
    keys.own_version.cache_clear()
    assert (keys.own_version() != before) is counts
    keys.own_version.cache_clear()


def test_many_reasons_are_cut_short(project, monkeypatch):
    before = dict(packages.installed())
    records = project.records(project.subject())
    monkeypatch.setattr(packages, "installed", lambda without=None: before | dict.fromkeys(TOOLS, "99"))
    monkeypatch.setattr(keys, "own_version", lambda: "0.2.0")
    monkeypatch.setattr("builder.incremental.keys.platform.python_version", lambda: "3.99")
    export = next(decision for decision in decide(project.subject(), records) if decision.step == "source")
    assert len(export.why) == 4
    project.write("weights.pt", "changed")
    project.write("factory.py", "changed")
    source = next(decision for decision in decide(project.subject(), records) if decision.step == "source")
    assert source.why[:2] == ("factory.py changed", "weights.pt changed")
    assert source.why[-1] == "and 2 more"


def test_a_long_value_is_told_by_its_hash(project):
    long = {"args": {"words": ["word"] * 50}}
    before = Subject("torch", project.spec, _model(_source(python=CODE, **long)), fingerprints_of(project.spec))
    after = Subject("torch", project.spec, _model(_source(python=CODE)), before.now)
    assert textwrap.shorten(reasons(after, project.records(before))[0], 80) == (
        "the spec: source.args.words ({}) -> null".format(digest_of(["word"] * 50)[:8])
    )


def test_files_that_are_no_more_in_the_cache_are_made_again_where_something_is_to_be_done(project):
    subject = project.subject()
    records = project.records(subject)
    export = records["export"][0]
    records["export"] = [Record(export.inputs, {}, export.digest, {"model.onnx": "gone", "model.onnx.data": "here"})]
    assert wanted(subject, records) == set()
    decisions = decide(subject, records, has=lambda digest: digest == "here")
    assert {d.step: d.why for d in decisions if d.record is None} == {
        "export": ("what it made is no more in the cache",)
    }
