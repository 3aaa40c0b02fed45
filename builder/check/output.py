"""Findings as text for people, as JSON for programs, as annotations for GitHub's workflows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from builder.check.found import Found
from builder.rules.disagreements import explained
from builder.rules.rule import Rule

_COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}
COLOURS = {"error": "red", "warning": "yellow", "info": "blue"}


def as_data(found: Sequence[Found]) -> dict[str, Any]:
    """One object; ``findings`` is a list of all."""
    return {"findings": [one.as_dict() for one in found]}


def as_text(found: Sequence[Found], models: int, style: Any) -> str:
    """Grouped by model, the counts last.

    Args:
        found: in the order in which they are to be shown.
        models: how many were judged.
        style: a text and a colour to a text in that colour.
    """
    lines = []
    for model, group in groupby(found, key=lambda one: one.model):
        lines.append(style(_plain(model) or "the repository", "bold"))
        for one in group:
            place = _plain(one.file) + (f":{one.line}" if one.line else "")
            lines.append(f"  {style(one.severity, COLOURS[one.severity])} [{one.rule}] {_plain(one.message)}")
            lines.append(f"      {place}")
            lines.append(f"      fix: {_plain(one.fix)}")
        lines.append("")
    lines.append(counts(found, models))
    return "\n".join(lines)


def counts(found: Sequence[Found], models: int) -> str:
    """The last line."""
    tally = Counter(one.severity for one in found)
    parts = [_many(tally[kind], kind) for kind in ("error", "warning") if tally[kind] or kind == "error"]
    parts += [f"{tally['info']} info"] if tally["info"] else []
    return f"{_many(models, 'model')}: {', '.join(parts)}"


def as_annotations(found: Sequence[Found]) -> str:
    """``::error file=..,line=..,title=..::message``, one a line."""
    lines = []
    for one in found:
        place = f"file={_property(one.file)}" + (f",line={one.line}" if one.line else "")
        head = f"::{_COMMANDS[one.severity]} {place},title={_property(one.rule)}::"
        about = f"{one.model}: " if one.model else ""
        lines.append(head + _value(f"{about}{one.message}; fix: {one.fix}"))
    return "\n".join(lines)


def explanation(rule: Rule, style: Any) -> str:
    """A rule's page section, for the terminal."""
    parts = [f"{style(rule.id, 'bold')} ({style(rule.severity, COLOURS[rule.severity])})", sentence(rule.title)]
    parts += ["", rule.reason, "", f"fix: {rule.fix}"]
    for label, example in (("bad", rule.bad), ("good", rule.good)):
        if example:
            parts += ["", f"{label}:", *("    " + line for line in example.splitlines())]
    if known := explained(rule.id):
        parts += ["", "known differences from the real server:", *(f"    {one.why}" for one in known)]
    return "\n".join(parts)


def sentence(title: str) -> str:
    """A rule's title with a capital, unless a name of the configuration comes first, and a full stop."""
    first = title.split(" ")[0]
    plain = not set(first) & set("._")
    return (title[:1].upper() if plain else title[:1]) + title[1:].rstrip(".") + "."


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _plain(text: str) -> str:
    """What comes out of a file can hold anything: no escape sequence reaches the terminal, no line is broken."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _value(text: str) -> str:
    return _plain(text).replace("%", "%25")


def _property(text: str) -> str:
    return _value(text).replace(":", "%3A").replace(",", "%2C")
