"""Ranges out of samples: right, in little memory, and refused where they would say nothing."""

import gc
import resource

import numpy as np
import onnx
import psutil
import pytest

from builder.errors import CalibrationError
from builder.precision import calibration as module
from builder.precision.apply import apply
from builder.precision.calibration import Calibration, ranges
from builder.precision.prepare import prepared
from builder.precision.recipe import Recipe
from tests.builder.graphs_by_hand import GRAPHS, model, node, requests_of, weight, written


def ready(folder, made):
    to = folder / "prepared.onnx"
    prepared(written(made, folder / "source.onnx"), to)
    return to


def twice(folder):
    """``y = 2 x``, so that every range is known."""
    return ready(
        folder,
        model([node("Add", ["x", "x"], ["y"], name="twice")], {"x": ["batch", None]}, {"y": ["batch", None]}, {}),
    )


def of(*arrays):
    return lambda: ({"x": np.asarray(array, np.float32)[None]} for array in arrays)


def test_the_smallest_and_the_largest_of_all_requests(tmp_path):
    feeds = of([1, 2], [-7, 0.5, 3], [0])
    assert ranges(twice(tmp_path), feeds, ["x", "y"]) == {"x": (-7, 3), "y": (-14, 6)}


def test_what_is_empty_in_every_request_has_no_range(tmp_path):
    found = ranges(ready(tmp_path, GRAPHS["odd"]()), requests_of(GRAPHS["odd"]()), ["ab", "nothing"])
    assert list(found) == ["ab"]


def test_a_percentile_leaves_the_outermost_values_out(tmp_path):
    source = np.random.default_rng(0)
    feeds = of(*source.standard_normal((50, 1000)), [1000, -500])
    low, high = ranges(twice(tmp_path), feeds, ["x"], "percentile", 99.0)["x"]
    assert (low, high) == pytest.approx((-2.576, 2.576), abs=0.3)  # of the normal distribution, bins of 0.24
    assert ranges(twice(tmp_path), feeds, ["x"], "percentile", 100.0)["x"] == pytest.approx((-500, 1000), abs=0.3)


def test_a_percentile_of_values_of_one_side_keeps_zero_in(tmp_path):
    feeds = of(*np.abs(np.random.default_rng(0).standard_normal((20, 1000))))
    low, high = ranges(twice(tmp_path), feeds, ["x"], "percentile", 99.9)["x"]
    assert 0 <= low < 0.01
    assert 2.8 < high < 3.6


def test_entropy_cuts_a_few_outliers_and_not_the_values_themselves(tmp_path):
    source = np.random.default_rng(0)
    feeds = of(*source.standard_normal((50, 2000)), [40.0])
    low, high = ranges(twice(tmp_path), feeds, ["x"], "entropy")["x"]
    assert -6 < low < -2.5
    assert 2.5 < high < 8


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
@pytest.mark.parametrize("values", [[0, 1e-38], [1, 1 + 1e-6], [-3e38, 3e38], [0, 0, 0, 5]])
def test_no_range_is_too_small_or_too_large_for_a_histogram(tmp_path, method, values):
    low, high = ranges(twice(tmp_path), of(values), ["x"], method)["x"]
    assert np.isfinite([low, high]).all()
    slack = 1e-6 * max(map(abs, values))
    assert min(values) - slack <= low <= high <= max(values) + slack


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_an_inner_value_that_never_changes_has_a_range_all_the_same(tmp_path, method):
    nodes = [node("Mul", ["x", "zero"], ["h"], name="nothing"), node("Add", ["h", "x"], ["y"], name="add")]
    made = model(nodes, {"x": ["batch", 4]}, {"y": ["batch", 4]}, {"zero": np.float32(0)})
    found = ranges(ready(tmp_path, made), requests_of(made), ["x", "h", "y"], method)
    assert found["h"] == (0, 0)


def test_the_largest_of_each_channel(tmp_path):
    found = Calibration(twice(tmp_path), of([1, -8], [-2, 3]), tmp_path).maxima(["y"])
    assert found["y"].tolist() == [4, 16]


def test_no_samples_are_an_error(tmp_path):
    with pytest.raises(CalibrationError, match="there are no calibration samples") as caught:
        ranges(twice(tmp_path), of(), ["y"])
    assert "precision.calibration" in caught.value.fix


