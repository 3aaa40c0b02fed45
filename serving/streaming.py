"""Requests that have any number of answers (decoupled models): what both clients do to get all of them."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving import wire
from serving.errors import InferenceError, UsageError

if TYPE_CHECKING:
    import numpy as np

FINAL = "triton_final_response"
_REASON_S = 1.0
"""How long the reason for a stream's end may take to arrive after the end itself."""


def require_grpc(address: wire.Address) -> None:
    """Refuse an address that has no streams.

    Raises:
        UsageError: it is HTTP.
    """
    if address.protocol != "grpc":
        raise UsageError(
            "HTTP has one answer to a request",
            where=str(address),
            expected="a server's gRPC address for a model that answers in a stream",
            got=str(address),
            fix="use grpc://host:8001, or the server's own gRPC port",
        )


def request(
    module: Any,
    model: str,
    inputs: Mapping[str, np.ndarray[Any, Any]],
    *,
    version: str,
    outputs: Sequence[str] | None,
    request_id: str,
    parameters: Mapping[str, str | int | float | bool] | None,
) -> dict[str, Any]:
    """A request as tritonclient takes it for a stream; the last answer says that it is the last."""
    return {
        "model_name": model,
        "inputs": wire.infer_inputs(module, inputs),
        "model_version": version,
        "outputs": wire.requested_outputs(module, outputs),
        "request_id": request_id,
        "parameters": dict(parameters) if parameters else None,
        "enable_empty_final_response": True,
    }


def is_last(result: Any) -> bool:
    """Whether no further answer follows."""
    found = result.get_response().parameters
    return FINAL in found and bool(found[FINAL].bool_param)


def _first_error(arrived: queue.Queue[tuple[Any, Exception | None]]) -> Exception | None:
    try:
        return arrived.get(timeout=_REASON_S)[1]
    except queue.Empty:
        return None


def answers(
    module: Any, address: wire.Address, asked: Mapping[str, Any], timeout_s: float, *, ca_file: Path | None = None
) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """Every answer to one request, as it comes, over a connection of its own: it can hold one stream.

    Raises:
        InferenceError: the server refused, or the last answer was not there in time.
        ServerUnavailableError: nobody answers at the address.
    """
    model, ends_s = str(asked["model_name"]), time.monotonic() + timeout_s
    arrived: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()
    connection = wire.connect(module, address, timeout_s, ca_file=ca_file)
    try:
        connection.start_stream(callback=lambda result, error: arrived.put((result, error)))
        try:
            connection.async_stream_infer(**asked)
        except Exception as exc:
            if not wire.is_foreign(exc):
                raise
            # The stream has ended already, and why arrives where answers do; else it is the request that is wrong.
            arrived.put((None, _first_error(arrived) or exc))
        while True:
            try:
                result, error = arrived.get(timeout=max(0.0, ends_s - time.monotonic()))
            except queue.Empty:
                raise InferenceError(
                    f"not all answers within {timeout_s:g} s",
                    where=f"model '{model}' at {address}",
                    fix="allow more with timeout_s, or see what keeps the server",
                ) from None
            if error is not None:
                raise wire.translate(error, address, model=model, timeout_s=timeout_s, streamed=True) from error
            last = is_last(result)
            if found := wire.arrays(result):
                yield found
            if last:
                return
    finally:
        connection.stop_stream(cancel_requests=True)
        connection.close()
