"""``check-repo``: arguments, output, exit status."""

import json
import subprocess
import sys
import time

import pytest

pytest.importorskip("tritonclient", reason="tritonclient carries the ModelConfig message")

import builder.triton_fields
from builder.check import all_rules
from builder.check.target import server_of
from builder.cli_check import app
from serving.runtime import ONNXRUNTIME, TRITON
from serving.terminal import run

GOOD = """backend: "python"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
dynamic_batching { }
"""
SLOW = GOOD.replace("dynamic_batching { }\n", "")
BAD = GOOD.replace("dims: [ 4 ]", "dims: [ 0 ]", 1)
CODE = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"


def repository(folder, **configs):
    for name, text in configs.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "model.py").write_text(CODE)
        (folder / name / "config.pbtxt").write_text(text)
    return folder


def check(capsys, *arguments):
    status = run(app, [str(argument) for argument in arguments])
    return status, *capsys.readouterr()


@pytest.mark.parametrize(("text", "status"), [(GOOD, 0), (SLOW, 0), (BAD, 1)])
def test_only_errors_are_an_exit_status(tmp_path, capsys, text, status):
    assert check(capsys, repository(tmp_path, m=text))[0] == status


def test_json_is_one_object_on_stdout(tmp_path, capsys):
    status, out, err = check(capsys, repository(tmp_path, m=BAD, n=SLOW), "--format", "json")
    found = json.loads(out)["findings"]
    assert (status, err) == (1, "")
    assert [(one["model"], one["severity"], one["line"]) for one in found] == [("m", "error", 3), ("n", "warning", 2)]
    assert set(found[0]) == {"model", "rule", "severity", "message", "fix", "file", "line"}
    assert found[0]["file"] == str(tmp_path / "m" / "config.pbtxt")


def test_text_ends_with_the_counts_and_has_no_colour_in_a_pipe(tmp_path, capsys):
    _, out, _ = check(capsys, repository(tmp_path, m=BAD))
    assert out.splitlines()[0] == "m"
    assert out.splitlines()[-1] == "1 model: 1 error"
    assert "\x1b" not in out


def test_github_gets_annotations(tmp_path, capsys):
    status, out, _ = check(capsys, repository(tmp_path, m=BAD), "--format", "github")
    assert status == 1
    assert out.startswith(f"::error file={tmp_path}/m/config.pbtxt,line=3,title=tensor-dim-invalid::m: ")


def test_a_clean_repository_gives_github_nothing(tmp_path, capsys):
    assert check(capsys, repository(tmp_path, m=GOOD), "--format", "github") == (0, "", "")


def test_a_rule_that_is_ignored_is_no_finding(tmp_path, capsys):
    folder = repository(tmp_path, m=BAD)
    status, out, _ = check(capsys, folder, "--ignore", "tensor-dim-invalid", "--ignore", "name-differs")
    assert (status, out) == (0, "1 model: 0 errors\n")


def test_quiet_leaves_the_errors(tmp_path, capsys):
    _, out, _ = check(capsys, repository(tmp_path, m=BAD, n=SLOW), "--quiet")
    assert "no-dynamic-batching" not in out
    assert "tensor-dim-invalid" in out


def test_the_folder_of_this_place_is_the_default(tmp_path, capsys, monkeypatch):
    repository(tmp_path / "model_repository", m=BAD)
    monkeypatch.chdir(tmp_path)
    status, out, _ = check(capsys)
    assert status == 1
    assert "      model_repository/m/config.pbtxt:3" in out.splitlines()


def test_several_repositories_are_one_server(tmp_path, capsys):
    first, second = repository(tmp_path / "a", m=GOOD), repository(tmp_path / "b", m=GOOD)
    status, out, _ = check(capsys, first, second, "--format", "json")
    assert status == 1
    assert [one["rule"] for one in json.loads(out)["findings"]] == ["model-twice", "model-twice"]


def test_config_only_judges_as_if_the_files_were_there(tmp_path, capsys):
    folder = repository(tmp_path, m=GOOD)
    (folder / "m" / "1" / "model.py").unlink()
    (folder / "m" / "1").rmdir()
    assert check(capsys, folder)[0] == 1
    assert check(capsys, folder, "--config-only")[0] == 0


@pytest.mark.parametrize(("server", "status"), [("26.09", 0), ("2.73.0", 0), ("24.10-cpu", 1), ("embedded", 1)])
def test_the_server_is_what_it_is_judged_for(tmp_path, capsys, server, status):
    folder = repository(tmp_path, m=GOOD + "instance_group [ { kind: KIND_GPU } ]\n")
    assert check(capsys, folder, "--server", server)[0] == status


def test_the_embedded_server_takes_what_its_own_onnx_runtime_takes():
    """It is an old core with a new ONNX Runtime behind it."""
    release = server_of("embedded").release
    assert (release.server, release.onnxruntime) == (TRITON, ONNXRUNTIME)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], ["no such repository", "nowhere", "got:      nothing"]),
        ([".", "--ignore", "name-difers"], ["no such rule: name-difers", "did you mean `name-differs`?"]),
        (["--explain", "no-warm"], ["no such rule: no-warm", "did you mean `no-warmup`?"]),
        ([".", "--server", "24.99"], ["unknown release of Triton: 24.99", "--server", "embedded"]),
        ([".", "--format", "xml"], ["xml"]),
    ],
)
def test_unusable_arguments_are_status_2_and_say_what_would_do(tmp_path, capsys, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    status, out, err = check(capsys, *arguments)
    assert (status, out) == (2, "")
    assert [text for text in expected if text not in err] == []


def test_a_file_is_no_repository(tmp_path, capsys):
    (tmp_path / "config.pbtxt").write_text(GOOD)
    status, _, err = check(capsys, tmp_path / "config.pbtxt")
    assert status == 2
    assert "got:      a file" in err


def test_without_tritonclient_the_install_line_is_said(tmp_path, capsys, monkeypatch):
    def missing():
        raise ImportError("no module named tritonclient")

    monkeypatch.setattr(builder.triton_fields, "_model_config_pb2", missing)
    status, _, err = check(capsys, repository(tmp_path, m=GOOD))
    assert status == 2
    assert "pip install 'triton-repo[serve]'" in err


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.id)
def test_every_rule_is_explained(capsys, rule):
    status, out, _ = check(capsys, "--explain", rule.id)
    assert status == 0
    assert rule.reason in out and rule.fix in out


def test_a_rule_is_explained_to_programs_too(capsys):
    _, out, _ = check(capsys, "--explain", "name-differs", "--format", "json")
    assert json.loads(out)["rule"]["severity"] == "error"


def test_help_shows_examples(capsys):
    status, out, _ = check(capsys, "--help")
    assert status == 0
    assert "check-repo --explain preferred-batch-size" in out


def test_neither_the_command_nor_a_check_imports_a_framework(tmp_path):
    repository(tmp_path, m=GOOD)
    code = (
        "import sys\nfrom builder.cli_check import app\nfrom serving.terminal import run\n"
        f"run(app, [{str(tmp_path)!r}])\n"
        "print([n for n in ('torch', 'onnxruntime', 'tensorrt', 'builder.spec', 'grpc') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_thousand_models_take_seconds(tmp_path):
    repository(tmp_path, **{f"m{number}": GOOD for number in range(1000)})
    begin = time.process_time()
    assert run(app, [str(tmp_path), "--format", "json"]) == 0
    assert time.process_time() - begin < 5
