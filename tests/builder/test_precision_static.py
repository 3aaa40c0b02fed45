"""Static int8: where Q/DQ are put, what stays in float, and that the numbers are right."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from builder.errors import CalibrationError, PrecisionError, RecipeError
from builder.graphs import onnx_graph
from builder.numerics import cosine
from builder.precision import graph as graphs
from builder.precision.apply import apply
from builder.precision.calibration import Calibration
from builder.precision.integers import PAIR, neighbours, quantized_weight
from builder.precision.prepare import prepared
from builder.precision.recipe import Recipe
from builder.precision.static import Settings, activation_parameters, quantizable
from builder.reference import OnnxRunner
from tests.builder.graphs_by_hand import GRAPHS, model, node, requests_of, weight, written


class Made:
    """A graph by hand, prepared, and recipes applied to it."""

    def __init__(self, folder, made):
        self.feeds = requests_of(made)
        self.folder = folder
        self.prepared = folder / "prepared.onnx"
        prepared(written(made, folder / "source.onnx"), self.prepared)

    def apply(self, *keep, name="to.onnx", precision="int8", method="static", **options):
        to = self.folder / name
        apply(Recipe(precision, method, tuple(keep), options), self.prepared, to, feeds=self.feeds)
        return to

    def cosine(self, to, *, lean=True):
        """Over all outputs; ``lean``: integer arithmetic as the graph has it, not as this processor adds."""
        want, got = OnnxRunner(self.prepared, threads=1), OnnxRunner(to, threads=1, lean=lean)
        pairs = [(want(request), got(request)) for request in self.feeds()]
        return min(cosine(a[name], b[name]) for a, b in pairs for name in a)


def node_types(path):
    return [found.op_type for found in onnx.load(path).graph.node]


def inputs_of(path, name):
    """The types of the nodes that make a node's inputs; None for weights and inputs of the graph."""
    graph = onnx.load(path).graph
    makers = {output: found.op_type for found in graph.node for output in found.output}
    (found,) = [found for found in graph.node if found.name == name]
    return [makers.get(value) for value in found.input]


QUANTIZED = ["mlp", "mlp_transposed", "transformer", "convolutions", "odd"]


@pytest.mark.parametrize("activation", ["u8", "s8"])
@pytest.mark.parametrize("name", QUANTIZED)
def test_the_answers_stay_close_and_the_file_is_the_same_every_time(tmp_path, name, activation):
    made = Made(tmp_path, GRAPHS[name]())
    one = made.apply(activation=activation)
    assert made.cosine(one) > 0.995
    assert one.read_bytes() == made.apply(activation=activation, name="two.onnx").read_bytes()


@pytest.mark.parametrize("name", ["transposed_convolution", "transposed_convolution_grouped"])
def test_a_transposed_convolution_is_quantized_for_engines_only(tmp_path, name):
    made = Made(tmp_path, GRAPHS[name]())
    assert made.cosine(made.apply(activation="s8")) > 0.995
    with pytest.raises(PrecisionError, match="nothing in the graph that a static int8 recipe could change"):
        made.apply()


def test_every_product_takes_integers_and_what_moves_values_keeps_their_scale(tmp_path):
    made = Made(tmp_path, GRAPHS["convolutions"]())
    to = made.apply()
    for name in ("stem", "depthwise", "grouped", "head"):
        assert inputs_of(to, name)[:2] == ["DequantizeLinear"] * 2
    assert inputs_of(to, "stem")[2] == "DequantizeLinear"
    assert inputs_of(to, "shortcut") == ["DequantizeLinear"] * 2
    assert inputs_of(to, "clip")[0] == "Conv"  # taken in by the convolution's result
    graph = onnx.load(to).graph
    scale = {found.name: found.input[1] for found in graph.node if found.op_type == "QuantizeLinear"}
    assert scale["s_QuantizeLinear"] == scale["m_QuantizeLinear"] == scale["f_QuantizeLinear"]


