"""A result for people and for programs: terminal table, JSON, CSV, Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf.baselines.ratios import described, in_words
from perf.columns import markdown_table
from perf.loads import load_of
from perf.model_analyzer import FILE, to_model_analyzer_csv
from perf.result import BenchResult, Point
from perf.spread import p99_interval, rate_interval
from perf.stability import MEANINGS
from perf.table import Columns, milliseconds, rate, words

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "milliseconds",
    "rate",
    "read_result",
    "to_csv",
    "to_json",
    "to_markdown",
    "to_table",
    "to_text",
    "write_report",
]

RESULT, CSV_FILE, MARKDOWN_FILE, HTML_FILE = "result.json", "result.csv", "result.md", "report.html"

_CSV_COLUMNS = (
    "model",
    "baseline",
    "version",
    "concurrency",
    "rate_per_s",
    "distribution",
    "batch_size",
    "inferences_per_s",
    "inferences_low",
    "inferences_high",
    "requests",
    "failures",
    "mean_us",
    "p50_us",
    "p90_us",
    "p95_us",
    "p99_us",
    "p99_low_us",
    "p99_high_us",
    "p99_9_us",
    "first_p50_us",
    "first_p99_us",
    "responses_per_s",
    "queue_us",
    "compute_input_us",
    "compute_infer_us",
    "compute_output_us",
    "mean_batch",
    "duration_s",
    "rounds",
    "checked",
    "wrong",
    "cpu_percent",
    "memory_bytes",
    "gpu_percent",
    "gpu_memory_bytes",
    "gpu_power_w",
    "gpu_clock_mhz",
    "doubts",
    "error",
)


def to_json(result: BenchResult) -> str:
    """The whole result; its form is described in docs/reference/bench-repo.md and carries a version."""
    return json.dumps(result.model_dump(mode="json", by_alias=True), indent=2) + "\n"


def read_result(path: Path) -> BenchResult:
    """Read what :func:`to_json` wrote.

    Raises:
        pydantic.ValidationError: not such a file, or of another version of the form.
    """
    return BenchResult.model_validate_json(path.read_text())


def to_csv(result: BenchResult) -> str:
    """One row per point; empty where there is no number. Microseconds, as the column names say."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for run in result.models:
        if run.error is not None:
            writer.writerow({"model": run.model, "version": run.version, "error": run.error["what"]})
        for point in run.points:
            writer.writerow(_csv_row(point) | {"baseline": run.baseline.kind if run.baseline is not None else ""})
    return stream.getvalue()


def to_markdown(result: BenchResult) -> str:
    """The table with what is needed to judge it, as Markdown."""
    lines = ["# Benchmark", "", *(f"- {line}" for line in _facts(result)), ""]
    columns = Columns(result)
    lines += markdown_table(columns.headings, list(columns.rows()), {"model", "doubts"})
    if beside := in_words(result.baselines):
        lines += ["", "Beside the baselines (the served model's figure by theirs, 95% interval):", ""]
        lines += [f"- {line}" for line in beside]
    if footnotes := _footnotes(result):
        lines += ["", "Doubts:", "", *(f"- {line}" for line in footnotes)]
    if failures := list(_failures(result)):
        lines += ["", "Not measured:", "", *(f"- {line}" for line in failures)]
    return "\n".join(lines) + "\n"


