"""What a running server is doing, over plain HTTP: no client library is needed to watch one."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from serving.errors import InferenceError, ServerUnavailableError
from serving.wire import parse_url

_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ModelState:
    """One version of one model, as the server's index has it.

    Attributes:
        name: of the model.
        version: empty where no version could be found.
        state: ``READY``, ``LOADING``, ``UNLOADING``, ``UNAVAILABLE``, or empty (never loaded).
        reason: why it is not ready, in the server's words.
    """

    name: str
    version: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Status:
    """A moment in the life of a server.

    Attributes:
        models: every version of every model in its repository.
        requests: answered so far, all models together; an ensemble's steps count too.
        failures: of these, how many with an error.
        cache_hits: of these, how many from the response cache.
    """

    models: tuple[ModelState, ...]
    requests: int
    failures: int
    cache_hits: int

    @property
    def ready(self) -> list[str]:
        """Names of models with a version that takes requests."""
        return sorted({model.name for model in self.models if model.state == "READY"})

    @property
    def names(self) -> list[str]:
        """Names of all models that the server knows of."""
        return sorted({model.name for model in self.models})

    def line(self) -> str:
        """One line for people."""
        parts = [f"{len(self.ready)}/{len(self.names)} models ready", f"{self.requests} requests"]
        parts.append(f"{self.failures} failures")
        if self.cache_hits:
            parts.append(f"{self.cache_hits} from the cache")
        return "  ".join(parts)


def read_status(url: str) -> Status:
    """Ask a server (``host:port`` or ``http://host:port``) for its index and statistics.

    Raises:
        ServerUnavailableError: nobody answers.
    """
    models = tuple(
        ModelState(each["name"], each.get("version", ""), each.get("state", ""), each.get("reason", ""))
        for each in ask(url, "/v2/repository/index", post={})
    )
    statistics = ask(url, "/v2/models/stats")["model_stats"]
    succeeded = sum(each["inference_stats"]["success"]["count"] for each in statistics)
    failed = sum(each["inference_stats"]["fail"]["count"] for each in statistics)
    hits = sum(each["inference_stats"].get("cache_hit", {}).get("count", 0) for each in statistics)
    return Status(models, succeeded + failed, failed, hits)


def read_model(url: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A ready model's metadata and configuration."""
    path = f"/v2/models/{quote(name, safe='')}"
    return ask(url, path), ask(url, f"{path}/config")


def ask(url: str, path: str, *, post: Any = None) -> Any:
    """GET, or POST of a JSON document, to one of the server's endpoints; the JSON it answers.

    Raises:
        ServerUnavailableError: nobody answers.
        InferenceError: the answer is an error, or none of Triton's.
    """
    address = parse_url(url)
    netloc, _, prefix = address.netloc.partition("/")
    connection = (http.client.HTTPSConnection if address.tls else http.client.HTTPConnection)(
        netloc, timeout=_TIMEOUT_S
    )
    try:
        body = None if post is None else json.dumps(post)
        connection.request("GET" if post is None else "POST", f"{'/' if prefix else ''}{prefix}{path}", body)
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException) as exc:
        raise ServerUnavailableError(
            "no server answers", where=str(address), got=str(exc) or type(exc).__name__, fix="check that it runs"
        ) from exc
    finally:
        connection.close()
    try:
        answer = json.loads(text)
    except ValueError as exc:
        raise InferenceError(
            "what answers is no Triton", where=f"{address}{path}", got=text[:200].decode(errors="replace")
        ) from exc
    if response.status != 200:
        message = answer.get("error", "") if isinstance(answer, dict) else ""
        raise InferenceError("the server refused", where=f"{address}{path}", got=message or f"status {response.status}")
    return answer
