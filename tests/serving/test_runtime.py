from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving import runtime
from serving.errors import RuntimeUnavailableError
from serving.provision import problems
from serving.runtime import Runtime, check_platform, find_runtime


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def _no_server_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITONSERVER", raising=False)


def test_an_explicit_url_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONSERVER", str(program(tmp_path / "tritonserver")))
    assert find_runtime("http://box:8000") == Runtime(kind="url", url="http://box:8000")


def test_a_container_s_server_keeps_its_own_backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = program(tmp_path / "triton/bin/tritonserver")
    (tmp_path / "triton/backends/onnxruntime").mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{server.parent}{os.pathsep}{os.environ['PATH']}")
    found = find_runtime()
    assert (found.kind, found.tritonserver, found.backend_dir) == ("local", server, None)
    assert found.environment() == dict(os.environ)


def test_a_container_without_onnxruntime_gets_ours_beside_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_REPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRITONSERVER", str(program(tmp_path / "triton/bin/tritonserver")))
    theirs = tmp_path / "triton/backends/python"
    theirs.mkdir(parents=True)
    (theirs / "libtriton_python.so").write_text("x")
    found = find_runtime()
    assert found.backend_dir is not None
    assert (found.backend_dir / "python/libtriton_python.so").read_text() == "x"
    assert (found.backend_dir / "onnxruntime/model.py").exists()
    assert "with our onnxruntime backend" in found.describe()


@pytest.mark.parametrize(("value", "got"), [("/tmp", "a folder"), ("/nowhere/tritonserver", "nothing there")])
def test_a_wrong_tritonserver_variable_is_an_error(value: str, got: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONSERVER", value)
    with pytest.raises(RuntimeUnavailableError, match="named by TRITONSERVER cannot be run") as caught:
        find_runtime()
    assert caught.value.got.startswith(got)


def test_an_old_c_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "glibc_version", lambda: (2, 31))
    with pytest.raises(RuntimeUnavailableError, match="C library is too old") as caught:
        check_platform()
    assert caught.value.got == "glibc 2.31"
    assert "2.35" in caught.value.expected
    monkeypatch.setattr(runtime, "glibc_version", lambda: None)
    with pytest.raises(RuntimeUnavailableError) as caught:
        check_platform()
    assert "musl" in caught.value.got


def test_a_foreign_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.platform, "system", lambda: "Darwin")
    with pytest.raises(RuntimeUnavailableError, match="does not run on this kind of machine"):
        check_platform()


@pytest.mark.server
def test_the_embedded_runtime_is_whole(triton_runtime: Runtime) -> None:
    assert triton_runtime.kind == "embedded"
    assert triton_runtime.tritonserver is not None and os.access(triton_runtime.tritonserver, os.X_OK)
    assert triton_runtime.backend_dir is not None
    assert (triton_runtime.backend_dir / "python/triton_python_backend_stub").exists()
    assert (triton_runtime.backend_dir / "onnxruntime/model.py").exists()
    assert triton_runtime.cache_dir is not None and (triton_runtime.cache_dir / "local").is_dir()
    assert triton_runtime.libraries is not None and list(triton_runtime.libraries.glob("libcudart*"))
    assert "2.51.0" in triton_runtime.describe()


@pytest.mark.server
def test_once_provided_no_program_is_started_to_provide(
    triton_runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was to be left alone")

    monkeypatch.setattr("serving.runtime.pip_install", refuse)
    assert runtime.embedded_runtime() == triton_runtime


@pytest.mark.server
def test_the_caller_s_python_does_not_leak_in(triton_runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/with/numpy/2")
    environment = triton_runtime.environment()
    assert "PYTHONPATH" not in environment
    assert environment["PYTHONNOUSERSITE"] == "1"


@pytest.mark.server
def test_another_numpy_is_never_started_with(tmp_path: Path, triton_runtime: Runtime) -> None:
    python = runtime.find_interpreter()
    site = tmp_path / f"lib/python{python.version}/site-packages"
    (site / "numpy-2.2.6.dist-info").mkdir(parents=True)
    with pytest.raises(RuntimeUnavailableError, match="would misread tensors") as caught:
        runtime._assert_numpy(tmp_path, python)
    assert caught.value.expected == "numpy 1.26.4"
    assert caught.value.got == "numpy-2.2.6.dist-info"


@pytest.mark.server
def test_a_new_release_of_our_backend_gets_a_folder_of_its_own(
    tmp_path: Path, triton_runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert triton_runtime.backend_dir is not None and problems(triton_runtime.backend_dir) == []
    ours = tmp_path / "backends"
    (ours / "onnxruntime").mkdir(parents=True)
    (ours / "onnxruntime/model.py").write_text("# a new release")
    monkeypatch.setattr(runtime, "OUR_BACKENDS", ours)
    monkeypatch.setenv("TRITON_REPO_CACHE", str(tmp_path / "cache"))
    home = triton_runtime.tritonserver.parent.parent  # type: ignore[union-attr]
    folder = runtime._provide_backends(home, runtime.find_interpreter(), runtime.SILENT)
    assert folder.name != triton_runtime.backend_dir.name
    assert (folder / "onnxruntime/model.py").read_text() == "# a new release"
