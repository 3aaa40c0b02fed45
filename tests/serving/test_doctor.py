from __future__ import annotations

import collections
import shutil
import socket
from pathlib import Path

import pytest

from serving import doctor, runtime
from serving.errors import RuntimeUnavailableError
from serving.runtime import Runtime

Usage = collections.namedtuple("Usage", "total used free")
GIB = 1 << 30


@pytest.fixture(autouse=True)
def _no_server_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITONSERVER", raising=False)


def by_name(checks: list[doctor.Check]) -> dict[str, doctor.Check]:
    return {check.name: check for check in checks}


@pytest.mark.server
def test_a_healthy_machine(triton_runtime: Runtime) -> None:
    checks = by_name(doctor.examine())
    assert [check.name for check in checks.values() if check.status == "missing"] == []
    assert checks["a request through the server"].found.startswith("right answer from embedded Triton")
    assert checks["C library"].found.startswith("glibc 2.")


def test_an_empty_cache_says_what_fetches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_REPO_CACHE", str(tmp_path / "deep/cache"))
    checks = by_name(doctor.examine())
    server = checks["embedded server"]
    assert (server.status, server.fix) == ("warning", "serve-repo doctor --provide")
    assert "not here yet" in server.found
    assert checks["cache folder"].status == "ok"
    assert "a request through the server" not in checks


def test_what_cannot_be_provided_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_REPO_CACHE", str(tmp_path))

    def offline(*args: object, **kwargs: object) -> None:
        raise RuntimeUnavailableError("pip could not install", got="no route to host", fix="check the network")

    monkeypatch.setattr(runtime, "pip_install", offline)
    check = by_name(doctor.examine(provide=True))["embedded runtime"]
    assert (check.status, check.fix) == ("missing", "check the network")
    assert "no route to host" in check.found


@pytest.mark.parametrize(
    ("free", "total", "status"),
    [(GIB, GIB, "ok"), (60 << 20, 64 << 20, "warning"), (8 << 20, 64 << 20, "missing")],
)
def test_shared_memory(free: int, total: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(total, total - free, free))
    check = doctor._shared_memory()
    assert check.status == status
    assert ("--shm-size=1g" in check.fix) == (status != "ok")


def test_an_old_c_library_is_missing_and_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "glibc_version", lambda: (2, 28))
    checks = by_name(doctor.examine(provide=True))
    assert checks["C library"].status == "missing"
    assert "glibc 2.28" in checks["C library"].found
    assert "a request through the server" not in checks


def test_no_python_for_the_backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_REPO_PYTHON", str(tmp_path / "nothing"))
    check = by_name(doctor.examine())["Python for the backends (3.10 to 3.12)"]
    assert check.status == "missing"
    assert "nothing: does not run" in check.found
    assert check.fix


def test_a_held_port_is_a_warning_with_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        held = other.getsockname()[1]
        monkeypatch.setattr(doctor, "DEFAULT_PORTS", (("--http-port", held),))
        (check,) = doctor._ports()
    assert check.status == "warning"
    assert check.fix == "serve-repo --http-port 0"


def test_a_wrong_tritonserver_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONSERVER", "/nowhere")
    check = doctor.examine()[0]
    assert check.status == "missing"
    assert "TRITONSERVER=/nowhere" in check.found
