from __future__ import annotations

import sys

import numpy as np
import pytest

from serving import wire
from serving.errors import InferenceError, MissingDependencyError, ModelLoadError, ServerUnavailableError, UsageError
from serving.wire import Address, parse_url, translate

HERE = Address("grpc", "127.0.0.1:8001")


@pytest.mark.parametrize(
    ("url", "address", "text"),
    [
        ("h:1", Address("http", "h:1"), "http://h:1"),
        ("http://h:1/", Address("http", "h:1"), "http://h:1"),
        ("http://h", Address("http", "h:8000"), "http://h:8000"),
        ("https://h/triton/", Address("http", "h:8000/triton", tls=True), "https://h:8000/triton"),
        ("grpc://h", Address("grpc", "h:8001"), "grpc://h:8001"),
        ("GRPCS://h:443", Address("grpc", "h:443", tls=True), "grpcs://h:443"),
        ("http://[::1]:9", Address("http", "[::1]:9"), "http://[::1]:9"),
    ],
)
def test_addresses(url: str, address: Address, text: str) -> None:
    assert parse_url(url) == address
    assert str(address) == text


@pytest.mark.parametrize("url", ["", "ftp://h", "http://", "h:port", "grpc://h:1/path", "http://h:1?x=1", "h:99999"])
def test_no_addresses(url: str) -> None:
    with pytest.raises(UsageError, match="not the address of a server") as caught:
        parse_url(url)
    assert repr(url) in caught.value.got


def test_a_missing_tritonclient_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient.http", None)
    with pytest.raises(MissingDependencyError, match="tritonclient is not installed") as caught:
        wire.tritonclient(Address("http", "h:1"))
    assert caught.value.fix == "pip install 'triton-repo[serve]'"


def test_arrays_of_no_tensor_type_are_refused() -> None:
    module = wire.tritonclient(HERE)
    with pytest.raises(UsageError, match="the array for input 'x' has a type that no tensor has") as caught:
        wire.infer_inputs(module, {"x": np.zeros(1, complex)})
    assert caught.value.got == "complex128"
    with pytest.raises(UsageError, match="inputs are given by name"):
        wire.infer_inputs(module, [np.zeros(1)])  # type: ignore[arg-type]


def test_any_array_becomes_a_tensor() -> None:
    module = wire.tritonclient(HERE)
    given = {
        "swapped": np.arange(3, dtype=">f4"),
        "transposed": np.arange(6, dtype=np.int64).reshape(2, 3).T,
        "scalar": np.float32(1.0),
        "text": np.array(["a", "ü"]),
    }
    tensors = {tensor.name(): tensor for tensor in wire.infer_inputs(module, given)}
    assert {name: tensor.datatype() for name, tensor in tensors.items()} == {
        "swapped": "FP32",
        "transposed": "INT64",
        "scalar": "FP32",
        "text": "BYTES",
    }
    assert np.frombuffer(tensors["swapped"]._get_content(), "<f4").tolist() == [0, 1, 2]
    assert np.frombuffer(tensors["transposed"]._get_content(), "<i8").tolist() == [0, 3, 1, 4, 2, 5]
    assert tensors["scalar"].shape() == []


class _Foreign(Exception):
    def __init__(self, message: str, status: str | None) -> None:
        super().__init__(message)
        self._message, self._status = message, status

    def message(self) -> str:
        return self._message

    def status(self) -> str | None:
        return self._status


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (_Foreign("Deadline Exceeded", "StatusCode.DEADLINE_EXCEEDED"), InferenceError),
        (TimeoutError("timed out"), InferenceError),
        (_Foreign("failed to connect to all addresses", "StatusCode.UNAVAILABLE"), ServerUnavailableError),
        (_Foreign("Socket closed", "StatusCode.UNAVAILABLE"), ServerUnavailableError),
        (_Foreign("Request for unknown model: 'm' is not found", "StatusCode.UNAVAILABLE"), InferenceError),
        (_Foreign("Exceeds maximum queue size", "StatusCode.UNAVAILABLE"), InferenceError),
        (_Foreign("unexpected shape", "400"), InferenceError),
        (_Foreign("an exception occurred in the client while decoding the response", "502"), ServerUnavailableError),
        (ConnectionRefusedError(111, "Connection refused"), ServerUnavailableError),
    ],
)
def test_foreign_errors_become_ours(error: Exception, expected: type[Exception]) -> None:
    ours = translate(error, HERE, model="m", timeout_s=3)
    assert type(ours) is expected
    assert "model 'm' at grpc://127.0.0.1:8001" in str(ours)


def test_the_server_s_words_are_kept() -> None:
    ours = translate(_Foreign("unexpected shape for input 'x'", "400"), HERE, model="m", timeout_s=3)
    assert "unexpected shape for input 'x'" in str(ours)
    late = translate(TimeoutError(), HERE, model="m", timeout_s=0.5)
    assert str(late).startswith("no answer within 0.5 s")
    load = translate(_Foreign("no such file", "400"), HERE, model="m", timeout_s=3, loading=True)
    assert isinstance(load, ModelLoadError)
    assert load.failures == {"m": "no such file"}


def test_our_own_bugs_are_not_dressed_up() -> None:
    assert not wire.is_foreign(TypeError())
    assert not wire.is_foreign(UsageError("x"))
    assert wire.is_foreign(OSError())
