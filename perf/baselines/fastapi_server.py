"""The process of the FastAPI baseline: an order on stdin, the port on stdout; it ends when stdin closes.

{"name": ..., "version": ..., "config": {...}, "arguments": {...}, "instances": N}  -> {"ready": {"port": ...}}
"""

from __future__ import annotations

import importlib.metadata
import json
import socket
import sys
import threading
from typing import Any

from perf.baselines.worker import as_child, described

PACKAGES = ("fastapi", "uvicorn", "httptools", "uvloop")


def main() -> int:
    """The process."""
    say = as_child()
    line = sys.stdin.readline()
    if not line:
        return 1
    try:
        server, listener, facts = _prepared(json.loads(line))
    except (Exception, SystemExit) as exc:
        say(error=described(exc))
        return 1

    def wait_for_the_end() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    say(ready={"port": listener.getsockname()[1], **facts})
    server.run(sockets=[listener])
    return 0


def _prepared(orders: dict[str, Any]) -> tuple[Any, socket.socket, dict[str, str]]:
    """The server, not yet running, its socket at a free port, and what it is made of."""
    for package in PACKAGES:
        importlib.import_module(package)
    import uvicorn

    from perf.baselines.fastapi_app import App
    from perf.baselines.onnx_session import open_sessions

    runners, facts = open_sessions(orders["arguments"], int(orders["instances"]))
    app = App(orders["name"], orders["version"], orders["config"], runners).create()
    config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", access_log=False, ws="none")
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return uvicorn.Server(config), listener, {"python": sys.version.split()[0], **versions, **facts}
