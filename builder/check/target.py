"""``--server``: which Triton a repository is judged for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from builder.findings import did_you_mean
from builder.releases import RELEASES, Release
from serving.errors import UsageError
from serving.runtime import ONNXRUNTIME, TRITON_RELEASE

EMBEDDED = "embedded"
_CPU = "-cpu"


@dataclass(frozen=True)
class Server:
    """A server as it is named on the command line.

    Attributes:
        release: its release, None where none was named.
        gpu: False for one without, None where that is not said.
        backends: those that it has, where that is known.
    """

    release: Release | None = None
    gpu: bool | None = None
    backends: tuple[str, ...] = ()


ANY = Server()
"""No server was named."""


def server_of(text: str | None) -> Server:
    """``26.09``, ``2.73.0``, either with ``-cpu``, or ``embedded``.

    Raises:
        UsageError: no such release is known.
    """
    if text is None:
        return Server()
    if text == EMBEDDED:
        embedded = replace(RELEASES[TRITON_RELEASE], onnxruntime=ONNXRUNTIME)
        return Server(embedded, gpu=False, backends=("onnxruntime", "python"))
    name = text.removesuffix(_CPU)
    by_server = {release.server: release for release in RELEASES.values()}
    known = RELEASES.get(name) or by_server.get(name)
    if known is None:
        newest, version = max(RELEASES), max(by_server, key=_number)
        raise UsageError(
            f"unknown release of Triton: {text}",
            where="--server",
            expected=f"{min(RELEASES)} to {newest}, or the server's version {version}, "
            f"with {_CPU} for a server without GPUs; or {EMBEDDED}",
            got=text,
            fix=did_you_mean(name, [*RELEASES, EMBEDDED]) or f"--server {newest}",
        )
    return Server(known, gpu=False if text.endswith(_CPU) else None)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