def test_for_engines_biases_stay_in_float_and_everything_is_symmetric(tmp_path):
    to = Made(tmp_path, GRAPHS["convolutions"]()).apply(activation="s8")
    assert inputs_of(to, "stem") == ["DequantizeLinear", "DequantizeLinear", None]
    assert inputs_of(to, "shortcut") == ["Conv", "Clip"]
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(to).graph.initializer}
    zeros = [array for name, array in weights.items() if "zero_point" in name]
    assert zeros
    assert all(array.dtype == np.int8 and not array.any() for array in zeros)


def test_nodes_that_are_kept_stay_in_float(tmp_path):
    made = Made(tmp_path, GRAPHS["convolutions"]())
    to = made.apply("stem", "head")
    assert inputs_of(to, "stem") == [None, None, None]
    assert inputs_of(to, "head")[1:] == [None, None]
    assert inputs_of(to, "depthwise")[:2] == ["DequantizeLinear"] * 2
    everything = [found.name for found in quantizable(graphs.load(made.prepared), Settings())]
    with pytest.raises(PrecisionError, match="nothing in the graph"):
        made.apply(*everything)


def test_a_node_that_the_graph_does_not_have_cannot_be_kept(tmp_path):
    with pytest.raises(RecipeError, match="keeps 1 nodes that the graph does not have") as caught:
        Made(tmp_path, GRAPHS["mlp"]()).apply("first", "gone")
    assert caught.value.where == "gone"
    assert "search again" in caught.value.fix


def test_masks_and_softmax_stay_in_float(tmp_path):
    made = Made(tmp_path, GRAPHS["transformer"]())
    found = {found.name for found in quantizable(graphs.load(made.prepared), Settings())}
    assert found == {"query", "key", "out"}
    assert made.cosine(made.apply()) > 0.995


def test_a_value_without_bounds_stays_in_float(tmp_path):
    nodes = [node("Mul", ["x", "lowest"], ["huge"], name="mask"), node("MatMul", ["huge", "w"], ["a"], name="huge")]
    nodes += [node("MatMul", ["x", "w"], ["b"], name="plain"), node("Add", ["a", "b"], ["y"], name="add")]
    weights = {"lowest": np.array(-3e30, np.float32), "w": weight(4, 4)}
    to = Made(tmp_path, model(nodes, {"x": ["batch", 4]}, {"y": ["batch", 4]}, weights)).apply()
    assert inputs_of(to, "huge") == ["Mul", None]
    assert inputs_of(to, "plain") == ["DequantizeLinear"] * 2


def test_what_cannot_be_quantized_stays_in_float(tmp_path):
    to = Made(tmp_path, GRAPHS["odd"]()).apply()
    assert inputs_of(to, "left") == inputs_of(to, "right")[:2] == ["DequantizeLinear"] * 2
    assert inputs_of(to, "settable_weight")[1] is None
    assert inputs_of(to, "scaled")[1] is None
    assert inputs_of(to, "of_nothing")[1] is None
    (branch,) = [found for found in onnx.load(to).graph.node if found.op_type == "If"]
    assert [found.op_type for found in branch.attribute[1].g.node] == ["MatMul"]


def test_an_answer_that_is_quantized_keeps_its_name(tmp_path):
    nodes = [node("Conv", ["x", "w"], ["y"], name="conv", kernel_shape=[1, 1])]
    made = Made(tmp_path, model(nodes, {"x": ["batch", 4, 5, 5]}, {"y": ["batch", 3, 5, 5]}, {"w": weight(3, 4, 1, 1)}))
    to = made.apply()
    assert node_types(to)[-1] == "DequantizeLinear"
    assert [value.name for value in onnx.load(to).graph.output] == ["y"]
    assert made.cosine(to) > 0.999


def test_a_bias_that_is_large_beside_its_weights_fits_32_bits(tmp_path):
    made = GRAPHS["convolutions"]()
    for tensor in made.graph.initializer:
        if tensor.name == "w0":
            tensor.CopyFrom(onnx.numpy_helper.from_array(weight(8, 3, 3, 3, scale=1e-9), "w0"))
    made = Made(tmp_path, made)
    to = made.apply()
    graph = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(to).graph.initializer}
    scale = graph["b0_scale"].astype(np.float64) * graph["b0_quantized"]
    np.testing.assert_allclose(scale, onnx.numpy_helper.to_array(made_bias(made.prepared)), rtol=1e-4)
    assert made.cosine(to) > 0.995


