"""Findings for people, for programs, for a workflow."""

import json

from builder.check.found import Found
from builder.check.output import as_annotations, as_data, as_text, explanation
from builder.rules.rule import Rule

ERROR = Found("m", "some-rule", "error", "it is\nwrong", "mend it", "r/m/config.pbtxt", 3)
WARNING = Found("m", "other-rule", "warning", "slow: 100%, here", "hurry", "r/m,x", None)
ABOUT = Found("", "whole", "info", "all", "nothing", "r", None)


def plain(text, how):
    return text


def coloured(text, how):
    return f"<{how}>{text}</>"


def test_text_is_grouped_by_model_and_ends_with_the_counts():
    assert as_text([ABOUT, ERROR, WARNING], 2, plain).splitlines() == [
        "the repository",
        "  info [whole] all",
        "      r",
        "      fix: nothing",
        "",
        "m",
        "  error [some-rule] it is\\nwrong",
        "      r/m/config.pbtxt:3",
        "      fix: mend it",
        "  warning [other-rule] slow: 100%, here",
        "      r/m,x",
        "      fix: hurry",
        "",
        "2 models: 1 error, 1 warning, 1 info",
    ]


def test_nothing_found_is_one_line():
    assert as_text([], 1, plain) == "1 model: 0 errors"


def test_colours_are_given_to_model_and_severity_alone():
    assert "  <red>error</> [some-rule] it" in as_text([ERROR], 1, coloured)
    assert as_text([ERROR], 1, coloured).startswith("<bold>m</>")


def test_what_a_file_holds_cannot_write_to_the_terminal():
    found = Found("\x1b[2J", "r", "error", "\x1b]0;x\x07", "\r", "a\udce9\n", None)
    text = as_text([found], 1, plain)
    assert "\x1b" not in text and "\x07" not in text and "\r" not in text
    assert text.encode("utf-8")


def test_json_is_one_object_with_the_findings():
    data = json.loads(json.dumps(as_data([ERROR, ABOUT])))
    assert data["findings"][0] == {
        "model": "m",
        "rule": "some-rule",
        "severity": "error",
        "message": "it is\nwrong",
        "fix": "mend it",
        "file": "r/m/config.pbtxt",
        "line": 3,
    }
    assert data["findings"][1]["line"] is None


def test_annotations_escape_what_github_would_take_for_its_own():
    assert as_annotations([ERROR, WARNING, ABOUT]).splitlines() == [
        "::error file=r/m/config.pbtxt,line=3,title=some-rule::m: it is\\nwrong; fix: mend it",
        "::warning file=r/m%2Cx,title=other-rule::m: slow: 100%25, here; fix: hurry",
        "::notice file=r,title=whole::all; fix: nothing",
    ]


def test_a_rule_explains_itself():
    rule = Rule("some-rule", "warning", "a title", "A reason.", "A fix.", "bad: 1\nbad: 2", "good: 1")
    assert explanation(rule, plain).splitlines() == [
        "some-rule (warning)",
        "A title.",
        "",
        "A reason.",
        "",
        "fix: A fix.",
        "",
        "bad:",
        "    bad: 1",
        "    bad: 2",
        "",
        "good:",
        "    good: 1",
    ]
