"""Reading a graph without its weights gives the same graph; what is no ONNX file is said so."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builder.graphs.external_data import external_files
from builder.graphs.light_graph import light_bytes
from builder.graphs.onnx_tensors import interface_of_onnx, load_graph


@pytest.fixture
def model(tmp_path):
    """Weights of every way that a tensor can hold them, some below the size that is worth leaving out."""
    big = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    weights = [
        numpy_helper.from_array(big, "raw"),
        helper.make_tensor("floats", TensorProto.FLOAT, [4096], big.ravel().tolist()),
        helper.make_tensor("integers", TensorProto.INT64, [4096], list(range(4096))),
        helper.make_tensor("texts", TensorProto.STRING, [512], [b"text"] * 512),
        numpy_helper.from_array(np.ones(3, np.float32), "small"),
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "raw"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        initializer=weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="by hand")
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_all_but_the_weights_is_there(model):
    whole = onnx.load(model)
    light = onnx.ModelProto.FromString(light_bytes(model))
    assert len(light.SerializeToString()) < 1000 < len(whole.SerializeToString())
    assert [tensor.name for tensor in light.graph.initializer] == ["raw", "floats", "integers", "texts", "small"]
    assert [list(tensor.dims) for tensor in light.graph.initializer] == [[64, 64], [4096], [4096], [512], [3]]
    for one in (whole, light):
        del one.graph.initializer[:]
    assert light == whole


def test_the_interface_is_the_same_either_way(model, monkeypatch):
    whole = interface_of_onnx(model)
    monkeypatch.setattr("builder.graphs.onnx_tensors.LIGHT_ABOVE_BYTES", 0)
    assert interface_of_onnx(model) == whole
    assert not load_graph(model).graph.initializer[0].raw_data


def test_external_data_is_found_either_way(model, monkeypatch):
    onnx.save(onnx.load(model), model, save_as_external_data=True, location="weights.bin")
    found = external_files(model)
    monkeypatch.setattr("builder.graphs.onnx_tensors.LIGHT_ABOVE_BYTES", 0)
    assert external_files(model) == found != {}


@pytest.mark.parametrize("content", [b"\xff" * 4096, b"\x3a\x80\x80\x80\x08" + b"\0" * 4096, b"\x3b" + b"\0" * 4096])
def test_no_onnx_file_is_refused(model, monkeypatch, content):
    model.write_bytes(content)
    monkeypatch.setattr("builder.graphs.onnx_tensors.LIGHT_ABOVE_BYTES", 0)
    with pytest.raises(ValueError, match=r"not an ONNX file, or cut short \(\d+ bytes\): .* byte \d+"):
        load_graph(model)


@pytest.mark.parametrize("light", [True, False])
def test_a_file_that_is_cut_short_is_refused(model, monkeypatch, light):
    model.write_bytes(model.read_bytes()[:-5000])
    monkeypatch.setattr("builder.graphs.onnx_tensors.LIGHT_ABOVE_BYTES", 0 if light else 1 << 30)
    with pytest.raises(ValueError, match="not an ONNX file, or cut short"):
        load_graph(model)


def test_a_file_beyond_protobufs_limit_says_what_to_do(tmp_path):
    path = tmp_path / "huge.onnx"
    with path.open("wb") as stream:
        stream.truncate(2**31)  # takes no room: nothing is written
    with pytest.raises(ValueError, match="ends at 2 GiB: larger weights must be external data"):
        load_graph(path)
