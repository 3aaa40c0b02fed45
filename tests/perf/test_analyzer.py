"""perf_analyzer as a process: its arguments, its failures in our words, and that nothing of it stays behind."""

import itertools
import json
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from perf.analyzer import CSV, EXPORT, Load, analyze, command_for
from perf.binary import Binary
from perf.errors import AnalyzerError
from perf.failures import explain
from perf.inputs import RequestData, write_input_data
from serving.errors import ServerUnavailableError

pytestmark = pytest.mark.xdist_group("perf")

LOAD = Load(
    model="scale",
    address="127.0.0.1:1",
    protocol="http",
    concurrency=2,
    batch_size=1,
    shared_memory="none",
    window_s=0.24,
)


@pytest.fixture
def place(tmp_path):
    """A folder to run in, with requests for a float32[4] input ``x`` beside it."""
    write_input_data(RequestData(({"x": np.ones(4, np.float32)},), "ones"), tmp_path / "inputs.json")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_the_arguments_are_a_list_and_the_stability_limit_always_holds():
    command = command_for(Binary(Path("/pa"), "1", "here"), replace(LOAD, model="a model; rm -rf /", batch_size=3))
    assert command[:7] == ["/pa", "-m", "a model; rm -rf /", "-u", "127.0.0.1:1", "-i", "http"]
    pairs = dict(itertools.pairwise(command))
    assert (pairs["-b"], pairs["--concurrency-range"], pairs["--max-trials"]) == ("3", "2:2", "3")
    assert pairs["--measurement-interval"] == "200"  # it measures 1.2 times as long: 240 ms
    assert int(pairs["--stability-percentage"]) >= 1_000_000
    assert (pairs["-f"], pairs["--profile-export-file"]) == (CSV, EXPORT)


def test_very_many_requests_are_sent_by_few_threads(monkeypatch):
    monkeypatch.setattr("perf.analyzer.usable_cores", lambda: 4)
    binary = Binary(Path("/pa"), "1", "here")
    assert "--async" not in command_for(binary, replace(LOAD, concurrency=32))
    command = command_for(binary, replace(LOAD, concurrency=33))
    assert command[command.index("--async") :][:3] == ["--async", "--max-threads", "2"]
    streaming = command_for(binary, replace(LOAD, concurrency=33, protocol="grpc", streaming=True))
    assert streaming.count("--async") == 1 and "--max-threads" not in streaming
    assert "--async" not in command_for(binary, replace(LOAD, concurrency=33, sequence_length=5))


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_sixty_four_requests_under_way_come_to_an_end(binary, server, place, protocol):
    """With a thread for each of them perf_analyzer leaves itself no time to end its windows, now and then."""
    address = server.http_url if protocol == "http" else server.grpc_url
    load = replace(LOAD, protocol=protocol, address=address, concurrency=64, window_s=0.5)
    output = analyze(binary, load, place, timeout_s=60)
    data = json.loads((place / EXPORT).read_text())
    requests = data["experiments"][0]["requests"]
    assert len(requests) > 200 and "--async" in output.command


def test_a_warm_up_asks_for_no_files():
    command = command_for(Binary(Path("/pa"), "1", "here"), replace(LOAD, windows=1))
    assert "-f" not in command and "--profile-export-file" not in command


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("shared_memory", ["none", "system"])
def test_a_run_leaves_its_files(binary, server, place, protocol, shared_memory):
    address = server.http_url if protocol == "http" else server.grpc_url
    load = replace(LOAD, address=address, protocol=protocol, shared_memory=shared_memory)
    output = analyze(binary, load, place, timeout_s=60)
    assert (place / CSV).is_file() and (place / EXPORT).is_file()
    assert output.stdout.count("Pass [") == 3
    assert output.command[0] == str(binary.path)


@pytest.mark.server
def test_without_an_export_only_the_summary_is_written(binary, server, place):
    analyze(binary, replace(LOAD, address=server.http_url, export=False), place, timeout_s=60)
    assert (place / CSV).is_file() and not (place / EXPORT).exists()


@pytest.mark.server
def test_a_warm_up_ends_well(binary, server, place):
    output = analyze(binary, replace(LOAD, address=server.http_url, windows=1), place, timeout_s=60)
    assert "Pass [1]" in output.stdout


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_no_server(binary, place, protocol):
    with pytest.raises(ServerUnavailableError, match="no server answers") as caught:
        analyze(binary, replace(LOAD, protocol=protocol), place, timeout_s=60)
    assert caught.value.where == f"{protocol}://127.0.0.1:1" and "serve-repo" in caught.value.fix


