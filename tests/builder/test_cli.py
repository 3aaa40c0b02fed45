"""``build-repo`` as a user runs it: a process, its output, its exit status."""

import json
import subprocess
import sys
import textwrap

import pytest

SPEC = """
models:
  echo:
    source: {python: "model.py:load"}
    inputs: {x: "float32[batch, 2]"}
    outputs: {y: "float32[batch, 2]"}
"""
MODEL = """
import torch
class Add(torch.nn.Module):
    def forward(self, x):
        return x + 1
def load():
    return Add()
"""


def _run(*args, cwd):
    return subprocess.run(
        [sys.executable, "-m", "builder.cli", *args], cwd=cwd, capture_output=True, text=True, timeout=240
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models.yaml").write_text(textwrap.dedent(SPEC))
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path


@pytest.mark.server
def test_a_build_prints_a_table_and_exits_0(folder):
    done = _run(cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "echo" in done.stdout
    assert "built" in done.stdout
    assert "random inputs" in done.stderr
    assert (folder / "model_repository" / "echo" / "1" / "model.onnx").is_file()


@pytest.mark.server
def test_json_for_programs_is_alone_on_stdout_whatever_the_users_code_prints(folder):
    (folder / "model.py").write_text(MODEL + "    print('loading')\n".replace("    print", "\nprint"))
    done = _run("--format", "json", "-q", cwd=folder)
    answer = json.loads(done.stdout)
    assert answer["ok"] is True
    assert answer["models"][0]["status"] == "built"
    assert done.stderr == "loading\n"


def test_a_failed_model_exits_1_and_says_why(folder):
    (folder / "model.py").write_text("def load():\n    raise ValueError('no weights')\n")
    done = _run(cwd=folder)
    assert done.returncode == 1
    assert "echo failed at source: source model.py:load raised" in done.stderr
    assert "model.py:2, in load" in done.stderr
    assert "ValueError: no weights" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nothing.yaml"], "no such file"),
        (["--only", "other"], "has no model 'other'"),
        (["--frmat", "json"], "No such option"),
    ],
)
def test_unusable_arguments_exit_2(folder, args, message):
    done = _run(*args, cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_spec_as_json(folder):
    (folder / "models.yaml").write_text(textwrap.dedent(SPEC).replace("inputs", "inptus"))
    done = _run("--format", "json", cwd=folder)
    assert done.returncode == 2
    problems = json.loads(done.stdout)["problems"]
    assert any("did you mean `inputs`?" in problem.get("fix", "") for problem in problems)


def test_the_plan_is_printed_without_torch(folder):
    code = (
        "import sys\nfrom builder.cli import app\nfrom serving.terminal import run\n"
        "status = run(app, ['--plan'])\nassert 'torch' not in sys.modules\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "torch.onnx.export by dynamo, opset 23" in done.stdout


def test_version_names_what_matters(folder):
    done = _run("--version", cwd=folder)
    assert done.returncode == 0
    for name in ("triton-repo", "torch", "onnx", "onnxruntime", "tritonclient", "tritonserver"):
        assert name in done.stdout
