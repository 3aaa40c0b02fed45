"""One build at a time: who holds the lock is named, a dead holder's lock is taken, a forked process keeps none."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from builder.errors import LockedError, PublishError
from builder.repository.locks import HOLDER, build_lock, held_folder, holder_of, is_held, publish_lock

HOLD = """
import sys, time
from pathlib import Path
from builder.repository.locks import build_lock
with build_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock of ``.build``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / ".build"], stdout=subprocess.PIPE, text=True, cwd="/"
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_says_who_is_first(tmp_path, other):
    with pytest.raises(LockedError, match="another build is at work") as caught, build_lock(tmp_path / ".build"):
        pass
    error = caught.value
    assert f"process {other.pid} on {socket.gethostname()}, since 20" in error.got
    assert "build-repo --wait" in error.fix
    assert error.exit_code == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_holders_lock_is_taken(tmp_path, other, how):
    other.send_signal(how)
    other.wait()
    with build_lock(tmp_path / ".build"):
        assert holder_of(tmp_path / ".build").pid == os.getpid()
    assert not (tmp_path / ".build" / HOLDER).exists()


def test_waiting_says_for_whom_and_goes_on_when_it_is_free(tmp_path, other):
    said = []

    class Reporter:
        def step(self, title):
            said.append(title)
            other.kill()
            import contextlib

            return contextlib.nullcontext()

    with build_lock(tmp_path / ".build", wait=True, reporter=Reporter()):
        assert holder_of(tmp_path / ".build").pid == os.getpid()
    assert said[0].startswith(f"wait for process {other.pid} on ")


def test_a_lock_whose_folder_was_removed_is_that_of_the_new_folder(tmp_path, until):
    folder = tmp_path / ".build"
    entered = threading.Event()
    with build_lock(folder):
        waiter = threading.Thread(target=lambda: _enter(folder, entered), daemon=True)
        waiter.start()
        (folder / HOLDER).unlink()
        folder.rename(tmp_path / "away")
    waiter.join(30)
    assert entered.is_set()
    assert folder.is_dir()


def _enter(folder, entered):
    with build_lock(folder, wait=True):
        entered.set()


def test_a_forked_process_does_not_keep_the_lock(tmp_path):
    read, write = os.pipe()
    with build_lock(tmp_path / ".build"):
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)  # lives on until the parent lets it go
            os._exit(0)
    try:
        with build_lock(tmp_path / ".build"):
            pass
    finally:
        os.write(write, b"x")
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)


def test_a_started_program_does_not_keep_the_lock(tmp_path):
    with build_lock(tmp_path / ".build"):
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with build_lock(tmp_path / ".build"):
            pass
    finally:
        process.communicate(b"\n")


def test_nonsense_in_the_holders_file_does_no_harm(tmp_path):
    folder = tmp_path / ".build"
    folder.mkdir()
    for text in ("", "[]", '{"pid": "x"}'):
        (folder / HOLDER).write_text(text)
        assert holder_of(folder) is None
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(LockedError) as caught, build_lock(folder):
        pass
    assert caught.value.got == "a process that has only just begun"
    os.close(descriptor)
    with build_lock(folder):
        assert json.loads((folder / HOLDER).read_text())["pid"] == os.getpid()


def test_the_publish_lock_makes_others_wait(tmp_path):
    order = []
    begun = threading.Event()

    def second():
        begun.set()
        with publish_lock(tmp_path):
            order.append("second")

    with publish_lock(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        assert begun.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_a_held_folder_is_seen_to_be_held(tmp_path):
    assert not is_held(tmp_path)
    with held_folder(tmp_path):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    assert not is_held(tmp_path / "nothing")


def test_a_folder_that_cannot_be_locked_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="the folder cannot be used"), build_lock(tmp_path / "file"):
        pass

    def no_locks(descriptor, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(PublishError, match="the folder cannot be locked") as caught, publish_lock(tmp_path):
        pass
    assert caught.value.fix == "use a folder on a local disk"
