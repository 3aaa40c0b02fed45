"""Strings in an ONNX graph in this process: bytes and text are the same to it, as they are to the server."""

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from builder.reference import OnnxRunner


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    sides = [[helper.make_tensor_value_info(name, TensorProto.STRING, [None])] for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", *sides)
    path = tmp_path_factory.mktemp("strings") / "same.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return OnnxRunner(path)


@pytest.mark.parametrize(
    "given",
    [
        np.array(["grüße".encode(), b"", b"a b"], object),
        np.array(["grüße", "", "a b"], object),
        np.array(["grüße", "", "a b"]),
        np.array(["grüße".encode(), b"", b"a b"]),
    ],
    ids=["bytes", "text", "U", "S"],
)
def test_strings_go_through_as_they_are(runner, given):
    assert runner({"x": given})["y"].tolist() == ["grüße", "", "a b"]


def test_bytes_that_are_no_text_are_refused(runner):
    with pytest.raises(ValueError, match="utf-8"):
        runner({"x": np.array([b"\xff\xd8"], object)})
