"""One server with small models for all tests of the harness; started once per test process."""

import json
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parent / "data"

_MODEL = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        {pause}
        for request in requests:
            value = pb_utils.get_input_tensor_by_name(request, "{input}").as_numpy()
            {check}
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("{output}", {answer})]))
        return answers
"""

_TOKEN_CHECK = """if (value < 0).any() or (value >= 100).any():
                error = pb_utils.TritonError("token id out of range 0..99")
                answers.append(pb_utils.InferenceResponse(error=error))
                continue"""


_ZERO_CHECK = """if (value == 0).any():
                error = pb_utils.TritonError("zero is not positive")
                answers.append(pb_utils.InferenceResponse(error=error))
                continue"""


_STREAM = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            value = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            sender = request.get_response_sender()
            for part in range(3):
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("y", value + part)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


def write_model(repository, name, config, *, input="x", output="y", answer="value * 2", pause="", check=""):
    """A model of the Python backend."""
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(config)
    text = _MODEL.format(input=input, output=output, answer=answer, pause=pause, check=check)
    (folder / "model.py").write_text(text)
    return folder


def save_golden(folder, requests, answers=()):
    """``golden.npz`` as build-repo leaves it: requests with their batch dimension of one."""
    folder.mkdir(parents=True, exist_ok=True)
    sides = (("inputs", requests), ("outputs", answers))
    arrays = {f"{side}/{name}/{k}": v for side, rows in sides for k, row in enumerate(rows) for name, v in row.items()}
    np.savez(folder / "golden.npz", **arrays)


def _config(input_, output, *, batch=8, extra="dynamic_batching { }", backend='backend: "python"'):
    tensors = f"input [{{ {input_} }}]\noutput [{{ {output} }}]\n"
    return f"{backend}\nmax_batch_size: {batch}\n{tensors}{extra}\n"


X4 = 'name: "x" data_type: TYPE_FP32 dims: [ 4 ]'
ONE = "instance_group [ { kind: KIND_CPU count: 1 } ]"
Y4 = 'name: "y" data_type: TYPE_FP32 dims: [ 4 ]'


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    """scale (fp32[4]), nobatch, tokens (int64[-1], with golden requests), words (strings), positive (refuses zeros),
    lonely (tensor names of its own), nap (10 ms, one at a time), late (0.4 s an answer), slow (3 s),
    crowded (scale, but wrong in a batch), twice (an ensemble: scale after scale),
    counter (stateful), three (decoupled: three responses, then the empty one that ends the stream)."""
    folder = tmp_path_factory.mktemp("perf") / "repository"
    write_model(folder, "scale", _config(X4, Y4))
    waits = "dynamic_batching { max_queue_delay_microseconds: 5000 }"  # a busy machine's requests come one by one
    write_model(folder, "crowded", _config(X4, Y4, extra=waits), answer="value * 2 + (len(requests) > 1)")
    write_model(folder, "slow", _config(X4, Y4), pause="time.sleep(3)")
    write_model(folder, "nap", _config(X4, Y4, batch=0, extra=ONE), pause="time.sleep(0.01)")
    write_model(folder, "late", _config(X4, Y4), pause="time.sleep(0.4)")
    write_model(folder, "nobatch", _config(X4, Y4, batch=0, extra=""))
    names = (X4.replace('"x"', '"left_behind"'), Y4.replace('"y"', '"left_behind_too"'))
    write_model(folder, "lonely", _config(*names), input="left_behind", output="left_behind_too")
    number, answer = 'name: "x" data_type: TYPE_INT32 dims: [ 1 ]', 'name: "y" data_type: TYPE_INT32 dims: [ 1 ]'
    write_model(folder, "positive", _config(number, answer), check=_ZERO_CHECK)
    ids = 'name: "ids" data_type: TYPE_INT64 dims: [ -1 ]'
    total = 'name: "total" data_type: TYPE_INT64 dims: [ 1 ]'
    tokens = write_model(
        folder,
        "tokens",
        _config(ids, total),
        input="ids",
        output="total",
        answer="value.sum(axis=1, keepdims=True)",
        check=_TOKEN_CHECK,
    )
    lengths = (3, 5, 5, 8)
    save_golden(tokens, [{"ids": np.arange(n, dtype=np.int64)[None]} for n in lengths])
    write_model(
        folder,
        "words",
        _config('name: "x" data_type: TYPE_STRING dims: [ -1 ]', 'name: "y" data_type: TYPE_STRING dims: [ -1 ]'),
        answer="value",
    )
    start = 'control_input [ { name: "START" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [0, 1] } ] } ]'
    write_model(folder, "counter", _config(X4, Y4, extra=f"sequence_batching {{ {start} }}"))
    save_golden(folder / "counter" / "1", [{"x": np.full((1, 4), n, np.float32)} for n in range(3)])
    three = write_model(folder, "three", _config(X4, Y4, batch=0, extra="model_transaction_policy { decoupled: true }"))
    (three / "model.py").write_text(_STREAM)
    steps = (
        'ensemble_scheduling { step [ { model_name: "scale" model_version: -1 '
        'input_map { key: "x" value: "x" } output_map { key: "y" value: "m" } }, '
        '{ model_name: "scale" model_version: -1 input_map { key: "x" value: "m" } '
        'output_map { key: "y" value: "y" } } ] }'
    )
    twice = folder / "twice" / "1"
    twice.mkdir(parents=True)
    (folder / "twice" / "config.pbtxt").write_text(_config(X4, Y4, extra=steps, backend='platform: "ensemble"'))
    return folder


@pytest.fixture(scope="session")
def server(repository):
    from serving import Server

    with Server(repository, exit_timeout_s=1) as running:
        yield running


@pytest.fixture(scope="session")
def binary():
    from perf.binary import find_binary

    return find_binary()


@pytest.fixture(scope="session")
def recorded():
    """Files of a real run by each perf_analyzer, and the server's statistics around it."""

    def load(version):
        return {
            "export": DATA / f"profile_export_{version}.json",
            "csv": DATA / f"perf_analyzer_{version}.csv",
            "stdout": (DATA / f"stdout_{version}.txt").read_text(),
            "before": json.loads((DATA / f"before_{version}.json").read_text())["model_stats"][0],
            "after": json.loads((DATA / f"after_{version}.json").read_text())["model_stats"][0],
        }

    return load


@pytest.fixture(scope="session")
def write_golden():
    return save_golden


@pytest.fixture(autouse=True)
def history_elsewhere(monkeypatch, tmp_path_factory):
    """What a test measures does not go into the history of the folder that the tests run in."""
    monkeypatch.setenv("BENCH_HISTORY", str(tmp_path_factory.getbasetemp() / "history.sqlite"))
