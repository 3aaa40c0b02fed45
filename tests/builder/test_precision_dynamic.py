"""Dynamic int8: products of integers made as requests come."""

import numpy as np
import onnx
import pytest

from builder.errors import CalibrationError, PrecisionError
from builder.graphs import onnx_graph
from builder.precision.prepare import prepared
from builder.reference import OnnxRunner
from tests.builder.graphs_by_hand import GRAPHS, model, node, weight
from tests.builder.test_precision_static import Made, inputs_of, node_types


class Dynamic(Made):
    """Recipes that are dynamic, and fit processors whose products of two bytes overflow."""

    def apply(self, *keep, reduce_range=True, **options):
        return super().apply(*keep, method="dynamic", reduce_range=reduce_range, **options)

    def cosine(self, to, *, lean=False):
        return super().cosine(to, lean=lean)


@pytest.mark.parametrize(
    "options", [{}, {"per_channel": False}, {"smooth": 0.5}, {"weight": "u8", "reduce_range": False}]
)
@pytest.mark.parametrize("name", ["mlp", "mlp_transposed", "transformer", "convolutions", "odd"])
def test_the_answers_stay_close_and_the_file_is_the_same_every_time(tmp_path, name, options):
    made = Dynamic(tmp_path, GRAPHS[name]())
    one = made.apply(**options)
    assert made.cosine(one) > 0.99
    assert one.read_bytes() == made.apply(name="two.onnx", **options).read_bytes()


def test_an_activation_that_several_weights_multiply_is_quantized_once(tmp_path):
    types = node_types(Dynamic(tmp_path, GRAPHS["transformer"]()).apply())
    assert types.count("MatMulInteger") == 3
    assert types.count("DynamicQuantizeLinear") == 2


def test_nodes_that_are_kept_stay_in_float(tmp_path):
    made = Dynamic(tmp_path, GRAPHS["transformer"]())
    to = made.apply("query", "embed")
    assert inputs_of(to, "query") == ["LayerNormalization", None]
    assert "table" in {tensor.name for tensor in onnx.load(to).graph.initializer}
    assert node_types(to).count("MatMulInteger") == 2


def test_a_weight_that_can_be_set_and_one_that_others_use_stay(tmp_path):
    to = Dynamic(tmp_path, GRAPHS["odd"]()).apply()
    assert inputs_of(to, "settable_weight")[1] is None
    assert "shared" in {tensor.name for tensor in onnx.load(to).graph.initializer}  # `If` and a scaled Gemm use it
    (branch,) = [found for found in onnx.load(to).graph.node if found.op_type == "If"]
    assert [found.op_type for attribute in branch.attribute for found in attribute.g.node] == ["Neg", "MatMul"]


def test_a_model_without_products_has_nothing_to_change(tmp_path):
    nodes = [node("Relu", ["x"], ["y"], name="relu")]
    with pytest.raises(PrecisionError, match="nothing in the graph that a dynamic int8 recipe could change") as caught:
        Dynamic(tmp_path, model(nodes, {"x": ["batch", 4]}, {"y": ["batch", 4]}, {})).apply()
    assert "MatMul" in caught.value.expected
    assert caught.value.fix == "leave this variant out"


def test_samples_are_needed_for_smoothing_alone(tmp_path):
    made = Dynamic(tmp_path, GRAPHS["mlp"]())
    made.feeds = None
    assert made.apply().is_file()
    with pytest.raises(CalibrationError, match="a dynamic int8 recipe needs calibration samples"):
        made.apply(smooth=0.5)


def test_large_weights_beside_the_graph_are_quantized_too(tmp_path, monkeypatch):
    made = Dynamic(tmp_path, GRAPHS["mlp"](size=64))
    inside = made.apply()
    monkeypatch.setattr(onnx_graph, "EXTERNAL_DATA_ABOVE_BYTES", 500)
    prepared(tmp_path / "source.onnx", made.prepared)
    to = made.apply(name="large.onnx")
    assert (tmp_path / "large.onnx.data").is_file()
    answers = [[OnnxRunner(file, threads=1)(request)["y"] for request in made.feeds()] for file in (inside, to)]
    np.testing.assert_array_equal(*answers)


def test_weights_of_a_reduced_range_do_not_overflow_on_any_processor(tmp_path):
    weights = {"w": np.full((64, 8), 0.5, np.float32)}  # every neighbour as large as can be
    nodes = [node("MatMul", ["x", "w"], ["y"], name="all")]
    made = Dynamic(tmp_path, model(nodes, {"x": ["batch", 64]}, {"y": ["batch", 8]}, weights))
    request = {"x": np.linspace(0.9, 1, 64, dtype=np.float32)[None]}
    got = OnnxRunner(made.apply(), threads=1)(request)["y"]
    np.testing.assert_allclose(got, request["x"] @ weights["w"], rtol=0.01)


def test_a_bias_is_added_in_float(tmp_path):
    made = Dynamic(
        tmp_path,
        model(
            [node("Gemm", ["x", "w", "b"], ["y"], name="gemm")],
            {"x": ["batch", 8]},
            {"y": ["batch", 4]},
            {"w": weight(8, 4, scale=1e-3), "b": np.float32([1e3, -1e3, 0, 7])},
        ),
    )
    got = OnnxRunner(made.apply(), threads=1)({"x": np.zeros((2, 8), np.float32)})["y"]
    np.testing.assert_array_equal(got, np.float32([[1e3, -1e3, 0, 7]] * 2))
