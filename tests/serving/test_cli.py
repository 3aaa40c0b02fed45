"""serve-repo as a person or a script meets it: a process, its two streams and its exit status."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import cli, terminal
from serving.errors import UsageError
from serving.runtime import Runtime

FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
MAIN = "import sys; from serving.cli import main; sys.argv[0] = 'serve-repo'; main()"
RAISES = """
class TritonPythonModel:
    def initialize(self, args):
        raise ValueError("the weights are gone")
"""


@contextlib.contextmanager
def serve_repo(*args: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    status = terminal.run(cli.app, list(map(str, args)))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("4096", 4096), ("64MB", 64_000_000), ("1 GiB", 1 << 30), ("1.5k", 1500)]
)
def test_sizes(text: str, size: int) -> None:
    assert cli.parse_size(text) == size


def test_no_size() -> None:
    with pytest.raises(UsageError, match=r"not a size(?s:.*)fix: .*: --cache-size 64MB"):
        cli.parse_size("much", where="--cache-size")


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, tmp_path / "nothing")
    assert (status, out) == (2, "")
    assert err.startswith("error: the model repository is not a folder")
    assert "build-repo" in err


def test_a_folder_without_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("")
    status, _, err = run(capsys, tmp_path)
    assert status == 2
    assert "holds no models" in err
    assert "--model-control-mode poll" in err


def test_a_taken_port(tmp_path: Path, triton_runtime: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        status, _, err = run(capsys, tmp_path, *FREE_PORTS, "--grpc-port", port)
    assert status == 1
    assert f"port {port} is taken" in err


def test_a_url_where_nobody_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--url", "http://127.0.0.1:1")[0] == 1
    assert run(capsys, "--url", "grpc://127.0.0.1:1")[0] == 2


def test_signatures_of_a_server_that_runs_already(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "--url", "http://127.0.0.1:1", "--require-signature", "some.pub")
    assert status == 2
    assert "--url starts none" in err
    assert "fix:      leave --require-signature out here" in err


def test_help_of_both(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert "serve-repo doctor" in out
    assert terminal.run(cli.doctor_app, ["--help"]) == 0
    assert "--provide" in capsys.readouterr().out


@pytest.mark.parametrize("as_option", [False, True], ids=["doctor --format json", "--format json doctor"])
def test_doctor(
    as_option: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_REPO_CACHE", str(tmp_path))  # empty: nothing is started
    arguments = ["--format", "json", "doctor"] if as_option else ["doctor", "--format", "json"]
    monkeypatch.setattr(sys, "argv", ["serve-repo", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    answer = json.loads(capsys.readouterr().out)
    assert left.value.code == (0 if answer["ok"] else 1)
    assert {check["name"] for check in answer["checks"]} >= {"C library", "shared memory", "cache folder"}


def test_doctor_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TRITON_REPO_CACHE", str(tmp_path))
    monkeypatch.setenv("TRITON_REPO_PYTHON", "/nowhere/python")
    assert terminal.run(cli.doctor_app, []) == 1
    out = capsys.readouterr().out
    assert "missing Python for the backends" in out
    assert "          fix: " in out


@pytest.mark.server
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_told_to_stop(how: signal.Signals, tmp_path: Path, triton_runtime: Runtime, write_model) -> None:
    write_model(tmp_path, "slow")
    with serve_repo(tmp_path, *FREE_PORTS) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("ready: http http://127.0.0.1:")
        text = first
        while text.count("\nEND\n") < 2:
            text += process.stdout.readline()
        assert "curl -s http://127.0.0.1:" in text
        assert "from serving import Client" in text
        assert process.stderr is not None
        while "1/1 models ready  0 requests  0 failures" not in (line := process.stderr.readline()):
            assert line, "no status line"
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert err.startswith("stopping")
        assert "Traceback" not in err


@pytest.mark.server
def test_a_script_reads_one_line(tmp_path: Path, triton_runtime: Runtime, write_model) -> None:
    write_model(tmp_path, "slow")
    write_model(tmp_path, "broken", code=RAISES)
    with serve_repo(tmp_path, *FREE_PORTS, "--keep-going", "--format", "json") as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        assert facts["ready"] is True
        assert "the weights are gone" in facts["failures"]["broken"]
        with urllib.request.urlopen(f"{facts['http']}/v2/models/slow", timeout=10) as answer:
            assert json.load(answer)["name"] == "slow"
        with serve_repo("--url", facts["http"], "--format", "json") as watcher:
            assert watcher.stdout is not None
            assert json.loads(watcher.stdout.readline())["ready"] is True
            os.kill(facts["pid"], signal.SIGKILL)
            _, err = process.communicate(timeout=60)
            assert process.returncode == 137
            assert "model 'broken' failed to load" in err
            watcher.communicate(timeout=60)
            assert watcher.returncode == 1


@pytest.mark.server
def test_models_that_fail_are_the_error(tmp_path: Path, triton_runtime: Runtime, write_model) -> None:
    write_model(tmp_path, "broken", code=RAISES)
    with serve_repo(tmp_path, *FREE_PORTS, "--format", "json") as process:
        out, err = process.communicate(timeout=60)
        answer = json.loads(out)
        assert process.returncode == 1
        assert answer["error"] == "ModelLoadError"
        assert "the weights are gone" in answer["failures"]["broken"]
        assert "Traceback" not in err


@pytest.mark.server
def test_interrupted_while_starting(tmp_path: Path, triton_runtime: Runtime, write_model, until) -> None:
    code = f"import time\nopen({str(tmp_path / 'begun')!r}, 'w').close()\ntime.sleep(600)"
    write_model(tmp_path, "slow", code=code)
    with serve_repo(tmp_path, *FREE_PORTS) as process:
        until((tmp_path / "begun").exists)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, "")
        assert err.endswith("interrupted\n")


@pytest.mark.server
def test_a_second_interrupt_ends_it_at_once(
    tmp_path: Path, triton_runtime: Runtime, write_model, telling_code, until
) -> None:
    begun = tmp_path / "begun"
    write_model(tmp_path / "models", "slow", code=telling_code(begun))
    with serve_repo(tmp_path / "models", *FREE_PORTS, "--format", "json") as process:
        assert process.stdout is not None and process.stderr is not None
        url = json.loads(process.stdout.readline())["http"]
        body = {"inputs": [{"name": "SECONDS", "datatype": "FP32", "shape": [1], "data": [600]}]}
        request = urllib.request.Request(f"{url}/v2/models/slow/infer", json.dumps(body).encode())
        caller = threading.Thread(target=_ignore_errors, args=(request,))
        caller.start()
        until(begun.exists)
        process.send_signal(signal.SIGINT)
        while "stopping" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        caller.join(30)
        assert process.returncode == 130


def _ignore_errors(request: urllib.request.Request) -> None:
    with contextlib.suppress(OSError):
        urllib.request.urlopen(request, timeout=120)
