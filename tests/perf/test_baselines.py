"""Baselines beside a served model, with the real ones: onnxruntime, PyTorch, FastAPI, each in a process of its own."""

import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from perf import bench
from perf.baselines.child import Child, python_command, write_requests
from perf.baselines.in_process import TRACE
from perf.errors import BaselineError
from perf.inputs import RequestData, model_spec
from perf.report import to_csv, to_markdown, to_text

SPEC = """
repository: repository
models:
  line:
    source: {python: model.py:load}
    inputs: {x: "float32[batch, 4]"}
    outputs: {y: "float32[batch, 2]"}
"""
MODULE = """
import torch

class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(8, dtype=torch.float32).reshape(4, 2) / 8)

    def forward(self, x):
        return torch.relu(x @ self.weight)

def load():
    print("a word that is no answer")
    return Line()
"""
CONFIG = """backend: "onnxruntime"
max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ 2 ] }]
instance_group [{ kind: KIND_CPU count: 1 }]
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
"""
WEIGHT = np.arange(8, dtype=np.float32).reshape(4, 2) / 8


def save_line(path):
    """``relu(x @ WEIGHT)`` as ONNX."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])]
    tensors = [helper.make_tensor_value_info(name, 1, ["batch", n]) for name, n in (("x", 4), ("y", 2))]
    graph = helper.make_graph(nodes, "line", tensors[:1], tensors[1:], [onnx.numpy_helper.from_array(WEIGHT, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def project(tmp_path_factory, write_golden):
    """A spec, and what build-repo would have made of it: the file, golden requests, the manifest."""
    folder = tmp_path_factory.mktemp("baselines")
    (folder / "models.yaml").write_text(SPEC)
    (folder / "model.py").write_text(MODULE)
    version = folder / "repository/line/1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    save_line(version / "model.onnx")
    requests = [{"x": np.full((1, 4), n + 1, np.float32)} for n in range(3)]
    write_golden(version, requests, [{"y": np.maximum(request["x"] @ WEIGHT, 0)} for request in requests])
    digest = hashlib.sha256(SPEC.encode()).hexdigest()
    spec = {"file": "models.yaml", "sha256": digest, "model": {"source": {"python": "model.py:load"}}}
    (version / "manifest.json").write_text(json.dumps({"model": "line", "variant": "onnx-fp32", "spec": spec}))
    return folder


CONFIGURATION = {
    "name": "line",
    "backend": "onnxruntime",
    "max_batch_size": 8,
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [2]}],
}


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_all_three_stand_beside_the_served_model(project, tmp_path, monkeypatch):
    for package in ("fastapi", "uvicorn", "httptools", "uvloop", "torch"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)  # the spec is found from the repository
    kinds = ("onnxruntime", "pytorch", "fastapi")
    result = bench(
        project / "repository", concurrency=[2], seconds=0.3, rounds=2, baselines=kinds, output=tmp_path / "out"
    )
    assert result.ok, [run.error or [point.error for point in run.points] for run in result.models]
    assert [run.model for run in result.models] == ["line", *(f"line@{kind}" for kind in kinds)]
    served, *beside = result.models
    assert served.baseline is None and served.config and result.left_out == ()
    for run, kind in zip(beside, kinds, strict=True):
        (point,) = run.points
        assert (run.baseline.kind, run.baseline.of, run.baseline.instances) == (kind, "line", 1)
        assert len(point.rounds) == 2 and point.inferences_per_s > 0 and point.latency.requests > 10
        assert point.checked and point.wrong == 0
        assert len(point.windows) == 6 and point.usage.cpu_percent is not None
    own = {run.baseline.kind: run.baseline.facts for run in beside}
    assert own["onnxruntime"]["intra_op_threads"] == own["pytorch"]["threads"] == "1"
    assert own["fastapi"]["uvloop"] and own["fastapi"]["onnxruntime"]
    assert own["pytorch"]["spec"] == str(project / "models.yaml")
    # The server of FastAPI counts as Triton does, and never batches.
    side = beside[2].points[0].server
    assert side.mean_batch == 1.0 and 0 < side.compute_infer_us < beside[2].points[0].latency.mean_us
    ratios = {(ratio.kind, ratio.metric): ratio for ratio in result.baselines}
    assert {kind for kind, _ in ratios} == set(kinds)
    rounds = [point.rounds for point in (served.points[0], beside[2].points[0])]
    pairs = [a.p50_us / b.p50_us for a, b in zip(*rounds, strict=True)]
    by_hand = np.exp(np.log(pairs).mean())  # of two rounds: the middle between their ratios
    assert ratios["fastapi", "p50_us"].ratio == pytest.approx(by_hand)
    assert "line at concurrency 2: Triton has x " in to_markdown(result) and "of raw onnxruntime" in to_text(result)
    rows = {row["model"]: row["baseline"] for row in csv.DictReader(io.StringIO(to_csv(result)))}
    assert rows == {"line": "", **{f"line@{kind}": kind for kind in kinds}}
    page = (result.folder / "report.html").read_text()
    assert "eager PyTorch" in page and "The served model&#39;s figures by those of its baselines" in page
    assert "line@" not in (result.folder / "metrics-model-inference.csv").read_text()
    left = [
        process for process in psutil.Process().children(recursive=True) if "perf.baselines" in str(process.cmdline())
    ]
    assert left == []


def command_of(process):
    """Its arguments in a line; nothing of one that is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def started(tmp_path, entry, arguments, requests=3):
    """A worker that has had its first line."""
    spec = model_spec(CONFIGURATION, "1")
    data = RequestData(tuple({"x": np.full(4, n + 1, np.float32)} for n in range(requests)), "")
    write_requests(spec, data, 2, tmp_path / "requests.npz")
    child = Child(python_command("perf.baselines.worker"), tmp_path / "log", "line@test")
    order = {"entry": entry, "arguments": arguments, "requests": str(tmp_path / "requests.npz"), "instances": 2}
    child.order(order)
    return child


