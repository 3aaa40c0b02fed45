"""What baselines are made of: loads without a client, the protocol, ratios, which model can have which, arguments."""

import json
import re
import threading
import time

import numpy as np
import pytest

from perf import load_workload
from perf.baselines.beside import instances_of
from perf.baselines.data import Baseline
from perf.baselines.kinds import cannot_be
from perf.baselines.kserve import RequestError, read_request, write_answer
from perf.baselines.loops import closed_load, scheduled_load
from perf.baselines.ratios import baseline_ratios, in_words
from perf.cli import app
from perf.compare import compare
from perf.errors import WorkloadError
from perf.gate import judge
from perf.gate_file import load_gate
from perf.inputs import model_spec
from perf.references import Side
from perf.target import Subject
from serving.terminal import run
from tests.perf.results import point, result

REQUESTS = [{"x": np.array([n])} for n in range(3)]


def paused(seconds, seen=None):
    def runner(inputs):
        time.sleep(seconds)
        if seen is not None:
            seen.append(threading.get_ident())
        return {"y": inputs["x"] * 2}

    return runner


def test_a_concurrency_waits_in_one_queue():
    trace = closed_load([paused(0.004)], REQUESTS, 4, 0.02, 0.05, 3)
    latency_s = np.array([end - begun for begun, end in trace.rows]) / 1e9
    assert len(trace.edges_ns) == 4 and all(trace.edges_ns[0] < end <= trace.edges_ns[-1] for _, end in trace.rows)
    # Little's law: four under way, one answered each 4 ms (a sleep is never shorter, on a busy machine longer).
    rate = len(trace.rows) / 0.15
    assert rate <= 250 and rate * latency_s.mean() == pytest.approx(4, rel=0.25)
    assert {number: int(answer["y"][0]) for number, answer in trace.answers.items()} == {0: 0, 1: 2, 2: 4}


def test_no_more_runners_than_requests_under_way():
    seen = []
    closed_load([paused(0.001, seen)] * 3, REQUESTS, 2, 0.0, 0.05, 1)
    assert len(set(seen)) == 2


def test_a_schedule_counts_from_when_a_request_was_due():
    # Twice as many as one runner answers: each waits 5 ms longer than the one before.
    trace = scheduled_load([paused(0.01)], REQUESTS, np.arange(20) * 5000)
    latency_ms = np.array([end - due for due, end in trace.rows]) / 1e6
    assert len(latency_ms) == 20 and (np.diff([due for due, _ in trace.rows]) == 5_000_000).all()
    assert latency_ms[-1] >= 105 and (np.diff(latency_ms) > 4.9).all()


def test_what_a_runner_raises_ends_all():
    def broken(inputs):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        closed_load([paused(0.001), broken], REQUESTS, 2, 0.0, 60.0, 3)
    with pytest.raises(ValueError, match="no"):
        scheduled_load([broken, paused(0.001)], REQUESTS, np.array([0, 0, 60_000_000]))


def test_the_protocol_with_bytes_and_with_json():
    x, words = np.arange(6, dtype=np.float32).reshape(2, 3), b"\x02\0\0\0hi\0\0\0\0"
    asked = {
        "id": "7",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24}},
            {"name": "w", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(words)}},
            {"name": "n", "datatype": "INT64", "shape": [1, 2], "data": [[1, 2]]},
        ],
        "outputs": [{"name": "x", "parameters": {"binary_data": True}}, {"name": "w"}],
    }
    header = json.dumps(asked).encode()
    tensors, rest = read_request(header + x.tobytes() + words, len(header))
    np.testing.assert_array_equal(tensors["x"], x)
    assert tensors["w"].tolist() == ["hi", ""] and tensors["n"].tolist() == [[1, 2]] and rest["id"] == "7"
    body, length = write_answer(("m", "1"), tensors, {"x": "FP32", "w": "BYTES", "n": "INT64"}, rest)
    answer = json.loads(body[:length])
    assert body[length:] == x.tobytes() and answer["id"] == "7" and answer["model_name"] == "m"
    assert answer["outputs"][1] == {"name": "w", "datatype": "BYTES", "shape": [2], "data": ["hi", ""]}
    body, length = write_answer(("m", "1"), tensors, {"x": "FP32", "w": "BYTES", "n": "INT64"}, {})
    assert length is None and json.loads(body)["outputs"][2]["data"] == [1, 2]
    body, length = write_answer(
        ("m", "1"), {"w": tensors["w"]}, {"w": "BYTES"}, {"parameters": {"binary_data_output": 1}}
    )
    assert body[length:] == words


@pytest.mark.parametrize(
    "body",
    [
        b"no JSON",
        b"[]",
        b'{"inputs": [{}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP31", "shape": [1], "data": [1]}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1]}]}',
    ],
)
def test_what_is_not_of_the_protocol_is_refused(body):
    with pytest.raises(RequestError, match="not a request of the KServe v2 protocol"):
        read_request(body, None)
    with pytest.raises(RequestError, match="unexpected inference output 'z'"):
        write_answer(("m", "1"), {}, {}, {"outputs": [{"name": "z"}]})


def beside(*rates, kind="fastapi", served=(100.0, 110.0, 105.0), number=0):
    """A result with a served model and one baseline."""
    both = result(point(rates=served), point(f"digits@{kind}", rates=rates), number=number)
    models = [
        each
        if "@" not in each.model
        else each.model_copy(update={"baseline": Baseline(kind=kind, of="digits", instances=1)})
        for each in both.models
    ]
    return both.model_copy(update={"models": tuple(models), "baselines": baseline_ratios(models)})


