"""A running server brought to other versions while clients ask it: none of them may notice, whatever fails."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass

import pytest

from builder.errors import ReloadError
from builder.live.candidate import MARK, candidate, stale_candidates
from builder.live.recheck import golden_of
from builder.live.reload import reload
from builder.repository.managing import rollback
from builder.repository.published import ModelFolder
from serving import Client, Server
from serving.errors import UsageError
from serving.progress import SILENT
from tests.builder.live_models import Load, golden, put, times

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("test_reload")]


class Heard:
    """A reporter that remembers what it was warned of."""

    def __init__(self):
        self.warnings = []
        self.step = SILENT.step
        self.info = SILENT.info
        self.output = getattr(SILENT, "output", None)

    def warn(self, message):
        self.warnings.append(message)


@pytest.fixture(scope="module")
def live(triton_runtime, tmp_path_factory):
    """A running server without models, for all tests that do it no harm; each brings a model of its own name."""
    repository = tmp_path_factory.mktemp("live") / "repository"
    repository.mkdir()
    with Server(repository, runtime=triton_runtime, model_control_mode="explicit") as server:
        yield server


@dataclass
class Model:
    """One model of the shared server."""

    server: Server
    name: str

    @property
    def repository(self):
        return self.server.repositories[0]

    @property
    def folder(self):
        return ModelFolder(self.repository, self.name)

    def put(self, k, **options):
        return put(self.repository, k, name=self.name, **options)

    def reload(self, version, **options):
        return reload(grpc(self.server), self.repository, self.name, version, **options)

    def serving(self):
        """The versions that the server serves, of it and of its candidate."""
        return {(name, version) for name, version in index(self.server) if name.startswith(self.name)}


@pytest.fixture
def unloaded(live, request):
    """A model that the server does not know yet."""
    return Model(live, f"m{abs(hash(request.node.name)) % 10**9}")


@pytest.fixture
def model(unloaded):
    """A model whose version 1 is served and multiplies by 1."""
    unloaded.put(1)
    with Client(grpc(unloaded.server)) as client:
        client.load(unloaded.name)
    return unloaded


@pytest.fixture
def repository(tmp_path):
    """A repository with version 1 of ``m``, for a server of the test's own."""
    put(tmp_path / "repository", 1)
    return tmp_path / "repository"


@pytest.fixture
def serve(triton_runtime):
    """``serve(repository, load=["m"], ...)``: a server of the test's own; stopped at the end."""
    with contextlib.ExitStack() as stack:

        def start(repository, load=("m",), mode="explicit", **options):
            server = Server(repository, runtime=triton_runtime, model_control_mode=mode, load=list(load), **options)
            return stack.enter_context(server)

        yield start


def grpc(server):
    return f"grpc://{server.grpc_url}"


def state(repository, name="m"):
    """What is as before after a failure: the configuration in place, and no folder that was not there."""
    folders = sorted(path.name for path in repository.iterdir() if path.is_dir() and path.name.startswith(name))
    return (repository / name / "config.pbtxt").read_bytes(), folders


def index(server):
    with Client(grpc(server)) as client:
        return {(row["name"], row["version"]) for row in client.index() if row["state"] == "READY"}


# -- what works -------------------------------------------------------------------------------------------------------


@pytest.mark.big
def test_updates_and_a_rollback_under_load(model, until):
    with Load(model.server, model.name) as load:
        for k in (2, 3):
            assert model.put(k).pending
            done = model.reload(k)
            assert (done.model, done.version, done.before, done.requests) == (model.name, k, (k - 1,), 6)
            assert done.max_abs == 0 and done.load_s > 0 and done.switch_s > 0
            assert model.serving() == {(model.name, str(k))}
        rollback(model.repository, model.name, 1)
        assert model.reload(1).before == (3,)
        seen = len(load.answers)
        until(lambda: len(load.answers) > seen + 50)
    assert load.failures == []
    assert set(load.answers) == {1.0, 2.0, 3.0}
    assert set(load.answers[seen + 8 :]) == {1.0}  # whoever asks after it gets the old version again
    assert load.not_ready == 0  # neither the server nor the model said that it was not
    assert state(model.repository, model.name)[1] == [model.name]


def test_the_same_version_again_changes_nothing(model):
    before = state(model.repository, model.name)
    done = model.reload(1)
    assert (done.before, done.requests, done.load_s) == ((1,), 3, 0.0)
    assert state(model.repository, model.name) == before


def test_a_model_that_is_not_loaded_yet_is_loaded_and_checked(unloaded):
    unloaded.put(1)
    done = unloaded.reload(1)
    assert (done.before, done.requests) == ((), 3)
    assert unloaded.serving() == {(unloaded.name, "1")}


def test_requests_under_way_are_finished_by_the_old_version(unloaded, until):
    unloaded.put(1, python=("pass", "(time.sleep(0.5), 1)[1]"))
    unloaded.reload(1)
    unloaded.put(2, python=("pass", "2"))
    with Load(unloaded.server, unloaded.name) as load:
        unloaded.reload(2)
        until(lambda: 2.0 in load.answers)
    assert load.failures == []
    assert set(load.answers) == {1.0, 2.0}


