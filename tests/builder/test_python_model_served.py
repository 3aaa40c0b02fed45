"""Users' classes in a real Triton: what they are given, what becomes of what they give, and of what they raise."""

import queue
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as grpc

from builder.python_model import PythonRunner
from builder.usercode import user_code
from serving import Client
from serving.errors import InferenceError
from serving.server import Server
from tests.builder import python_models as p

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("python_model")]

X, Y = {"x": "float32[batch, n]"}, {"y": "float32[batch, n]"}
GATHER = "dynamic_batching { preferred_batch_size: [3] max_queue_delay_microseconds: 3000000 }\n"
COUNTING = p.step("Counting", X, Y | {"rows": "int64[batch, 1]"}, args={"scale": 2})
ALONE = p.step("Counting", X, Y | {"rows": "int64[batch, 1]"}, together=False)
TEXTS = p.step("Texts", {"text": "string[batch, 1]"}, {"loud": "string[batch, 1]"}, args={"suffix": "?"})
ADDS = p.step("Optional", X | {"bias": "float32[batch, n]"}, Y, optional=frozenset({"bias"}))
COUNTS = p.step("Counts", {"n": "int32[1, 1]"}, {"i": "int32[1, 1]"}, batching=False, decoupled=True)
ROUTES = p.step("Routes", X, Y, args={"limit": 10.0}, calls=("double", "negative"))
UNDECLARED = p.step("Undeclared", X, Y, calls=("double",))
READER = p.step("Reader", {"index": "int64[n]"}, {"word": "string[n]"}, args={"name": "data/words.txt"}, batching=False)
NAMED_MODEL = p.step("model.py:Model", X, Y)
STEPS = {
    "counting": COUNTING, "alone": ALONE, "texts": TEXTS, "adds": ADDS, "counts": COUNTS, "routes": ROUTES,
    "undeclared": UNDECLARED, "reader": READER, "named_model": NAMED_MODEL,
    "double": p.step("Counting", X, Y | {"rows": "int64[batch, 1]"}, args={"scale": 2}),
    "negative": p.step("model.py:Negative", X, Y),
    "through": p.step("model.py:Through", X, Y, calls=("wrong",)),
    "wrong": p.step("Answers", X, Y, args={"kind": "size"}),
    "exits": p.step("Answers", X, Y, args={"kind": "exit"}),
}  # fmt: skip
MODEL = """
import numpy as np
import model as myself  # Triton's own file has this name, too
from helpers.signs import flip

class Model:
    def execute(self, x):
        assert myself.Model is not Model, "the file is imported by its name, and not Triton's"
        return {"y": x + 1}

class Negative:
    def execute(self, x):
        return {"y": flip(x)}

class Through:
    def __init__(self, call):
        self.call = call

    def execute(self, x):
        return self.call("wrong", {"x": np.tile(x, 2)})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder."""
    folder = p.sources(tmp_path_factory.mktemp("user"))
    (folder / "model.py").write_text(MODEL)
    (folder / "helpers").mkdir()
    (folder / "helpers/signs.py").write_text("def flip(x):\n    return -x\n")
    (folder / "data").mkdir()
    (folder / "data/words.txt").write_text("zero one two")
    return folder


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory, triton_runtime):
    repository = tmp_path_factory.mktemp("repository")
    for name, step in STEPS.items():
        files = {"data/words.txt": folder / "data/words.txt"} if name == "reader" else None
        extra = GATHER if name in ("counting", "alone") else ""
        p.write_model(repository, name, step, folder, files=files, extra=extra)
    # Nothing of the user's folder is needed any more.
    hidden = folder.rename(folder.with_name("moved"))
    with Server(repository, runtime=triton_runtime) as server:
        hidden.rename(folder)
        yield server


@pytest.fixture(params=["http", "grpc"])
def client(request, server):
    address = server.http_url if request.param == "http" else server.grpc_url
    with Client(f"{request.param}://{address}") as client:
        yield client


def rows(*values):
    return np.array([values], np.float32)


def in_process(folder, name, inputs, call=None):
    with user_code(folder), PythonRunner(STEPS[name], folder, call) as runner:
        return runner(inputs)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("texts", {"text": np.array([["grüße"], ["a\0b"]], dtype=object)}),
        ("adds", {"x": rows(1, 2), "bias": rows(5, 6)}),
        ("adds", {"x": rows(1, 2)}),
        ("named_model", {"x": rows(1)}),
        ("negative", {"x": rows(1, 2, 3)}),
        ("reader", {"index": np.array([2, 0])}),
    ],
)
def test_the_server_answers_as_the_class_does_in_this_process(client, folder, name, inputs):
    expected = in_process(folder, name, inputs)
    got = client.infer(name, inputs)
    assert got.keys() == expected.keys()
    for output, array in expected.items():
        assert got[output].dtype == array.dtype
        assert got[output].tolist() == array.tolist()


