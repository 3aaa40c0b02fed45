"""A running server whose models are changed while it answers: which versions it serves, loading, unloading.

What was measured with Triton 2.51.0 (release 24.10) in explicit mode, under a load over HTTP and gRPC:

- ``load`` of a loaded model brings up the version that ``config.pbtxt`` names beside the old one, and drops the old one
  when the new one is ready. Requests that wait or are under way are finished by the old version. None fails.
- A ``load`` that fails (the configuration cannot be parsed, the version is not there, the backend refuses it) leaves
  the old version serving. The next ``load`` must be of a good configuration.
- A ``load`` asked for **over HTTP stops every other HTTP request until it ends**: Triton carries it out in the thread
  that serves the connections. Asked for over gRPC it stops nobody, neither HTTP nor gRPC, nor health checks. So models
  are loaded over gRPC here, even if the address that was given is an HTTP one.
- ``unload`` answers at once; the version is gone when its last request is done.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from builder.errors import ReloadError
from serving import Client
from serving.errors import InferenceError, TritonRepoError
from serving.progress import SILENT, Reporter
from serving.wire import Address, parse_url

LOAD_TIMEOUT_S = 1800.0
"""How long a model may take to load: engines of large models take minutes."""

_UNLOAD_TIMEOUT_S = 60.0
_POLL_S = 0.02
_NOT_EXPLICIT = "explicit model load / unload is not allowed"


class LiveServer:
    """A running server in explicit model control mode; see :func:`open_server`.

    Attributes:
        url: the address as it was given.
        clients: one for each protocol that is known, for requests as a user's.
    """

    def __init__(self, url: str, admin: Client, clients: Sequence[Client]) -> None:
        self.url = url
        self._admin = admin
        self.clients = clients

    def versions(self, name: str) -> list[int]:
        """The versions of a model that take requests, rising."""
        rows = self._rows(name)
        return sorted(int(row["version"]) for row in rows if row.get("state") == "READY")

    def lists(self, name: str) -> bool:
        """Whether the server finds a folder of this name in its repository."""
        return bool(self._rows(name))

    def load(self, name: str) -> float:
        """Load a model as its ``config.pbtxt`` says; the seconds it took.

        Raises:
            ModelLoadError: the server refuses it; with the server's reason.
            InferenceError: no server answers any more, or not in time.
        """
        started = time.perf_counter()
        self._admin.load(name)
        return time.perf_counter() - started

    def unload(self, name: str) -> None:
        """Unload a model, and wait until its memory is given back (but not for ever: a request may hang in it)."""
        self._admin.unload(name)
        deadline = time.monotonic() + _UNLOAD_TIMEOUT_S
        pause = threading.Event()
        while any(row.get("state") == "UNLOADING" for row in self._rows(name)) and time.monotonic() < deadline:
            pause.wait(_POLL_S)

    def _rows(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self._admin.index() if row.get("name") == name]


@contextmanager
def open_server(url: str, *, reporter: Reporter = SILENT) -> Iterator[LiveServer]:
    """A connection to a server whose models may be changed, for a ``with`` block.

    Args:
        url: ``grpc://host:port``, or ``http://host:port`` where gRPC listens on the next port, as Triton's does.
        reporter: warned where the server is to be had over HTTP only.

    Raises:
        UsageError: ``url`` is no address.
        ReloadError: no server answers there, or it is not in explicit model control mode.
    """
    address = parse_url(url)
    clients = [Client(str(address))]
    try:
        _require_reachable(clients[0])
        if address.protocol == "http":
            beside = _grpc_beside(clients[0], address)
            if beside is None:
                reporter.warn(
                    f"no gRPC on the port after {address}: while models load, requests over HTTP wait "
                    "(Triton answers no other HTTP request meanwhile); give the gRPC address: --reload grpc://host:port"
                )
            else:
                clients.append(beside)
        admin = Client(str(clients[-1].address), timeout_s=LOAD_TIMEOUT_S)
        try:
            _require_explicit(admin)
            yield LiveServer(url, admin, clients)
        finally:
            admin.close()
    finally:
        for client in clients:
            client.close()


def _require_reachable(client: Client) -> None:
    try:
        client.server()
    except InferenceError as exc:
        raise ReloadError(
            "no server answers at the address of --reload",
            where=str(client.address),
            expected="a running Triton, such as serve-repo --model-control-mode explicit",
            got=exc.got or exc.what,
            fix="start it, or give its address: --reload grpc://host:8001; nothing was changed",
        ) from exc


def _require_explicit(admin: Client) -> None:
    """Unloading what was never loaded does nothing, where it is allowed."""
    try:
        admin.unload("build-repo.no-such-model")
    except InferenceError as exc:
        if _NOT_EXPLICIT not in exc.got:
            raise
        raise ReloadError(
            "the server decides by itself what it loads",
            where=str(admin.address),
            expected="a server in explicit model control mode",
            got=exc.got,
            fix="start it with --model-control-mode explicit; one that polls follows the repository without --reload",
        ) from exc


def _grpc_beside(client: Client, address: Address) -> Client | None:
    """The same server over gRPC on the port after, where Triton listens by default; None if it is not there."""
    host, _, port = address.netloc.partition("/")[0].rpartition(":")
    if address.tls or int(port) >= 65535:
        return None
    other = Client(f"grpc://{host}:{int(port) + 1}", timeout_s=5.0, retries=0)
    try:
        same = all(_same(ask, client, other) for ask in (Client.server, Client.index))
    except TritonRepoError:  # nobody there, or somebody who speaks something else, or tritonclient without gRPC
        same = False
    if not same:
        other.close()
        return None
    return Client(str(other.address))


def _same(ask: Callable[[Client], Any], one: Client, other: Client) -> bool:
    return bool(_plain(ask(one)) == _plain(ask(other)))


def _plain(answer: Any) -> Any:
    """gRPC writes an empty field where HTTP writes none; the order of an index is not fixed."""
    if isinstance(answer, list):
        return sorted((sorted((key, value) for key, value in row.items() if value) for row in answer), key=str)
    return answer
