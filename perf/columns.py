"""Rows of text as a table for the terminal, or as Markdown."""

from __future__ import annotations

from collections.abc import Collection, Sequence

Cells = Sequence[str]


def text_table(headings: Cells, rows: Sequence[Cells], left: Collection[str], *, blocks: bool = False) -> list[str]:
    """Lines whose columns are as wide as they must be.

    Args:
        left: headings of the columns that are text; the others are set to the right.
        blocks: an empty line wherever the first column changes.
    """
    widths = [max(len(line[column]) for line in [headings, *rows]) for column in range(len(headings))]

    def line_of(cells: Cells) -> str:
        parts = [
            cell.ljust(width) if heading in left else cell.rjust(width)
            for cell, width, heading in zip(cells, widths, headings, strict=True)
        ]
        return "  ".join(parts).rstrip()

    lines = [line_of(headings)]
    for number, row in enumerate(rows):
        if blocks and number and row[0] != rows[number - 1][0]:
            lines.append("")
        lines.append(line_of(row))
    return lines


def markdown_table(headings: Cells, rows: Sequence[Cells], left: Collection[str]) -> list[str]:
    """The same as the lines of a Markdown table."""
    rule = "|" + "".join("---|" if heading in left else "---:|" for heading in headings)
    return ["| " + " | ".join(headings) + " |", rule, *("| " + " | ".join(map(escape, row)) + " |" for row in rows)]


def escape(cell: str) -> str:
    """A cell's text where ``|`` divides cells."""
    return cell.replace("|", "\\|").replace("\n", " ")
