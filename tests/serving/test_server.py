from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from serving import Client, Server, options
from serving.errors import ModelLoadError, ServerStartError, UsageError
from serving.runtime import Runtime
from serving.status import read_status
from serving.watchdog import SHARED_MEMORY, session_pids

RAISES = """
class TritonPythonModel:
    def initialize(self, args):
        raise ValueError("the weights are gone")
"""
NEVER_READY = """
import time

class TritonPythonModel:
    def initialize(self, args):
        time.sleep(600)
"""


def seconds(value: float) -> dict[str, np.ndarray]:
    return {"SECONDS": np.full(1, value, np.float32)}


def segments(watchdog_pid: int) -> list[str]:
    return [path.name for path in SHARED_MEMORY.glob(f"triton_repo_*_{watchdog_pid}_*")]


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


class TestArguments:
    def test_a_repository_that_is_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="the model repository is not a folder") as caught:
            Server(tmp_path / "nothing")
        assert caught.value.got == "nothing there"
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError) as caught:
            Server([tmp_path, tmp_path / "file"])
        assert caught.value.got == "a file"

    def test_models_to_load_need_the_explicit_mode(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="loads all of them") as caught:
            Server(tmp_path, load=["m"])
        assert "explicit" in caught.value.expected

    def test_an_unknown_mode(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="unknown model control mode"):
            Server(tmp_path, model_control_mode="all")  # type: ignore[arg-type]

    @pytest.mark.parametrize("ports", [(9000, 9000), (0, 9000), (9000, 70000)])
    def test_ports_that_cannot_be(self, tmp_path: Path, ports: tuple[int, int]) -> None:
        with pytest.raises(UsageError, match="ports cannot be used"):
            Server(tmp_path, http_port=ports[0], grpc_port=ports[1])

    def test_what_only_a_running_server_has(self, tmp_path: Path) -> None:
        idle = Server(tmp_path)
        for name in ("http_url", "pid", "log_path"):
            with pytest.raises(ServerStartError, match=r"not running|no address yet|no log yet"):
                getattr(idle, name)
        assert idle.log() == ""
        assert idle.poll() is None
        idle.stop()

    def test_a_server_elsewhere_cannot_be_started(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="running already and cannot be started") as caught:
            Server(tmp_path, runtime=Runtime(kind="url", url="http://box:8000")).start()
        assert "serving.Client" in caught.value.fix

    def test_a_program_that_cannot_be_run(self, tmp_path: Path) -> None:
        with pytest.raises(ServerStartError, match="the server program cannot be run") as caught:
            Server(tmp_path, runtime=Runtime(kind="local", tritonserver=tmp_path / "nothing")).start()
        assert "No such file" in caught.value.got

    def test_a_program_that_ends_at_once(self, tmp_path: Path) -> None:
        program = tmp_path / "tritonserver"
        program.write_text("#!/bin/sh\necho no GPU today; exit 3\n")
        program.chmod(0o755)
        with pytest.raises(ServerStartError, match="ended with status 3 before it was ready") as caught:
            Server(tmp_path, runtime=Runtime(kind="local", tritonserver=program)).start()
        assert caught.value.got == "no GPU today"
        assert Path(caught.value.where).read_text() == "no GPU today\n"

    def test_an_address_of_another_machine(self, tmp_path: Path) -> None:
        runtime = Runtime(kind="local", tritonserver=Path("/bin/false"))
        with pytest.raises(ServerStartError, match="cannot listen on that address"):
            Server(tmp_path, runtime=runtime, host="203.0.113.1").start()


