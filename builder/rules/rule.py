"""What a rule is, and what it found: the words that every rule is written in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from builder.findings import KeyPath

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Rule:
    """One thing that can be wrong with a model of a repository. What looks for it is a function beside it.

    Attributes:
        id: stable, ``words-with-hyphens``: programs name it in ``--ignore``.
        severity: ``error`` where the server refuses the model, ``warning`` where it serves it worse than it could.
        title: one sentence, without a full stop.
        reason: what the server does then, in its own words where it has some; of a warning, what it costs and what the
            change is expected to gain.
        fix: how it is mended, in general.
        bad: a piece of ``config.pbtxt``, or a command, that fires it.
        good: the same, mended.
    """

    id: str
    severity: Severity
    title: str
    reason: str
    fix: str
    bad: str = ""
    good: str = ""


@dataclass(frozen=True)
class Hit:
    """One place where a rule found something.

    Attributes:
        message: what is wrong there, with the names and values.
        fix: what to do about it there.
        path: fields of ``ModelConfig`` from the top down, with indices into lists: the line is found by it.
        file: the file it is about, relative to the model's folder.
        line: of that file, from 1, where ``path`` does not say it.
    """

    message: str
    fix: str = ""
    path: KeyPath = ()
    file: str = "config.pbtxt"
    line: int | None = None
