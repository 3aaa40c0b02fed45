"""Interruptions that come at a bad moment are heard after it, and pipes are read whatever their number."""

import fcntl
import os
import resource
import signal
import subprocess
import threading

import pytest

from serving.interrupts import uninterrupted
from serving.pipes import readable


def test_an_interruption_is_heard_at_the_end_of_the_block():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            steps.append("went on")
        steps.append("not reached")
    assert steps == ["went on"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_one_that_comes_while_a_process_is_started_is_not_lost():
    """Python drops what a handler raises within the functions that it calls around a fork."""
    sent = []

    def send():
        if sent:
            sent.pop()
            signal.raise_signal(signal.SIGINT)

    os.register_at_fork(after_in_parent=send)
    process = None
    try:
        sent.append(True)
        with pytest.raises(KeyboardInterrupt), uninterrupted():
            process = subprocess.Popen(["sleep", "60"], preexec_fn=os.getpid)
        assert process is not None and process.poll() is None  # and it is known, so that it can be ended
    finally:
        sent.clear()
        if process is not None:
            process.kill()
            process.wait()


def test_an_error_in_the_block_is_not_lost_either():
    with pytest.raises(KeyboardInterrupt) as caught, uninterrupted():
        signal.raise_signal(signal.SIGINT)
        raise OSError("no such program")
    assert isinstance(caught.value.__context__, OSError)


def test_handlers_that_are_none_stay_and_other_threads_need_nothing():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    done = []

    def work():
        with uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_pipe_is_read_in_a_process_with_very_many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip("no more than 2000 files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    reader, writer = os.pipe()
    high = fcntl.fcntl(reader, fcntl.F_DUPFD, 1500)
    try:
        assert high >= 1500 and not readable(high, 0) and not readable(high, 0.01)
        os.write(writer, b"said")
        assert readable(high, None)
        os.read(high, 4)
        os.close(writer)
        assert readable(high, 5)  # the end
    finally:
        for handle in (reader, high):
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
