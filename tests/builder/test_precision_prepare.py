"""The graph that recipes name nodes of."""

import numpy as np
import onnx
import pytest

from builder.errors import PrecisionError
from builder.graphs import onnx_graph
from builder.precision.prepare import prepared
from builder.reference import OnnxRunner
from tests.builder.graphs_by_hand import GRAPHS, model, node, requests_of, weight, written


def same_answers(source, to, feeds):
    before, after = OnnxRunner(source, threads=1), OnnxRunner(to, threads=1)
    for request in feeds():
        want, got = before(request), after(request)
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_prepared_graph_answers_as_before_and_is_the_same_every_time(tmp_path, name):
    made = GRAPHS[name]()
    source = written(made, tmp_path / "source.onnx")
    prepared(source, tmp_path / "one.onnx")
    prepared(source, tmp_path / "two.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
    same_answers(source, tmp_path / "one.onnx", requests_of(made))


def test_every_node_has_a_name_of_its_own_and_the_first_of_a_name_keeps_it(tmp_path):
    nodes = [node("Relu", ["x"], ["a"], name="r"), node("Neg", ["a"], ["b"], name="r"), node("Relu", ["b"], ["y"])]
    source = written(model(nodes, {"x": [2]}, {"y": [2]}, {}), tmp_path / "source.onnx")
    prepared(source, tmp_path / "to.onnx")
    assert [found.name for found in onnx.load(tmp_path / "to.onnx").graph.node] == ["r", "Neg_0", "Relu_0"]


def test_a_name_that_is_given_out_is_never_one_that_is_taken(tmp_path):
    nodes = [node("Relu", ["x"], ["a"]), node("Neg", ["a"], ["y"], name="Relu_0")]
    source = written(model(nodes, {"x": [2]}, {"y": [2]}, {}), tmp_path / "source.onnx")
    prepared(source, tmp_path / "to.onnx")
    assert [found.name for found in onnx.load(tmp_path / "to.onnx").graph.node] == ["Relu_1", "Relu_0"]


def test_constants_are_folded_and_types_left_over_are_forgotten(tmp_path):
    nodes = [
        node("Constant", [], ["two"], value=onnx.numpy_helper.from_array(np.float32([2, 2]))),
        node("Add", ["two", "w"], ["sum"]),
        node("Mul", ["x", "sum"], ["inner"], name="times"),
        node("Relu", ["inner"], ["y"], name="relu"),
    ]
    made = model(nodes, {"x": [3, 2]}, {"y": [3, 2]}, {"w": np.float32([1, 5])})
    stale = onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, [9, 9, 9])
    made.graph.value_info.append(stale)
    onnx.save(made, tmp_path / "source.onnx")
    prepared(tmp_path / "source.onnx", tmp_path / "to.onnx")
    graph = onnx.load(tmp_path / "to.onnx").graph
    assert [found.op_type for found in graph.node] == ["Mul", "Relu"]
    (inner,) = [value for value in graph.value_info if value.name == "inner"]
    assert [dim.dim_value for dim in inner.type.tensor_type.shape.dim] == [3, 2]


def batch_normalized(outputs=("y",)):
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv", kernel_shape=[3, 3]),
        node("BatchNormalization", ["c", "gain", "shift", "mean", "spread"], ["y"], name="norm"),
    ]
    weights = {"w": weight(4, 2, 3, 3), "gain": weight(4), "shift": weight(4), "mean": weight(4)}
    weights["spread"] = np.abs(weight(4)) + np.float32(0.1)
    shape = ["batch", 4, 4, 4]
    return model(nodes, {"x": ["batch", 2, 6, 6]}, dict.fromkeys(outputs, shape), weights)


def test_a_batch_norm_goes_into_its_convolution(tmp_path):
    made = batch_normalized()
    source = written(made, tmp_path / "source.onnx")
    prepared(source, tmp_path / "to.onnx")
    assert [found.op_type for found in onnx.load(tmp_path / "to.onnx").graph.node] == ["Conv"]
    same_answers(source, tmp_path / "to.onnx", requests_of(made))


