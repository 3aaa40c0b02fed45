"""Calls to a server: numpy in, numpy out, timeouts in seconds, and errors that carry the server's words."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from serving import streaming, wire
from serving.errors import InferenceError, ServerUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

BACKOFF_S = 0.1
WAIT_INTERVAL_S = 0.05


class Client:
    """A connection to one server over HTTP or gRPC; a context manager; may be shared by threads.

    Args:
        url: ``http://host:port``, ``grpc://host:port``, ``https``/``grpcs`` for TLS; ``host:port`` means HTTP.
        timeout_s: how long any call may take; over HTTP how long the connection may be silent.
        retries: how often a call is tried again when no server answers, if repeating it does no harm.
        ca_file: certificates (PEM) to trust with TLS, instead of the system's.

    Raises:
        UsageError: ``url`` is no address.
        MissingDependencyError: tritonclient is not installed.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0, retries: int = 2, ca_file: Path | None = None) -> None:
        self.address = wire.parse_url(url)
        self._ca_file = ca_file
        self._timeout_s = timeout_s
        self._retries = retries
        self._module = wire.tritonclient(self.address)
        self._shared: Any = None
        self._own = threading.local()
        self._lock = threading.Lock()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close this thread's connections, and with gRPC those of all threads."""
        connections = [*getattr(self._own, "connections", {}).values(), *([self._shared] if self._shared else [])]
        self._own.connections, self._shared = {}, None
        for connection in connections:
            connection.close()

    def leave_thread(self) -> None:
        """Close this thread's HTTP connections, and what their event loop keeps: for a thread that is about to end.

        Without it each thread that called the server leaves two file descriptors behind.
        """
        connections, self._own.connections = getattr(self._own, "connections", {}), {}
        for connection in connections.values():
            connection.close()
        if connections:
            wire.end_event_loop()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray[Any, Any]],
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
        parameters: Mapping[str, str | int | float | bool] | None = None,
        sequence: int | str = 0,
        idempotent: bool = True,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """One request.

        Args:
            model: name.
            inputs: full request tensors by input name, with the batch dimension where the model batches. A tensor's
                type is its array's; strings may be ``S``, ``U`` or object arrays.
            version: empty for the server's choice.
            outputs: names wanted; None for all.
            timeout_s: instead of the client's own.
            request_id: comes back in logs and traces.
            parameters: of the request.
            sequence: the id of a sequence that this request begins and ends; 0 for none.
            idempotent: False if repeating the request does harm (a sequence, a side effect): it is never retried then.

        Returns:
            Arrays by output name; strings as object arrays of ``bytes``. They may be read-only: copy to change them.

        Raises:
            InferenceError: the server refused, or did not answer in time.
            ServerUnavailableError: nobody answers at the address.
        """
        alone: dict[str, Any] = {"sequence_id": sequence, "sequence_start": True, "sequence_end": True}
        result = self._call(
            "infer",
            model,
            wire.infer_inputs(self._module, inputs),
            model=model,
            timeout_s=timeout_s,
            idempotent=idempotent,
            model_version=version,
            outputs=wire.requested_outputs(self._module, outputs),
            request_id=request_id,
            parameters=dict(parameters) if parameters else None,
            **(alone if sequence else {}),
        )
        return wire.arrays(result)

    def stream(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray[Any, Any]],
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
        parameters: Mapping[str, str | int | float | bool] | None = None,
    ) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """Every answer to one request of a decoupled model, in order, each as it comes; gRPC only.

        Arguments and arrays are those of :meth:`infer`; ``timeout_s`` is until the last answer. It is never tried
        again: answers may have been used.

        Raises:
            UsageError: the client speaks HTTP.
            InferenceError: the server refused, or the last answer was not there in time.
            ServerUnavailableError: nobody answers at the address.
        """
        streaming.require_grpc(self.address)
        asked = streaming.request(
            self._module,
            model,
            inputs,
            version=version,
            outputs=outputs,
            request_id=request_id,
            parameters=parameters,
        )
        timeout = self._timeout_s if timeout_s is None else timeout_s
        return streaming.answers(self._module, self.address, asked, timeout, ca_file=self._ca_file)

    def is_live(self) -> bool:
        """True when a server answers."""
        try:
            return bool(self._call("is_server_live", retries=0))
        except InferenceError:
            return False

    def is_ready(self, model: str | None = None) -> bool:
        """True when every model, or this one, takes requests; False also when no server answers."""
        try:
            if model is None:
                return bool(self._call("is_server_ready", retries=0))
            return bool(self._call("is_model_ready", model, model=model, retries=0))
        except InferenceError:
            return False

    def wait_ready(self, timeout_s: float, model: str | None = None) -> None:
        """Wait until :meth:`is_ready`.

        Raises:
            ServerUnavailableError: it did not come to that within ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        pause = threading.Event()
        while not self.is_ready(model):
            if time.monotonic() > deadline:
                raise not_ready(self.address, model, timeout_s, live=self.is_live())
            pause.wait(WAIT_INTERVAL_S)

    def server(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return dict(wire.plain(self._call("get_server_metadata")))

    def metadata(self, model: str, *, version: str = "") -> dict[str, Any]:
        """Name, versions, platform, inputs and outputs (name, datatype, shape)."""
        answer = self._call("get_model_metadata", model, model_version=version, model=model)
        return dict(wire.plain(answer))

    def config(self, model: str, *, version: str = "") -> dict[str, Any]:
        """The model's configuration as the server completed it, by protobuf names."""
        answer = wire.plain(self._call("get_model_config", model, model_version=version, model=model))
        return dict(answer.get("config", answer))  # gRPC wraps it

    def statistics(self, model: str = "") -> list[dict[str, Any]]:
        """Counts and durations (nanoseconds) per model and version; of all models by default."""
        answer = wire.plain(self._call("get_inference_statistics", model, model=model))
        return list(answer["model_stats"])

    def index(self) -> list[dict[str, Any]]:
        """What the repository holds: name, version, state, reason."""
        answer = wire.plain(self._call("get_model_repository_index"))
        return list(answer["models"] if isinstance(answer, dict) else answer)

    def load(self, model: str, config: Mapping[str, Any] | str | None = None) -> None:
        """Load a model, or load it again (model control mode ``explicit``); ``config`` replaces its file.

        Raises:
            ModelLoadError: with the server's reason.
        """
        text = config_text(config)
        self._call("load_model", model, config=text, model=model, idempotent=False, loading=True)

    def unload(self, model: str, *, with_steps: bool = False) -> None:
        """Unload a model (model control mode ``explicit``); an ensemble with its steps, where that is asked for."""
        self._call("unload_model", model, model=model, idempotent=False, unload_dependents=with_steps)

    def _call(
        self,
        method: str,
        *args: Any,
        model: str = "",
        timeout_s: float | None = None,
        idempotent: bool = True,
        retries: int | None = None,
        loading: bool = False,
        **options: Any,
    ) -> Any:
        """Call tritonclient; its errors become ours; tried again where nobody answered and repeating does no harm."""
        timeout = self._timeout_s if timeout_s is None else timeout_s
        if self.address.protocol == "grpc":
            options["client_timeout"] = timeout
        attempts = 1 + (self._retries if retries is None else retries) * idempotent
        pause = threading.Event()
        for attempt in range(1, attempts + 1):
            try:
                return getattr(self._connection(timeout), method)(*args, **options)
            except Exception as exc:
                if not wire.is_foreign(exc):
                    raise
                error = wire.translate(exc, self.address, model=model, timeout_s=timeout, loading=loading)
                if attempt == attempts or not isinstance(error, ServerUnavailableError):
                    raise error from exc
                pause.wait(BACKOFF_S * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _connection(self, timeout_s: float) -> Any:
        if self.address.protocol == "grpc":
            with self._lock:
                if self._shared is None:
                    self._shared = wire.connect(self._module, self.address, timeout_s, ca_file=self._ca_file)
                return self._shared
        # geventhttpclient belongs to the thread that made it, and takes its timeout when made.
        if not hasattr(self._own, "connections"):
            self._own.connections = {}
        if timeout_s not in self._own.connections:
            self._own.connections[timeout_s] = wire.connect(
                self._module, self.address, timeout_s, ca_file=self._ca_file
            )
        return self._own.connections[timeout_s]


def config_text(config: Mapping[str, Any] | str | None) -> str | None:
    """A model configuration as the JSON text that the server wants."""
    return config if config is None or isinstance(config, str) else json.dumps(config)


def not_ready(address: wire.Address, model: str | None, timeout_s: float, *, live: bool) -> ServerUnavailableError:
    """The error of a wait that ended without success."""
    what = "the server" if model is None else f"model '{model}'"
    return ServerUnavailableError(
        f"{what} was not ready after {timeout_s:g} s",
        where=str(address),
        got="the server is live, but not ready" if live else "no server answers",
        fix="look into the server's log",
    )
