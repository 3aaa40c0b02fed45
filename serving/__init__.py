"""A real Triton: start it, wait for it, talk to it, stop it.

The names below are loaded on first use, so that importing the package costs nothing and needs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.aclient import AsyncClient
    from serving.client import Client
    from serving.runtime import Runtime, find_runtime
    from serving.server import Server

__all__ = ["AsyncClient", "Client", "Runtime", "Server", "find_runtime"]

_HOMES = {
    "AsyncClient": "serving.aclient",
    "Client": "serving.client",
    "Runtime": "serving.runtime",
    "Server": "serving.server",
    "find_runtime": "serving.runtime",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
