"""The same calls as :mod:`serving.client`, to be awaited: many requests in flight from one thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from serving import streaming, wire
from serving.client import BACKOFF_S, WAIT_INTERVAL_S, config_text, not_ready
from serving.errors import InferenceError, ServerUnavailableError

if TYPE_CHECKING:
    import numpy as np


class AsyncClient:
    """A connection to one server for one event loop; an asynchronous context manager.

    Args:
        url: ``http://host:port``, ``grpc://host:port``, ``https``/``grpcs`` for TLS; ``host:port`` means HTTP.
        timeout_s: how long any call may take, from start to end.
        retries: how often a call is tried again when no server answers, if repeating it does no harm.

    Raises:
        UsageError: ``url`` is no address.
        MissingDependencyError: tritonclient is not installed.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0, retries: int = 2) -> None:
        self.address = wire.parse_url(url)
        self._timeout_s = timeout_s
        self._retries = retries
        self._module = wire.tritonclient(self.address, aio=True)
        self._connection: Any = None  # made in the event loop that uses it

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray[Any, Any]],
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
        parameters: Mapping[str, str | int | float | bool] | None = None,
        idempotent: bool = True,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """One request; see :meth:`serving.Client.infer`."""
        result = await self._call(
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
        )
        return wire.arrays(result)

    async def stream(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray[Any, Any]],
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
        parameters: Mapping[str, str | int | float | bool] | None = None,
    ) -> AsyncIterator[dict[str, np.ndarray[Any, Any]]]:
        """Every answer to one request of a decoupled model, as it comes; see :meth:`serving.Client.stream`."""
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

        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield asked

        connection = wire.connect(self._module, self.address, timeout, aio=True)
        try:
            async for result, error in connection.stream_infer(requests(), stream_timeout=timeout):
                if error is not None:
                    raise error
                if found := wire.arrays(result):
                    yield found
                if streaming.is_last(result):
                    return
        except Exception as exc:
            if not wire.is_foreign(exc):
                raise
            raise wire.translate(exc, self.address, model=model, timeout_s=timeout, streamed=True) from exc
        finally:
            await connection.close()

    async def is_live(self) -> bool:
        """True when a server answers."""
        try:
            return bool(await self._call("is_server_live", retries=0))
        except InferenceError:
            return False

    async def is_ready(self, model: str | None = None) -> bool:
        """True when every model, or this one, takes requests; False also when no server answers."""
        try:
            if model is None:
                return bool(await self._call("is_server_ready", retries=0))
            return bool(await self._call("is_model_ready", model, model=model, retries=0))
        except InferenceError:
            return False

    async def wait_ready(self, timeout_s: float, model: str | None = None) -> None:
        """Wait until :meth:`is_ready`; :class:`ServerUnavailableError` after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while not await self.is_ready(model):
            if time.monotonic() > deadline:
                raise not_ready(self.address, model, timeout_s, live=await self.is_live())
            await asyncio.sleep(WAIT_INTERVAL_S)

    async def server(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return dict(wire.plain(await self._call("get_server_metadata")))

    async def metadata(self, model: str, *, version: str = "") -> dict[str, Any]:
        """Name, versions, platform, inputs and outputs (name, datatype, shape)."""
        answer = await self._call("get_model_metadata", model, model_version=version, model=model)
        return dict(wire.plain(answer))

    async def config(self, model: str, *, version: str = "") -> dict[str, Any]:
        """The model's configuration as the server completed it, by protobuf names."""
        answer = wire.plain(await self._call("get_model_config", model, model_version=version, model=model))
        return dict(answer.get("config", answer))

    async def statistics(self, model: str = "") -> list[dict[str, Any]]:
        """Counts and durations (nanoseconds) per model and version; of all models by default."""
        answer = wire.plain(await self._call("get_inference_statistics", model, model=model))
        return list(answer["model_stats"])

    async def index(self) -> list[dict[str, Any]]:
        """What the repository holds: name, version, state, reason."""
        answer = wire.plain(await self._call("get_model_repository_index"))
        return list(answer["models"] if isinstance(answer, dict) else answer)

    async def load(self, model: str, config: Mapping[str, Any] | str | None = None) -> None:
        """Load a model, or load it again; :class:`ModelLoadError` with the server's reason if it fails."""
        text = config_text(config)
        await self._call("load_model", model, config=text, model=model, idempotent=False, loading=True)

    async def unload(self, model: str) -> None:
        """Unload a model."""
        await self._call("unload_model", model, model=model, idempotent=False)

    async def _call(
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
        timeout = self._timeout_s if timeout_s is None else timeout_s
        if self.address.protocol == "grpc":
            options["client_timeout"] = timeout
        attempts = 1 + (self._retries if retries is None else retries) * idempotent
        for attempt in range(1, attempts + 1):
            try:
                if self._connection is None:
                    # Its own limit is none: each call has one.
                    self._connection = wire.connect(self._module, self.address, 0.0, aio=True)
                return await asyncio.wait_for(getattr(self._connection, method)(*args, **options), timeout)
            except Exception as exc:
                if not wire.is_foreign(exc):
                    raise
                error = wire.translate(exc, self.address, model=model, timeout_s=timeout, loading=loading)
                if attempt == attempts or not isinstance(error, ServerUnavailableError):
                    raise error from exc
                await asyncio.sleep(BACKOFF_S * 2 ** (attempt - 1))
        raise AssertionError("unreachable")