def onnx_arguments(project):
    return {"config": CONFIGURATION, "version_folder": str(project / "repository/line/1"), "kind": "CPU"}


def test_a_batch_is_one_call_whose_answers_are_right(project, tmp_path):
    pytest.importorskip("onnxruntime")
    with started(tmp_path, "perf.baselines.onnx_session:open_sessions", onnx_arguments(project)) as child:
        assert child.hear()["ready"]["providers"] == "CPUExecutionProvider"
        np.save(tmp_path / "due.npy", np.arange(0, 50_000, 1000))
        child.order({"due": str(tmp_path / "due.npy"), "to": str(tmp_path / TRACE)})
        assert child.until("done", 60) == 50
    with np.load(tmp_path / TRACE) as trace:
        assert (np.diff(trace["start_ns"]) == 1_000_000).all()  # when each was due
        assert (trace["end_ns"] > trace["start_ns"]).all()
        # Request 2 holds the last sample and, in turn, the first.
        expected = np.array([[3.0] * 4, [1.0] * 4], np.float32) @ WEIGHT
        np.testing.assert_allclose(trace["answer/2/y"], expected, rtol=1e-6)


def test_a_process_that_is_gone_or_refuses_says_why(project, tmp_path):
    with started(tmp_path, "no_such_package:open_it", {}) as child, pytest.raises(BaselineError) as caught:
        child.hear()
    assert caught.value.fix == "pip install 'triton-repo[baseline]'" and caught.value.where == "line@test"
    broken = {**onnx_arguments(project), "version_folder": str(tmp_path)}
    pytest.importorskip("onnxruntime")
    with (
        started(tmp_path, "perf.baselines.onnx_session:open_sessions", broken) as child,
        pytest.raises(BaselineError, match="raised") as caught,
    ):
        child.hear()
    assert "unable to find" in caught.value.got
    with Child([sys.executable, "-c", "import sys; sys.exit('out of luck')"], tmp_path / "log", "x") as child:
        with pytest.raises(BaselineError) as caught:
            child.hear()
        assert "exit status 1" in caught.value.got and "out of luck" in caught.value.got
    with Child([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log", "x") as child:
        with pytest.raises(BaselineError, match="did not answer"):
            child.hear(0.1)
        pid = child.pid
    assert not psutil.pid_exists(pid)


PARENT = """
import sys, time
from pathlib import Path
from perf.baselines.child import Child, python_command
child = Child(python_command("perf.baselines.worker"), Path(sys.argv[1]), "x")
print(child.pid, flush=True)
time.sleep(60)
"""


def test_no_process_outlives_its_parent(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)
    parent.stdout.close()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running()


@pytest.mark.big
@pytest.mark.server
@pytest.mark.xdist_group("perf")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ended_in_the_middle_nothing_of_it_is_left(project, tmp_path, number):
    command = [sys.executable, "-c", "from perf.cli import main; main()", "--repository", str(project / "repository")]
    command += ["--baseline", "--concurrency", "2", "--seconds", "600", "--output", str(tmp_path), "--no-history"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as measuring:
        try:
            for line in measuring.stderr:
                if "line: concurrency" in line:  # every baseline is warm, and has its process
                    break
            seen = psutil.Process(measuring.pid).children(recursive=True)
            ours = [process for process in seen if "perf.baselines" in command_of(process)]
            os.kill(measuring.pid, number)
            said = measuring.communicate(timeout=60)[1]
        finally:
            measuring.kill()
    assert len(ours) == 3 and "Traceback" not in said
    _, alive = psutil.wait_procs(seen, timeout=30)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