def test_a_batch_norm_stays_where_the_convolution_is_an_answer_too(tmp_path):
    made = batch_normalized(("y", "c"))
    source = written(made, tmp_path / "source.onnx")
    prepared(source, tmp_path / "to.onnx")
    assert "BatchNormalization" in [found.op_type for found in onnx.load(tmp_path / "to.onnx").graph.node]
    same_answers(source, tmp_path / "to.onnx", requests_of(made))


def test_an_old_opset_is_brought_to_one_that_knows_channels(tmp_path):
    made = GRAPHS["mlp"](opset=11)
    source = written(made, tmp_path / "source.onnx")
    prepared(source, tmp_path / "to.onnx")
    assert onnx.load(tmp_path / "to.onnx").opset_import[0].version == 17
    same_answers(source, tmp_path / "to.onnx", requests_of(made))


def test_functions_are_put_in_line(tmp_path):
    made = model([node("Twice", ["x"], ["y"], name="call", domain="own")], {"x": [2]}, {"y": [2]}, {})
    inside = [node("Add", ["a", "a"], ["b"], name="inside")]
    opset = [onnx.helper.make_opsetid("", 17)]
    made.functions.append(onnx.helper.make_function("own", "Twice", ["a"], ["b"], inside, opset))
    made.opset_import.append(onnx.helper.make_opsetid("own", 1))
    source = written(made, tmp_path / "source.onnx")
    prepared(source, tmp_path / "to.onnx")
    again = onnx.load(tmp_path / "to.onnx")
    assert [found.op_type for found in again.graph.node] == ["Add"]
    assert not again.functions
    assert [opset.domain for opset in again.opset_import] == [""]


def test_large_weights_lie_beside_the_graph(tmp_path, monkeypatch):
    made = GRAPHS["mlp"](size=64)
    source = written(made, tmp_path / "source.onnx")
    monkeypatch.setattr(onnx_graph, "EXTERNAL_DATA_ABOVE_BYTES", 1000)
    prepared(source, tmp_path / "to.onnx")
    assert (tmp_path / "to.onnx.data").stat().st_size > (tmp_path / "to.onnx").stat().st_size
    same_answers(source, tmp_path / "to.onnx", requests_of(made))


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "source.onnx").write_bytes(b"no model at all")
    with pytest.raises(PrecisionError, match="cannot be read") as caught:
        prepared(tmp_path / "source.onnx", tmp_path / "to.onnx")
    assert str(tmp_path / "source.onnx") in caught.value.where


def test_a_body_that_gives_one_value_twice_answers_as_before(tmp_path):
    scan = """<ir_version: 10, opset_import: ["": 20]>
        g (float[3] start, float[t, 3] x) => (float[3] last, float[t, 3] all)
        { last, all = Scan<num_scan_inputs = 1, body = b (float[3] s, float[3] e) => (float[3] s2, float[3] o)
            { s2 = Add(s, e)
              o = Identity(s2) }>(start, x) }"""
    onnx.save(onnx.parser.parse_model(scan), tmp_path / "source.onnx")
    prepared(tmp_path / "source.onnx", tmp_path / "prepared.onnx")
    request = {"start": np.zeros(3, np.float32), "x": np.ones((3, 3), np.float32)}
    for name in ("source", "prepared"):
        assert OnnxRunner(tmp_path / f"{name}.onnx")(request)["all"][:, 0].tolist() == [1, 2, 3]


def test_sequences_stay_sequences(tmp_path):
    text = """<ir_version: 10, opset_import: ["": 20]> g (float[n, 8] x, int64 at) => (float[n, 8] y)
        { t = Tanh(x)
          s = SequenceConstruct(x, t)
          one = SequenceAt(s, at)
          y = Relu(one) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "source.onnx")
    prepared(tmp_path / "source.onnx", tmp_path / "prepared.onnx")
    onnx.checker.check_model(str(tmp_path / "prepared.onnx"), full_check=True)
    request = {"x": np.full((1, 8), -2, np.float32), "at": np.array(1)}
    assert OnnxRunner(tmp_path / "prepared.onnx")(request)["y"].max() == 0
