"""The history of a model as a table, as Markdown, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perf.columns import markdown_table, text_table
from perf.history_rows import Row
from perf.table import milliseconds, rate, with_interval

_HEADINGS = (
    "load",
    "when (UTC)",
    "revision",
    "run",
    "machine",
    "inferences/s",
    "p50 ms",
    "p99 ms",
    "requests",
    "doubts",
)
_LEFT = {"load", "when (UTC)", "revision", "run", "machine", "doubts"}
ID_LENGTH, REVISION_LENGTH = 8, 9


def short_revision(revision: str | None) -> str:
    """The first digits of a commit, with its ``+``; ``-`` for none."""
    if not revision:
        return "-"
    return revision.removesuffix("+")[:REVISION_LENGTH] + ("+" if revision.endswith("+") else "")


def to_data(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each row as plain data, the load in its parts, in microseconds."""
    return [
        {
            "run": row.run,
            "started_at": row.started_at.isoformat(),
            "revision": row.revision,
            "machine": row.machine,
            "facts": dict(row.facts),
            "model": row.model,
            "version": row.version,
            **row.load._asdict(),
            "inferences_per_s": row.inferences_per_s,
            "inferences_interval": row.interval,
            "p50_us": row.p50_us,
            "p99_us": row.p99_us,
            "p99_interval_us": row.p99_interval_us,
            "requests": row.requests,
            "doubts": row.doubts,
            "error": row.error,
            "interrupted": row.interrupted,
        }
        for row in rows
    ]


def to_text(rows: Sequence[Row]) -> str:
    """A table, one block a load, the oldest first; then which machines these were."""
    table = text_table(_HEADINGS, _rows(rows), _LEFT, blocks=True)
    return "\n".join([*table, "", *_machines(rows)])


def to_markdown(rows: Sequence[Row]) -> str:
    """The same as Markdown."""
    table = markdown_table(_HEADINGS, _rows(rows), _LEFT)
    return "\n".join([*table, "", *(f"- {line}" for line in _machines(rows))])


def _rows(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    letters = _letters(rows)
    made: list[tuple[str, ...]] = []
    for row in sorted(rows, key=lambda row: (row.load.order, row.started_at)):
        who = (
            f"{row.started_at:%Y-%m-%d %H:%M}",
            short_revision(row.revision),
            row.run[:ID_LENGTH],
            letters[row.machine],
        )
        if row.error is not None or row.inferences_per_s is None:
            made.append((str(row.load), *who, "failed", "-", "-", "-", f"{row.error or ''}{_cut(row, ' (run {})')}"))
            continue
        speed = with_interval(row.inferences_per_s, row.interval, rate)
        p99 = with_interval(row.p99_us, row.p99_interval_us, milliseconds) if row.p99_us is not None else "-"
        doubts = ", ".join([*(code.replace("_", " ") for code in row.doubts), *filter(None, [_cut(row, "run {}")])])
        made.append((str(row.load), *who, speed, milliseconds(row.p50_us), p99, str(row.requests), doubts))
    return made


def _cut(row: Row, text: str) -> str:
    if not row.interrupted or row.interrupted in (row.error or ""):
        return ""
    return text.format(f"interrupted: {row.interrupted}")


def _letters(rows: Sequence[Row]) -> dict[str, str]:
    """A, B, ... for each machine, in the order of their first run."""
    seen = list(dict.fromkeys(row.machine for row in rows))
    return {machine: chr(ord("A") + number) if number < 26 else str(number) for number, machine in enumerate(seen)}


def _machines(rows: Sequence[Row]) -> list[str]:
    facts = {row.machine: row.facts for row in rows}
    lines = [
        f"machine {letter}: {', '.join(f'{name} {value}' for name, value in facts[machine].items())}"
        for machine, letter in _letters(rows).items()
    ]
    if len(lines) > 1:
        lines.append("figures of different machines are not to be compared")
    return lines
