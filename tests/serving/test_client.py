from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serving import AsyncClient, Client, Server
from serving.errors import InferenceError, ModelLoadError, ServerUnavailableError
from serving.runtime import Runtime

pytestmark = pytest.mark.server

NUMPY = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
PROTOCOLS = ("http", "grpc")


def url(server: Server, protocol: str) -> str:
    return f"http://{server.http_url}" if protocol == "http" else f"grpc://{server.grpc_url}"


@pytest.fixture(params=PROTOCOLS)
def address(request: pytest.FixtureRequest, triton: Server) -> str:
    return url(triton, request.param)


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, timeout_s=20) as client:
        yield client


def seconds(value: float) -> dict[str, np.ndarray]:
    return {"SECONDS": np.full(1, value, np.float32)}


def test_every_type_goes_there_and_back(client: Client) -> None:
    given = {f"{name}_IN": (np.arange(6).reshape(2, 3) % 2).astype(dtype) for name, dtype in NUMPY.items()}
    answer = client.infer("echo", given)
    assert set(answer) == {f"{name}_OUT" for name in NUMPY}
    for name in NUMPY:
        np.testing.assert_array_equal(answer[f"{name}_OUT"], given[f"{name}_IN"], strict=True)


@pytest.mark.parametrize(
    "strings",
    [
        np.array([["a", "ü", ""]]),
        np.array([[b"a", b"\x00b", b""]], dtype=object),
        np.array([[b"a", b"bc"]]),
        np.empty((2, 0), dtype=object),
    ],
    ids=["U", "object", "S", "none"],
)
def test_strings_go_there_and_back(client: Client, strings: np.ndarray) -> None:
    answer = client.infer("echo", {"STRING_IN": strings})["STRING_OUT"]
    expected = [each.encode() if isinstance(each, str) else each for each in strings.ravel().tolist()]
    assert answer.shape == strings.shape
    assert answer.ravel().tolist() == expected


def test_tensors_without_elements(client: Client) -> None:
    answer = client.infer("echo", {"FP32_IN": np.zeros((2, 0), np.float32)})["FP32_OUT"]
    assert (answer.shape, answer.dtype) == ((2, 0), np.float32)


def test_only_the_outputs_asked_for(client: Client) -> None:
    given = {"FP32_IN": np.ones((1, 1), np.float32), "INT8_IN": np.ones((1, 1), np.int8)}
    assert list(client.infer("echo", given, outputs=["INT8_OUT"], version="1", request_id="me")) == ["INT8_OUT"]


def test_what_the_server_says_of_its_models(client: Client, until) -> None:
    metadata = client.metadata("slow")
    assert metadata["inputs"] == [{"name": "SECONDS", "datatype": "FP32", "shape": [1]}]
    config = client.config("echo")
    assert config["max_batch_size"] == 8
    assert config["input"][0]["dims"] == [-1]
    assert config["instance_group"][0]["kind"] == "KIND_CPU"
    client.infer("slow", seconds(0))
    until(lambda: client.statistics("slow")[0]["inference_stats"]["success"]["count"] > 0)
    assert isinstance(client.statistics("slow")[0]["inference_stats"]["success"]["ns"], int)
    assert {"echo", "slow"} <= {each["name"] for each in client.statistics()}
    assert {"name": "slow", "version": "1", "state": "READY"}.items() <= client.index()[1].items()


def test_both_protocols_give_the_same_description(triton: Server) -> None:
    with Client(url(triton, "http")) as http, Client(url(triton, "grpc")) as grpc:
        assert http.metadata("echo") == grpc.metadata("echo")
        ours, theirs = http.config("echo"), grpc.config("echo")
        assert {key: theirs[key] for key in ours} == ours


def test_readiness(client: Client) -> None:
    assert client.is_live()
    assert client.is_ready()
    assert client.is_ready("slow")
    assert not client.is_ready("nothing")
    client.wait_ready(5, "slow")
    with pytest.raises(ServerUnavailableError, match=r"model 'nothing' was not ready after 0.1 s"):
        client.wait_ready(0.1, "nothing")


@pytest.mark.parametrize(
    ("model", "inputs", "said"),
    [
        ("nothing", {}, "unknown model: 'nothing'"),
        ("echo", {"FP32_IN": np.zeros((1, 1))}, "'FP32_IN' data-type is 'FP64', but model 'echo' expects 'FP32'"),
        ("slow", {"SECONDS": np.zeros(2, np.float32)}, "unexpected shape for input 'SECONDS'"),
        ("slow", {}, "expected 1 inputs but got 0 inputs"),
        ("echo", {"bogus": np.zeros((1, 1))}, "unexpected inference input 'bogus'"),
    ],
)
def test_errors_carry_the_server_s_message(client: Client, model: str, inputs: dict, said: str) -> None:
    with pytest.raises(InferenceError, match="the server refused the request") as caught:
        client.infer(model, inputs)
    assert said in caught.value.got
    assert caught.value.where == f"model '{model}' at {client.address}"
    assert type(caught.value) is InferenceError


def test_a_model_that_raises_fails_that_request_only(client: Client) -> None:
    with pytest.raises(InferenceError) as caught:
        client.infer("slow", seconds(-1))
    assert "no time like this" in caught.value.got
    assert client.infer("slow", seconds(0))["SLEPT"].tolist() == [0]


