"""How ``bench-repo`` shows a result, one that it just measured or one from before."""

from __future__ import annotations

import os
import shutil
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from perf.model_analyzer import to_model_analyzer_csv
from perf.report import to_csv, to_json, to_markdown, to_text
from perf.result import BenchResult
from serving.errors import UsageError

RESULTS_PANEL = "What becomes of it"


class Format(str, Enum):
    """What stdout gets."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    MODEL_ANALYZER = "model-analyzer"


HtmlOption = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        rich_help_panel=RESULTS_PANEL,
        help="Also write one page with all of it, that needs nothing else.",
    ),
]


def show(result: BenchResult, format: Format) -> None:
    """Write a result to stdout."""
    if format is Format.TEXT:
        size = shutil.get_terminal_size()
        colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        typer.echo(to_text(result, colours=colours, width=size.columns), nl=False)
        return
    writers = {Format.JSON: to_json, Format.CSV: to_csv, Format.MARKDOWN: to_markdown}
    writers[Format.MODEL_ANALYZER] = to_model_analyzer_csv
    typer.echo(writers[format](result), nl=False)


def check_place(path: Path | None) -> None:
    """See that a page can be written there, before minutes are spent on measuring.

    Raises:
        UsageError: it cannot.
    """
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        parent = path.parent
        got = "a folder" if path.is_dir() else "not writable" if parent.is_dir() else f"no folder {parent}"
        raise UsageError(
            "the page cannot be written",
            where=f"--html {path}",
            expected="a file that can be written, such as a.html",
            got=got,
            fix=f"--html {path / 'report.html'}"
            if path.is_dir()
            else "a place that you may write to: --html /tmp/a.html",
        )


def write_page(result: BenchResult, path: Path | None) -> None:
    """Write the page of a result, where one is asked for.

    Raises:
        UsageError: it cannot be written after all.
    """
    if path is not None:
        from perf.html.page import to_html

        put_page(to_html(result), path)


def put_page(page: str, path: Path) -> None:
    """Write a page.

    Raises:
        UsageError: it cannot be written after all.
    """
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as exc:
        raise UsageError(
            "the page cannot be written",
            where=f"--html {path}",
            expected="room for it",
            got=exc.strerror or str(exc),
            fix="make room; `bench-repo report RUN --html FILE` then writes it from what was kept, without measuring",
        ) from exc
