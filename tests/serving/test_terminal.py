from __future__ import annotations

import json
import os
import signal
from typing import Annotated

import pytest
import typer

from serving import terminal
from serving.errors import MissingDependencyError, ServerStartError, UsageError


@pytest.fixture
def app() -> typer.Typer:
    app = terminal.create_app("try-repo", help="Try it.")

    @app.command(epilog=terminal.epilog(["try-repo [DIR]"]))
    def command(
        what: Annotated[str, typer.Argument()] = "nothing",
        output: terminal.FormatOption = terminal.OutputFormat.TEXT,
        quiet: terminal.QuietOption = False,
        verbose: terminal.VerboseOption = 0,
        version: terminal.VersionOption = False,
    ) -> int:
        """Do it."""
        actions = {
            "error": ServerStartError("it broke", where="here", expected="whole", got="two\nhalves", fix="glue"),
            "usage": UsageError("not like this"),
            "missing": MissingDependencyError("torch", "torch", needed_for="to export"),
            "interrupt": KeyboardInterrupt(),
            "exit": typer.Exit(7),
            "pipe": BrokenPipeError(),
        }
        if what in actions:
            raise actions[what]
        if what == "terminate":
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        terminal.emit({"what": what, "verbose": verbose}, f"did {what}", output=output)
        return 3 if what == "three" else 0

    return app


def run(app: typer.Typer, *args: str) -> int:
    return terminal.run(app, args)


def test_a_result_as_text_and_as_json(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, "x") == 0
    assert capsys.readouterr().out == "did x\n"
    assert run(app, "x", "-vv", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"what": "x", "verbose": 2}


def test_an_interruption_is_said(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    run(app, "interrupt")
    assert capsys.readouterr().err.endswith("interrupted\n")


@pytest.mark.parametrize(
    ("what", "status"),
    [("three", 3), ("exit", 7), ("error", 1), ("usage", 2), ("missing", 1), ("interrupt", 130), ("terminate", 143)],
)
def test_exit_status(app: typer.Typer, what: str, status: int) -> None:
    assert run(app, what) == status


def test_an_error_says_where_expected_got_and_fix(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    run(app, "error")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "error: it broke\n  where:    here\n  expected: whole\n  got:      two\n            halves\n  fix:      glue\n"
    )


@pytest.mark.parametrize("flags", [["--format", "json"], ["--format=json"]])
def test_an_error_as_json(app: typer.Typer, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    assert run(app, "error", *flags) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"] == "ServerStartError"
    assert answer["what"] == "it broke"
    assert answer["fix"] == "glue"


def test_wrong_arguments_are_one_message(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, "--bogus") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: No such option: --bogus")
    assert "try-repo --help" in err
    assert "Traceback" not in err
    assert run(app, "--bogus", "--format", "json") == 2
    assert json.loads(capsys.readouterr().out)["error"] == "UsageError"


def test_a_wrong_choice_names_the_right_ones(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, "--format", "xml") == 2
    err = capsys.readouterr().err
    assert "'xml'" in err
    assert "json" in err


def test_versions(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, "--version", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) >= {"triton-repo", "torch", "onnx", "onnxruntime", "tritonclient", "tritonserver", "python"}
    assert run(app, "--version") == 0
    assert "tritonclient" in capsys.readouterr().out


def test_help_shows_examples_verbatim(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, "--help") == 0
    assert "try-repo [DIR]" in capsys.readouterr().out


def test_a_bug_is_not_hidden() -> None:
    app = terminal.create_app("try-repo", help="")

    @app.command()
    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(app)
