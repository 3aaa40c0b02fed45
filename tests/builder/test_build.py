"""The whole path through a real Triton: built, verified, published, up to date; and each way a model can fail."""

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from builder import build, load_spec, plan
from builder.repository.publish import versions_of
from serving import Client, Server
from serving.errors import UsageError

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("test_build")]
HERE = Path(__file__).parent

SPEC = """
repository: out
models:
  good:
    source: {python: "modules.py:make", args: {name: Good}}
    inputs: {ids: "int64[batch, seq: 1..16]", mask: "int64[batch, seq]"}
    outputs: {embedding: "float32[batch, 4]", tokens: "float32[batch, seq, 8]"}
    batch: {max: 8, max_queue_delay_microseconds: 20000}
    warmup: {batch_sizes: [1, 8]}
    instances: {count: 2, kind: KIND_CPU}
    response_cache: true
    labels: {embedding: labels.txt}
    config: {version_policy: {latest: {num_versions: 2}}, parameters: {intra_op_thread_count: {string_value: "1"}}}
    samples: {python: "modules.py:id_samples"}
  single:
    source: {python: "modules.py:make", args: {name: Integers}}
    inputs: {x: "int32[4, 3]"}
    outputs: {twice: "int64[4, 3]", positive: "bool[4, 3]"}
  baked:
    source: {python: "modules.py:make", args: {name: BakedBatch}}
    inputs: {x: "float32[batch, 8]"}
    outputs: {y: "float32[batch, 4]"}
  refused:
    source: {python: "modules.py:make", args: {name: Halves}}
    inputs: {x: "float32[batch, 8]"}
    outputs: {a: "float32[batch, 4]", b: "float32[batch, 4]"}
    config: {instance_group: [{count: 1, kind: KIND_GPU, gpus: [99]}]}
  dropping:
    source: {python: "modules.py:make", args: {name: Halves}}
    inputs: {x: "float32[batch, 8]"}
    outputs: {a: "float32[batch, 4]", b: "float32[batch, 4]"}
    evaluate: {python: "metric.py:falls"}
  infinite:
    source: {python: "modules.py:make", args: {name: Infinite}}
    inputs: {x: "float32[batch, 8]"}
    outputs: {y: "float32[batch, 8]"}
"""
METRIC = """
calls = []
def falls(predict):
    calls.append(1)
    return 1.0 - len(calls) / 10
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    (folder / "models.yaml").write_text(textwrap.dedent(SPEC))
    (folder / "modules.py").write_text((HERE / "modules.py").read_text())
    (folder / "metric.py").write_text(METRIC)
    (folder / "labels.txt").write_text("north\neast\nsouth\nwest\n")
    return load_spec(folder / "models.yaml")


@pytest.fixture(scope="module")
def report(spec):
    return build(spec)


def _result(report, name):
    return next(result for result in report.models if result.model == name)


def test_good_models_are_published_though_others_fail(spec, report):
    assert not report.ok
    assert [(result.model, result.status) for result in report.models] == [
        ("good", "built"),
        ("single", "built"),
        ("baked", "failed"),
        ("refused", "failed"),
        ("dropping", "failed"),
        ("infinite", "failed"),
    ]
    published = sorted(entry.name for entry in spec.repository.iterdir())
    assert published == ["good", "single"]
    assert sorted(entry.name for entry in (spec.repository / "good" / "1").iterdir()) == [
        "config.pbtxt",
        "golden.npz",
        "labels.txt",
        "manifest.json",
        "model.onnx",
    ]


@pytest.mark.parametrize(
    ("model", "stage", "message"),
    [
        ("baked", "reference", "does not follow its batch dimension"),
        ("refused", "serve", "Triton refuses refused"),
        ("dropping", "accuracy", "drops from 0.9 to 0.8"),
        ("infinite", "reference", "answers NaN or Inf in output 'y'"),
    ],
)
def test_a_failure_says_at_which_stage_and_why(report, model, stage, message):
    result = _result(report, model)
    assert result.stage == stage
    assert message in str(result.error)
    assert result.error.fix


def test_the_servers_own_reason_reaches_the_user(report):
    assert "99" in _result(report, "refused").error.got or "GPU" in _result(report, "refused").error.got


def test_requests_were_put_together(report):
    assert _result(report, "good").mean_batch > 1
    assert _result(report, "single").mean_batch == 1


def test_the_manifest_holds_what_was_measured(spec, report):
    version = spec.repository / "good" / "1"
    manifest = json.loads((version / "manifest.json").read_text())
    assert manifest["model"] == "good"
    assert manifest["files"]["model.onnx"]
    assert manifest["samples"] == {"origin": "modules.py:id_samples", "count": 4, "real": True}
    cases = manifest["verification"]["parity"]["cases"]
    assert {"batch 1, seq 3", "batch 5, seq 3", "batch 8, seq 3", "batch 8, seq 1", "batch 8, seq 16"} <= set(cases)
    serve = manifest["verification"]["serve"]
    assert serve["cases"] == len(cases)
    assert [output["output"] for output in serve["outputs"]] == ["embedding", "tokens"]
    assert serve["outputs"][0]["max_abs"] == pytest.approx(_result(report, "good").max_abs)
    config = text_format.Parse((version.parent / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.max_batch_size == 8


def test_what_was_asked_for_is_what_the_server_runs(spec, report):
    with Server(spec.repository, cache_size_bytes=1 << 20) as server, Client(f"http://{server.http_url}") as client:
        config = client.config("good")
        assert config["instance_group"][0]["count"] == 2
        assert [sample["batch_size"] for sample in config["model_warmup"]] == [1, 8]
        assert config["response_cache"]["enable"] is True
        assert config["parameters"]["intra_op_thread_count"]["string_value"] == "1"
        inputs = {"ids": np.arange(3)[None], "mask": np.ones((1, 3), np.int64)}
        first, again = client.infer("good", inputs), client.infer("good", inputs)
        np.testing.assert_array_equal(first["embedding"], again["embedding"])
        assert int(client.statistics("good")[0]["inference_stats"]["cache_hit"]["count"]) == 1


def test_the_repository_answers_as_pytorch_does(spec, report):
    with Server(spec.repository) as server, np.load(spec.repository / "good" / "1" / "golden.npz") as golden:
        inputs = {name: golden[f"inputs/{name}/0"] for name in ("ids", "mask")}
        for url in (f"http://{server.http_url}", f"grpc://{server.grpc_url}"):
            with Client(url) as client:
                answer = client.infer("good", inputs)
            np.testing.assert_allclose(answer["embedding"], golden["outputs/embedding/0"], rtol=1e-4, atol=1e-5)


def test_building_again_changes_nothing(spec, report):
    before = {path: path.stat().st_mtime_ns for path in spec.repository.rglob("*") if path.is_file()}
    again = build(spec, only=["good", "single"])
    assert [result.status for result in again.models] == ["up to date", "up to date"]
    assert {path: path.stat().st_mtime_ns for path in spec.repository.rglob("*") if path.is_file()} == before


def test_staging_is_gone(spec, report):
    assert list((spec.repository.parent / ".build" / "staging").iterdir()) == []


def test_an_unknown_model_is_refused(spec):
    with pytest.raises(UsageError, match="has no model 'nothing'"):
        build(spec, only=["nothing"])


def test_the_plan_names_every_stage_and_writes_nothing(spec):
    steps = plan(spec, only=["baked"]).steps
    assert {step.model for step in steps} == {"baked"}
    assert [step.stage for step in steps][:4] == ["source", "samples", "reference", "export"]
    assert "opset 23" in steps[3].what
    assert not (spec.repository / "baked").exists()


def test_a_changed_model_becomes_the_next_version(spec, report, tmp_path):
    text = spec.path.read_text().replace("{name: Integers}", "{name: Integers, seed: 1}")
    changed = spec.path.with_name("changed.yaml")
    changed.write_text(text.replace("batch: {max: 8", "batch: {max: 16"))
    result = build(load_spec(changed), only=["good"]).models[0]
    assert (result.status, result.version) == ("built", 2)
    assert versions_of(spec.repository / "good") == [1, 2]