def test_a_timeout_is_in_seconds(client: Client) -> None:
    with pytest.raises(InferenceError, match=r"no answer within 0.2 s"):
        client.infer("slow", seconds(1), timeout_s=0.2)


def test_models_come_and_go(client: Client, triton: Server, write_model) -> None:
    name = f"guest_{client.address.protocol}"
    folder = write_model(triton.repositories[0], name)
    client.load(name)
    assert client.is_ready(name)
    client.load(name, {"backend": "python", "max_batch_size": 2, **_io()})
    assert client.config(name)["max_batch_size"] == 2
    client.unload(name)
    with pytest.raises(InferenceError):
        client.infer(name, seconds(0))
    (folder / "1/model.py").write_text("raise RuntimeError('the weights are gone')")
    with pytest.raises(ModelLoadError, match=f"model '{name}' failed to load") as caught:
        client.load(name)
    assert "the weights are gone" in caught.value.failures[name]
    # A server with a model that failed is not ready: leave it as it was.
    write_model(triton.repositories[0], name)
    client.load(name)
    client.unload(name)
    client.wait_ready(10)


def _io() -> dict:
    return {
        "input": [{"name": "SECONDS", "data_type": "TYPE_FP32", "dims": [1]}],
        "output": [{"name": "SLEPT", "data_type": "TYPE_FP32", "dims": [1]}],
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_thread_that_leaves_takes_its_event_loop_with_it(triton: Server, protocol: str) -> None:
    with Client(url(triton, protocol)) as client:
        assert client.is_ready()

        def call() -> None:
            client.is_ready()
            client.leave_thread()
            client.leave_thread()  # without anything to leave
            assert client.is_ready()  # a new connection
            client.leave_thread()

        def in_threads() -> int:
            for _ in range(5):
                thread = threading.Thread(target=call)
                thread.start()
                thread.join()
            return sum(1 for _ in Path("/proc/self/fd").iterdir())

        assert in_threads() >= in_threads() - 1
        client.leave_thread()  # the main thread's loop stays
        assert client.is_ready()


def test_threads_share_a_client(client: Client) -> None:
    wrong: list[int] = []

    def call(number: int) -> None:
        for _ in range(10):
            value = np.full((1, 3), number)
            if not (client.infer("echo", {"INT64_IN": value})["INT64_OUT"] == value).all():
                wrong.append(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_asynchronous_client_does_the_same(address: str) -> None:
    async def work() -> None:
        async with AsyncClient(address, timeout_s=20) as client:
            values = [np.full((1, 2), number) for number in range(20)]
            answers = await asyncio.gather(*[client.infer("echo", {"INT64_IN": value}) for value in values])
            for value, answer in zip(values, answers, strict=True):
                np.testing.assert_array_equal(answer["INT64_OUT"], value)
            assert await client.is_live() and await client.is_ready("slow")
            assert (await client.metadata("slow"))["name"] == "slow"
            assert (await client.config("echo"))["max_batch_size"] == 8
            assert await client.statistics("slow") and await client.index()
            await client.wait_ready(5)
            with pytest.raises(InferenceError, match="the server refused"):
                await client.infer("nothing", {})
            with pytest.raises(InferenceError, match=r"no answer within 0.2 s"):
                await client.infer("slow", seconds(1), timeout_s=0.2)
            with pytest.raises(ModelLoadError, match="failed to load"):
                await client.load("nothing")
            await client.unload("nothing")

    asyncio.run(work())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nobody_there(protocol: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        with Client(f"{protocol}://127.0.0.1:{unused.getsockname()[1]}", timeout_s=5, retries=1) as client:
            assert not client.is_live()
            assert not client.is_ready()
            with pytest.raises(ServerUnavailableError, match="no server answers") as caught:
                client.infer("m", {"x": np.zeros(1)})
            assert "refused" in caught.value.got.lower()


class _Flaky:
    """Stands for tritonclient's connection: the first calls find nobody."""

    def __init__(self, failures: int) -> None:
        self.left, self.calls = failures, 0

    def unload_model(self, model: str, unload_dependents: bool) -> str:
        return self.is_server_live()

    def is_server_live(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise ConnectionRefusedError(111, "Connection refused")
        return "answer"

    def close(self) -> None:
        pass


def test_only_what_does_no_harm_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client("http://127.0.0.1:1", retries=2)
    flaky = _Flaky(failures=2)
    monkeypatch.setattr(client, "_connection", lambda timeout_s: flaky)
    assert client._call("is_server_live") == "answer"
    assert flaky.calls == 3
    flaky = _Flaky(failures=1)
    with pytest.raises(ServerUnavailableError):
        client.unload("m")
    assert flaky.calls == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_killed_with_a_request_in_flight(
    protocol: str, tmp_path: Path, triton_runtime: Runtime, write_model, telling_code, until
) -> None:
    begun = tmp_path / "begun"
    write_model(tmp_path / "models", "slow", code=telling_code(begun))
    with Server(tmp_path / "models", runtime=triton_runtime) as server:
        failed: list[BaseException] = []

        def call() -> None:
            try:
                with Client(url(server, protocol)) as client:
                    client.infer("slow", seconds(30))
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        until(begun.exists)
        os.kill(server.pid, signal.SIGKILL)
        thread.join(20)
        assert isinstance(failed[0], ServerUnavailableError)
        assert server.wait(20) == 137
