"""``serve: fastest``: the rule with made-up figures, and a real choice between real models on a real server."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builder import choose as choosing
from builder.choice import Choice, Entrant, Row, StepTime
from builder.choose import WORTH, choose, default_concurrency, steps_of, table
from builder.errors import BuildError
from builder.verify.serve import Endpoint
from perf.errors import AnalyzerUnavailableError
from perf.interleaved import Rounds
from perf.result import Latency, Point, ServerSide
from serving import Client, Server
from serving.errors import ModelLoadError

FP32, FP16, INT8 = (
    Entrant("onnx-fp32", "m_fp32", 1.0, 4_000_000),
    Entrant("onnx-fp16", "m_fp16", 0.9999, 2_000_000),
    Entrant("onnx-int8", "m_int8", 0.98, 1_000_000),
)


def rounds_of(figures, p99_us=None, elapsed_s=1.0, errors=None):
    """``figures``: inferences per second by model, one for each round."""
    points = {
        model: {number: _point(model, rate, (p99_us or {}).get(model, 1000.0)) for number, rate in enumerate(rates)}
        for model, rates in figures.items()
    }
    for model, what in (errors or {}).items():
        failed = Point(model=model, version="1", concurrency=2, batch_size=1, error={"what": what, "got": "NaN"})
        points.setdefault(model, {})[99] = failed
    return Rounds(points, elapsed_s)


def _point(model, rate, p99_us):
    latency = Latency(requests=100, mean_us=1, p50_us=1, p90_us=1, p95_us=1, p99_us=p99_us)
    return Point(model=model, version="1", concurrency=2, batch_size=1, inferences_per_s=rate, latency=latency)


def judge(*entrants, limit_us=None, budget_s=60.0):
    return choosing._Judge(entrants, limit_us, budget_s)


def test_the_fastest_wins_where_it_is_clearly_faster():
    rounds = rounds_of({"m_fp32": [100, 101, 99], "m_int8": [200, 202, 198], "m_fp16": [150, 151, 152]})
    fast = judge(FP32, FP16, INT8)
    assert fast.undecided(rounds) == []
    choice = fast.choice(rounds, 16, 9.94)
    assert choice.variant == "onnx-int8" and choice.seconds == 9.9
    assert choice.reason.startswith("the fastest: 200 inferences/s, 1.33, 1.28 to 1.3") and "onnx-fp16" in choice.reason
    fp32, fp16, int8 = choice.rows
    assert (fp32.throughput_per_s, int8.throughput_per_s, fp16.p99_us) == (100, 200, 1000.0)
    assert fp32.interval[0] <= 99 and fp32.interval[1] >= 101 and fp32.within_limit is None
    assert fp32.behind[1] == pytest.approx(2.0) and int8.behind is None


def test_a_difference_inside_the_noise_goes_to_the_more_accurate():
    rounds = rounds_of({"m_fp32": [95, 104, 101, 96], "m_int8": [103, 99, 98, 107]})
    choice = judge(FP32, INT8, budget_s=0.5).choice(rounds, 16, 1)
    assert choice.variant == "onnx-fp32"
    assert (
        "onnx-int8 is not surely faster (ratio 1.0" in choice.reason and "onnx-fp32 is more accurate" in choice.reason
    )


def test_a_difference_that_is_sure_but_tiny_goes_to_the_more_accurate():
    rounds = rounds_of({"m_fp32": [100.0, 200.0, 300.0], "m_int8": [101.0, 202.0, 303.0]})
    both = judge(FP32, INT8)
    assert both.undecided(rounds) == []  # no further round could make it worth it
    assert both.choice(rounds, 16, 1).variant == "onnx-fp32"
    rounds = rounds_of({"m_fp32": [100.0, 200.0, 300.0], "m_int8": [104.0, 208.0, 312.0]})
    assert WORTH < 1.04 and both.choice(rounds, 16, 1).variant == "onnx-int8"


def test_of_equally_accurate_ones_the_faster():
    twin = Entrant("onnx-openvino-fp32", "m_openvino", 1.0, 4_000_000)
    rounds = rounds_of({"m_fp32": [100, 102, 98], "m_openvino": [103, 97, 104]})
    choice = judge(FP32, twin).choice(rounds, 16, 1)
    assert choice.variant == "onnx-openvino-fp32"


def test_rounds_go_on_while_it_is_open_and_end_with_the_time():
    figures = {"m_fp32": [95, 104, 101], "m_fp16": [103, 99, 98], "m_int8": [40, 41, 42]}
    open_still = judge(FP32, FP16, INT8)
    assert open_still.undecided(rounds_of({name: rates[:2] for name, rates in figures.items()})) == [
        "m_fp32", "m_fp16", "m_int8"
    ]  # fmt: skip
    # The third is clearly slower: it is not measured again.
    assert open_still.undecided(rounds_of(figures)) == ["m_fp32", "m_fp16"]
    assert open_still.undecided(rounds_of(figures, elapsed_s=61)) == []


def test_an_accurate_leader_needs_no_further_round_to_be_told_from_its_like():
    # Not told apart, but the slower one is also the less accurate: it cannot win any more.
    rounds = rounds_of({"m_fp32": [100, 102, 101, 103, 99], "m_int8": [100, 101, 101, 102, 99]})
    both = judge(FP32, INT8)
    ratio = both._ratio(rounds, FP32, INT8)
    assert ratio.low <= 1 and both.undecided(rounds) == []
    assert both.choice(rounds, 16, 1).variant == "onnx-fp32"


def test_a_variant_above_the_latency_limit_is_out():
    rounds = rounds_of(
        {"m_fp32": [100, 101, 99], "m_fp16": [150, 151, 152], "m_int8": [200, 202, 198]},
        p99_us={"m_fp32": 15_000, "m_fp16": 20_000, "m_int8": 20_001},
    )
    limited = judge(FP32, FP16, INT8, limit_us=20_000)
    choice = limited.choice(rounds, 2, 1)
    assert choice.variant == "onnx-fp16" and "the fastest that keeps the limit: 151" in choice.reason
    assert [row.within_limit for row in choice.rows] == [True, True, False]
    alone = judge(FP32, INT8, limit_us=16_000).choice(rounds, 2, 1)
    assert alone.reason == "the only one that keeps the limit: 100 inferences/s"


def test_where_none_keeps_the_limit_the_fastest_is_taken_and_it_says_so():
    rounds = rounds_of({"m_fp32": [100, 101, 99], "m_int8": [200, 202, 198]}, p99_us={"m_fp32": 9e3, "m_int8": 8e3})
    choice = judge(FP32, INT8, limit_us=500).choice(rounds, 2, 1)
    assert choice.variant == "onnx-int8" and [row.within_limit for row in choice.rows] == [False, False]
    assert choice.reason.startswith("none keeps the limit of 0.5 ms at p99; the fastest: 200 inferences/s")


def test_a_variant_that_fails_under_load_is_out_and_its_row_says_why():
    rounds = rounds_of({"m_fp32": [100, 101, 99], "m_int8": [200]}, errors={"m_int8": "a request failed"})
    partly = judge(FP32, INT8)
    assert partly.undecided(rounds) == []
    choice = partly.choice(rounds, 16, 1)
    assert choice.variant == "onnx-fp32" and choice.reason.startswith("the only one that could be measured")
    assert choice.rows[1].throughput_per_s is None and choice.rows[1].error == "a request failed NaN"
    with pytest.raises(BuildError, match="not one could be measured") as caught:
        judge(INT8).choice(rounds, 16, 1)
    assert caught.value.got == "onnx-int8: a request failed NaN" and "name a variant" in caught.value.fix


def test_a_choice_goes_into_a_file_and_back():
    rounds = rounds_of({"m_fp32": [100, 101, 99], "m_int8": [200, 202, 198]}, p99_us={"m_int8": 9_000.0})
    choice = judge(FP32, INT8, limit_us=5_000).choice(rounds, 16, 1)
    assert Choice.from_dict(json.loads(json.dumps(choice.as_dict()))) == choice
    lines = table(choice).splitlines()
    assert lines[0].split() == ["variant", "inferences/s", "95%", "interval", "p99", "ms", "like", "fp32", "size", "MB"]
    assert lines[1].split()[:2] == ["onnx-int8", "200"] and lines[1].endswith("above the latency limit")
    assert lines[2].split()[:3] == ["*", "onnx-fp32", "100"] and " 4.0" in lines[2]
    failed = Row("onnx-fp16", None, None, None, 0.9, 1, None, error="it broke")
    assert table(Choice("x", "", (failed,))).splitlines()[1].split()[:5] == ["onnx-fp16", "-", "-", "-", "0.9000"]


def _side(model, queue_us, infer_us, mean_batch=1.0):
    times = {"queue_us": queue_us, "compute_input_us": 10.0, "compute_infer_us": infer_us, "compute_output_us": 5.0}
    counts = {"requests": 9, "failures": 0, "inferences": 9, "executions": 9}
    return ServerSide(model=model, version="1", **counts, mean_batch=mean_batch, **times)


def test_where_the_time_of_an_ensemble_goes():
    def point(queue_us, infer_us, steps):
        sides = {"server": _side("whole", 0.0, 0.0), "steps": tuple(_side(each, queue_us, infer_us) for each in steps)}
        return Point(model="whole", version="1", concurrency=1, batch_size=1, **sides)

    points = [point(100.0, 700.0, ["first", "second"]), point(300.0, 500.0, ["first"]), point(200.0, 900.0, ["first"])]
    assert steps_of(points) == (
        StepTime("first", queue_us=200.0, compute_us=700.0, copy_us=15.0, mean_batch=1.0),
        StepTime("second", queue_us=100.0, compute_us=700.0, copy_us=15.0, mean_batch=1.0),
    )
    alone = Point(model="m", version="1", concurrency=1, batch_size=1, server=_side("m", 50.0, 60.0))
    assert steps_of([alone]) == (StepTime("m", 50.0, 60.0, 15.0, 1.0),)
    silent = alone.model_copy(update={"server": _side("m", None, None)})
    assert steps_of([silent]) == ()


def test_the_table_says_where_the_time_of_an_ensemble_goes():
    steps = (StepTime("first", 200.0, 700.0, 15.0, 1.0), StepTime("second", 100.0, 50.0, 15.0, 2.5))
    rows = (
        Row("ensemble", 90.0, (80.0, 99.0), 9_000.0, 1.0, 0, None, steps=steps),
        Row("fused", 100.0, (95.0, 105.0), 8_000.0, 1.0, 9, None, steps=(StepTime("m_fused", 0.0, 500.0, 1.0, 1.0),)),
    )
    choice = Choice("fused", "the fastest", rows, 4)
    assert Choice.from_dict(json.loads(json.dumps(choice.as_dict()))) == choice
    lines = [line.split() for line in table(choice).splitlines()]
    assert [line[:2] for line in lines[1:3]] == [["*", "fused"], ["ensemble", "90"]]
    assert lines[4] == ["variant", "model", "queue", "ms", "compute", "ms", "copy", "ms", "mean", "batch"]
    assert lines[5][:2] == ["fused", "m_fused"]
    assert lines[7] == ["ensemble", "second", "0.1", "0.05", "0.015", "2.5"]


def test_the_load_keeps_every_instance_busy():
    groups = [{"instance_group": [{"count": 2}, {"count": 1}]}, {"instance_group": [{"count": 1}]}, {}]
    assert default_concurrency(groups, limited=True) == 6
    assert default_concurrency(groups, limited=False) == 16
    assert default_concurrency([{"instance_group": [{"count": 12}]}], limited=False) == 24


def test_a_single_variant_needs_no_server():
    choice = choose(Endpoint("127.0.0.1:1", "127.0.0.1:1", ""), [INT8], inputs=[], folder=Path("unused"))
    assert choice.variant == "onnx-int8" and choice.reason == "the only variant that passed"
    assert choice.rows[0].throughput_per_s is None and not Path("unused").exists()


# -- with real models on a real server ----------------------------------------------------------------------------


def write_chain(repository, name, steps, width=256):
    """``y = x W W ... W``: the more steps, the slower."""
    weight = numpy_helper.from_array(np.eye(width, dtype=np.float32), "w")
    names = ["x", *(f"h{number}" for number in range(steps - 1)), "y"]
    nodes = [helper.make_node("MatMul", [names[k], "w"], [names[k + 1]]) for k in range(steps)]
    tensors = [helper.make_tensor_value_info(t, TensorProto.FLOAT, ["batch", width]) for t in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", tensors[:1], tensors[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    (folder.parent / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: 4\n'
        f'input [{{ name: "x" data_type: TYPE_FP32 dims: [{width}] }}]\n'
        f'output [{{ name: "y" data_type: TYPE_FP32 dims: [{width}] }}]\n'
        "instance_group [{ count: 1 kind: KIND_CPU }]\n"
        'parameters { key: "intra_op_thread_count" value { string_value: "1" } }\n'
    )


INPUTS = [{"x": np.full((1, 256), 0.5, dtype=np.float32)}]


@pytest.fixture(scope="module")
def served(triton_runtime, tmp_path_factory):
    repository = tmp_path_factory.mktemp("chosen") / "repository"
    write_chain(repository, "quick", 2)
    write_chain(repository, "slow", 400)
    write_chain(repository, "twin", 2)
    with Server(repository, runtime=triton_runtime, model_control_mode="explicit", exit_timeout_s=1) as server:
        yield Endpoint(server.http_url, server.grpc_url, "embedded")


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_of_real_models_a_fast_one_is_chosen_and_of_two_that_are_equal_the_more_accurate(served, tmp_path, monkeypatch):
    # Shorter rounds than usual: the difference of these models shows in less.
    monkeypatch.setattr(choosing, "SECONDS_PER_POINT", 0.5)
    entrants = [
        Entrant("onnx-fp32", "slow", 1.0, 300_000),
        Entrant("onnx-int8", "quick", 0.9, 270_000),
        Entrant("onnx-fp16", "twin", 0.99, 270_000),
    ]
    minute_us = 60_000_000
    choice = choose(
        served, entrants, inputs=INPUTS, folder=tmp_path / "raw", latency_limit_us=minute_us, seconds_per_variant=2
    )
    slow, quick, twin = choice.rows
    assert choice.variant == "onnx-fp16", choice
    assert min(quick.throughput_per_s, twin.throughput_per_s) > 2 * slow.throughput_per_s
    assert slow.behind[0] > WORTH and slow.rounds >= 3 and twin.rounds >= 3
    assert 0 < twin.p99_us < slow.p99_us and choice.concurrency == 2
    assert all(row.within_limit and not row.error for row in choice.rows)
    with Client(f"http://{served.http_url}") as client:
        assert not client.is_ready("slow") and not client.is_ready("quick")


@pytest.mark.server
def test_without_a_perf_analyzer_it_says_what_to_write_instead(served, tmp_path, monkeypatch):
    monkeypatch.setenv("PERF_ANALYZER", str(tmp_path / "nonesuch"))
    entrants = [Entrant("onnx-fp32", "quick", 1.0, 1), Entrant("onnx-int8", "twin", 0.9, 1)]
    with pytest.raises(BuildError, match="there is no perf_analyzer") as caught:
        choose(served, entrants, inputs=INPUTS, folder=tmp_path / "raw")
    assert caught.value.fix.startswith("name a variant in `serve` instead of fastest; or: set PERF_ANALYZER")
    assert isinstance(caught.value.__cause__, AnalyzerUnavailableError)


@pytest.mark.server
def test_a_model_that_does_not_load_is_an_error_and_the_others_are_unloaded(served, tmp_path):
    entrants = [Entrant("onnx-fp32", "quick", 1.0, 1), Entrant("onnx-int8", "nonesuch", 0.9, 1)]
    with pytest.raises(ModelLoadError):
        choose(served, entrants, inputs=INPUTS, folder=tmp_path / "raw")
    with Client(f"http://{served.http_url}") as client:
        assert not client.is_ready("quick")
