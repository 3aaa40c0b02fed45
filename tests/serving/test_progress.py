from __future__ import annotations

import io
import re

import pytest

from serving import progress
from serving.progress import SILENT, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def _everything_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "WORTH_SAYING_S", 0.0)


def test_short_steps_are_not_worth_a_line() -> None:
    out = io.StringIO()
    with Progress(stream=out).step("blink") as step:
        step.done("built")
    assert out.getvalue() == ""


def test_verbose_says_short_ones_too() -> None:
    out = io.StringIO()
    with Progress(stream=out, verbose=True).step("blink") as step:
        step.done("cached", "0.3 MB")
    assert re.fullmatch(r"blink  cached  0\.\d s  0\.3 MB\n", out.getvalue())


@pytest.mark.usefixtures("_everything_is_long")
def test_a_long_step_says_that_it_ends() -> None:
    out = io.StringIO()
    with Progress(stream=out).step("export"):
        pass
    assert out.getvalue().splitlines()[-1].startswith("export  done  0.0 s")


def test_a_step_that_raises_failed() -> None:
    out = io.StringIO()
    with pytest.raises(ValueError), Progress(stream=out).step("export"):
        raise ValueError
    assert re.fullmatch(r"export  failed  0\.\d s  ValueError\n", out.getvalue())


def test_quiet_says_nothing() -> None:
    out = io.StringIO()
    quiet = Progress(stream=out, quiet=True, verbose=True)
    with pytest.raises(ValueError), quiet.step("export"):
        raise ValueError
    quiet.info("x")
    quiet.warn("y")
    assert out.getvalue() == ""


def test_steps_nest_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    reporter = Progress(stream=out)
    with reporter.step("outer") as outer:
        with reporter.step("inner") as inner:
            inner.update("half")
            inner.done("built")
        outer.done("cached")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert re.search(r"inner  built  0\.\d s", text)
    assert re.search(r"outer  cached  0\.\d s", text)


def test_further_lines_stand_below_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    reporter = Progress(stream=out)
    with reporter.step("search") as step:
        step.update("2 minutes left\nleads  4,000\nout    1,000")
        shown = reporter._render()
        lines = [line.plain for line in shown.renderables]  # type: ignore[union-attr]
    assert re.fullmatch(r"search  0\.\d s  2 minutes left", lines[0])
    assert lines[1:] == ["  leads  4,000", "  out    1,000"]


def test_silent_takes_everything() -> None:
    with SILENT.step("x") as step:
        step.update("y")
        step.done("built")
    SILENT.info("x")
    SILENT.warn("x")