FAILURES = [
    ({"model": "absent"}, {}, "does not serve this model", "'absent' is not found"),
    ({"batch_size": 9}, {}, "answered a request with an error", "batch-size must be <= 8"),
    ({}, {"x": np.ones(5, np.float32)}, "do not have the shape", "supplied shape of [5]"),
    ({}, {"z": np.ones(4, np.float32)}, "do not have the shape", "missing tensor x"),
    ({"model": "tokens"}, {"ids": np.array([1, 100])}, "answered a request with an error", "token id out of range"),
    ({"model": "slow"}, {}, "no request was answered within a window", "No valid requests recorded"),
]


@pytest.mark.server
@pytest.mark.parametrize(("changes", "request_", "what", "got"), FAILURES)
def test_failures_are_explained(binary, server, place, changes, request_, what, got):
    if request_:
        write_input_data(RequestData((request_,), "test"), place.parent / "inputs.json")
    load = replace(LOAD, address=server.http_url, **changes)
    with pytest.raises(AnalyzerError, match=what) as caught:
        analyze(binary, load, place, timeout_s=60)
    assert got in caught.value.got and caught.value.fix
    assert f"model {load.model} at concurrency 2" in caught.value.where


@pytest.mark.server
def test_one_that_does_not_end_is_ended(binary, server, place):
    write_input_data(RequestData(({"left_behind": np.ones(4, np.float32)},), "ones"), place.parent / "inputs.json")
    load = replace(LOAD, model="lonely", address=server.http_url, window_s=3600.0, shared_memory="system")
    with pytest.raises(AnalyzerError, match="did not end within 1 s") as caught:
        analyze(binary, load, place, timeout_s=1)
    assert "--seconds" in caught.value.fix
    assert not analyzers()
    assert not list(Path("/dev/shm").glob("left_behind*"))  # perf_analyzer names its segments after the tensors


@pytest.mark.server
def test_one_that_is_killed_says_so(binary, server, place):
    def kill():
        deadline = time.monotonic() + 30
        while not (found := analyzers()) and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        for process in found:
            process.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(AnalyzerError, match="was ended by SIGKILL") as caught:
        analyze(binary, replace(LOAD, address=server.http_url, window_s=3600.0), place, timeout_s=60)
    killer.join()
    assert "memory" in caught.value.fix


def test_a_program_that_cannot_be_started(place):
    with pytest.raises(AnalyzerError, match="cannot be started") as caught:
        analyze(Binary(Path("/nonexistent/perf_analyzer"), "1", "test"), LOAD, place, timeout_s=5)
    assert "/nonexistent/perf_analyzer" in caught.value.where


@pytest.mark.parametrize(
    ("stderr", "what", "fix"),
    [
        ("error while loading shared libraries: libx.so: cannot open", "lacks a library", "unset PERF_ANALYZER"),
        # As it says it of a server that is killed under load.
        (
            "Thread [1] had error: HTTP client failed: Failure when receiving data from the peer\n"
            "Thread [0] had error: HTTP client failed: Send failed since rewinding of the data stream failed",
            "no server answers",
            "serve-repo",
        ),
        ("Error: Failed to parse --foo\nUsage: pa [options]\n shared memory", "does not take these", "too old"),
        ("error: failed to register shared memory region", "shared memory cannot be used", "--shared-memory none"),
        ("error: input ids contains dynamic shape, provide", "an input needs a shape", "--shape ids:"),
        ("error: HTTP client failed: Empty reply from server", "no server answers", "serve-repo"),
        ("failed to open file for outputting raw profile data", "cannot write its files", "space"),
        ("something unheard of", "gave no measurement", "stderr.txt"),
    ],
)
def test_words_of_perf_analyzer_are_translated(stderr, what, fix):
    error = explain(LOAD, "", stderr, 99)
    assert what in error.what and fix in error.fix
    assert "Usage" not in error.got


def analyzers():
    """perf_analyzer processes that this process started."""
    children = psutil.Process().children(recursive=True)
    found = []
    for child in children:
        try:
            if "perf_analyzer" in child.name() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found