@pytest.mark.big
def test_a_version_policy_of_the_user(unloaded):
    policy = {"latest": {"num_versions": 2}}
    unloaded.put(1, policy=policy)
    unloaded.reload(1)
    unloaded.put(2, policy=policy)
    assert unloaded.reload(2).before == (1,)
    assert unloaded.serving() == {(unloaded.name, "1"), (unloaded.name, "2")}


# -- HTTP -------------------------------------------------------------------------------------------------------------


def test_with_an_http_address_models_are_loaded_over_grpc_on_the_next_port(repository, serve):
    """Over HTTP, Triton answers no other HTTP request while a model loads."""
    port = _two_free_ports()
    server = serve(repository, http_port=port, grpc_port=port + 1)
    put(repository, 2, python=("time.sleep(2)", "2"))
    heard = Heard()
    with Load(server) as load:
        done = reload(f"http://{server.http_url}", repository, "m", 2, reporter=heard)
    assert heard.warnings == []
    assert done.requests == 2 * 2 * 3  # over both protocols
    assert done.switch_s > 2
    assert load.failures == [] and load.slowest_s < 1.9


@pytest.mark.big
def test_with_http_alone_it_works_and_warns(model):
    model.put(2)
    heard = Heard()
    done = reload(model.server.http_url, model.repository, model.name, 2, reporter=heard)
    assert (done.version, done.requests) == (2, 6)
    (warning,) = heard.warnings
    assert "requests over HTTP wait" in warning and "--reload grpc://host:port" in warning


def _two_free_ports():
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            with contextlib.suppress(OSError):
                other.bind(("127.0.0.1", port + 1))
                return port


# -- a version that is at fault ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"answers": 3},
            r"output 'y' of NAME.candidate 2 is not what.*; version 1 keeps serving(?s:.*)times what is",
        ),
        ({"onnx": b"garbage"}, r"refuses version 2 of NAME; version 1 keeps serving(?s:.*)got:(?s:.*)model\.onnx"),
        ({"python": ("raise ValueError('no weights')", "2")}, r"refuses version 2 of NAME; version 1(?s:.*)no weights"),
        ({"python": ("pass", "1 / 0")}, r"version 2 of NAME fails on the server; version 1(?s:.*)division by zero"),
        ({"policy": {"specific": {"versions": [1]}}}, r"refuses version 2 of NAME; version 1(?s:.*)version policy"),
        # What does well as a candidate and not in its place:
        (
            {"python": ("if self.name[-1] != 'e': raise ValueError('no room')", "2")},
            r"refuses version 2 of NAME; version 1 keeps serving(?s:.*)no room",
        ),
        pytest.param(
            {"python": ("pass", "7 if self.name[-1] != 'e' else 2")},
            r"output 'y' of NAME 2 is not what it was when the version was verified; version 1 keeps serving",
            marks=pytest.mark.big,
        ),
    ],
    ids=["golden", "refused", "raises", "fails", "policy", "refused in its place", "golden in its place"],
)
def test_a_bad_version_is_not_served(model, bad, message):
    before = state(model.repository, model.name)
    model.put(2, **bad)
    with Load(model.server, model.name) as load, pytest.raises(ReloadError) as caught:
        model.reload(2)
    assert re.search(message.replace("NAME", model.name), str(caught.value))
    assert caught.value.exit_code == 1
    assert f"build-repo --rollback {model.name} 2 --reload URL" in caught.value.fix
    assert load.failures == []
    assert set(load.answers) <= ({1.0, 7.0} if "7 if" in str(bad) else {1.0})
    assert model.serving() == {(model.name, "1")}
    assert state(model.repository, model.name) == before
    assert model.folder.pending() is None  # no later build serves it by itself


def test_after_a_bad_version_a_good_one(model):
    model.put(2, onnx=b"garbage")
    with pytest.raises(ReloadError):
        model.reload(2)
    model.put(3)
    with Load(model.server, model.name) as load:
        assert model.reload(3).before == (1,)
    assert load.failures == []


def test_a_bad_version_of_a_model_that_was_not_loaded(unloaded):
    unloaded.put(1, answers=2)
    message = f"is not what it was when the version was verified; nothing of {unloaded.name} is served"
    with pytest.raises(ReloadError, match=message):
        unloaded.reload(1)
    assert unloaded.serving() == set()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "golden.npz").unlink(), "no golden requests that can be read(?s:.*)FileNotFound"),
        (lambda folder: (folder / "golden.npz").write_bytes(b"x"), "no golden requests that can be read(?s:.*)zip"),
        (
            lambda folder: (folder / "golden.npz").write_bytes(golden(1, requests=0)),
            r"cannot be checked(?s:.*)got: +0 g",
        ),
    ],
    ids=["missing", "broken", "empty"],
)
def test_a_version_that_cannot_be_checked(repository, spoil, message):
    spoil(repository / "m/1")
    with pytest.raises(ReloadError, match=message):
        golden_of(ModelFolder(repository, "m"), 1)


