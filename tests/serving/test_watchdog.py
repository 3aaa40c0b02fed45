"""Nothing is left behind, however the parent, the watchdog or the server die."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serving import supervised, watchdog
from serving.runtime import Runtime
from serving.server import Server
from serving.watchdog import SHARED_MEMORY, session_pids

# A parent that starts a server, says its process id, and waits. With "fork", a child holds the watchdog's pipe too.
PARENT = """
import os, signal, sys
from serving.server import Server
server = Server(sys.argv[1]).start()
if sys.argv[2] == "fork" and os.fork() == 0:
    signal.alarm(60)
    signal.pause()
print(server.pid, flush=True)
signal.pause()
"""


@pytest.fixture
def parent(tmp_path: Path, triton_runtime: Runtime, write_model, request: pytest.FixtureRequest):
    write_model(tmp_path, "slow")
    how = getattr(request, "param", "alone")
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), how], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    server_pid = int(process.stdout.readline())
    yield process, server_pid
    for kill in (lambda: os.killpg(process.pid, signal.SIGKILL), process.wait, process.stdout.close):
        with contextlib.suppress(ProcessLookupError):
            kill()


def watchdog_of(server_pid: int) -> int:
    return int(Path(f"/proc/{server_pid}/stat").read_text().rpartition(")")[2].split()[1])


def segments(watchdog_pid: int) -> list[str]:
    return [path.name for path in SHARED_MEMORY.glob(f"triton_repo_*_{watchdog_pid}_*")]


@pytest.mark.server
@pytest.mark.parametrize("parent", ["alone", "fork"], indirect=True)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=["KILL", "TERM", "INT"])
def test_a_parent_that_dies_takes_everything_with_it(parent, how: signal.Signals, until) -> None:
    process, server_pid = parent
    guard = watchdog_of(server_pid)
    assert len(session_pids(server_pid)) == 2
    assert segments(guard)
    process.send_signal(how)
    process.wait(30)
    until(lambda: not session_pids(server_pid))
    until(lambda: not session_pids(guard))
    assert segments(guard) == []


@pytest.mark.server
def test_a_watchdog_that_is_killed_takes_the_server_with_it(parent, until) -> None:
    _, server_pid = parent
    guard = watchdog_of(server_pid)
    os.kill(guard, signal.SIGKILL)
    until(lambda: not session_pids(server_pid))
    watchdog.sweep()  # as every later start does
    assert segments(guard) == []


@pytest.mark.server
def test_a_script_that_runs_the_server_is_stopped_in_order(tmp_path: Path, triton_runtime: Runtime) -> None:
    script = tmp_path / "bin/tritonserver"
    script.parent.mkdir()
    script.write_text(f'#!/bin/bash\n{triton_runtime.tritonserver} "$@"\nexit $?\n')
    script.chmod(0o755)
    (tmp_path / "models").mkdir()
    with Server(tmp_path / "models", runtime=dataclasses.replace(triton_runtime, tritonserver=script)) as server:
        assert len(session_pids(server.pid)) == 2
    assert "All models are stopped" in server.log()
    assert server.poll() == 0


def test_the_sweep_takes_only_what_is_ours_and_dead() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    namespace = watchdog._pid_namespace()
    dead = SHARED_MEMORY / f"triton_repo_{namespace}_{gone.pid}_1_x"
    reused = SHARED_MEMORY / f"triton_repo_{namespace}_{os.getpid()}_1_x"
    kept = [
        SHARED_MEMORY / f"{watchdog.shared_memory_prefix()}x",
        SHARED_MEMORY / f"triton_repo_1_{gone.pid}_1_x",  # another container's
        SHARED_MEMORY / f"triton_repo_{namespace}_notes",
        SHARED_MEMORY / "triton_python_backend_shm_region_x",
    ]
    try:
        for path in (dead, reused, *kept):
            path.write_text("")
        assert {dead.name, reused.name} <= set(watchdog.sweep())
        assert not dead.exists() and not reused.exists()
        assert all(path.exists() for path in kept)
    finally:
        for path in (dead, reused, *kept):
            path.unlink(missing_ok=True)


def test_a_watchdog_without_orders_does_nothing() -> None:
    command = [sys.executable, "-I", "-S", "-c", supervised._SCRIPT, str(Path(watchdog.__file__).parents[1])]
    process = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=30)
    assert process.returncode == 1
