from __future__ import annotations

import sys
from pathlib import Path

import pytest

from serving import interpreter
from serving.errors import RuntimeUnavailableError
from serving.interpreter import Interpreter, candidates, find_interpreter, inspect


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_REPO_PYTHON", raising=False)


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_virtual_environment_leads_to_its_base() -> None:
    found = find_interpreter()
    assert found.version in interpreter.VERSIONS
    assert (found.library_dir / f"libpython{found.version}.so.1.0").exists()
    assert not (found.executable.parent.parent / "pyvenv.cfg").exists()


def test_this_python_comes_first() -> None:
    if f"{sys.version_info.major}.{sys.version_info.minor}" not in interpreter.VERSIONS:
        pytest.skip("the tests run on a Python that the backends cannot use")
    assert candidates()[0] == Path(sys.executable)


def test_a_chosen_one_is_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_REPO_PYTHON", str(tmp_path / "nothing"))
    with pytest.raises(RuntimeUnavailableError) as caught:
        find_interpreter()
    assert "nothing: does not run" in caught.value.got
    assert "TRITON_REPO_PYTHON" in caught.value.fix


def test_a_shim_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    shim = script(tmp_path / "python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    assert inspect(shim) == "does not run (pyenv: python3.12: command not found)"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (
            '"version": "3.13", "release": "3.13.0", "implementation": "cpython", "library_dir": "/"',
            "is cpython 3.13.0",
        ),
        ('"version": "3.11", "release": "3.11.0", "implementation": "pypy", "library_dir": "/"', "is pypy 3.11.0"),
        (
            '"version": "3.12", "release": "3.12.1", "implementation": "cpython", "library_dir": null',
            "is built without its shared library libpython3.12.so.1.0",
        ),
    ],
)
def test_why_one_cannot_be_used(tmp_path: Path, facts: str, reason: str) -> None:
    assert inspect(script(tmp_path / "python", f"""echo '{{"executable": "/x", {facts}}}'""")) == reason


def test_none_at_all_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "candidates", list)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RuntimeUnavailableError, match="no Python that can run the server's backends") as caught:
        find_interpreter()
    assert caught.value.fix.startswith("apt-get install python3.")
    assert "3.10 to 3.12" in caught.value.expected


def test_the_inspection_of_this_one() -> None:
    found = inspect(Path(sys.executable))
    if isinstance(found, Interpreter):
        assert found.release == sys.version.split()[0]
