"""What a check of the spec found: several things at once, each with the parts that a message is made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

_LONGEST = 100
KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, not yet with file and line.

    Attributes:
        what: one sentence, without a full stop.
        expected, got, fix: as in :class:`serving.errors.TritonRepoError`.
        path: keys from the place that was checked down to the one that is wrong.
    """

    what: str
    expected: str = ""
    got: str = ""
    fix: str = ""
    path: KeyPath = ()


class Findings(ValueError):
    """Raised by a check with all it found; a ``ValueError``, so that pydantic collects it like any other."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        parts = [(found.what, found.expected and f"expected {found.expected}", found.fix) for found in self.findings]
        super().__init__("; ".join(": ".join(part for part in texts if part) for texts in parts))


def refuse(what: str, *, expected: str = "", got: str = "", fix: str = "") -> Findings:
    """One finding as an exception: ``raise refuse(...)``."""
    return Findings([Finding(what, expected, got, fix)])


def nearest(name: str, allowed: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The one of ``allowed`` that looks most like ``name``, or alone contains it; upper and lower case alike."""
    known = {text.lower(): text for text in allowed}
    plain = name.lower()[:_LONGEST]
    close = difflib.get_close_matches(plain, list(known), n=1, cutoff=cutoff)
    if not close and len(plain) > 2:
        close = [text for text in known if plain in text]
    return known[close[0]] if len(close) == 1 else None


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """``did you mean `batch`?``, or nothing."""
    close = nearest(name, allowed)
    return f"did you mean `{close}`?" if close else ""
