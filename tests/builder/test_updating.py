"""``build-repo --reload`` and ``--sign`` as a user runs them, and what is reloaded after a build."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from builder.api import BuildReport, ModelResult
from builder.errors import ReloadError
from builder.live.updating import check_server, reload_published, rollback_on, update_text
from builder.repository.managing import rollback
from builder.repository.published import ModelFolder
from serving import Client, Server
from serving.signatures import verify_repository
from tests.builder.live_models import Load, put, times

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("test_updating")]

SPEC = """
models:
  m:
    source: {onnx: model.onnx}
    inputs: {x: "float32[batch, 4]"}
    outputs: {y: "float32[batch, 4]"}
    batch: {max: 8}
"""


@pytest.fixture(scope="module")
def server(triton_runtime, tmp_path_factory):
    """A running server over the repository of a project folder, without models."""
    repository = tmp_path_factory.mktemp("live") / "model_repository"
    repository.mkdir()
    with Server(repository, runtime=triton_runtime, model_control_mode="explicit") as running:
        yield running


@pytest.fixture
def project(server):
    """The folder with ``models.yaml``; its repository is the server's."""
    folder = server.repositories[0].parent
    (folder / "models.yaml").write_text(SPEC)
    return folder


@pytest.fixture
def url(server):
    return f"grpc://{server.grpc_url}"


def _run(*args, cwd):
    command = [sys.executable, "-m", "builder.cli", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)


def factor(server, name="m"):
    with Client(f"http://{server.http_url}") as client:
        return float(client.infer(name, {"x": np.ones((1, 4), np.float32)})["y"][0, 0])


def _result(name, status):
    return ModelResult(name, "onnx-fp32", status, None if status == "failed" else 1, 0.0)


def report(repository, *names, status="built"):
    return [BuildReport(repository, tuple(_result(name, status) for name in names))]


