"""Every error says where it is and what to do; those that take something broken to see are seen here."""

import ast
import builtins
import json
import os
from pathlib import Path

import pytest

from perf.analyzer import Load, analyze
from perf.binary import Binary
from perf.cli import app
from perf.cli_report import put_page
from perf.errors import AnalyzerError
from perf.failures import not_started
from perf.history import History
from perf.tune.errors import TuneError
from perf.tune.journal import Journal
from perf.tune.overrides import read_overrides
from serving.errors import UsageError
from serving.terminal import run
from tests.perf import results

PERF = Path(__file__).parents[2] / "perf"
ANSWERS = ("RequestError",)
"""Of a server that is a baseline: told to the client with status 400, in the protocol's own words."""


PARTS = ("what", "where", "expected", "got", "fix")


def _errors():
    """Every construction of an error of ours in perf/: its place, and which parts it names."""
    for path in sorted(PERF.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(getattr(node, "func", None), "id", "")
            named = {keyword.arg for keyword in getattr(node, "keywords", ())}
            place = f"{path.relative_to(PERF.parent)}:{getattr(node, 'lineno', 0)} {name}"
            words = node.args and isinstance(node.args[0], (ast.Constant, ast.JoinedStr)) if name else False
            if name.endswith("Error") and name not in (*dir(builtins), *ANSWERS) and words and None not in named:
                yield place, named
            if name == "Problem" and None not in named:
                yield place, named | {part for part, _ in zip(PARTS, node.args, strict=False)}


def test_every_error_says_where_and_what_to_do():
    found = dict(_errors())
    assert len(found) > 120
    assert sum(place.endswith("Problem") for place in found) > 40
    assert [place for place, named in found.items() if not named >= {"where", "fix"}] == []
    assert [place for place, named in found.items() if not named & {"got", "expected"}] == []


def parts_of(error):
    return {key: getattr(error, key) for key in ("where", "expected", "got", "fix")}


def complete(error):
    assert all(parts_of(error).values()), parts_of(error)
    return error


def test_a_perf_analyzer_that_cannot_be_started(tmp_path):
    load = Load("m", "127.0.0.1:1", "http", 1, 1, "none", 0.1)
    with pytest.raises(AnalyzerError, match="cannot be started") as caught:
        analyze(Binary(tmp_path / "none", "1", "test"), load, tmp_path, timeout_s=5)
    assert "unset PERF_ANALYZER" in complete(caught.value).fix
    full = complete(not_started(OSError(28, "No space left on device", "/dev/full"), tmp_path))
    assert full.what == "the files of a measurement cannot be written" and "free space" in full.fix


def test_a_page_that_cannot_be_written(tmp_path, capsys):
    folder = tmp_path / "results"
    folder.mkdir()
    assert run(app, ["--url", "127.0.0.1:1", "--html", str(folder)]) == 2
    assert f"--html {folder}/report.html" in capsys.readouterr().err
    with pytest.raises(UsageError, match="the page cannot be written") as caught:
        put_page("text", Path("/dev/full"))
    assert caught.value.got == "No space left on device" and "without measuring" in complete(caught.value).fix


@pytest.fixture
def kept(tmp_path):
    """A history with one run of one model, and one of two."""
    history = History(tmp_path / "h.sqlite")
    history.append(results.result(results.point("digits"), number=1))
    history.append(results.result(results.point("a"), results.point("b"), number=2))
    return history


@pytest.mark.parametrize(
    ("arguments", "what", "fix"),
    [
        (("00010001", "00010001"), "a run is compared with itself", "bench-repo history MODEL lists them"),
        (("00020002", "00020002"), "a run is compared with itself", "name two of its models: 00020002:a 00020002:b"),
        (("00020002:a", "00020002:a"), "a variant is compared with itself", "another of its models"),
        (("00010001", "00020002"), "these runs have nothing in common", "A:MODEL B:MODEL"),
        (("00010001", "00020002:aa"), "this run has no such model", "00020002:a"),
        (("", "00010001"), "no run is named", "bench-repo history MODEL lists"),
        (("missing/result.json", "00010001"), "no such file", "bench-repo --output DIR"),
    ],
)
def test_what_cannot_be_compared(kept, capsys, arguments, what, fix):
    assert run(app, ["compare", *arguments, "--history", str(kept.path), "--format", "json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert said["what"] == what and fix in said["fix"] and {"where", "expected", "got", "fix"} <= {*said}


def test_a_file_that_is_no_result(tmp_path, capsys):
    file = tmp_path / "result.json"
    for text in ("{}", "no JSON", b"\xff\xfe"):
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert run(app, ["report", str(file), "--format", "json"]) == 2
        said = json.loads(capsys.readouterr().out)
        assert "bench-repo --output DIR" in said["fix"] and {"where", "expected", "got"} <= {*said}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path, capsys):
    file = tmp_path / "result.json"
    file.write_text("{}")
    file.chmod(0)
    assert run(app, ["report", str(file)]) == 2
    assert "chmod u+r" in capsys.readouterr().err


def test_files_of_tune_repo_that_cannot_be_read(tmp_path):
    with pytest.raises(TuneError, match="the journal cannot be read") as caught:
        Journal(tmp_path, {}, resume=True)
    assert "--journal FILE" in complete(caught.value).fix
    for what in (tmp_path, tmp_path / "latin.yaml"):
        (tmp_path / "latin.yaml").write_bytes(b"models: \xe9\n")
        with pytest.raises(TuneError, match="the overrides cannot be read") as caught:
            read_overrides(what)
        assert "--output" in complete(caught.value).fix
