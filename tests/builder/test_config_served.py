"""Many short forms at once through a real Triton: what was asked for is what the server runs."""

import textwrap
from pathlib import Path

import numpy as np
import pytest

from builder import build, load_spec
from builder.golden import read_golden
from serving import Client, Server

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("test_config_served")]
HERE = Path(__file__).parent
SPEC = """
repository: out
models:
  busy:
    source: {python: "modules.py:make", args: {name: Halves}}
    inputs: {x: "float32[batch, 8]"}
    outputs: {a: "float32[batch, 4]", b: "float32[batch, 4]"}
    samples: {python: "rows.py:rows"}
    batch:
      max: 4
      preferred: [2, 4]
      max_queue_delay_microseconds: 100
      priority_levels: 2
      default_priority_level: 2
      default_queue_policy: {timeout_action: DELAY, default_timeout_microseconds: 1000000}
      priority_queue_policy: {1: {max_queue_size: 64, allow_timeout_override: true}}
    instances: {count: 2, kind: KIND_CPU, rate_limiter: {resources: [{name: seat, count: 1}], priority: 2}}
    versions: latest 2
    warmup: {samples: 2, batch_sizes: [1, 4], count: 2}
    parameters: {intra_op_thread_count: "1"}
    optimization: {graph_level: 1, priority: PRIORITY_MAX, input_pinned_memory: false}
    metric_tags: {team: search}
    tensors: {x: {dims: [2, 4]}, b: {dims: [4, 1]}}
    hosts: {numa: {instance_group: [{count: 1, kind: KIND_CPU, name: alone}]}}
  steps:
    source: {python: "rows.py:Steps"}
    inputs: {x: "float32[batch, 2]", start: "int32[batch, 1]", id: "int64[batch, 1]"}
    outputs: {y: "float32[batch, 2]"}
    batch: {max: 4}
    sequence:
      oldest: {max_candidate_sequences: 4, preferred_batch_size: [2, 4], max_queue_delay_microseconds: 100}
      max_sequence_idle_microseconds: 2000000
      controls: {start: {START: [-1, 10]}, id: CORRID}
    warmup: {data: random}
"""
ROWS = """
import numpy as np
import torch
class Steps(torch.nn.Module):
    def forward(self, x, start, id):
        return x + start + 1000 * id
def rows():
    return [{"x": np.full(8, index, np.float32)} for index in range(3)]
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("config_served")
    (folder / "models.yaml").write_text(textwrap.dedent(SPEC))
    (folder / "modules.py").write_text((HERE / "modules.py").read_text())
    (folder / "rows.py").write_text(ROWS)
    spec = load_spec(folder / "models.yaml")
    return spec, build(spec)


def test_it_is_built_and_asked_through_the_server(built):
    spec, report = built
    assert [(result.status, str(result.error)) for result in report.models] == [("built", "None")] * 2
    version = spec.repository / "busy" / "1"
    samples = sorted((version / "warmup").iterdir())
    assert [np.fromfile(file, np.float32).tolist() for file in samples] == [[0.0] * 8, [1.0] * 8]
    assert (spec.repository / "busy" / "warmup" / "README").is_file()


def test_what_was_asked_for_is_what_the_server_runs(built):
    spec, _ = built
    with Server(spec.repository) as server, Client(f"http://{server.http_url}") as client:
        config = client.config("busy")
        batching = config["dynamic_batching"]
        assert (batching["priority_levels"], batching["default_priority_level"]) == (2, 2)
        assert batching["default_queue_policy"]["timeout_action"] == "DELAY"
        assert batching["priority_queue_policy"]["1"]["max_queue_size"] == 64
        assert config["instance_group"][0]["rate_limiter"]["resources"][0]["name"] == "seat"
        assert config["version_policy"]["latest"]["num_versions"] == 2
        assert config["optimization"]["graph"]["level"] == 1
        assert config["metric_tags"] == {"team": "search"}
        names = {sample["name"]: sample["inputs"]["x"]["input_data_file"] for sample in config["model_warmup"]}
        assert len(names) == 4
        assert names["sample 1, batch of 4"] == "../1/warmup/1_0_x"
        answer = client.infer("busy", {"x": np.zeros((3, 2, 4), np.float32)})
        assert {name: array.shape for name, array in answer.items()} == {"a": (3, 4), "b": (3, 4, 1)}
        executed = client.statistics("busy")[0]["execution_count"]
        assert int(executed) == 2 * 4 * 2 + 1  # warmup: two instances, four requests, each twice

        assert sorted(each["name"] for each in client.metadata("steps")["inputs"]) == ["x"]
        answer = client.infer("steps", {"x": np.ones((1, 2), np.float32)}, sequence=7)
        np.testing.assert_array_equal(answer["y"], [[7011, 7011]])  # it is the first request of sequence 7
        golden = read_golden(spec.repository / "steps" / "1" / "golden.npz")
        assert [sorted(case.inputs) for case in golden[:1]] == [["x"]]


def test_a_server_with_a_configuration_of_its_own_reads_that(built):
    spec, _ = built
    arguments = ["--model-config-name=numa"]
    with Server(spec.repository, extra_args=arguments) as server, Client(f"http://{server.http_url}") as client:
        groups = client.config("busy")["instance_group"]
        assert [(group["name"], group["count"]) for group in groups] == [("alone", 1)]
        assert client.config("steps")["sequence_batching"]["oldest"]["max_candidate_sequences"] == 4


def test_building_again_changes_nothing(built):
    spec, _ = built
    assert [result.status for result in build(spec).models] == ["up to date"] * 2
