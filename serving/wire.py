"""What the synchronous and the asynchronous client share: addresses, tensors, plain answers, and errors said once.

tritonclient is imported here and only inside functions; its exceptions and message types stop here.
"""

from __future__ import annotations

import importlib
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from serving.errors import (
    InferenceError,
    MissingDependencyError,
    ModelLoadError,
    ServerUnavailableError,
    TritonRepoError,
    UsageError,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

_DEFAULT_PORTS = {"http": 8000, "grpc": 8001}
# gRPC says UNAVAILABLE for "no server there" and for "the server will not just now"; only the first is ours to retry.
_NO_CONNECTION = re.compile(
    r"failed to connect|socket closed|connection re(set|fused)|recvmsg|sendmsg|endpoint read failed|goaway|broken pipe"
    r"|cancelling all calls|resolution (failed|failure)|handshak|transport|end of tcp stream|channel is shutting down",
    re.I,
)


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    Attributes:
        protocol: ``http`` or ``grpc``.
        netloc: ``host:port``, for HTTP with the path before ``/v2`` if there is one.
        tls: encrypted (``https``, ``grpcs``).
    """

    protocol: Literal["http", "grpc"]
    netloc: str
    tls: bool = False

    def __str__(self) -> str:
        return f"{self.protocol}{'s' if self.tls else ''}://{self.netloc}"


def parse_url(url: str) -> Address:
    """``http://h:p``, ``grpc://h:p``, with ``s`` for TLS; ``h:p`` means HTTP; without a port Triton's own.

    Raises:
        UsageError: anything else.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "http", url
    protocol = {"http": "http", "https": "http", "grpc": "grpc", "grpcs": "grpc"}.get(scheme.lower())
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if protocol is None or not host or parts.query or parts.fragment or (protocol == "grpc" and parts.path.strip("/")):
        raise UsageError("not the address of a server", expected="http://host:port or grpc://host:port", got=repr(url))
    host = f"[{host}]" if ":" in host else host
    netloc = f"{host}:{_DEFAULT_PORTS[protocol] if port is None else port}{parts.path.rstrip('/')}"
    return Address("grpc" if protocol == "grpc" else "http", netloc, scheme.lower().endswith("s"))


def tritonclient(address: Address, *, aio: bool = False) -> Any:
    """The tritonclient module for an address: each has ``InferenceServerClient``, ``InferInput``, ...

    Raises:
        MissingDependencyError: it, or what it needs for this protocol, is not installed.
    """
    name = f"tritonclient.{address.protocol}{'.aio' if aio else ''}"
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise MissingDependencyError("tritonclient", "serve", needed_for=f"to call a server over {address}") from exc


def connect(module: Any, address: Address, timeout_s: float, *, aio: bool = False, ca_file: Path | None = None) -> Any:
    """A tritonclient connection object; no byte is sent yet.

    Args:
        ca_file: certificates to trust with TLS; not with ``aio``.
    """
    trusted = str(ca_file) if ca_file is not None else None
    if address.protocol == "grpc":
        return module.InferenceServerClient(
            address.netloc, ssl=address.tls, root_certificates=trusted, channel_args=_channel_args(address)
        )
    if aio:
        return module.InferenceServerClient(address.netloc, ssl=address.tls, conn_timeout=timeout_s)
    return module.InferenceServerClient(
        address.netloc,
        ssl=address.tls,
        ssl_options={"ca_certs": trusted} if trusted is not None else None,
        connection_timeout=timeout_s,
        network_timeout=timeout_s,
    )


def _channel_args(address: Address) -> list[tuple[str, int]]:
    local = address.netloc.rpartition(":")[0] in ("localhost", "[::1]") or address.netloc.startswith("127.")
    return [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.enable_http_proxy", 0 if local else 1),  # gRPC would ask the proxy for 127.0.0.1 too
        ("grpc.initial_reconnect_backoff_ms", 100),  # a server that restarts is found again soon
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]


def infer_inputs(module: Any, inputs: Mapping[str, np.ndarray[Any, Any]]) -> list[Any]:
    """The request's tensors; their types are those of the arrays.

    Raises:
        UsageError: something that is no array, or of a type that no tensor has.
    """
    import numpy as np
    from tritonclient.utils import np_to_triton_dtype

    if not isinstance(inputs, Mapping):
        raise UsageError("inputs are given by name", expected="{name: numpy array}", got=type(inputs).__name__)
    tensors = []
    for name, value in inputs.items():
        array = np.asarray(value)
        if array.dtype.kind == "U":
            array = array.astype(object)
        elif not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        triton = np_to_triton_dtype(array.dtype)
        if triton is None:
            raise UsageError(
                f"the array for input '{name}' has a type that no tensor has",
                expected="bool, integers, float16/32/64, bfloat16 (ml_dtypes), strings",
                got=str(array.dtype),
            )
        tensor = module.InferInput(name, list(array.shape), triton)
        try:
            tensor.set_data_from_numpy(array)
        except Exception as exc:
            raise UsageError(f"the array for input '{name}' cannot be sent", got=_message(exc)) from exc
        tensors.append(tensor)
    return tensors


def requested_outputs(module: Any, outputs: Sequence[str] | None) -> list[Any] | None:
    """The outputs to ask for; None asks for all."""
    return None if outputs is None else [module.InferRequestedOutput(name) for name in outputs]


def arrays(result: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Every output of an answer; strings as object arrays of bytes. The arrays may be read-only."""
    response = result.get_response()
    listed = response.get("outputs", []) if isinstance(response, dict) else response.outputs
    names = [output["name"] if isinstance(output, dict) else output.name for output in listed]
    return {name: result.as_numpy(name) for name in names}


def plain(answer: Any) -> Any:
    """A protobuf message as the HTTP endpoint would have said it: numbers are numbers, defaults are there."""
    if hasattr(answer, "DESCRIPTOR"):
        return _plain_message(answer)
    return answer


def _plain_message(message: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            result[field.name] = {key: plain(value[key]) for key in value}
        elif isinstance(value, (str, bytes, int, float)) or hasattr(value, "DESCRIPTOR"):
            if field.has_presence and not message.HasField(field.name):
                continue
            result[field.name] = _plain_value(field, value)
        else:
            result[field.name] = [_plain_value(field, each) for each in value]
    return result


def _plain_value(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value.decode(errors="replace") if isinstance(value, bytes) else plain(value)


def is_foreign(error: Exception) -> bool:
    """True for what tritonclient and the libraries under it raise, which :func:`translate` turns into ours."""
    return not isinstance(error, (TritonRepoError, TypeError, AttributeError, NameError, KeyError))


def translate(
    error: Exception, address: Address, *, model: str, timeout_s: float, loading: bool = False, streamed: bool = False
) -> Exception:
    """Our error for one of theirs, with the server's message, the model and the address.

    In a stream (``streamed``) the server says what is wrong with a request without a status.
    """
    where = f"model '{model}' at {address}" if model else str(address)
    status = str(_status(error) or "")
    message = _message(error)
    if _is_timeout(error, status, message):
        return InferenceError(
            f"no answer within {timeout_s:g} s",
            where=where,
            fix="allow more with timeout_s, or see what keeps the server",
        )
    if _is_unavailable(error, status, message):
        return ServerUnavailableError(
            "no server answers",
            where=where,
            got=message,
            fix="check that it runs and that address and protocol are right",
        )
    if loading:
        return ModelLoadError(f"model '{model}' failed to load", where=where, got=message, failures={model: message})
    what = "the server refused the request" if status or streamed else "the call failed, or what answers is no Triton"
    return InferenceError(what, where=where, got=message)


def end_event_loop() -> None:
    """End what gevent, below tritonclient's HTTP, keeps for this thread; the main thread's stays."""
    gevent = sys.modules.get("gevent")
    if gevent is not None and threading.current_thread() is not threading.main_thread():
        gevent.get_hub().destroy(destroy_loop=True)


def _status(error: Exception) -> Any:
    status = getattr(error, "status", None)
    return status() if callable(status) else None


def _message(error: Exception) -> str:
    message = getattr(error, "message", None)
    text = message() if callable(message) else str(error)
    return str(text or type(error).__name__).strip()


def _is_timeout(error: Exception, status: str, message: str) -> bool:
    if "DEADLINE_EXCEEDED" in status:
        return True
    # gevent's and asyncio's are subclasses of the built-in one, or named like it on older Pythons.
    return isinstance(error, TimeoutError) or type(error).__name__ in ("timeout", "TimeoutError", "ServerTimeoutError")


def _is_unavailable(error: Exception, status: str, message: str) -> bool:
    if "UNAVAILABLE" in status:
        return bool(_NO_CONNECTION.search(message))
    if status:
        return (
            status in ("502", "503", "504") and "decoding the response" in message
        )  # a proxy's page, not Triton's word
    # No status: the failure came before any answer. geventhttpclient and aiohttp have types of their own for it.
    if isinstance(error, RuntimeError) and "annot resolve" in message:
        return True
    return isinstance(error, (OSError, EOFError)) or _is_http_library(error)


def _is_http_library(error: Exception) -> bool:
    return type(error).__module__.split(".")[0] in ("aiohttp", "geventhttpclient", "gevent")
