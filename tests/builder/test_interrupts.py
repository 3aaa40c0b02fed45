"""Ctrl-C and SIGTERM at any moment: it ends soon, says so, and nothing is left behind."""

import os
import signal
from pathlib import Path

import pytest
import yaml

from builder.workers.interrupts import held_back
from builder.workers.staging import staging_for
from tests.builder.processes import Mark, Running, scale_onnx

BOUND_S = 5.0  # two seconds are promised; this machine may be busy

MODEL = """
import pathlib, time
HERE = pathlib.Path(__file__).parent

def path():
    return HERE / "scale.onnx"

def hangs():
    (HERE / "here").touch()
    time.sleep(600)

def hangs_with_children():
    import os, subprocess

    subprocess.Popen(["sleep", "600"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
    hangs()

def hangs_in_export():
    import torch

    class Module(torch.nn.Module):
        def forward(self, x):
            if torch.compiler.is_exporting():
                hangs()
            return x * 2

    return Module()
"""
TENSORS = {"inputs": {"x": "float32[batch, 4]"}, "outputs": {"y": "float32[batch, 4]"}}
SOURCES = {
    "onnx": {"source": {"onnx": {"python": "model.py:path"}}},
    "hangs": {"source": {"onnx": {"python": "model.py:hangs"}}},
    "children": {"source": {"onnx": {"python": "model.py:hangs_with_children"}}},
    "torch": {"source": {"python": "model.py:hangs_in_export"}, **TENSORS},
}


@pytest.fixture
def spec(tmp_path):
    """``spec("onnx", "hangs")``: a spec of these models, named m0, m1, ..."""
    (tmp_path / "model.py").write_text(MODEL)
    scale_onnx(tmp_path / "scale.onnx", 2)

    def make(*kinds):
        models = {f"m{number}": {**SOURCES[kind], "batch": {"max": 4}} for number, kind in enumerate(kinds)}
        (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": models}, sort_keys=False))
        return tmp_path / "models.yaml"

    return make


def _imports_torch(running):
    for pid in running.mark.processes():
        try:
            if "libtorch" in Path(f"/proc/{pid}/maps").read_text():
                return True
        except OSError:
            continue
    return False


def _in_the_users_code(running):
    return (running.spec.parent / "here").exists()


MOMENTS = {
    "importing torch": (["torch"], _imports_torch),
    "in the user's code": (["onnx", "hangs"], _in_the_users_code),
    "exporting": (["torch"], _in_the_users_code),
    "server starting": (["onnx"], lambda running: running.mark.named("tritonserver")),
    "verifying": (["onnx"], lambda running: running.said("m0: parity  done")),
}
GROUP, ALONE, TERM, TWICE = "Ctrl-C", "SIGINT", "SIGTERM", "Ctrl-C twice"


def _interrupt(running, how):
    if how == TERM:
        os.kill(running.pid, signal.SIGTERM)
    elif how == ALONE:
        os.kill(running.pid, signal.SIGINT)
    else:  # a terminal sends it to everybody in the foreground
        os.killpg(running.pid, signal.SIGINT)
    if how == TWICE:
        os.killpg(running.pid, signal.SIGINT)


@pytest.mark.server
@pytest.mark.xdist_group("test_interrupts")
@pytest.mark.parametrize(
    ("moment", "how"),
    [*((moment, GROUP) for moment in MOMENTS), *(("in the user's code", how) for how in (ALONE, TERM, TWICE))],
)
def test_it_ends_soon_and_leaves_nothing(spec, until, moment, how, record_property):
    kinds, has_come = MOMENTS[moment]
    path = spec(*kinds)
    with Running(path, "--jobs", "2", mark=Mark()) as running:
        until(lambda: has_come(running) or running.process.poll() is not None, 100)
        running.mark.processes()  # seen, so that their shared memory is known
        assert running.process.poll() is None, "\n".join(running.lines)
        _interrupt(running, how)
        status, seconds = running.wait(60)
        left = running.mark.processes()
    record_property("seconds", seconds)
    assert status == (143 if how == TERM else 130)
    assert seconds < BOUND_S
    assert left == {}
    assert running.mark.segments() == []
    assert list((path.parent / ".build" / "staging").iterdir()) == []
    assert not (path.parent / "model_repository").exists()
    assert not any("Traceback" in line for line in running.lines)
    if how != TERM:
        assert running.lines[-1] == "interrupted"


@pytest.mark.server
@pytest.mark.xdist_group("test_interrupts")
def test_what_it_started_ends_by_itself_when_it_is_killed(spec, until):
    with Running(spec("onnx", "children"), "--jobs", "2", mark=Mark()) as running:
        until(lambda: _in_the_users_code(running) and len(running.mark.named("sleep")) == 1, 100)
        until(lambda: running.mark.named("tritonserver"))
        os.kill(running.pid, signal.SIGKILL)
        running.wait(60)
        until(lambda: running.mark.processes() == {}, 20)
        assert running.mark.segments() == []


def test_signals_wait_for_the_cleaning_up_and_are_not_lost():
    done = []
    with pytest.raises(KeyboardInterrupt), held_back():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        done.append("cleaned up")
    assert done == ["cleaned up"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_leaves_no_staging_folder(tmp_path, monkeypatch):
    def impatient(folder, *, ignore_errors):
        os.kill(os.getpid(), signal.SIGINT)
        folder.rmdir()

    monkeypatch.setattr("builder.workers.staging.shutil.rmtree", impatient)
    with pytest.raises(KeyboardInterrupt), staging_for(tmp_path / ".build"):
        raise KeyboardInterrupt
    assert list((tmp_path / ".build" / "staging").iterdir()) == []


def test_an_error_while_cleaning_up_is_not_hidden_by_a_signal_that_did_not_come():
    with pytest.raises(ValueError, match="no"), held_back():
        raise ValueError("no")
