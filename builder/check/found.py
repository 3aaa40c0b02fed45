"""One finding of ``check-repo``, as programs read it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from builder.rules.rule import Severity


@dataclass(frozen=True)
class Found:
    """What one rule says of one place.

    Attributes:
        model: the folder's name, ``""`` where it is about the repository itself.
        rule: its id.
        severity: of the rule.
        message: what is wrong.
        fix: what to do about it.
        file: the path, beginning as the repository was named to the command.
        line: of that file, from 1; None where it is about the file or folder as a whole.
    """

    model: str
    rule: str
    severity: Severity
    message: str
    fix: str
    file: str
    line: int | None

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)
