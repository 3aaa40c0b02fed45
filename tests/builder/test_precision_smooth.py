"""SmoothQuant: outliers moved into weights, and not a bit of the answers changed."""

import numpy as np
import onnx
import pytest

from builder.errors import CalibrationError
from builder.precision.apply import apply
from builder.precision.calibration import Calibration
from builder.precision.prepare import prepared
from builder.precision.recipe import Recipe
from builder.precision.smooth import factors, smoothed
from builder.reference import OnnxRunner
from tests.builder.graphs_by_hand import GRAPHS, model, node, requests_of, weight, written
from tests.builder.test_precision_static import Made, node_types


def smooth(folder, made, alpha=0.5):
    source = folder / "prepared.onnx"
    prepared(written(made, folder / "source.onnx"), source)
    smoothed(Calibration(source, requests_of(made), folder), folder / "smooth.onnx", alpha)
    return source, folder / "smooth.onnx"


def with_outliers(before, *, also=(), weights=None):
    """Something that makes ``h`` out of ``x``, two channels of it large, and a product of ``h``."""
    nodes = [*before, node("MatMul", ["h", "w"], ["y"], name="product"), *also]
    outputs = {"y": ["batch", 4]} | ({"z": ["batch", 8]} if also else {})
    return model(nodes, {"x": ["batch", 8]}, outputs, {"w": weight(8, 4), **(weights or {})})


LARGE = np.float32([1, 60, 1, 1, 1, 1, 200, 1])
NORM = [node("LayerNormalization", ["x", "gain", "shift"], ["h"], name="norm")]
PRODUCT = [node("MatMul", ["x", "v"], ["m"], name="before"), node("Add", ["m", "shift"], ["a"], name="bias")]
MAKERS = {
    "norm": (NORM, {"gain": LARGE, "shift": weight(8)}, True),
    "mul": ([node("Mul", ["x", "gain"], ["h"], name="times")], {"gain": LARGE}, True),
    "mul by one number": ([node("Mul", ["x", "gain"], ["h"], name="times")], {"gain": np.float32(3)}, True),
    "gemm": (
        [node("Gemm", ["x", "v", "shift"], ["h"], name="gemm", transB=1)],
        {"v": weight(8, 8) * LARGE[:, None], "shift": weight(8)},
        True,
    ),
    "relu of a product": (
        [*PRODUCT, node("Relu", ["a"], ["h"], name="relu")],
        {"v": weight(8, 8) * LARGE, "shift": weight(8)},
        True,
    ),
    "gelu": (
        [node("Mul", ["x", "gain"], ["a"]), node("Tanh", ["a"], ["t"]), node("Add", ["t", "a"], ["h"])],
        {"gain": LARGE},
        False,
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_factors_go_into_what_makes_the_value_where_that_is_exact(tmp_path, name):
    before, weights, folds = MAKERS[name]
    source, to = smooth(tmp_path, with_outliers(before, weights=weights))
    assert ("h_smooth" in {found.name for found in onnx.load(to).graph.node}) == (not folds)
    same(source, to, requests_of(with_outliers(before, weights=weights)))


def same(source, to, feeds):
    before, after = OnnxRunner(source, threads=1), OnnxRunner(to, threads=1)
    for request in feeds():
        want, got = before(request), after(request)
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-5 * np.abs(want[name]).max(initial=0))


def test_what_others_use_as_well_is_divided_for_the_product_alone(tmp_path):
    made = with_outliers(
        NORM, also=[node("Neg", ["h"], ["z"], name="neg")], weights={"gain": LARGE, "shift": weight(8)}
    )
    source, to = smooth(tmp_path, made)
    assert node_types(to) == ["LayerNormalization", "Mul", "MatMul", "Neg"]
    same(source, to, requests_of(made))


@pytest.mark.parametrize("alpha", [0.3, 0.8])
@pytest.mark.parametrize("name", GRAPHS)
def test_the_smoothed_graph_answers_as_the_one_it_was_made_of(tmp_path, name, alpha):
    made = GRAPHS[name]()
    source, to = smooth(tmp_path, made, alpha)
    same(source, to, requests_of(made))
    kept = {found.name for found in onnx.load(source).graph.node}
    assert kept <= {found.name for found in onnx.load(to).graph.node}


@pytest.mark.parametrize(("method", "options"), [("static", {}), ("static", {"activation": "s8"}), ("dynamic", {})])
def test_outliers_cost_less_after_smoothing(tmp_path, method, options):
    source = np.random.default_rng(3)
    wide = np.ones(64, np.float32)
    wide[[5, 40]] = 300
    weights = {"gain": wide, "w": (source.standard_normal((64, 16)) / wide[:, None]).astype(np.float32)}
    nodes = [node("Mul", ["x", "gain"], ["h"], name="times"), node("MatMul", ["h", "w"], ["y"], name="product")]
    made = Made(tmp_path, model(nodes, {"x": ["batch", 64]}, {"y": ["batch", 16]}, weights))
    options = {"reduce_range": True, **options}
    plain = made.cosine(made.apply(method=method, **options))
    better = made.cosine(made.apply(method=method, smooth=0.5, **options))
    assert plain < 0.9
    assert better > 0.999


def test_factors_are_powers_of_two_and_one_where_there_is_nothing_to_move():
    found = factors(np.float32([0, 4, 16, 1e-30, 9]), [np.float32([1, 1, 0, 1, 1]), np.float32([0, 4, 0, 1, 1])], 0.5)
    assert found.tolist() == [1, 1, 1, 2.0**-20, 4]  # 3 lies nearer to 4, in powers of two
    assert factors(np.float32([8]), [np.float32([2])], 1.0).tolist() == [8]
    assert factors(np.float32([8]), [np.float32([2])], 0.0).tolist() == [0.5]


def test_values_that_are_not_finite_are_named(tmp_path):
    made = with_outliers([node("Log", ["x"], ["h"], name="logarithm")])
    source = tmp_path / "prepared.onnx"
    prepared(written(made, tmp_path / "source.onnx"), source)
    with pytest.raises(CalibrationError, match="NaN or Inf") as caught:
        apply(Recipe("int8", "dynamic", (), {"smooth": 0.5}), source, tmp_path / "to.onnx", feeds=requests_of(made))
    assert caught.value.where == "tensor 'h', made by node 'logarithm' (Log)"