def made_bias(path):
    (bias,) = [tensor for tensor in onnx.load(path).graph.initializer if tensor.name == "b0"]
    return bias


def test_embeddings_are_integers_with_a_scale_for_each_row(tmp_path):
    made = Made(tmp_path, GRAPHS["transformer"]())
    graph = onnx.load(made.apply()).graph
    table = next(tensor for tensor in graph.initializer if tensor.name == "table_quantized")
    assert table.data_type == onnx.TensorProto.INT8
    assert "table" not in {tensor.name for tensor in graph.initializer}
    kept = onnx.load(made.apply("embed")).graph
    assert "table" in {tensor.name for tensor in kept.initializer}


def test_without_samples_there_is_no_static_recipe(tmp_path):
    made = Made(tmp_path, GRAPHS["mlp"]())
    made.feeds = None
    with pytest.raises(CalibrationError, match="needs calibration samples") as caught:
        made.apply()
    assert "precision.calibration" in caught.value.fix


def test_measurements_are_shared_between_recipes(tmp_path):
    made = Made(tmp_path, GRAPHS["convolutions"]())
    asked = []

    def feeds():
        asked.append(1)
        return made.feeds()

    calibration = Calibration(made.prepared, feeds, tmp_path)
    for keep in ((), ("stem",), ("head", "grouped")):
        recipe = Recipe("int8", "static", keep, {"smooth": 0.5})
        apply(recipe, made.prepared, tmp_path / "to.onnx", feeds=feeds, calibration=calibration)
    assert len(asked) == 3  # the largest of each channel; ranges and means of the smoothed graph


@pytest.mark.parametrize("options", [{}, {"smooth": 0.5}, {"activation": "s8"}, {"calibrator": "percentile"}])
def test_large_weights_beside_the_graph_are_quantized_too(tmp_path, monkeypatch, options):
    made = Made(tmp_path, GRAPHS["mlp"](size=64))
    inside = made.apply(**options)
    monkeypatch.setattr(onnx_graph, "EXTERNAL_DATA_ABOVE_BYTES", 500)
    prepared(tmp_path / "source.onnx", made.prepared)
    to = made.apply(name="large.onnx", **options)
    assert (tmp_path / "large.onnx.data").is_file()
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".tapped")]
    answers = [[OnnxRunner(file, threads=1)(request)["y"] for request in made.feeds()] for file in (inside, to)]
    np.testing.assert_array_equal(*answers)


FLOATS = st.floats(-100, 100, width=32)


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=FLOATS))
def test_a_weight_is_off_by_half_a_step_at_most_and_neighbours_never_overflow(array):
    gemm = onnx_ir_gemm()
    for pairs in (None, neighbours(gemm, array)):
        integers, scale = quantized_weight(array, 0, pairs)
        assert np.all(np.abs(integers * scale[:, None] - array) <= scale[:, None] * 0.5001 + 1e-30)
    whole = integers.astype(int)
    padded = np.pad(whole, ((0, 0), (0, whole.shape[1] % 2)))
    for part in (np.maximum(padded, 0), -np.minimum(padded, 0)):
        assert (part[:, 0::2] + part[:, 1::2]).max(initial=0) <= PAIR


def onnx_ir_gemm():
    import onnx_ir

    return onnx_ir.Node("", "Gemm", [], [onnx_ir.AttrInt64("transB", 1)])


@settings(max_examples=60, deadline=None)
@given(FLOATS, FLOATS, st.sampled_from(["u8", "s8"]), st.booleans())
def test_zero_is_exact_and_both_ends_of_a_range_are_met(first, second, activation, symmetric):
    low, high = sorted((first, second))
    scale, zero = activation_parameters((low, high), Settings(activation=activation, symmetric=symmetric))
    bounds = np.iinfo(zero.dtype)
    assert scale > 0
    for value in (0.0, low, high):
        integer = np.clip(np.rint(value / np.float64(scale)) + int(zero), bounds.min, bounds.max)
        assert abs((integer - int(zero)) * np.float64(scale) - value) <= float(scale) * 0.501 + 1e-6