@pytest.mark.server
class TestRunning:
    def test_start_serve_stop(self, tmp_path: Path, triton_runtime: Runtime, write_model, until) -> None:
        write_model(tmp_path, "slow")
        with Server(str(tmp_path), runtime=triton_runtime) as running:
            pid, log_path = running.pid, running.log_path
            assert len(session_pids(pid)) == 2  # the server and the stub of its one model
            with Client(f"grpc://{running.grpc_url}") as client:
                assert client.infer("slow", seconds(0))["SLEPT"].tolist() == [0]
            # Counted a moment after the answer is sent.
            until(lambda: 'nv_inference_request_success{model="slow",version="1"} 1' in get(running.metrics_url))
            assert "successfully loaded 'slow'" in running.log()
            assert running.poll() is None
            assert running.wait(0.01) is None
            with pytest.raises(UsageError, match="running already"):
                running.start()
            watchdog_pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            assert segments(watchdog_pid)
        assert running.poll() == 0
        assert session_pids(pid) == []
        assert segments(watchdog_pid) == []
        assert not log_path.exists()
        assert "successfully loaded 'slow'" in running.log()
        running.stop()  # twice does no harm

    def test_the_log_stays_where_it_was_wanted(self, tmp_path: Path, triton_runtime: Runtime) -> None:
        (tmp_path / "models").mkdir()
        log_path = tmp_path / "logs/server.log"
        with Server(tmp_path / "models", runtime=triton_runtime, log_path=log_path):
            pass
        assert "Started HTTPService" in log_path.read_text()

    def test_a_request_in_flight_is_answered_before_the_end(
        self, tmp_path: Path, triton_runtime: Runtime, write_model, telling_code, until
    ) -> None:
        begun = tmp_path / "begun"
        write_model(tmp_path / "models", "slow", code=telling_code(begun))
        running = Server(tmp_path / "models", runtime=triton_runtime).start()
        answers: list[object] = []

        def call() -> None:
            with Client(running.http_url, retries=0) as client:
                answers.append(client.infer("slow", seconds(0.5))["SLEPT"].tolist())

        thread = threading.Thread(target=call)
        thread.start()
        until(begun.exists)
        running.stop()
        thread.join(20)
        assert answers == [[0.5]]

    def test_a_client_that_only_keeps_its_connection_does_not_hold_the_stop(
        self, tmp_path: Path, triton_runtime: Runtime
    ) -> None:
        running = Server(tmp_path, runtime=triton_runtime, exit_timeout_s=600).start()
        host, _, port = running.http_url.partition(":")
        idle = http.client.HTTPConnection(running.http_url)
        idle.request("GET", "/v2/health/ready")
        assert idle.getresponse().read() == b""
        with socket.create_connection((host, int(port))), contextlib.closing(idle):
            running.stop()
        assert running.poll() == 0
        assert "HTTP service connections" in running.log()

    def test_at_once_waits_for_nothing(self, tmp_path: Path, triton_runtime: Runtime, write_model) -> None:
        write_model(tmp_path, "slow")
        running = Server(tmp_path, runtime=triton_runtime).start()
        pid = running.pid
        running.stop(at_once=True)
        assert running.poll() == 128 + signal.SIGKILL
        assert session_pids(pid) == []

    def test_poll_follows_the_folder(self, tmp_path: Path, triton_runtime: Runtime, write_model) -> None:
        with Server(tmp_path, runtime=triton_runtime, model_control_mode="poll") as running:
            assert read_status(running.http_url).names == []
            write_model(tmp_path / "staged", "late")
            (tmp_path / "staged/late").rename(tmp_path / "late")
            (tmp_path / "staged").rmdir()
            with Client(running.http_url) as client:
                client.wait_ready(30, "late")

    def test_the_response_cache_answers_the_second_time(
        self, tmp_path: Path, triton_runtime: Runtime, write_model, until
    ) -> None:
        folder = write_model(tmp_path, "slow")
        with (folder / "config.pbtxt").open("a") as config:
            config.write("response_cache { enable: true }\n")
        with (
            Server(tmp_path, runtime=triton_runtime, cache_size_bytes=1 << 20) as running,
            Client(running.http_url) as client,
        ):
            for _ in range(3):
                client.infer("slow", seconds(0))
            until(lambda: read_status(running.http_url).cache_hits == 2)