def _at_once(server, name, requests):
    def ask(x):
        with Client(f"grpc://{server.grpc_url}") as client:
            try:
                return client.infer(name, {"x": x})
            except InferenceError as error:
                return str(error)

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(ask, requests))


def test_requests_that_arrive_together_are_one_call_and_get_their_own_answers(server):
    answers = _at_once(server, "counting", [rows(1), rows(2), rows(3)])
    assert [answer["y"].tolist() for answer in answers] == [[[2]], [[4]], [[6]]]
    assert [answer["rows"].tolist() for answer in answers] == [[[3]], [[3]], [[3]]]


def test_together_false_is_one_call_for_each_request(server):
    answers = _at_once(server, "alone", [rows(1), rows(2), np.ones((2, 1), np.float32)])
    assert [answer["rows"].tolist() for answer in answers] == [[[1]], [[1]], [[2], [2]]]


def test_an_exception_is_the_error_of_its_own_request_alone(server):
    answers = _at_once(server, "counting", [rows(1), rows(-2), rows(3)])
    assert answers[0]["y"].tolist() == [[2]]
    assert answers[2]["y"].tolist() == [[6]]
    assert "Counting.execute raised ValueError: no number below zero: -2.0 (python_classes.py:" in answers[1]
    assert _at_once(server, "alone", [rows(4), rows(5), rows(6)])[0]["y"].tolist() == [[4]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", "Answers.execute returned 'y' as float32[1, 1], expected float32[batch, n] at batch=1, n=2"),
        ("exits", "Answers.execute raised SystemExit: 3 (python_classes.py:"),
        ("undeclared", "the step calls the model 'secret', which is not among its `calls`: double"),
    ],
)
def test_what_is_wrong_is_said_and_the_model_lives(client, name, message):
    for _ in range(2):
        with pytest.raises(InferenceError) as error:
            client.infer(name, {"x": rows(1, 2)})
        assert message in str(error.value)


def test_calls_branch_and_loop(client, folder):
    def double(model, inputs):
        return {"y": -inputs["x"]} if model == "negative" else {"y": inputs["x"] * 2}

    for x in (rows(1, 3), rows(-1, 3), rows(11)):
        expected = in_process(folder, "routes", {"x": x}, double)["y"]
        assert client.infer("routes", {"x": x})["y"].tolist() == expected.tolist()


def test_an_error_of_a_called_model_is_told(client):
    with pytest.raises(InferenceError) as error:
        client.infer("through", {"x": rows(1)})
    assert "Through.execute: the model 'wrong' answered with an error: Answers.execute returned 'y'" in str(error.value)


def test_a_decoupled_class_answers_as_often_as_it_yields(server, folder):
    answers = queue.Queue()
    with grpc.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for n in (2, 5):
            tensor = grpc.InferInput("n", [1, 1], "INT32")
            tensor.set_data_from_numpy(np.array([[n]], np.int32))
            client.async_stream_infer("counts", [tensor], request_id=str(n), enable_empty_final_response=True)
        found = {"2": [], "5": []}
        ended = set()
        while len(ended) < 2:
            result, error = answers.get(timeout=30)
            if error is not None:
                ended.add("error")
                message = error.message()
                continue
            response = result.get_response()
            if response.outputs:
                found[response.id].append(int(result.as_numpy("i")[0, 0]))
            if response.parameters["triton_final_response"].bool_param:
                ended.add(response.id)
        client.stop_stream()
    assert found == {"2": [0, 1], "5": [0, 1, 2]}
    assert ended == {"2", "error"}
    assert "Counts.execute raised RuntimeError: three is enough (python_classes.py:" in message
    with user_code(folder), PythonRunner(COUNTS, folder) as runner:
        assert [int(answer["i"][0, 0]) for answer in runner.responses({"n": np.array([[2]], np.int32)})] == [0, 1]


def test_nothing_but_the_model_is_compiled_into_the_version_folder(server):
    model = server.repositories[0] / "named_model" / "1"
    assert [path.name for path in (model / "code").rglob("*.pyc")] == []
    shutil.rmtree(model / "__pycache__", ignore_errors=True)