def mean_errors(made, to):
    """Of each output channel (the last dimension, or the second of an image), over all requests."""
    want, got = OnnxRunner(made.prepared, threads=1), OnnxRunner(to, threads=1, lean=True)
    lost = np.concatenate([got(request)["y"] - want(request)["y"] for request in made.feeds()])
    return np.abs(lost.mean(axis=(0, 2, 3) if lost.ndim == 4 else 0)).max()


def shifted_input(*nodes, shape, out, **weights):
    """A graph whose weights multiply values that are far from zero on average."""
    first = node("Add", ["x", "far"], ["h"], name="far_from_zero")
    weights["far"] = np.full((shape[0], *[1] * (len(shape) - 1)), 40, np.float32)
    return model([first, *nodes], {"x": ["batch", *shape]}, {"y": ["batch", *out]}, weights)


def biased():
    image, pixels = (8, 5, 5), (6, 5, 5)
    conv = {"kernel_shape": [1, 1], "name": "n"}
    yield (
        "conv",
        shifted_input(
            node("Conv", ["h", "w", "b"], ["y"], **conv), shape=image, out=pixels, w=weight(6, 8, 1, 1), b=weight(6)
        ),
    )
    yield (
        "conv without a bias",
        shifted_input(node("Conv", ["h", "w"], ["y"], **conv), shape=image, out=pixels, w=weight(6, 8, 1, 1)),
    )
    yield (
        "grouped conv",
        shifted_input(node("Conv", ["h", "w"], ["y"], group=2, **conv), shape=image, out=pixels, w=weight(6, 4, 1, 1)),
    )
    yield (
        "gemm",
        shifted_input(
            node("Gemm", ["h", "w", "b"], ["y"], transB=1), shape=(8,), out=(6,), w=weight(6, 8), b=weight(6)
        ),
    )
    yield (
        "matmul and add",
        shifted_input(
            node("MatMul", ["h", "w"], ["m"]),
            node("Add", ["b", "m"], ["y"]),
            shape=(8,),
            out=(6,),
            w=weight(8, 6),
            b=weight(6),
        ),
    )


@pytest.mark.parametrize(("name", "made"), biased())
def test_what_rounding_a_weight_adds_on_average_is_taken_off(tmp_path, name, made):
    made = Made(tmp_path, made)
    plain = mean_errors(made, made.apply(activation="s8", bias_correction=False))
    corrected = mean_errors(made, made.apply(activation="s8"))
    assert corrected < plain / 3
    assert mean_errors(made, made.apply()) < mean_errors(made, made.apply(bias_correction=False))


def test_a_bias_that_others_use_stays_as_it_is_for_them(tmp_path):
    nodes = [
        node("MatMul", ["h", "w"], ["m"]),
        node("Add", ["m", "b"], ["y"]),
        node("Mul", ["x", "b"], ["z"], name="other"),
    ]
    graph = shifted_input(*nodes[:2], shape=(8,), out=(8,), w=weight(8, 8), b=weight(8))
    graph.graph.node.append(nodes[2])
    graph.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["batch", 8]))
    made = Made(tmp_path, graph)
    want, got = (OnnxRunner(file, threads=1) for file in (made.prepared, made.apply()))
    for request in made.feeds():
        np.testing.assert_array_equal(got(request)["z"], want(request)["z"])


def test_a_convolution_that_is_kept_is_computed_in_float_by_onnxruntime(tmp_path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    to = Made(tmp_path, GRAPHS["convolutions"]()).apply("depthwise", "head")
    onnxruntime.InferenceSession(str(to), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "optimized.onnx").graph
    weights = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert "QLinearConv" in {found.op_type for found in graph.node}
    kept = [found for found in graph.node if found.name.startswith(("depthwise", "head")) and len(found.input) > 2]
    assert not [found for found in kept if found.op_type in ("QLinearConv", "QGemm")]
    assert onnx.TensorProto.FLOAT in {weights.get(name) for found in kept for name in found.input[1:]}
