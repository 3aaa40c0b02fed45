"""``bench-repo`` as it is typed: exit status, stdout, stderr, Ctrl-C."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from perf.cli import app
from serving.terminal import run

pytestmark = pytest.mark.xdist_group("perf")

COMMAND = [sys.executable, "-c", "from perf.cli import main; main()"]


def test_help_shows_examples_and_every_flag(capsys):
    assert run(app, ["--help"]) == 0
    text = capsys.readouterr().out
    flags = (
        "--repository --url --ca-file --metrics-url --model --concurrency --rate --distribution --intervals"
        " --batch-size --protocol --shared-memory --seconds --rounds --difference --precision --budget"
        " --sequence-length --shape --output --baseline --spec"
    )
    for word in [*flags.split(), "--format", "Examples", "bench-repo workload.yaml"]:
        assert word in text


def test_several_problems_one_message_each(capsys, tmp_path):
    (tmp_path / "w.yaml").write_text("concurency: 1\nprotocol: smtp\n")
    arguments = [str(tmp_path / "w.yaml"), "--repository", str(tmp_path / "none"), "--batch-size", "0"]
    assert run(app, [*arguments, "--concurrency", "1,two"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "error: 5 problems in the workload" in captured.err
    for where in ("w.yaml:1, concurency", "w.yaml:2, protocol", "--batch-size", "--concurrency", "--repository"):
        assert f"where:    {where}" in captured.err.replace(f"{tmp_path}/", "")
    assert "Traceback" not in captured.err


def test_problems_as_json(capsys, tmp_path):
    assert run(app, ["--url", "nowhere", "--seconds", "x", "--format", "json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert {problem["where"] for problem in answer["problems"]} == {"--url", "--seconds"}


@pytest.mark.parametrize("shape", ["ids", ":4", "ids:four", "ids:0"])
def test_a_shape_that_is_none(capsys, shape):
    assert run(app, ["--url", "h:1", "--shape", shape]) == 2
    assert "--shape" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_no_server(capsys, scheme):
    assert run(app, ["--url", f"{scheme}://127.0.0.1:1"]) == 1
    error = capsys.readouterr().err
    assert "no server answers" in error and "serve-repo" in error and "Traceback" not in error


@pytest.mark.server
def test_the_port_of_the_other_protocol(capsys, server):
    assert run(app, ["--url", f"grpc://{server.http_url}"]) == 1
    assert "use http://" in capsys.readouterr().err


@pytest.mark.server
def test_an_unknown_model(capsys, server):
    assert run(app, ["--url", server.http_url, "--model", "scal"]) == 2
    error = capsys.readouterr().err
    assert "no such model" in error and "did you mean scale?" in error


@pytest.mark.server
def test_every_format_says_the_same(capsys, server, tmp_path):
    arguments = ["--url", server.http_url, "--model", "scale", "--concurrency", "2", "--seconds", "0.3"]
    assert run(app, [*arguments, "--output", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0].startswith("model") and "scale" in captured.out.splitlines()[1]
    (folder,) = tmp_path.iterdir()
    (row,) = csv.DictReader(io.StringIO((folder / "result.csv").read_text()))
    (point,) = json.loads((folder / "result.json").read_text())["models"][0]["points"]
    assert float(row["p99_us"]) == pytest.approx(point["latency"]["p99_us"], abs=0.001)
    assert f"| {row['requests']} |" in (folder / "result.md").read_text() and row["requests"] in captured.out


@pytest.mark.server
def test_json_on_stdout_is_nothing_but_json(capsys, server):
    arguments = ["--url", f"grpc://{server.grpc_url}", "--model", "scale", "--concurrency", "1", "--seconds", "0.3"]
    assert run(app, [*arguments, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema_version"] == 2


@pytest.mark.server
def test_what_was_not_measured_is_exit_status_one(capsys, server):
    # Without the repository there are no golden requests; made-up zeros are refused by this model.
    arguments = ["--url", server.http_url, "--model", "positive", "--model", "scale", "--concurrency", "1"]
    assert run(app, [*arguments, "--seconds", "0.3", "--format", "csv"]) == 1
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert rows["positive"]["error"].startswith("the server answered a request with an error")
    assert rows["scale"]["error"] == "" and float(rows["scale"]["p50_us"]) > 0


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_no_process(repository, tmp_path, number):
    arguments = ["--repository", str(repository), "--model", "scale", "--concurrency", "1", "--seconds", "600"]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as bench:
        try:
            seen = wait_for_analyzer(bench.pid)
            os.kill(bench.pid, number)
            _, error = bench.communicate(timeout=60)
        finally:
            bench.kill()
    assert bench.returncode == 128 + number, error
    assert "Traceback" not in error
    _, alive = psutil.wait_procs(seen, timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def wait_for_analyzer(pid):
    """All descendants, as soon as the server and perf_analyzer are among them."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            descendants = psutil.Process(pid).children(recursive=True)
            names = " ".join(process.name() for process in descendants)
        except psutil.NoSuchProcess:
            continue
        if "perf_analyzer" in names and "triton" in names:
            return descendants
        threading.Event().wait(0.05)
    raise AssertionError("perf_analyzer was not started")
