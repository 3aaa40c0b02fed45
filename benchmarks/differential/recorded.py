"""The server's verdicts of the last whole run, written down: what tests hold `check-repo` against without a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.differential.real import Verdict

RECORD = Path(__file__).with_name("recorded.tsv")
_LONGEST = 90


def record(verdicts: Mapping[str, Verdict]) -> None:
    """Write them down, one a line: key, verdict, the beginning of the reason."""
    lines = []
    for key, verdict in sorted(verdicts.items()):
        said = "loads" if verdict.loads else "died" if verdict.died else "refused"
        lines.append(f"{key}\t{said}\t{' '.join(verdict.reason.split())[:_LONGEST]}".rstrip())
    RECORD.write_text("\n".join(lines) + "\n", encoding="utf-8")


def recorded() -> dict[str, Verdict]:
    """What was written down, by the case's key."""
    found = {}
    for line in RECORD.read_text(encoding="utf-8").splitlines():
        key, said, *reason = line.split("\t")
        found[key] = Verdict(said == "loads", reason="".join(reason), died=said == "died")
    return found
