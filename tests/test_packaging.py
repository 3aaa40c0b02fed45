"""A wheel in a clean virtual environment: it holds all it needs, and every command runs outside the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = ("build-repo", "check-repo", "serve-repo", "bench-repo", "tune-repo")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("triton_repo-*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "-c", str(ROOT / "constraints.txt"), str(wheel)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_holds_templates_and_backends_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "templates/config.pbtxt.j2" in names
    assert "serving/backends/onnxruntime/model.py" in names
    assert "builder/models.schema.json" in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "builder",
        "perf",
        "serving",
        "templates",
    }


def _run(environment, *command, cwd):
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(environment / "bin" / command[0]), *command[1:]],
        cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs_from_the_wheel(environment, tmp_path, command):
    shown = _run(environment, command, "--help", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "Examples" in shown.stdout
    versions = _run(environment, command, "--version", cwd=tmp_path)
    assert versions.returncode == 0
    assert "triton-repo" in versions.stdout


def test_what_is_missing_is_said_with_the_install_line(environment, tmp_path):
    (tmp_path / "models.yaml").write_text(
        "models: {m: {source: {python: 'm.py:f'}, inputs: {x: 'float32[2]'}, outputs: {y: 'float32[2]'}}}\n"
    )
    (tmp_path / "m.py").write_text("def f(): ...\n")
    planned = _run(environment, "build-repo", "--plan", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    built = _run(environment, "build-repo", cwd=tmp_path)
    assert built.returncode == 1
    assert "pip install 'triton-repo[torch]'" in built.stderr
    assert "Traceback" not in built.stderr
