"""What a spec may say of a Python class: it yields its answers, which are verified one by one; inputs may be absent."""

import asyncio
import json

import numpy as np
import pytest

from builder import build, load_spec
from builder.errors import ReloadError, SpecError
from builder.live.recheck import BadVersionError, ask, golden_of
from builder.numerics import compare
from builder.repository.published import ModelFolder
from builder.verify.streamed import joined
from serving import AsyncClient, Client, Server
from serving.errors import InferenceError, UsageError

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("test_python_source")]

CODE = '''
import numpy as np


class Count:
    """Counts down: as many answers as it is told, and for nothing none."""

    def execute(self, start):
        if start[0] < 0:
            raise ValueError("below zero")
        for left in range(int(start[0]), 0, -1):
            yield {"left": np.array([left], np.int32), "word": np.array([b"one" if left == 1 else b"more"], object)}


class Total:
    def execute(self, x, weights):
        return x.sum(axis=1, keepdims=True) if weights is None else (x * weights).sum(axis=1, keepdims=True)


def starts():
    return [{"start": np.array([start], np.int32)} for start in (3, 1, 0, 5)]


def rows():
    return [{"x": np.float32([1, 2, 3]), "weights": np.float32([1, 0, 1])}]
'''
MODEL = {
    "source": {"python_model": "count.py:Count"},
    "inputs": {"start": "int32[1]"},
    "outputs": {"left": "int32[1]", "word": "string[1]"},
    "samples": {"python": "count.py:starts"},
    "decoupled": True,
}
TOTAL = {
    "source": {"python_model": "count.py:Total"},
    "inputs": {"x": "float32[batch, 3]", "weights": "float32[batch, 3]"},
    "outputs": {"y": "float32[batch, 1]"},
    "samples": {"python": "count.py:rows"},
    "tensors": {"weights": {"optional": True}},
}


def _spec(folder, models):
    (folder / "count.py").write_text(CODE)
    (folder / "models.yaml").write_text(json.dumps({"repository": "models", "models": models}))
    return load_spec(folder / "models.yaml")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoupled")
    results = build(_spec(folder, {"count": MODEL, "total": TOTAL})).models
    errors = [str(result.error) for result in results if result.error]
    assert not errors, errors
    with Server(folder / "models", exit_timeout_s=1) as server:  # a stream that was left is under way for ever
        yield server


def test_every_answer_comes_in_order_and_then_the_end(served):
    with Client(f"grpc://{served.grpc_url}") as client:
        answers = list(client.stream("count", {"start": np.array([3], np.int32)}))
        assert [answer["left"].tolist() for answer in answers] == [[3], [2], [1]]
        assert [answer["word"].tolist() for answer in answers] == [[b"more"], [b"more"], [b"one"]]
        assert list(client.stream("count", {"start": np.array([0], np.int32)})) == []
        first = next(client.stream("count", {"start": np.array([100], np.int32)}, outputs=["left"]))
        assert {name: array.tolist() for name, array in first.items()} == {"left": [100]}
        assert len(list(client.stream("count", {"start": np.array([2], np.int32)}))) == 2  # after one that was left


def test_an_input_may_be_absent(served):
    with Client(f"http://{served.http_url}") as client:
        x = np.float32([[1, 2, 3]])
        assert client.infer("total", {"x": x})["y"].tolist() == [[6]]
        assert client.infer("total", {"x": x, "weights": x})["y"].tolist() == [[14]]


def test_the_same_without_blocking(served):
    async def both():
        async with AsyncClient(f"grpc://{served.grpc_url}") as client:

            async def lefts(start):
                asked = client.stream("count", {"start": np.array([start], np.int32)})
                return [int(answer["left"][0]) async for answer in asked]

            return await asyncio.gather(lefts(2), lefts(4))

    assert asyncio.run(both()) == [[2, 1], [4, 3, 2, 1]]


def test_what_goes_wrong_in_a_stream_is_said(served):
    with Client(f"grpc://{served.grpc_url}") as client, Client(f"http://{served.http_url}") as http:
        with pytest.raises(InferenceError, match="the server refused") as caught:
            list(client.stream("count", {"start": np.array([-1], np.int32)}))
        assert "below zero" in caught.value.got
        with pytest.raises(InferenceError) as caught:
            list(client.stream("nobody", {}))
        assert "nobody" in caught.value.got
        with pytest.raises(UsageError, match="HTTP has one answer") as caught:
            http.stream("count", {})
        assert "grpc://" in caught.value.fix


def test_nobody_answers():
    with Client("grpc://127.0.0.1:9") as client, pytest.raises(InferenceError):
        list(client.stream("count", {}, timeout_s=5))


def test_a_published_version_is_asked_again(served):
    folder = ModelFolder(served.repositories[0], "count")
    cases, precision = golden_of(folder, 1)
    with Client(f"grpc://{served.grpc_url}") as client, Client(f"http://{served.http_url}") as http:
        assert ask([http, client], "count", 1, cases, precision).requests == len(cases) == 8
        with pytest.raises(ReloadError, match="answers in streams"):
            ask([http], "count", 1, cases, precision)
        more = [case for case in cases if case.inputs["start"][0] == 3]
        less = [type(more[0])(**{**vars(more[0]), "inputs": {"start": np.array([2], np.int32)}})]
        with pytest.raises(BadVersionError, match="number of answers"):
            ask([client], "count", 1, less, precision)


def test_one_answer_too_many_is_a_difference():
    one, two = {"y": np.float32([1])}, {"y": np.float32([2])}
    assert [d.ok for d in compare(joined([one, two]), joined([one, two]), "fp32")] == [True, True, True]
    assert not compare(joined([one]), joined([one, two]), "fp32")[0].ok
    assert not compare(joined([]), joined([one]), "fp32")[0].ok


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (
            {"count": MODEL | {"inputs": {"start": "int32[batch]"}, "outputs": {"left": "int32[batch]"}}},
            ["a decoupled class that batches", "set batch.max: 0"],
        ),
        (
            {"m": {"source": {"onnx": "m.onnx"}, "decoupled": True}},
            ["`decoupled` is for a Python class", "onnx, which answers a request once"],
        ),
        (
            {"count": MODEL, "both": {"ensemble": {"steps": ["count"]}}},
            ["models.both.ensemble.steps[0]", "step 'count' is decoupled"],
        ),
    ],
)
def test_what_cannot_be_asked_for(tmp_path, models, said):
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(SpecError) as caught:
        _spec(tmp_path, models)
    for words in said:
        assert words in str(caught.value)
