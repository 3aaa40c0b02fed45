from __future__ import annotations

import http.server
import threading

import pytest

from serving import Server
from serving.errors import InferenceError, ServerUnavailableError
from serving.status import ModelState, Status, ask, read_model, read_status


def test_the_line_counts_models_not_versions() -> None:
    models = (ModelState("a", "1", "READY"), ModelState("a", "2", "READY"), ModelState("b", "1", "UNAVAILABLE", "why"))
    status = Status(models, requests=5, failures=2, cache_hits=0)
    assert status.line() == "1/2 models ready  5 requests  2 failures"
    assert Status(models, 5, 2, 3).line().endswith("3 from the cache")


def test_nobody_there() -> None:
    with pytest.raises(ServerUnavailableError, match="no server answers"):
        read_status("127.0.0.1:1")


def test_somebody_else_there() -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(InferenceError, match="what answers is no Triton") as caught:
            ask(f"127.0.0.1:{server.server_port}", "/v2")
        thread.join()
    assert caught.value.got == "<html>"


@pytest.mark.server
def test_a_running_server(triton: Server) -> None:
    status = read_status(triton.http_url)
    assert {"echo", "slow"} <= set(status.ready)
    metadata, config = read_model(triton.http_url, "slow")
    assert metadata["name"] == config["name"] == "slow"
    with pytest.raises(InferenceError, match="the server refused") as caught:
        read_model(triton.http_url, "nothing")
    assert "nothing" in caught.value.got