@pytest.mark.big
def test_a_project_from_its_first_build_to_a_rollback(server, project, url):
    (project / "model.onnx").write_bytes(times(1))
    done = _run("--reload", url, "-q", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "m: version 1 serves: " in done.stdout
    assert factor(server) == 1

    (project / "model.onnx").write_bytes(times(2))
    with Load(server) as load:
        done = _run("--reload", url, "-q", "--format", "json", cwd=project)
        answer = json.loads(done.stdout)
        assert (done.returncode, answer["ok"]) == (0, True)
        (update,) = answer["reload"]["models"]
        assert (update["status"], update["version"], update["reloaded"]["before"]) == ("reloaded", 2, [1])

        done = _run("--reload", url, cwd=project)  # nothing changed
        assert done.returncode == 0
        assert "m: version 2 serves already" in done.stdout

        done = _run("--rollback", "m", "--reload", url, cwd=project)
        assert done.returncode == 0
        assert "version 1 is served instead of version 2" in done.stdout
        assert "m: version 1 serves instead of 2: 16 golden requests right" in done.stdout

        done = _run("--reload", url, cwd=project)  # what was rolled back stays so
        assert done.returncode == 0
        assert "version 1 is served, not the newest, 2" in done.stderr
        assert "build-repo --rollback m 2 --reload URL" in done.stderr
    assert load.failures == []
    assert set(load.answers) == {1.0, 2.0}
    assert factor(server) == 1


def test_a_server_that_is_not_there_is_found_before_a_long_build(project):
    (project / "model.onnx").write_bytes(b"not even a model")
    done = _run("--reload", "grpc://127.0.0.1:1", cwd=project)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no server answers at the address of --reload")
    with pytest.raises(ReloadError, match="no server answers"):
        check_server("127.0.0.1:1")


def test_a_build_that_fails_on_the_server_exits_1(server, project, url, tmp_path):
    """The embedded server refuses what the build's own server took: here, a file that went bad in between."""
    repository = server.repositories[0]
    put(repository, 1, name="bad")
    assert reload_published(report(repository, "bad"), url).ok
    put(repository, 2, name="bad", answers=5)
    put(repository, 1, name="good")
    update = reload_published(report(repository, "bad", "good"), url)
    assert not update.ok
    assert [each.status for each in update.models] == ["failed", "reloaded"]
    (error,) = update.errors()
    assert error.startswith("bad failed on the server: output 'y' of bad.candidate 2 is not what it was")
    assert "version 1 keeps serving" in error
    assert "good: version 1 serves: 3 golden" in update_text(update) and "bad" not in update_text(update)
    assert json.loads(json.dumps(update.as_dict()))["models"][0]["error"]["error"] == "ReloadError"
    # The bad one is not tried again, nor served, until somebody asks for it.
    again = reload_published(report(repository, "bad", status="up to date"), url)
    assert again.ok and again.models[0].status == "serving already"
    assert "the newest failed on a server" in again.models[0].note
    assert factor(server, "bad") == 1


def test_what_waits_is_served_the_next_time(server, url):
    """A build with --reload that was killed after publishing, or whose server died."""
    repository = server.repositories[0]
    put(repository, 1, name="waits", activate=True)
    put(repository, 2, name="waits")
    gone = reload_published(report(repository, "waits"), "grpc://127.0.0.1:1")
    assert not gone.ok and "no server answers" in gone.errors()[0]
    assert ModelFolder(repository, "waits").pending() == 2
    assert reload_published(report(repository, "waits", status="up to date"), url).models[0].version == 2
    assert factor(server, "waits") == 2


@pytest.mark.big
def test_a_server_that_fell_behind_is_brought_to_what_the_repository_serves(server, url):
    repository = server.repositories[0]
    put(repository, 1, name="behind")
    reload_published(report(repository, "behind"), url)
    put(repository, 2, name="behind", activate=True)  # a build without --reload
    assert factor(server, "behind") == 1
    update = reload_published(report(repository, "behind", status="up to date"), url).models[0]
    assert (update.status, update.version) == ("reloaded", 2)
    assert factor(server, "behind") == 2


def test_models_that_failed_to_build_are_left_alone(server, url):
    assert reload_published(report(server.repositories[0], "nothing", status="failed"), url).models == ()


def test_a_rollback_that_fails_on_the_server_changes_neither(server, url):
    repository = server.repositories[0]
    put(repository, 1, name="back", answers=3)  # honest once, wrong on this server
    put(repository, 2, name="back", activate=True)
    reload_published(report(repository, "back"), url)
    with pytest.raises(ReloadError, match=r"output 'y' of back.candidate 1 is not what.*; version 2 keeps serving"):
        rollback_on(url, repository, "back")
    assert ModelFolder(repository, "back").served() == 2
    assert factor(server, "back") == 2
    rollback(repository, "back", 1)  # without a server it is possible
    assert ModelFolder(repository, "back").served() == 1


def test_signed_versions(server, project, tmp_path):
    key, public = tmp_path / "signing.key", tmp_path / "signing.pub"
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key], check=True)
    subprocess.run(["openssl", "ec", "-in", key, "-pubout", "-out", public], check=True, capture_output=True)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "models.yaml").write_text(SPEC)
    onnx.save(onnx.load_from_string(times(3)), folder / "model.onnx")
    assert _run("-q", cwd=folder).returncode == 0
    done = _run("-q", "--sign", key, cwd=folder)  # the same content, signed: a version of its own
    assert done.returncode == 0, done.stderr
    assert _run("-q", "--sign", key, "--keep", "1", cwd=folder).returncode == 0
    assert [path.name for path in (folder / "model_repository/m").iterdir() if path.is_dir()] == ["2"]
    assert verify_repository(folder / "model_repository", public) == 1


def test_a_key_that_cannot_be_used_is_found_before_a_long_build(project):
    (project / "model.onnx").write_bytes(b"not even a model")
    done = _run("--sign", "nothing.key", cwd=project)
    assert done.returncode == 2
    assert "the private key cannot be read" in done.stderr


@pytest.mark.parametrize("option", ["--list", "--plan", "--clean", "--verify-hashes"])
def test_reload_goes_with_a_build_or_a_rollback(project, option):
    done = _run(option, "--reload", "grpc://127.0.0.1:1", cwd=project)
    assert done.returncode == 2
    assert f"--reload does not go with {option}" in done.stderr
