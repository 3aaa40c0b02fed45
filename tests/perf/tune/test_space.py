"""What may be tried, and how a configuration is written for the server."""

import json

import pytest

from perf.tune.errors import TuneUsageError
from perf.tune.request import TuneRequest, parse_limit
from perf.tune.space import Settings, config_with, settings_of, space_of
from perf.tune.variants import Variant, find_variants

CONFIG = {
    "name": "m",
    "platform": "onnxruntime_onnx",
    "backend": "onnxruntime",
    "max_batch_size": 16,
    "dynamic_batching": {
        "preferred_batch_size": [4, 8],
        "max_queue_delay_microseconds": "500",
        "preserve_ordering": True,
    },
    "instance_group": [{"name": "m_0", "kind": "KIND_CPU", "count": 2}],
    "parameters": {"execution_mode": {"string_value": "1"}},
}


def variant(tmp_path, name="fp32", inputs=("float32[batch, 4]",), **more):
    named = {f"x{number}": text for number, text in enumerate(inputs)} if inputs is not None else None
    return Variant(name, tmp_path / name, 1, 1 << 20, named, **more)


def space(tmp_path, config=CONFIG, cores=8, free_bytes=None, **more):
    one = variant(tmp_path, **more)
    return space_of([one], {one.name: config}, cores=cores, free_bytes=free_bytes)


def test_a_configuration_is_read_and_written(tmp_path):
    settings = settings_of(CONFIG, "fp32")
    assert settings == Settings("fp32", 2, None, 16, (4, 8), 500)
    same = config_with(CONFIG, settings, "new")
    assert same["name"] == "new" and same["instance_group"] == [{"kind": "KIND_CPU", "count": 2}]
    assert same["dynamic_batching"] == {
        "preferred_batch_size": [4, 8], "max_queue_delay_microseconds": 500, "preserve_ordering": True
    }  # fmt: skip
    other = config_with(CONFIG, Settings("fp32", 3, 1, 32, (), 0), "new")
    assert settings_of(other, "fp32") == Settings("fp32", 3, 1, 32, (), 0)
    assert other["parameters"]["execution_mode"] == {"string_value": "1"}
    assert "dynamic_batching" not in config_with(CONFIG, settings, "new", batcher=False)


def test_all_knobs_of_a_free_artifact_are_searched(tmp_path):
    found = space(tmp_path)
    assert found.instances == (1, 2, 4, 8) and found.threads == (None, 1, 4)
    assert found.max_batch_sizes == (16, 32, 64) and found.notes == ()
    every = list(found.settings())
    assert every[0] == found.default and len(set(every)) == len(every)
    assert all(s.max_batch_size >= 16 for s in every)  # clients may send batches of 16
    assert all(s.instances * s.threads <= 16 or s.instances == 1 for s in every if s.threads)


@pytest.mark.parametrize(
    ("change", "more", "note"),
    [
        ({}, {"is_engine": True}, "max_batch_size is left"),
        ({}, {"inputs": None}, "max_batch_size is left"),
        ({}, {"inputs": ("float32[1, 4]",)}, "max_batch_size is left"),
        ({"max_batch_size": 0, "dynamic_batching": None}, {}, "no batch dimension"),
    ],
)
def test_nothing_beyond_what_the_artifact_takes(tmp_path, change, more, note):
    config = {key: value for key, value in {**CONFIG, **change}.items() if value is not None}
    found = space(tmp_path, config, **more)
    assert {s.max_batch_size for s in found.settings()} == {config["max_batch_size"]}
    assert note in found.notes[0]


def test_instances_stay_within_memory_and_groups_of_ones_own_are_left(tmp_path):
    few = space(tmp_path, free_bytes=600 << 20)
    assert few.instances == (1, 2) and "half of the free memory" in few.notes[0]
    groups = [{"count": 1, "kind": "KIND_CPU"}, {"count": 2, "kind": "KIND_CPU"}]
    own = space(tmp_path, {**CONFIG, "instance_group": groups})
    assert own.instances == (3,) and "several instance groups" in own.notes[0]
    assert config_with({**CONFIG, "instance_group": groups}, own.default, "n")["instance_group"] == groups
    gpu = space(tmp_path, {**CONFIG, "instance_group": [{"count": 1, "kind": "KIND_GPU"}]})
    assert gpu.instances == (1, 2, 4) and gpu.threads == (None,)


def test_variants_are_found_by_their_manifests(tmp_path):
    def model(folder, name, inputs=None, number=1):
        place = tmp_path / folder / str(number)
        place.mkdir(parents=True)
        inputs = inputs or {"x": "float32[batch, 4]"}
        (place / "manifest.json").write_text(json.dumps({"model": folder, "variant": name, "inputs": inputs}))

    model("m", "onnx-fp32")
    model("m", "onnx-fp32", number=2)
    model("m_onnx_fp32", "onnx-fp32")
    model("m_onnx_int8", "onnx-int8")
    model("m_other", "onnx-int8")
    model("m_onnx_fp16", "onnx-fp16", {"y": "float32[batch, 4]"})
    (tmp_path / "foreign" / "3").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    assert [(v.name, v.model, v.version) for v in find_variants(tmp_path, "m")] == [
        ("onnx-fp32", "m", 2), ("onnx-int8", "m_onnx_int8", 1)
    ]  # fmt: skip
    (alone,) = find_variants(tmp_path, "foreign")
    assert (alone.name, alone.version, alone.inputs, alone.batches_freely) == ("", 3, None, False)
    for name, what in (("m_onnx_int", "no such model"), ("empty", "no version"), ("../m", "no such model")):
        with pytest.raises(TuneUsageError, match=what):
            find_variants(tmp_path, name)
    with pytest.raises(TuneUsageError) as caught:
        find_variants(tmp_path, "m_onnx_int")
    assert caught.value.fix == "did you mean m_onnx_int8?"


@pytest.mark.parametrize(
    ("text", "percentile", "us", "spelled"),
    [("p99=20ms", 99, 20_000, "p99=20ms"), ("P50 = 0.5S", 50, 5e5, "p50=500ms"), ("p95=7us", 95, 7, "p95=7us")],
)
def test_a_limit_is_read(text, percentile, us, spelled):
    limit = parse_limit(text)
    assert (limit.percentile, limit.us, limit.spell()) == (percentile, us, spelled)


@pytest.mark.parametrize("text", ["20ms", "p98=1ms", "p99=0ms", "p99=1", "p99=-1ms", ""])
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(TuneUsageError, match="not a latency limit"):
        parse_limit(text)


def test_everything_that_is_wrong_with_a_request_is_said_at_once(tmp_path):
    with pytest.raises(TuneUsageError) as caught:
        TuneRequest(tmp_path, "m", goal="speed", rate_per_s=-1, concurrency=0, minutes=0)
    said = {problem.what for problem in caught.value.problems}
    assert said == {
        "no such goal", "a rate and a concurrency are two loads", "not a rate", "not a concurrency", "not a time"
    }  # fmt: skip
    with pytest.raises(TuneUsageError, match="answers as many"):
        TuneRequest(tmp_path, "m", rate_per_s=10)
