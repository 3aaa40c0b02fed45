"""What a build says, and what it leaves, where the world around it changes: the server, the disk, its own folder."""

import os
import signal
import subprocess
import threading

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from builder import build, load_spec
from builder.options import Options
from builder.workers import verifying
from builder.workers.verifying import VerifyingServer
from serving import Client
from serving import server as server_module
from tests.builder.processes import Mark, scale_onnx

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("test_build_disturbed")]


@pytest.fixture
def spec(tmp_path):
    """Two models, ``first`` and ``second``, which are built one after the other."""
    scale_onnx(tmp_path / "scale.onnx", 2)
    models = {name: {"source": {"onnx": "scale.onnx"}, "batch": {"max": 4}} for name in ("first", "second")}
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": models}, sort_keys=False))
    return load_spec(tmp_path / "models.yaml")


@pytest.fixture
def disturb(monkeypatch):
    """``disturb(what)``: what(endpoint, pid) is called once, when the first model has been given its server."""

    def arrange(what):
        given = VerifyingServer.endpoint
        threads = []

        def endpoint(self):
            result = given(self)
            if not threads:
                threads.append(threading.Thread(target=what, args=(result, self._server.pid)))
                threads[0].start()
            return result

        monkeypatch.setattr(VerifyingServer, "endpoint", endpoint)
        return threads

    return arrange


def _at_once(number):
    return lambda endpoint, pid: os.kill(pid, number)


def _once_loaded(number):
    def disturbance(endpoint, pid):
        with Client(f"http://{endpoint.http_url}", retries=0) as client:
            while not client.is_ready("first"):
                pass
        os.kill(pid, number)

    return disturbance


def _results(spec):
    return build(spec, options=Options(jobs=1)).models


@pytest.mark.parametrize("when", [_at_once, _once_loaded])
def test_a_server_that_is_killed_fails_the_model_it_verified_alone(spec, disturb, when):
    disturb(when(signal.SIGKILL))
    first, second = _results(spec)
    assert (first.status, first.stage) == ("failed", "serve")
    assert first.error.what == "the server died while first was verified"
    assert first.error.got.startswith("SIGKILL; its log ends with:\n")
    assert "--jobs 1" in first.error.fix
    assert second.status == "built"  # by a server of its own


@pytest.mark.parametrize("when", [_at_once, _once_loaded])
@pytest.mark.big
def test_a_server_that_hangs_is_noticed_and_replaced(spec, disturb, when, monkeypatch):
    monkeypatch.setattr(verifying, "SILENT_S", 3.0)
    monkeypatch.setattr(server_module, "_HEALTH_TIMEOUT_S", 1.0)
    mark = Mark()
    mark.put(monkeypatch)
    disturb(when(signal.SIGSTOP))
    first, second = _results(spec)
    assert (first.status, first.stage) == ("failed", "serve")
    assert first.error.what == "the server stopped answering while first was verified, and was killed"
    assert "no answer for 3 s" in first.error.got
    assert first.seconds < 30
    assert second.status == "built"
    assert mark.processes() == {}
    assert mark.segments() == []


class Scripted:
    """Stands in for a server: says that it lives, or nothing, in turn."""

    def __init__(self, *answers):
        self.answers, self.stopped = list(answers), False

    def poll(self):
        return None

    def is_live(self):
        return self.answers.pop(0)

    def stop(self, *, at_once):
        self.stopped = True


@pytest.mark.parametrize(
    ("answers", "hangs"), [([True, False, False, True, False, False], False), ([True, False, False, False], True)]
)
def test_only_a_server_that_stays_silent_hangs(tmp_path, monkeypatch, answers, hangs):
    monkeypatch.setattr(verifying, "SILENT_S", 0.0)
    place, server = VerifyingServer(tmp_path, tmp_path / "log"), Scripted(*answers)
    place._server = server
    for _ in answers:
        place.look()
    assert server.stopped is hangs
    assert place.is_there is not hangs


DELETES = """
import pathlib, shutil
HERE = pathlib.Path(__file__).parent

def path():
    shutil.rmtree(HERE / ".build")
    return HERE / "scale.onnx"

def metric(predict):
    if not (HERE / "done").exists():
        (HERE / "done").touch()
    else:
        shutil.rmtree(HERE / ".build")
    return 1.0
"""


@pytest.mark.parametrize(
    "model",
    [
        {"source": {"onnx": {"python": "deletes.py:path"}}},
        {"source": {"onnx": "scale.onnx"}, "evaluate": {"python": "deletes.py:metric"}},
    ],
    ids=["at first", "after the export"],
)
def test_the_build_folder_deleted_in_the_middle_is_said_and_harmless(tmp_path, model):
    (tmp_path / "deletes.py").write_text(DELETES)
    scale_onnx(tmp_path / "scale.onnx", 2)
    text = yaml.safe_dump({"models": {"m": {**model, "batch": {"max": 4}}}})
    (tmp_path / "models.yaml").write_text(text)
    (result,) = build(load_spec(tmp_path / "models.yaml")).models
    assert result.status == "failed"
    assert "the folder that m is built in was deleted" in result.error.what
    assert "Traceback" not in str(result.error)
    assert not (tmp_path / "model_repository" / "m").exists()

    (tmp_path / "deletes.py").write_text(DELETES.replace("shutil.rmtree", "str"))
    (result,) = build(load_spec(tmp_path / "models.yaml")).models
    assert result.status == "built"


@pytest.fixture
def small_disk(tmp_path):
    """``small_disk(megabytes)``: a folder on a disk of this size; called again, the disk has another size."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = []

    def size(megabytes):
        options = f"size={megabytes}m" + (",remount" if mounted else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("mounting a small tmpfs takes root")
        mounted.append(megabytes)
        return place

    yield size
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


def _big_onnx(path):
    """Eight megabytes of weights that do not compress."""
    weights = np.random.default_rng(0).standard_normal((1000, 2000)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1000])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2000])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.mark.parametrize("megabytes", [pytest.param(5, marks=pytest.mark.big), 12])
def test_a_full_disk_while_staging_and_caching(tmp_path, small_disk, megabytes):
    disk = small_disk(megabytes)  # no room for the artifact; or room for it, and none for its copy in the cache
    _big_onnx(tmp_path / "big.onnx")
    models = {name: {"source": {"onnx": "big.onnx"}, "batch": {"max": 2}} for name in ("m", "n")}
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"repository": "small/repository", "models": models}))
    spec = load_spec(tmp_path / "models.yaml")
    failed, _ = build(spec, options=Options(jobs=1)).models
    assert (failed.status, failed.stage) == ("failed", "export")
    assert "full" in failed.error.what or "cache cannot be written" in failed.error.what
    assert "No space left on device" in failed.error.got
    assert "free some space" in failed.error.fix
    assert list((disk / ".build" / "staging").iterdir()) == []
    assert not (disk / "repository").exists()

    small_disk(200)
    assert [result.status for result in build(spec, options=Options(jobs=1)).models] == ["built", "built"]


def test_a_build_with_nothing_to_do_removes_what_a_killed_one_left(spec):
    assert [result.status for result in _results(spec)] == ["built", "built"]
    left = spec.folder / ".build" / "staging" / "build-killed" / "0" / "repository"
    left.mkdir(parents=True)
    assert [result.status for result in _results(spec)] == ["up to date", "up to date"]
    assert list((spec.folder / ".build" / "staging").iterdir()) == []
