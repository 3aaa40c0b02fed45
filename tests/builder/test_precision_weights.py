"""Weights alone in integers, as ONNX Runtime's MatMulNBits takes them."""

import numpy as np
import onnx
import pytest

from builder.errors import PrecisionError
from builder.graphs import onnx_graph
from builder.precision.prepare import prepared
from builder.precision.weights import Settings, blocks
from builder.reference import OnnxRunner
from tests.builder.graphs_by_hand import GRAPHS, model, node, weight
from tests.builder.test_precision_static import Made, inputs_of, node_types


class Weights(Made):
    """Recipes for weights alone."""

    def apply(self, *keep, bits=8, **options):
        return super().apply(*keep, precision=f"int{bits}-weights", method="weights", bits=bits, **options)

    def cosine(self, to, *, lean=False):
        return super().cosine(to, lean=lean)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "block_size", "least"), [(8, 16, 0.9995), (4, 16, 0.8)])
@pytest.mark.parametrize("name", ["mlp", "mlp_transposed", "transformer", "convolutions", "odd"])
def test_the_answers_stay_close(tmp_path, name, bits, block_size, least, symmetric):
    made = Weights(tmp_path, GRAPHS[name]())
    to = made.apply(bits=bits, block_size=block_size, symmetric=symmetric)
    assert made.cosine(to) > least
    assert (
        to.read_bytes()
        == made.apply(name="two.onnx", bits=bits, block_size=block_size, symmetric=symmetric).read_bytes()
    )


def test_nodes_that_are_kept_stay_in_float(tmp_path):
    to = Weights(tmp_path, GRAPHS["mlp"]()).apply("first", block_size=16)
    assert inputs_of(to, "first") == [None, None, None]
    assert node_types(to).count("MatMulNBits") == 1


@pytest.mark.parametrize("name", ["transposed_convolution"])
def test_a_model_without_products_has_nothing_to_change(tmp_path, name):
    with pytest.raises(PrecisionError, match="nothing in the graph that a weights int8-weights recipe could change"):
        Weights(tmp_path, GRAPHS[name]()).apply()


def test_embeddings_alone_are_no_reason_for_the_variant(tmp_path):
    nodes = [node("Gather", ["table", "ids"], ["y"], name="embed")]
    made = model(nodes, {"ids": ["batch", 3]}, {"y": ["batch", 3, 16]}, {"table": weight(50, 16)})
    with pytest.raises(PrecisionError, match="nothing in the graph"):
        Weights(tmp_path, made).apply()


def test_large_weights_beside_the_graph_are_quantized_too(tmp_path, monkeypatch):
    made = Weights(tmp_path, GRAPHS["mlp"](size=64))
    inside = made.apply()
    monkeypatch.setattr(onnx_graph, "EXTERNAL_DATA_ABOVE_BYTES", 500)
    prepared(tmp_path / "source.onnx", made.prepared)
    to = made.apply(name="large.onnx")
    assert (tmp_path / "large.onnx.data").is_file()
    answers = [[OnnxRunner(file, threads=1)(request)["y"] for request in made.feeds()] for file in (inside, to)]
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks_are_off_by_half_a_step_at_most(bits, symmetric):
    array = weight(6, 40)
    settings = Settings(bits=bits, block_size=16, symmetric=symmetric)
    packed, scale, *zero = blocks(array, settings)
    assert packed.shape == (6, 3, 16 * bits // 8)
    assert scale.shape == (6, 3)
    integers = packed if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1).reshape(6, 3, 16)
    middle = 2 ** (bits - 1)
    if not symmetric:
        points = zero[0] if bits == 8 else np.stack([zero[0] & 15, zero[0] >> 4], axis=-1).reshape(6, -1)[:, :3]
        middle = points[..., None].astype(int)
    back = ((integers.astype(int) - middle) * scale[..., None]).reshape(6, 48)[:, :40]
    steps = np.abs(back - array) / np.repeat(np.abs(scale), 16, axis=1)[:, :40]
    assert steps.max() <= 1.001  # the end that the range lacks is a step away, all the rest half of one
    assert np.mean(steps > 0.5001) < 0.1


def test_the_file_shrinks_by_what_the_bits_say(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["y"], name="product")]
    made = Weights(tmp_path, model(nodes, {"x": ["batch", 256]}, {"y": ["batch", 256]}, {"w": weight(256, 256)}))
    whole = made.prepared.stat().st_size
    assert made.apply(block_size=64).stat().st_size < whole * 0.28
    assert made.apply(bits=4, block_size=64, name="four.onnx").stat().st_size < whole * 0.16


def test_a_weight_of_few_rows_that_would_only_grow_stays_in_float(tmp_path):
    to = Weights(tmp_path, GRAPHS["mlp"]()).apply(block_size=32)
    assert inputs_of(to, "first") == [None, None, None]
    assert node_types(to).count("MatMulNBits") == 1


def test_the_operator_is_asked_for_by_its_domain(tmp_path):
    made = onnx.load(Weights(tmp_path, GRAPHS["mlp"]()).apply(block_size=16, accuracy_level=4))
    assert {opset.domain: opset.version for opset in made.opset_import} == {"": 17, "com.microsoft": 1}
    levels = {entry.i for found in made.graph.node for entry in found.attribute if entry.name == "accuracy_level"}
    assert levels == {4}
