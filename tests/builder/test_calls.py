"""A class that asks other models while it answers (BLS): built after them, verified with them, served with them."""

import json

import numpy as np
import pytest

from builder import build, load_spec
from builder.errors import SpecError
from serving import Client, Server

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("test_calls")]

CODE = '''
import numpy as np


class Grow:
    """Asks `double` again and again until nothing is below the limit: a loop, whose length the values say."""

    def __init__(self, call, limit):
        self.call = call
        self.limit = limit

    def execute(self, x):
        times = np.zeros((len(x), 1), np.int64)
        while (below := x.min(axis=1, keepdims=True) < self.limit).any():
            x = np.where(below, self.call("double", {"x": x})["y"], x)
            times += below
        return {"grown": x, "times": times}


class Either:
    """Asks one model or two for a row, depending on what is in it."""

    def __init__(self, call):
        self.call = call

    def execute(self, x):
        large, y = x.max(axis=1) > 4, np.empty_like(x)
        if large.any():
            y[large] = self.call("double", {"x": x[large]})["y"]
        if not large.all():
            rest = {"x": x[~large]}
            grown, double = self.call.together([("grow", rest), ("double", rest)])
            y[~large] = grown["grown"] - double["y"]
        return {"y": y}


def rows():
    return [{"x": row} for row in np.random.default_rng(0).uniform(1, 8, (24, 4)).astype(np.float32)]

'''
GRAPH = """
import numpy as np
from onnx import TensorProto, helper, numpy_helper


def double():
    node = helper.make_node("Mul", ["x", "two"], ["y"])
    taken, given = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    two = numpy_helper.from_array(np.float32(2), "two")
    graph = helper.make_graph([node], "double", [taken], [given], [two])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
"""
GROW = {
    "source": {"python_model": "grow.py:Grow", "args": {"limit": 10.0}, "calls": ["double"]},
    "inputs": {"x": "float32[batch, 4]"},
    "outputs": {"grown": "float32[batch, 4]", "times": "int64[batch, 1]"},
    "samples": {"python": "grow.py:rows"},
}
MODELS = {
    "either": {
        "source": {"python_model": "grow.py:Either", "calls": ["grow", "double"]},
        "inputs": {"x": "float32[batch, 4]"},
        "outputs": {"y": "float32[batch, 4]"},
        "samples": {"python": "grow.py:rows"},
    },
    "grow": GROW,
    "twice": {
        "ensemble": {"steps": ["grow", {"model": "double", "inputs": {"x": "grow.grown"}}]},
        "samples": {"python": "grow.py:rows"},
    },
    "double": {"source": {"onnx": {"python": "graph.py:double"}}, "samples": {"python": "grow.py:rows"}},
}


def _spec(folder, **models):
    (folder / "grow.py").write_text(CODE)
    (folder / "graph.py").write_text(GRAPH)
    (folder / "models.yaml").write_text(json.dumps({"repository": "models", "models": MODELS | models}))
    return load_spec(folder / "models.yaml")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calls")
    results = {result.model: result for result in build(_spec(folder)).models}
    errors = {name: result.error for name, result in results.items() if result.error}
    assert not errors, [str(error) for error in errors.values()]
    assert {result.status for result in results.values()} == {"built"}
    return folder


def test_they_answer_in_the_server(built):
    x = np.float32([[1, 2, 3, 4]])
    with Server(built / "models") as server:
        for url in (f"http://{server.http_url}", f"grpc://{server.grpc_url}"):
            with Client(url) as client:
                grown = client.infer("grow", {"x": x})
                np.testing.assert_array_equal(
                    grown["grown"], x * 16
                )  # 1 is doubled four times until it is not below 10
                np.testing.assert_array_equal(grown["times"], [[4]])
                np.testing.assert_array_equal(client.infer("either", {"x": x})["y"], x * 14)
                both = np.concatenate([x, x + 4])
                np.testing.assert_array_equal(client.infer("either", {"x": both})["y"], both * [[14], [2]])
                np.testing.assert_array_equal(client.infer("twice", {"x": x})["y"], x * 32)


def test_the_manifest_says_what_it_was_verified_with(built):
    manifest = json.loads((built / "models" / "either" / "1" / "manifest.json").read_text())
    assert manifest["precision"] == "fp32"
    assert manifest["verification"]["agreement"]["scores"]["cosine"] == 1
    assert manifest["verification"]["serve"]["concurrent"] > 0


def test_what_is_called_and_changes_lets_the_class_be_verified_again(built):
    spec = _spec(built)
    (built / "graph.py").write_text(GRAPH.replace("np.float32(2)", "np.float32(3)"))
    results = {result.model: result for result in build(spec, only=["grow"]).models}
    assert {name: (result.status, result.version) for name, result in results.items()} == {
        "double": ("built", 2),
        "grow": ("up to date", 1),  # its files are the same
    }
    assert "serve" not in results["grow"].cached


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        (["doubl"], ["call 'doubl' is no model of this spec", "models.grow.source.calls[0]", "did you mean `double`?"]),
        (
            ["double", "either"],
            ["models that need each other", "either -> grow -> either", "take one of these steps out"],
        ),
    ],
)
def test_calls_that_cannot_be(tmp_path, calls, said):
    with pytest.raises(SpecError) as caught:
        _spec(tmp_path, grow=GROW | {"source": GROW["source"] | {"calls": calls}})
    for words in said:
        assert words in str(caught.value)