def test_a_ratio_is_that_of_paired_rounds():
    speed = next(ratio for ratio in beside(50.0, 55.0, 52.5).baselines if ratio.metric == "inferences_per_s")
    assert (
        speed.ratio == pytest.approx(2.0) and speed.low == pytest.approx(2.0) == speed.high
    )  # each pair says the same
    (line,) = in_words([speed])
    assert line == (
        "digits at concurrency 4: Triton has x 2.00 (2.00 to 2.00) the throughput of FastAPI with onnxruntime"
    )
    noisy = next(r for r in beside(5.0, 200.0, 52.5).baselines if r.metric == "inferences_per_s")
    assert re.match(
        r"digits at concurrency 4: Triton has x \d\.\d\d \(too noisy\) the throughput", in_words([noisy])[0]
    )
    single = next(r for r in beside(50.0, served=(100.0,)).baselines if r.metric == "p99_us")
    assert single.low is None and single.ratio == pytest.approx(1.0)


def test_gates_and_comparisons_are_of_served_models(tmp_path):
    before, after = beside(50.0, 55.0, 52.5), beside(5.0, 5.5, 5.2, number=1)
    comparison = compare(Side("a", (before,)), Side("b", (after,)))
    assert [pair.name for pair in comparison.pairs] == ["digits"] and comparison.unmatched == ()
    pair = compare(Side("a:digits@fastapi", (after,), "digits@fastapi"), Side("a:digits", (after,), "digits")).pairs[0]
    assert pair.verdict == "faster"
    (tmp_path / "gate.yaml").write_text("checks:\n  - throughput: 60\n")
    assert judge(load_gate(tmp_path / "gate.yaml"), after).passed
    (tmp_path / "gate.yaml").write_text('checks:\n  - model: "*@fastapi"\n    throughput: 60\n')
    assert not judge(load_gate(tmp_path / "gate.yaml"), after).passed


X, Y = ({"name": name, "data_type": "TYPE_FP32", "dims": [4]} for name in "xy")
PLAIN = {"name": "m", "backend": "onnxruntime", "max_batch_size": 8, "input": [X], "output": [Y]}


@pytest.mark.parametrize(
    ("kind", "change", "got"),
    [
        ("onnxruntime", {"ensemble_scheduling": {"step": [{"model_name": "a"}]}}, "an ensemble of a"),
        ("pytorch", {"model_transaction_policy": {"decoupled": True}}, "streams"),
        ("fastapi", {"sequence_batching": {"max_sequence_idle_microseconds": 1}}, "sequences"),
        ("fastapi", {"backend": "python"}, "the backend python"),
        ("onnxruntime", {"backend": "tensorrt"}, "the backend tensorrt"),
        ("onnxruntime", {"input": [{**X, "reshape": {"shape": [2, 2]}}]}, "reshapes x"),
        ("fastapi", {"output": [{**Y, "data_type": "TYPE_BF16"}]}, "BF16"),
        ("pytorch", {}, "nothing says what it was built from"),
        ("onnxruntime", {}, None),
    ],
)
def test_a_model_without_a_baseline_says_why(kind, change, got, tmp_path):
    config = PLAIN | change
    error = cannot_be(kind, Subject("m", model_spec(config, "1"), config=config), tmp_path)
    if got is None:
        assert error is None
    else:
        assert got in error.got and error.where == "m" and error.expected and error.fix


@pytest.mark.parametrize(
    ("source", "there"), [({"python": "m.py:load"}, True), ({"onnx": "m.onnx"}, False), (None, False)]
)
def test_an_eager_module_takes_a_torch_source(source, there, tmp_path):
    (tmp_path / "m/1").mkdir(parents=True)
    manifest = {"variant": "onnx-fp32", "spec": {"model": {"source": source} if source else {}}}
    (tmp_path / "m/1/manifest.json").write_text(json.dumps(manifest))
    error = cannot_be("pytorch", Subject("m", model_spec(PLAIN, "1"), config=PLAIN), tmp_path)
    assert (error is None) == there


def test_instances_are_those_of_the_configuration():
    assert instances_of({}) == (1, "CPU")
    assert instances_of({"instance_group": [{"kind": "KIND_CPU", "count": 3}, {"count": "1"}]}) == (4, "CPU")
    assert instances_of({"instance_group": [{"kind": "KIND_GPU", "count": 2, "gpus": [0, 1]}]}) == (4, "GPU")


def test_all_of_them_or_some(tmp_path):
    flags = {"repository": tmp_path}
    everyone = ("onnxruntime", "pytorch", "fastapi")
    assert load_workload(None, flags | {"baselines": ["all"]}).baselines == everyone
    (tmp_path / "w.yaml").write_text("baselines: fastapi\n")
    assert load_workload(tmp_path / "w.yaml", flags).baselines == ("fastapi",)
    with pytest.raises(WorkloadError) as caught:
        load_workload(None, flags | {"baselines": ["onnxrutime"], "spec": tmp_path / "none.yaml"})
    first, second = caught.value.problems
    assert first.where == "--baseline" and first.fix == "did you mean onnxruntime?" and second.where == "--spec"
    with pytest.raises(WorkloadError, match="elsewhere"):
        load_workload(None, {"url": "127.0.0.1:8000", "baselines": ["fastapi"]})


@pytest.mark.parametrize("arguments", [["--baseline"], ["--baseline", "-q"], ["--baseline", "w.yaml"]])
def test_the_flag_alone_is_all(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.yaml").write_text("url: 127.0.0.1:1\n")
    url = [] if "w.yaml" in arguments else ["--url", "127.0.0.1:1"]
    assert run(app, [*url, *arguments]) == 2
    assert "baselines of a server that runs elsewhere" in capsys.readouterr().err
    assert run(app, ["--url", "127.0.0.1:1", "--baseline", "torch"]) == 2
    assert "pytorch" in capsys.readouterr().err
