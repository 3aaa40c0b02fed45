"""``build-repo`` where it builds nothing: list, roll back, compare, check, remove; text, JSON, exit status."""

import json
import subprocess
import sys

import pytest

from builder.cli import app
from builder.repository.publish import newest_content, publish
from serving.terminal import run


@pytest.fixture
def folder(tmp_path, staged, monkeypatch):
    """A spec whose user code must not be run; in its repository three versions of ``digits`` and one of ``other``."""
    (tmp_path / "models.yaml").write_text("repository: out\nmodels: {digits: {source: {python: 'gone.py:load'}}}\n")
    accuracy = {"metric": "data.py:accuracy", "reference": 0.98, "max_drop": 0.1}
    for content, value in (("one", 0.98), ("two", 0.97), ("three", 0.97)):
        verification = {"parity": None, "accuracy": accuracy | {"value": value}, "serve": None}
        publish(staged(content, name="digits", verification=verification), tmp_path / "out")
    publish(staged(name="other"), tmp_path / "out")
    (tmp_path / "out" / "theirs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(capsys):
    """``call("--list", ...)`` -> (exit status, stdout, stderr)."""

    def make(*args):
        status = run(app, args)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return make


def test_a_list(folder, call):
    status, out, _ = call("--list")
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == str(folder / "out")
    assert lines[1].split() == ["model", "version", "served", "variant", "precision", "accuracy", "size", "published"]
    assert lines[2].split()[:6] == ["digits", "3", "served", "onnx-fp32", "fp32", "0.97"]
    assert lines[3].split()[:3] == ["2", "onnx-fp32", "fp32"]
    assert lines[-1] == "not made by build-repo: theirs"


def test_a_list_for_programs(folder, call):
    status, out, _ = call("--list", "--format", "json", "--only", "digits")
    (listing,) = json.loads(out)["repositories"]
    assert status == 0
    assert [(row["model"], row["version"], row["served"]) for row in listing["versions"]] == [
        ("digits", 3, True),
        ("digits", 2, False),
        ("digits", 1, False),
    ]


@pytest.mark.parametrize(
    ("args", "version"), [([], 2), (["1"], 1), (["1", "models.yaml"], 1), (["models.yaml", "1"], 1), (["3"], 3)]
)
def test_a_rollback(folder, call, args, version):
    status, out, _ = call("--rollback", "digits", *args)
    assert status == 0
    assert newest_content(folder / "out", "digits").served == version
    said = "is served already" if version == 3 else f"version {version} is served instead of version 3"
    assert said in out


def test_a_rollback_for_programs(folder, call):
    _, out, _ = call("--rollback", "digits", "--format", "json")
    assert json.loads(out) == {"model": "digits", "before": 3, "version": 2, "warnings": []}


def test_a_rollback_says_what_it_passed_over(folder, call):
    (folder / "out/digits/2/model.onnx").unlink()
    status, out, err = call("--rollback", "digits")
    assert (status, out) == (0, "digits: version 1 is served instead of version 3\n")
    assert err == "warning: version 2 (model.onnx is missing) was passed over\n"


def test_nothing_to_roll_back_to(folder, call):
    status, out, err = call("--rollback", "other")
    assert (status, out) == (1, "")
    assert "error: other has no version to roll back to" in err


def test_a_diff(folder, call):
    status, out, _ = call("--diff", "digits", "1", "2")
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "digits: version 2 against version 1"
    assert lines[1] == "  accuracy    0.98 -> 0.97 (-0.01)"
    assert lines[2].startswith("  model.onnx  7692c3ad3540 -> ")
    assert len(lines) == 3
    _, out, _ = call("--diff", "digits", "2", "2")
    assert "the same files under the same configuration" in out
    _, out, _ = call("--diff", "digits", "1", "2", "--format", "json")
    assert json.loads(out)["accuracy"] == [0.98, 0.97]


def test_a_diff_of_configurations(folder, call, staged):
    publish(staged("three", name="digits", batch=4), folder / "out")
    _, out, _ = call("--diff", "digits", "3", "4")
    assert "\n--- digits/3/config.pbtxt\n+++ digits/4/config.pbtxt\n" in out
    assert "\n-max_batch_size: 8\n+max_batch_size: 4\n" in out
    assert "  accuracy  0.97 -> none" in out


def test_hashes(folder, call):
    status, out, _ = call("--verify-hashes")
    assert status == 0
    assert "20 files of 4 versions of 2 models, 0.0" in out
    assert out.splitlines()[0].endswith(": all as published")
    (folder / "out/digits/1/model.onnx").write_text("eno")
    (folder / "out/other/config.pbtxt").write_text("")
    status, out, _ = call("--verify-hashes")
    assert status == 1
    assert "  digits/1/model.onnx: is not what was published\n    expected 7692c3ad3540" in out
    assert "  other/config.pbtxt: was edited by hand" in out
    status, out, _ = call("--verify-hashes", "--format", "json")
    assert status == 1
    assert json.loads(out)["ok"] is False


def test_keep_with_a_list(folder, call):
    status, out, _ = call("--list", "--keep", "2")
    assert status == 0
    assert out.startswith("removed digits 1 (0.00 MB)\n")
    _, out, _ = call("--list", "--keep", "1", "--only", "digits", "--format", "json")
    assert json.loads(out)["pruned"][0]["removed"] == [{"model": "digits", "version": 2}]


def test_keep_says_what_stays(folder, call):
    (folder / "out/digits/1/notes").write_text("")
    _, _, err = call("--list", "--keep", "1")
    assert err == "warning: digits 1 stays: it holds notes, which build-repo did not put there\n"


def test_another_repository_needs_no_spec(folder, call, monkeypatch):
    monkeypatch.chdir("/")
    status, out, _ = call("--list", "--repository", str(folder / "out"))
    assert status == 0
    assert "digits" in out


def test_several_specs(folder, call):
    (folder / "second.yaml").write_text("repository: elsewhere\n")
    (folder / "elsewhere").mkdir()
    status, out, _ = call("--list", "models.yaml", "second.yaml", "models.yaml")
    assert status == 0
    assert out.count(str(folder / "out")) == 1
    assert f"{folder / 'elsewhere'}: no model of build-repo's" in out
    assert call("--rollback", "digits", "models.yaml", "second.yaml")[0] == 0
    (folder / "elsewhere/digits").mkdir()
    status, _, err = call("--rollback", "digits", "models.yaml", "second.yaml")
    assert status == 2
    assert "several repositories have a model 'digits'" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--list", "--verify-hashes"], "--list and --verify-hashes do not go together"),
        (["--list", "--plan"], "--list and --plan do not go together"),
        (["--rollback", "digits", "--keep", "1"], "--keep does not go with --rollback"),
        (["--plan", "--keep", "1"], "--keep does not go with --plan"),
        (["--repository", "out"], "--repository is for the options that need no spec"),
        (["--rollback", "digits", "--only", "digits"], "--only does not go with --rollback"),
        (["--rollback", "digits", "1", "2"], "more than one version to roll back to"),
        (["--rollback", "digits", "9"], "digits has no version 9"),
        (["--rollback", "digit"], "did you mean digits?"),
        (["--rollback", "theirs"], "a folder theirs that build-repo did not make"),
        (["--diff", "digits", "1"], "'--diff'"),
        (["--diff", "digits", "1", "x"], "Invalid value for '--diff'"),
        (["--diff", "digits", "1", "9"], "digits has no version 9"),
        (["--list", "--only", "digit"], "the repository has no model 'digit'"),
        (["--list", "--keep", "0"], "Invalid value for '--keep'"),
        (["--list", "nothing.yaml"], "no such file"),
        (["--list", "--repository", "nothing"], "there is no such repository"),
    ],
)
def test_what_cannot_be_used_exits_2(folder, call, args, message):
    status, out, err = call(*args)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("args", "fix"),
    [
        (["--list", "--plan"], "call build-repo once with --list, and once with --plan"),
        (["--plan", "--keep", "2"], "build-repo --list --keep 2"),
        (["--verify-hashes", "--only", "digits"], "leave --only out: --verify-hashes reads every model"),
        (["--rollback", "digits", "--only", "digits"], "leave --only out: --rollback names its model itself"),
        (["--list", "--reload", "grpc://localhost:1"], "leave --reload out: after --list"),
        (["--rollback", "digits", "1", "2"], "build-repo --rollback digits 1"),
        (["--rollback", "digits", "9"], "build-repo --list shows every version"),
        (["--diff", "digits", "1", "9"], "build-repo --list shows every version"),
        (["--list", "--only", "digit"], "did you mean `digits`?"),
        (["--list", "--only", "zzz"], "build-repo --list, without --only, shows every model"),
    ],
)
def test_what_to_do_instead_is_said(folder, call, args, fix):
    status, _, err = call(*args)
    assert status == 2
    assert "\n  expected: " in err
    assert "\n  got:      " in err
    assert fix in err.partition("\n  fix:      ")[2]


@pytest.mark.parametrize("args", [["--list"], ["--rollback", "digits"], ["--diff", "digits", "1", "2"]])
def test_nothing_heavy_is_imported_and_no_code_of_the_users_is_run(folder, args):
    (folder / "gone.py").write_text("raise SystemExit('run')")
    code = (
        "import sys\nfrom builder.cli import app\nfrom serving.terminal import run\n"
        f"status = run(app, {args!r})\n"
        "heavy = [name for name in ('torch', 'onnx', 'onnxruntime', 'transformers') if name in sys.modules]\n"
        "assert not heavy, heavy\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