def test_samples_of_one_value_are_an_error(tmp_path):
    with pytest.raises(CalibrationError, match="say nothing about ranges: input 'x' is 0 in every sample") as caught:
        ranges(twice(tmp_path), of([0, 0], [0, 0]), ["y"])
    assert caught.value.where == "tensor 'x', used by node 'twice' (Add)"
    assert "zeros" in caught.value.fix


def test_inner_values_that_never_change_are_an_error(tmp_path):
    nodes = [node("Mul", ["x", "zero"], ["a"], name="nothing"), node("Relu", ["a"], ["b"]), node("Neg", ["b"], ["y"])]
    made = model(nodes, {"x": ["batch", 4]}, {"y": ["batch", 4]}, {"zero": np.float32(0)})
    with pytest.raises(CalibrationError, match="3 of 3 inner values never change") as caught:
        ranges(ready(tmp_path, made), requests_of(made), ["a", "b", "y"])
    assert caught.value.where == "tensor 'a', made by node 'nothing' (Mul)"


@pytest.mark.parametrize(("operator", "value"), [("Log", -1.0), ("Reciprocal", 0.0)])
def test_values_that_are_not_finite_are_an_error_with_their_node(tmp_path, operator, value):
    nodes = [node(operator, ["x"], ["h"], name="odd"), node("Relu", ["h"], ["y"])]
    graph = ready(tmp_path, model(nodes, {"x": ["batch", 2]}, {"y": ["batch", 2]}, {}))
    with pytest.raises(CalibrationError, match="NaN or Inf in a calibration sample") as caught:
        ranges(graph, of([1, 2], [value, 1]), ["x", "h"])
    assert caught.value.where == f"tensor 'h', made by node 'odd' ({operator})"
    assert "precision.keep" in caught.value.fix


def test_a_sample_that_the_model_cannot_take_is_an_error(tmp_path):
    made = GRAPHS["mlp"]()
    with pytest.raises(CalibrationError, match="could not be run on a calibration sample") as caught:
        ranges(ready(tmp_path, made), of([1, 2, 3]), ["h"])
    assert "x" in caught.value.got


def test_an_unknown_calibrator_is_a_mistake_in_the_program(tmp_path):
    with pytest.raises(ValueError, match="'median' is none of minmax, entropy, percentile"):
        ranges(twice(tmp_path), of([1, 2]), ["x"], "median")


def test_ranges_do_not_depend_on_how_many_values_are_held(tmp_path, monkeypatch):
    made = GRAPHS["convolutions"]()
    graph = ready(tmp_path, made)
    tensors = [value for found in onnx.load(graph).graph.node for value in found.output]
    whole = {method: ranges(graph, requests_of(made), tensors, method) for method in module.CALIBRATORS}
    monkeypatch.setattr(module, "BUDGET_BYTES", 1)
    for method, found in whole.items():
        assert ranges(graph, requests_of(made), tensors, method) == found
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".tapped")]


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_ten_thousand_samples_take_no_more_memory_than_a_hundred(tmp_path, method):
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="wide"),
        node("Relu", ["h"], ["a"]),
        node("ReduceSum", ["a"], ["y"]),
    ]
    graph = ready(tmp_path, model(nodes, {"x": ["batch", 16]}, {"y": [1, 1]}, {"w": weight(16, 2048)}))
    rows = np.random.default_rng(0).standard_normal((100, 1, 16)).astype(np.float32)

    def feeds(count):
        return lambda: ({"x": rows[index % 100] * (1 + index)} for index in range(count))

    ranges(graph, feeds(100), ["x", "h", "a"], method)
    gc.collect()
    before = psutil.Process().memory_info().rss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = ranges(graph, feeds(10_000), ["x", "h", "a"], method)
    assert psutil.Process().memory_info().rss - before < 30e6  # all values together would be 160 MB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - peak < 60e6
    assert found["a"][1] > 1000


def test_entropy_and_percentile_make_recipes_that_hold(tmp_path):
    made = GRAPHS["convolutions"]()
    graph = ready(tmp_path, made)
    sizes = set()
    for method in module.CALIBRATORS:
        to = tmp_path / f"{method}.onnx"
        apply(Recipe("int8", "static", (), {"calibrator": method}), graph, to, feeds=requests_of(made))
        sizes.add(to.read_bytes())
    assert len(sizes) > 1


def test_the_mean_of_each_channel_over_all_requests(tmp_path):
    measured = Calibration(twice(tmp_path), of([1, -8], [-3, 2]), tmp_path)
    assert measured.means({"y": -1})["y"].tolist() == [-2, -6]
    assert measured.means({"y": 0})["y"].tolist() == [-4]  # the same values along the other dimension
