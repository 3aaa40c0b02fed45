"""What is said of a repository on a terminal: the answers of ``build-repo --list`` and its like, as text."""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.repository.managing import Diff, HashReport, Listing, Pruned, RolledBack


def listing_text(listing: Listing) -> str:
    """A table of versions, newest first."""
    from rich.table import Table

    if not listing.versions:
        text = f"{listing.repository}: no model of build-repo's"
    else:
        table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
        for heading in ("model", "version", "served", "variant", "precision", "accuracy", "size", "published", ""):
            table.add_column(heading, justify="right" if heading in ("version", "accuracy", "size") else "left")
        model = ""
        for row in listing.versions:
            served = {True: "served", False: "", None: "?"}[row.served]
            accuracy = "" if row.accuracy is None else f"{row.accuracy:.4g}"
            cells = [str(row.version), served, row.variant, row.precision, accuracy, _size(row.size_bytes)]
            table.add_row("" if row.model == model else row.model, *cells, _time(row.published), row.note)
            model = row.model
        text = f"{listing.repository}\n{_drawn(table)}"
    return text + (f"\nnot made by build-repo: {', '.join(listing.others)}" if listing.others else "")


def _drawn(table: Any) -> str:
    from rich.console import Console

    stream = StringIO()
    Console(file=stream, highlight=False, width=200).print(table, crop=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def hashes_text(report: HashReport) -> str:
    """One line for a repository, and one for everything that is not as it was published."""
    read = f"{report.files} files of {report.versions} versions of {report.models} models, {_size(report.size_bytes)}"
    lines = [f"{report.repository}: {read}: " + ("all as published" if report.ok else "not all as published")]
    for mismatch in report.mismatches:
        place = [mismatch.model] + ([str(mismatch.version)] if mismatch.version is not None else []) + [mismatch.file]
        lines.append(f"  {'/'.join(place)}: {mismatch.problem}")
        lines += [f"    expected {mismatch.expected}"] if mismatch.expected else []
        lines += [f"    got      {mismatch.got}"] if mismatch.got else []
    if report.others:
        lines.append(f"  not made by build-repo, not read: {', '.join(report.others)}")
    return "\n".join(lines)


def diff_text(diff: Diff) -> str:
    """What differs, then the unified diff of the configurations."""
    lines = [f"{diff.model}: version {diff.b} against version {diff.a}"]
    rows: list[tuple[str, str]] = []
    if diff.size_bytes[0] != diff.size_bytes[1]:
        rows.append(("size", " -> ".join(_size(size) for size in diff.size_bytes)))
    if diff.accuracy != (None, None):
        rows.append(("accuracy", _change(diff.accuracy)))
    rows += [(f"parity of {output}", _change(pair)) for output, pair in diff.parity.items()]
    rows += [(name, _pair(pair)) for name, pair in diff.facts.items()]
    rows += [(name, _pair(pair, length=12)) for name, pair in sorted(diff.files.items())]
    width = max((len(name) for name, _ in rows), default=0)
    lines += [f"  {name:<{width}}  {text}" for name, text in rows]
    if diff.same:
        lines.append("  the same files under the same configuration")
    return "\n".join([*lines, *(["", *diff.config] if diff.config else [])])


def _pair(pair: tuple[Any, Any], *, length: int = 200) -> str:
    return " -> ".join(str(value)[:length] if value else "none" for value in pair)


def _change(pair: tuple[Any, Any]) -> str:
    text = " -> ".join("none" if value is None else f"{value:.4g}" for value in pair)
    return text if None in pair or pair[0] == pair[1] else f"{text} ({pair[1] - pair[0]:+.2g})"


def rolled_back_text(done: RolledBack) -> str:
    """What is served now, and instead of what."""
    if done.before == done.version:
        return f"{done.model}: version {done.version} is served already"
    before = f"version {done.before}" if done.before is not None else "what was there"
    return f"{done.model}: version {done.version} is served instead of {before}"


def pruned_text(pruned: Pruned) -> str:
    """What was removed; empty where nothing was."""
    if not pruned.removed:
        return ""
    names = ", ".join(f"{model} {version}" for model, version in pruned.removed)
    return f"removed {names} ({_size(pruned.freed_bytes)})"


def blocks(texts: Iterable[str]) -> str:
    """Texts with an empty line between them, empty ones left out."""
    return "\n\n".join(text for text in texts if text)


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / 1e6:.2f} MB"


def _time(text: str) -> str:
    """``2026-11-21 06:50`` (UTC) of an ISO time."""
    return text[:16].replace("T", " ")