@pytest.mark.server
class TestFailing:
    def test_every_model_that_fails_is_named_with_the_server_s_reason(
        self, tmp_path: Path, triton_runtime: Runtime, write_model
    ) -> None:
        write_model(tmp_path, "good")
        write_model(tmp_path, "raises", code=RAISES)
        write_model(tmp_path, "broken", config='backend: "python"\nmax_batch_size: oops\n')
        write_model(tmp_path, "homeless", config='backend: "nosuch"\n')
        write_model(tmp_path, "empty")
        (tmp_path / "empty/1/model.py").unlink()
        (tmp_path / "empty/1").rmdir()
        with pytest.raises(ModelLoadError, match="4 models failed to load") as caught:
            Server(tmp_path, runtime=triton_runtime).start()
        failures = caught.value.failures
        assert set(failures) == {"raises", "broken", "homeless", "empty"}
        assert "ValueError: the weights are gone" in failures["raises"]
        assert "2:17: Expected integer, got: oops" in failures["broken"]
        assert "unable to find backend library for backend 'nosuch'" in failures["homeless"]
        assert "at least one version must be available" in failures["empty"]
        assert all(name in caught.value.got for name in failures)

        with Server(tmp_path, runtime=triton_runtime, exit_on_error=False) as running:
            assert set(running.failures) == set(failures)
            with Client(running.http_url) as client:
                assert client.infer("good", seconds(0))["SLEPT"].tolist() == [0]

    def test_a_model_to_load_that_is_not_there(self, tmp_path: Path, triton_runtime: Runtime) -> None:
        with pytest.raises(ModelLoadError, match="model 'nothing' failed to load") as caught:
            Server(tmp_path, runtime=triton_runtime, model_control_mode="explicit", load=["nothing"]).start()
        assert "not found in any model repository" in caught.value.failures["nothing"]

    def test_one_that_never_gets_ready(self, tmp_path: Path, triton_runtime: Runtime, write_model) -> None:
        write_model(tmp_path, "sleeper", code=NEVER_READY)
        with pytest.raises(ServerStartError, match="was not ready after 3 s") as caught:
            Server(tmp_path, runtime=triton_runtime, startup_timeout_s=3).start()
        assert caught.value.got == "still loading sleeper"

    def test_an_argument_the_server_does_not_know(self, tmp_path: Path, triton_runtime: Runtime) -> None:
        with pytest.raises(ServerStartError, match="ended with status 1") as caught:
            Server(tmp_path, runtime=triton_runtime, extra_args=["--bogus"]).start()
        assert caught.value.got.endswith("unrecognized option '--bogus'")

    @pytest.mark.parametrize("name", ["http_port", "grpc_port", "metrics_port"])
    def test_a_port_that_is_taken_is_named_with_its_holder(
        self, name: str, tmp_path: Path, triton_runtime: Runtime
    ) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            with pytest.raises(ServerStartError, match=f"port {port} is taken") as caught:
                Server(tmp_path, runtime=triton_runtime, **{name: port}).start()  # type: ignore[arg-type]
            assert caught.value.where == f"{name} on 127.0.0.1"
            assert f"(process {os.getpid()})" in caught.value.got

    def test_a_free_port_that_another_took_first_is_replaced(
        self, tmp_path: Path, triton_runtime: Runtime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = other.getsockname()[1]
            real, asked = options.free_ports, []

            def lose_once(host: str, count: int) -> list[int]:
                asked.append(count)
                ports = real(host, count)
                return [taken, *ports[1:]] if len(asked) == 1 else ports

            monkeypatch.setattr(options, "free_ports", lose_once)
            with Server(tmp_path, runtime=triton_runtime) as running:
                assert len(asked) == 2
                assert running.http_url != f"127.0.0.1:{taken}"

    def test_it_ends_by_itself(self, tmp_path: Path, triton_runtime: Runtime) -> None:
        with Server(tmp_path, runtime=triton_runtime) as running:
            os.kill(running.pid, signal.SIGKILL)
            assert running.wait(20) == 137
            log_path = running.log_path
        assert not log_path.exists()