def test_a_precision_without_a_tolerance(tmp_path):
    put(tmp_path / "repository", 1, precision="fp7")
    with pytest.raises(ReloadError, match=r"cannot be checked on a server(?s:.*)fp32(?s:.*)'fp7'"):
        golden_of(ModelFolder(tmp_path / "repository", "m"), 1)


def test_a_version_of_an_earlier_release(live, repository):
    (repository / "m/1/config.pbtxt").unlink()
    with pytest.raises(ReloadError, match=r"version 1 of m has no config.pbtxt of its own\n(?s:.*)build it again"):
        reload(grpc(live), repository, "m", 1)


# -- a server that is at fault ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["grpc://127.0.0.1:1", "http://127.0.0.1:1", "127.0.0.1:1"])
def test_nobody_there(repository, url):
    put(repository, 2)
    before = state(repository)
    with pytest.raises(ReloadError, match=r"no server answers at the address of --reload(?s:.*)127\.0\.0\.1:1"):
        reload(url, repository, "m", 2)
    assert state(repository) == before
    assert ModelFolder(repository, "m").pending() == 2


def test_no_address(repository):
    with pytest.raises(UsageError, match="not the address of a server"):
        reload("ftp://x", repository, "m", 1)


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_a_server_that_is_not_in_explicit_mode(repository, serve, mode):
    server = serve(repository, load=[], mode=mode)
    put(repository, 2)
    before = state(repository)
    for url in (grpc(server), server.http_url):
        with pytest.raises(ReloadError, match=r"decides by itself what it loads(?s:.*)--model-control-mode explicit"):
            reload(url, repository, "m", 2)
    assert state(repository) == before
    assert ModelFolder(repository, "m").pending() == 2


def test_a_server_of_another_repository(repository, tmp_path, serve):
    put(tmp_path / "other", 5)
    put(repository, 2)
    before = state(repository)
    server = serve(tmp_path / "other")
    with pytest.raises(ReloadError, match=r"does not see this repository; version 1 keeps serving(?s:.*)m.candidate"):
        reload(grpc(server), repository, "m", 2)
    assert state(repository) == before
    assert ModelFolder(repository, "m").pending() == 2


@pytest.mark.parametrize("moment", ["m.candidate", "m"], ids=["while it is tried", "while it is switched"])
def test_the_server_is_killed_midway(repository, tmp_path, serve, until, moment):
    server = serve(repository)
    before = state(repository)
    begun = tmp_path / "begun"
    put(repository, 2, python=(f"if self.name == {moment!r}: open({str(begun)!r}, 'w'); time.sleep(20)", "2"))

    def kill():
        until(begun.exists)
        os.kill(server.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(
        ReloadError, match=r"the server was lost while m was brought to version 2(?s:.*)names version 1"
    ):
        reload(grpc(server), repository, "m", 2)
    killer.join()
    assert state(repository) == before
    assert ModelFolder(repository, "m").pending() == 2


# -- more than one, and what is left behind ---------------------------------------------------------------------------


def test_what_a_killed_reload_left_is_removed_by_the_next(model, tmp_path, until):
    begun = tmp_path / "begun"
    once = f"if self.name[-1] == 'e' and not __import__('os').path.exists({str(begun)!r}): open({str(begun)!r}, 'w'); "
    model.put(2, python=(once + "time.sleep(2)", "2"))
    arguments = [grpc(model.server), str(model.repository), model.name]
    code = "import sys; from pathlib import Path; from builder.live.reload import reload; "
    code += "url, where, name = sys.argv[1:]; "
    process = subprocess.Popen([sys.executable, "-c", code + "reload(url, Path(where), name, 2)", *arguments])
    until(begun.exists)
    process.kill()
    process.wait()
    left = f"{model.name}.candidate"
    assert (model.repository / left / MARK).is_file()
    assert left in stale_candidates(model.repository)
    until(lambda: (left, "2") in model.serving())  # the server went on
    heard = Heard()
    with Load(model.server, model.name) as load:
        assert model.reload(2, reporter=heard).before == (1,)
    assert heard.warnings == [f"{left} was left by a reload that was killed; it is removed"]
    assert load.failures == []
    assert state(model.repository, model.name)[1] == [model.name]
    assert model.serving() == {(model.name, "2")}


def test_two_reloads_of_one_model(model):
    model.put(2)
    with candidate(model.folder, 2) as name:
        with pytest.raises(ReloadError, match=f"another process is reloading {model.name} just now; version 1 keeps"):
            model.reload(2)
        assert (model.repository / name).is_dir()
    assert not (model.repository / name).exists()


def test_a_model_of_the_candidates_name_is_not_touched(model):
    other = Model(model.server, f"{model.name}.candidate")
    other.put(9)
    model.put(2)
    before = state(model.repository, other.name)
    with pytest.raises(ReloadError, match=f"the name that a new version of {model.name} needs for a moment is taken"):
        model.reload(2)
    assert state(model.repository, other.name) == before
    assert model.serving() == {(model.name, "1")}


def test_a_filesystem_without_links(model, monkeypatch):
    model.put(2)
    monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(PermissionError("no links")))
    with candidate(model.folder, 2) as name:
        assert (model.repository / name / "2/model.onnx").read_bytes() == times(2)
