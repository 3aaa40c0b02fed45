"""The search on a graph with one node that int8 ruins, in ONNX Runtime."""

import json
import pickle
import time

import numpy as np
import pytest

from builder.agreement import AgreementJudge
from builder.errors import CalibrationError, PrecisionError
from builder.precision.found import OutOfBudgetError
from builder.precision.frontier import table
from builder.precision.prepare import prepared
from builder.precision.recipe import Recipe
from builder.precision.search import search
from builder.precision.sensitivity import costs, named, parts
from builder.reference import OnnxRunner
from serving.progress import SILENT

WIDTH = 16
ZEROS = {"x": np.zeros((1, 4, 16), np.float32)}
LIMITS = {"cosine": 0.995}
EXACT = {"weight": "u8"}
"""Unsigned weights: no processor adds them up wrongly."""


def _model(path):
    """Four products, before the second of which one row of four is made a thousand times larger, and after it smaller.

    One scale for all four rows then leaves nothing of the three others; no factor for each channel can mend that.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 4 for _ in range(4)]
    rows = np.float32([[1000], [1], [1], [1]])
    constants = [numpy_helper.from_array(weight, f"w{index}") for index, weight in enumerate(weights)]
    names = ["first", "delicate", "third", "last"]
    nodes, value = [], "x"
    for index, name in enumerate(names):
        if name == "delicate":
            nodes.append(helper.make_node("Mul", [value, "rows"], ["large"], "enlarge"))
            value = "large"
        nodes.append(helper.make_node("MatMul", [value, f"w{index}"], [f"p{index}"], name))
        value = f"p{index}"
        if name == "delicate":
            nodes.append(helper.make_node("Div", [value, "rows"], ["small"], "reduce"))
            value = "small"
        nodes.append(helper.make_node("Tanh", [value], ["y" if name == "last" else f"t{index}"], f"tanh{index}"))
        value = f"t{index}"
    shape = ["batch", 4, WIDTH]
    graph = helper.make_graph(
        nodes,
        "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [*constants, numpy_helper.from_array(rows, "rows")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


class _Counting:
    """A judge that counts its calls, and is killed at one of them."""

    def __init__(self, judge, killed_at=None):
        self.judge, self.calls, self.killed_at = judge, 0, killed_at
        self.digest = judge.digest

    def __call__(self, runner):
        self.calls += 1
        if self.calls == self.killed_at:
            raise KeyboardInterrupt
        return self.judge(runner)


class _Bench:
    """Everything that a search is given."""

    def __init__(self, folder):
        self.folder = folder
        _model(folder / "model.onnx")
        self.prepared = folder / "prepared.onnx"
        prepared(folder / "model.onnx", self.prepared)
        rng = np.random.default_rng(1)
        requests = [{"x": rng.standard_normal((1, 4, WIDTH)).astype(np.float32)} for _ in range(32)]
        with OnnxRunner(self.prepared, threads=1) as runner:
            answers = [runner(request) for request in requests]
        self.calibration = requests[:16]
        self.held = requests[16:], answers[16:]
        self.seen = requests[:16], answers[:16]

    def search(self, *, target="cpu", limits=None, killed_at=None, minutes=5.0, **more):
        limits = limits or LIMITS
        self.judge = _Counting(AgreementJudge(*self.held, limits), killed_at)
        self.quick = _Counting(AgreementJudge(*self.seen, limits))
        given = {
            "precision": "int8",
            "feeds": lambda: iter(self.calibration),
            "options": {"smooth": 0.5} | (EXACT if target in ("cpu", "openvino") else {}),
            **more,
        }
        return search(
            self.prepared,
            self.folder / "out.onnx",
            target=target,
            judge=self.judge,
            quick=self.quick,
            time_one=self.time_one,
            minutes=minutes,
            folder=self.folder / "search",
            reporter=SILENT,
            **given,
        )

    def time_one(self, path):
        with OnnxRunner(path, threads=1) as runner:
            began = time.perf_counter()
            runner(self.calibration[0])
            return (time.perf_counter() - began) * 1e6


@pytest.fixture
def bench(tmp_path):
    return _Bench(tmp_path)


@pytest.mark.parametrize(("target", "method"), [("cpu", None), ("tensorrt", "static"), ("openvino", "static")])
def test_exactly_the_node_that_int8_ruins_stays_in_float(bench, target, method):
    found = bench.search(target=target)
    assert found.recipe.keep == ("delicate",)
    assert method in (None, found.recipe.method)
    assert found.verdict.ok
    assert found.complete
    assert found.blamed[0][0] == "delicate"
    assert found.blamed[0][1] > 1 > found.blamed[1][1]
    exact = target == "tensorrt"  # this processor may add signed weights up wrongly
    with OnnxRunner(bench.folder / "out.onnx", threads=1, lean=exact) as runner:
        assert AgreementJudge(*bench.held, LIMITS)(runner).ok


def test_for_a_cpu_the_candidates_are_timed_and_for_others_not(bench):
    assert bench.search(target="cpu").chosen.latency_ratio > 0
    assert bench.search(target="tensorrt").chosen.latency_ratio is None


def test_what_the_user_keeps_stays_in_float(bench):
    assert set(bench.search(target="tensorrt", keep=["third"]).recipe.keep) == {"delicate", "third"}


def test_nodes_to_keep_are_names_globs_or_operator_types(bench):
    assert named(bench.prepared, ["del*", "last"]) == ["delicate", "last"]
    assert named(bench.prepared, ["MatMul"]) == ["delicate", "first", "last", "third"]
    with pytest.raises(PrecisionError, match="names no node of the graph: 'delicat'") as caught:
        bench.search(keep=["delicat"])
    assert "near it: delicate" in str(caught.value)


def test_what_the_user_decided_is_not_varied(bench):
    found = bench.search(target="tensorrt", options={"calibrator": "percentile", "percentile": 99.9, "smooth": 0.5})
    assert found.recipe.options["calibrator"] == "percentile"
    tried = [json.loads(file.read_text()).get("recipe") for file in (bench.folder / "search").glob("*.json")]
    assert {recipe["options"]["calibrator"] for recipe in tried if recipe} == {"percentile"}


def test_a_wide_limit_leaves_nothing_in_float(bench):
    found = bench.search(target="tensorrt", limits={"cosine": 0.2})
    assert found.recipe.keep == ()
    assert bench.judge.calls == 1


def test_a_search_that_was_killed_goes_on_where_it_was(bench, tmp_path_factory):
    with pytest.raises(KeyboardInterrupt):
        bench.search(target="tensorrt", killed_at=2)
    first = bench.judge.calls - 1 + bench.quick.calls
    found = bench.search(target="tensorrt")
    second = bench.judge.calls + bench.quick.calls
    whole = _Bench(tmp_path_factory.mktemp("whole"))
    assert whole.search(target="tensorrt").recipe == found.recipe
    assert first > 0
    assert second > 0
    assert first + second == whole.judge.calls + whole.quick.calls


def test_a_search_that_was_ended_asks_nothing_again(bench):
    first = bench.search()
    again = bench.search(minutes=0)
    assert (bench.judge.calls, bench.quick.calls) == (0, 0)
    assert again.recipe == first.recipe
    assert again.chosen == first.chosen


def test_a_file_that_was_cut_off_is_made_again(bench):
    first = bench.search(target="tensorrt")
    for file in (bench.folder / "search").glob("*.json"):
        file.write_text(file.read_text()[:20])
    assert bench.search(target="tensorrt").recipe == first.recipe
    assert bench.judge.calls > 0


def test_other_limits_are_another_search(bench):
    bench.search(target="tensorrt")
    bench.search(target="tensorrt", limits={"cosine": 0.998})
    assert bench.judge.calls > 0


def test_no_time_at_all(bench):
    with pytest.raises(PrecisionError, match="the time for searching was spent before a single candidate") as caught:
        bench.search(minutes=0)
    assert "--search-minutes" in str(caught.value)


def test_when_the_time_is_spent_the_best_so_far_is_what_there_is(bench):
    with pytest.raises(KeyboardInterrupt):
        bench.search(target="tensorrt", killed_at=2)
    with pytest.raises(OutOfBudgetError) as caught:
        bench.search(target="tensorrt", minutes=0)
    assert not caught.value.best.complete
    assert caught.value.best.recipe.keep == ()
    assert "search longer than 0 minutes" in str(caught.value)


def test_nothing_within_the_budget(bench):
    with pytest.raises(OutOfBudgetError) as caught:
        bench.search(target="tensorrt", limits={"cosine": 1.0})
    text = str(caught.value)
    assert "int8 does not hold its accuracy: cosine 0.99" in text
    assert "is below 1" in text
    assert "delicate (" in text
    assert "--allow-accuracy-drop" in text
    best = pickle.loads(pickle.dumps(caught.value)).best  # it comes from another process
    assert not best.verdict.ok
    assert "delicate" in best.recipe.keep
    assert (bench.folder / "out.onnx").is_file()


def test_no_recipe_can_be_made(bench):
    with pytest.raises(PrecisionError, match="no recipe could be made") as caught:
        bench.search(target="tensorrt", keep=["*"])
    assert "there is nothing in the graph" in str(caught.value) and "keep fewer nodes" in str(caught.value)
    assert not isinstance(caught.value, CalibrationError)


def test_samples_that_are_of_no_use_end_the_search(bench):
    for feeds, what in (
        (lambda: iter([]), "there are no calibration samples"),
        (lambda: iter([ZEROS]), "is 0 in every sample"),
    ):
        with pytest.raises(CalibrationError, match=what):
            bench.search(target="tensorrt", feeds=feeds)


def test_weights_alone_begin_with_the_largest_block(bench):
    found = bench.search(precision="int8-weights", limits={"cosine": 0.99})
    assert found.verdict.ok
    assert found.recipe.method == "weights"


def test_what_was_found_is_plain_data(bench):
    found = bench.search(target="tensorrt")
    data = json.loads(json.dumps(found.as_dict()))
    assert data["recipe"]["keep"] == ["delicate"]
    assert data["blamed"][0][0] == "delicate"
    assert data["frontier"][0]["size_bytes"] > 0
    assert "static" in table(found.frontier)


def test_the_parts_of_a_graph(bench):
    found = parts(bench.prepared, Recipe("int8", "dynamic", ("last",)))
    assert [part.name for part in found] == ["first", "delicate", "third"]
    assert {part.kind for part in found} == {f"MatMul {WIDTH}x{WIDTH}"}
    # 4 rows of 16 x 16 multiply-adds, and 16 for each of the 64 elements that go in and come out.
    assert [part.work for part in found] == [4 * 256 + 16 * 128] * 3


def test_costs_add_up_to_what_all_of_it_loses(bench):
    """The assumption that the search stands on, on the three nodes that are no exception."""
    recipe = Recipe("int8", "dynamic", ("delicate",))
    found = parts(bench.prepared, recipe)
    judge = AgreementJudge(*bench.seen, LIMITS)

    def loss(changed):
        from builder.precision.apply import apply

        keep = {part.name for part in found} - {part.name for part in changed} | {"delicate"}
        out = bench.folder / "some.onnx"
        apply(Recipe("int8", "dynamic", tuple(sorted(keep))), bench.prepared, out, feeds=None)
        with OnnxRunner(out, threads=1) as runner:
            return 1 - judge(runner).margin

    alone = sum(cost.loss for cost in costs(found, loss, most=10))
    assert alone == pytest.approx(loss(found), rel=0.3)
