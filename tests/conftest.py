"""What the tests of every package share: the server runtime, provided once, and one small running server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.runtime import Runtime, embedded_runtime
from serving.server import Server

INTEGERS = ["UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"]
TYPES = ["BOOL", *INTEGERS, "FP16", "FP32", "FP64", "STRING"]

ECHO = """
import json
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.pairs = [(i["name"], o["name"]) for i, o in zip(config["input"], config["output"])]

    def execute(self, requests):
        responses = []
        for request in requests:
            given = [(out, pb_utils.get_input_tensor_by_name(request, name)) for name, out in self.pairs]
            tensors = [pb_utils.Tensor(out, tensor.as_numpy()) for out, tensor in given if tensor is not None]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses
"""
SLOW = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            seconds = pb_utils.get_input_tensor_by_name(request, "SECONDS").as_numpy()
            if seconds.min() < 0:
                raise ValueError("no time like this")
            time.sleep(float(seconds.max()))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("SLEPT", seconds)]))
        return responses
"""
SLOW_CONFIG = """
backend: "python"
input [{ name: "SECONDS" data_type: TYPE_FP32 dims: [ 1 ] }]
output [{ name: "SLEPT" data_type: TYPE_FP32 dims: [ 1 ] }]
"""


def echo_config() -> str:
    inputs = ",\n".join(f'{{ name: "{t}_IN" data_type: TYPE_{t} dims: [ -1 ] optional: true }}' for t in TYPES)
    outputs = ",\n".join(f'{{ name: "{t}_OUT" data_type: TYPE_{t} dims: [ -1 ] }}' for t in TYPES)
    return f'backend: "python"\nmax_batch_size: 8\ninput [\n{inputs}\n]\noutput [\n{outputs}\n]\n'


WriteModel = Callable[..., Path]


@pytest.fixture(scope="session")
def write_model() -> WriteModel:
    """``write_model(repository, name, config=..., code=...)``: a model of the Python backend; gives its folder."""

    def write(repository: Path, name: str, *, config: str = SLOW_CONFIG, code: str = SLOW) -> Path:
        folder = repository / name
        (folder / "1").mkdir(parents=True, exist_ok=True)
        (folder / "config.pbtxt").write_text(config)
        (folder / "1/model.py").write_text(code)
        return folder

    return write


@pytest.fixture(scope="session")
def telling_code() -> Callable[[Path], str]:
    """``telling_code(path)``: the code of ``slow``, which makes ``path`` when a request begins."""

    def code(begun: Path) -> str:
        return SLOW.replace("time.sleep", f"open({str(begun)!r}, 'w').close(); time.sleep")

    return code


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """``until(condition, timeout_s=30)``: poll until it holds; the test fails if it does not in time."""

    def wait(condition: Callable[[], object], timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not so after {timeout_s} s: {condition}"
            time.sleep(0.02)

    return wait


@pytest.fixture(scope="session")
def triton_runtime() -> Runtime:
    """The embedded runtime, provided on first use (the workers of a parallel run wait for one of them)."""
    return embedded_runtime()


@pytest.fixture(scope="session")
def triton(
    triton_runtime: Runtime, write_model: WriteModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A running server, one per worker: ``echo`` (one optional input and output per type), ``slow`` (sleeps SECONDS).

    Model control is explicit, so that a test may load and unload what it adds to ``triton.repositories[0]``.
    """
    repository = tmp_path_factory.mktemp("repository")
    write_model(repository, "echo", config=echo_config(), code=ECHO)
    write_model(repository, "slow")
    with Server(
        repository,
        runtime=triton_runtime,
        model_control_mode="explicit",
        load=["echo", "slow"],
        cache_size_bytes=1 << 20,
    ) as server:
        yield server
