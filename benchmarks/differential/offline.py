"""What `check-repo` says of a case: its own files on disk, no server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.differential.case import Case

INTERNAL = "internal"  # the id of what is found where a rule itself broke


@dataclass(frozen=True)
class Opinion:
    """What `check-repo` found in a case.

    Attributes:
        errors: ``(rule, message)`` of what the server would refuse.
        later: ids of rules about what the server loads, and answers with an error when a request comes.
        warnings: ids of the rules that only warn.
        broken: what went wrong in `check-repo` itself; empty where nothing did.
    """

    errors: tuple[tuple[str, str], ...]
    later: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    broken: str = ""

    @property
    def loads(self) -> bool:
        """True where it expects the server to load all of it."""
        return not self.errors


def opinion(case: Case) -> Opinion:
    """Write the case into a folder and check it, for the release that the embedded server is."""
    from builder.check import check_repositories
    from builder.check.target import EMBEDDED, server_of
    from builder.ensemble.rules import AT_REQUEST

    server = server_of(EMBEDDED)
    with tempfile.TemporaryDirectory(prefix="differential-") as folder:
        case.write(Path(folder))
        try:
            found = check_repositories([Path(folder)], server=server).found
        except Exception as error:  # what must never happen is counted, not hidden
            return Opinion((), broken=f"{type(error).__name__}: {error}")
    errors = tuple((one.rule, one.message) for one in found if one.severity == "error" and one.rule not in AT_REQUEST)
    later = tuple(sorted({one.rule for one in found if one.severity == "error" and one.rule in AT_REQUEST}))
    warnings = tuple(sorted({one.rule for one in found if one.severity == "warning"}))
    return Opinion(errors, later, warnings, next((one.message for one in found if one.rule == INTERNAL), ""))


def opinions(cases: Iterable[Case]) -> dict[str, Opinion]:
    """What `check-repo` says of each case, by its key."""
    return {case.key: opinion(case) for case in cases}