def to_table(result: BenchResult) -> RenderableType:
    """The same for a terminal (a rich renderable)."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = Columns(result)
    for heading in columns.headings:
        table.add_column(heading, justify="left" if heading in ("model", "doubts") else "right", no_wrap=True)
    for row in columns.rows():
        step = row[0].startswith("  ")
        table.add_row(*(Text(cell, style="dim" if step or cell.endswith("?") else "") for cell in row))
    parts: list[RenderableType] = [table, Text()]
    parts += [Text(line) for line in in_words(result.baselines)]
    for line in _footnotes(result):
        parts.append(Text(line, style="yellow"))
    for line in _failures(result):
        parts.append(Text(f"not measured: {line}", style="red"))
    parts += [Text(line, style="dim") for line in _facts(result)]
    return Group(*parts)


def to_text(result: BenchResult, *, colours: bool = False, width: int = 0) -> str:
    """:func:`to_table` as text, as wide as the table needs: no number is cut off, however narrow the terminal."""
    from rich.console import Console
    from rich.measure import Measurement

    stream = io.StringIO()
    console = Console(file=stream, width=1000, force_terminal=colours, highlight=False)
    table = to_table(result)
    parts = getattr(table, "renderables", [table])
    console.width = max(width, Measurement.get(console, console.options, parts[0]).maximum, 80)
    console.print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def write_report(result: BenchResult, folder: Path) -> None:
    """Write ``result.json``, ``result.csv``, ``result.md``, the page and Model Analyzer's CSV into a folder."""
    from perf.html.page import to_html

    (folder / RESULT).write_text(to_json(result))
    (folder / CSV_FILE).write_text(to_csv(result))
    (folder / MARKDOWN_FILE).write_text(to_markdown(result))
    (folder / FILE).write_text(to_model_analyzer_csv(result))
    (folder / HTML_FILE).write_text(to_html(result), encoding="utf-8")


def _footnotes(result: BenchResult) -> list[str]:
    """What concerns the whole run, then the meaning of each doubt in the table, once."""
    codes = dict.fromkeys(doubt.code for point in result.points for doubt in point.doubts)
    meanings = [f"{words(code)}: {MEANINGS.get(code, code)}" for code in codes]
    return [doubt.message for doubt in result.doubts] + meanings


def _facts(result: BenchResult) -> list[str]:
    machine, workload = result.machine, result.workload
    server = result.server.get("runtime") or f"{result.server['url']} {result.server.get('version', '')}".strip()
    memory = f", {machine['memory_bytes'] / 2**30:.0f} GiB" if machine.get("memory_bytes") else ""
    lines = [
        f"machine: {machine.get('cpu')}, {machine.get('cores_usable')} cores{memory}, kernel {machine.get('kernel')}",
        f"server: {server}; client: perf_analyzer {result.tool.version} on the same machine"
        if result.server.get("kind") != "url"
        else f"server: {server}; client: perf_analyzer {result.tool.version}",
        f"load: {workload['protocol']}, batch size {workload['batch_size']}, "
        f"shared memory {workload['shared_memory']}, {workload['seconds']:g} s per point",
    ]
    lines += [f"requests for {run.model}: {run.inputs}" for run in result.models if run.inputs and not run.baseline]
    lines += [f"{run.model}: {described(run.baseline)}" for run in result.models if run.baseline]
    if result.folder is not None:
        lines.append(f"files: {result.folder}")
    return lines


def _failures(result: BenchResult) -> Iterator[str]:
    for run in result.models:
        if run.error is not None:
            yield f"{run.model}: {_one_line(run.error)}"
        for point in run.points:
            if point.error is not None:
                yield f"{point.model} at {load_of(point)}: {_one_line(point.error)}"
    for each in result.left_out:
        yield f"{each.model}@{each.kind}: {_one_line(each.reason)}"


def _one_line(error: dict[str, Any]) -> str:
    parts = [str(error["what"]), str(error.get("got", "")).replace("\n", "; "), str(error.get("fix", ""))]
    return "; ".join(part for part in parts if part)


def _csv_row(point: Point) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(point, name) for name in _CSV_COLUMNS if name in type(point).model_fields}
    for part in (point.latency, point.server, point.usage):
        if part is not None:
            row |= {name: getattr(part, name) for name in _CSV_COLUMNS if name in type(part).model_fields}
    if point.latency is not None:
        row["requests"] = point.latency.requests
    if point.first_response is not None:
        row["first_p50_us"], row["first_p99_us"] = point.first_response.p50_us, point.first_response.p99_us
    row["inferences_low"], row["inferences_high"] = rate_interval(point) or (None, None)
    row["p99_low_us"], row["p99_high_us"] = p99_interval(point) or (None, None)
    row["model"], row["version"], row["rounds"] = point.model, point.version, len(point.rounds) or None
    row = {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}
    row["doubts"] = " ".join(doubt.code for doubt in point.doubts)
    row["error"] = point.error["what"] if point.error is not None else ""
    return row
