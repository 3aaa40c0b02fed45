"""A result for people and for programs: terminal table, JSON, CSV, Markdown. Milliseconds appear only here."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf.result import BenchResult, Point, ServerSide
from perf.stability import MEANINGS, MINIMUM_BEYOND

if TYPE_CHECKING:
    from rich.console import RenderableType

RESULT, CSV_FILE, MARKDOWN_FILE = "result.json", "result.csv", "result.md"

_HEADINGS = (
    "model",
    "concurrency",
    "inferences/s",
    "p50 ms",
    "p90 ms",
    "p95 ms",
    "p99 ms",
    "queue ms",
    "compute ms",
    "mean batch",
    "requests",
    "doubts",
)

_CSV_COLUMNS = (
    "model",
    "version",
    "concurrency",
    "batch_size",
    "inferences_per_s",
    "requests",
    "failures",
    "mean_us",
    "p50_us",
    "p90_us",
    "p95_us",
    "p99_us",
    "queue_us",
    "compute_input_us",
    "compute_infer_us",
    "compute_output_us",
    "mean_batch",
    "duration_s",
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
            writer.writerow(_csv_row(point))
    return stream.getvalue()


def to_markdown(result: BenchResult) -> str:
    """The table with what is needed to judge it, as Markdown."""
    lines = ["# Benchmark", "", *(f"- {line}" for line in _facts(result)), ""]
    lines += ["| " + " | ".join(_HEADINGS) + " |", "|---|" + "---:|" * (len(_HEADINGS) - 1)]
    lines += ["| " + " | ".join(_escape(cell) for cell in row) + " |" for row in _rows(result)]
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
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in ("model", "doubts") else "right", no_wrap=True)
    for row in _rows(result):
        step = row[0].startswith("  ")
        table.add_row(*(Text(cell, style="dim" if step or cell.endswith("?") else "") for cell in row))
    parts: list[RenderableType] = [table, Text()]
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
    """Write ``result.json``, ``result.csv`` and ``result.md`` into a folder."""
    (folder / RESULT).write_text(to_json(result))
    (folder / CSV_FILE).write_text(to_csv(result))
    (folder / MARKDOWN_FILE).write_text(to_markdown(result))


def _footnotes(result: BenchResult) -> list[str]:
    """What concerns the whole run, then the meaning of each doubt in the table, once."""
    codes = dict.fromkeys(doubt.code for point in result.points for doubt in point.doubts)
    meanings = [f"{_words(code)}: {MEANINGS.get(code, code)}" for code in codes]
    return [doubt.message for doubt in result.doubts] + meanings


def _words(code: str) -> str:
    return code.replace("_", " ")


def _rows(result: BenchResult) -> Iterator[tuple[str, ...]]:
    for point in result.points:
        name = point.model + (f" (batch {point.batch_size})" if point.batch_size > 1 else "")
        latency, server = point.latency, point.server
        if latency is None or point.inferences_per_s is None:
            yield (name, str(point.concurrency), "failed", *[""] * (len(_HEADINGS) - 3))
            continue
        mark = "?" if any(doubt.code == "unstable" for doubt in point.doubts) else ""
        percentiles = ((50, latency.p50_us), (90, latency.p90_us), (95, latency.p95_us), (99, latency.p99_us))
        yield (
            name,
            str(point.concurrency),
            f"{rate(point.inferences_per_s)}{mark}",
            *(milliseconds(value) + _weak(percentile, latency.requests) for percentile, value in percentiles),
            *_server_cells(server),
            str(latency.requests),
            ", ".join(_words(doubt.code) for doubt in point.doubts),
        )
        for step in point.steps:
            yield (f"  {step.model}", *[""] * 6, *_server_cells(step), "", "")


def _server_cells(server: ServerSide | None) -> tuple[str, str, str]:
    if server is None:
        return ("-", "-", "-")
    batch = f"{server.mean_batch:.2f}" if server.mean_batch is not None else "-"
    return (milliseconds(server.queue_us), milliseconds(server.compute_us), batch)


def _weak(percentile: int, requests: int) -> str:
    return "?" if requests * (100 - percentile) / 100 < MINIMUM_BEYOND else ""


def rate(value: float) -> str:
    """A rate per second with three significant digits, whole from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def milliseconds(value_us: float | None) -> str:
    """Microseconds as milliseconds with three significant digits."""
    if value_us is None:
        return "-"
    value_ms = value_us / 1000
    return f"{value_ms:,.0f}" if value_ms >= 100 else f"{value_ms:.3g}"


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
    lines += [f"requests for {run.model}: {run.inputs}" for run in result.models if run.inputs]
    if result.folder is not None:
        lines.append(f"files: {result.folder}")
    return lines


def _failures(result: BenchResult) -> Iterator[str]:
    for run in result.models:
        if run.error is not None:
            yield f"{run.model}: {_one_line(run.error)}"
        for point in run.points:
            if point.error is not None:
                yield f"{point.model} at concurrency {point.concurrency}: {_one_line(point.error)}"


def _one_line(error: dict[str, Any]) -> str:
    parts = [str(error["what"]), str(error.get("got", "")).replace("\n", "; "), str(error.get("fix", ""))]
    return "; ".join(part for part in parts if part)


def _csv_row(point: Point) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: getattr(point, name)
        for name in ("model", "version", "concurrency", "batch_size", "inferences_per_s", "duration_s")
    }
    if point.latency is not None:
        row |= point.latency.model_dump(include={"requests", "mean_us", "p50_us", "p90_us", "p95_us", "p99_us"})
    if point.server is not None:
        row |= point.server.model_dump(
            include={"failures", "queue_us", "compute_input_us", "compute_infer_us", "compute_output_us", "mean_batch"}
        )
    row = {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}
    row["doubts"] = " ".join(doubt.code for doubt in point.doubts)
    row["error"] = point.error["what"] if point.error is not None else ""
    return row


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|")
