"""A result as a page: what the template is given, and the template rendered."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from perf.baselines.ratios import described
from perf.history_text import ID_LENGTH, short_revision
from perf.html.beside import beside_table
from perf.html.breakdown import breakdown
from perf.html.charts import latency_histogram, pareto_front, throughput_against_latency
from perf.html.parts import Cell, Table, number, ranged, text, time
from perf.html.template import rendered
from perf.loads import load_of
from perf.machines import GIB, facts_that_count
from perf.result import BenchResult, Point
from perf.spread import p99_interval, rate_interval
from perf.stability import MEANINGS
from perf.table import milliseconds, rate, words

_COUNTED = ("cpu", "cores", "cores_usable", "cpu_limit", "memory_bytes", "architecture", "libc", "gpus")
TEMPLATE = "bench_report.html.j2"


def to_html(result: BenchResult) -> str:
    """One page with everything: nothing is fetched, nothing lies beside it."""
    charts = (throughput_against_latency, pareto_front, latency_histogram, breakdown)
    return rendered(
        TEMPLATE,
        heading=f"Benchmark of {_title(result)}",
        facts=list(_facts(result)),
        warnings=list(_warnings(result)),
        failures=list(_failures(result)),
        results=results_table(result),
        beside=beside_table(result),
        baselines=[f"{run.model}: {described(run.baseline)}" for run in result.models if run.baseline is not None],
        figures=[figure for chart in charts if (figure := chart(result)) is not None],
        configuration=configuration_table(result),
        configurations=[(run.model, json.dumps(run.config, indent=2)) for run in result.models if run.config],
        machine=list(_machine(result)),
        commands=list(commands_of(result)),
        workload=json.dumps(result.workload, indent=2, default=str),
    )


def _title(result: BenchResult) -> str:
    models = [run.model for run in result.models if run.baseline is None]
    return (
        models[0] if len(models) == 1 else f"{len(models)} models: {', '.join(models[:4])}{', …' * (len(models) > 4)}"
    )


def _facts(result: BenchResult) -> Iterator[tuple[str, str]]:
    yield "measured", f"{result.started_at:%Y-%m-%d %H:%M} UTC, {result.duration_s:,.0f} s"
    yield "run", result.id[:ID_LENGTH]
    if result.revision:
        yield "revision", short_revision(result.revision)
    address = f"{result.server.get('url')} {result.server.get('version', '')}".strip()
    yield "server", result.server.get("runtime", "").partition(" at ")[0] or address
    yield "client", f"perf_analyzer {result.tool.version}"
    yield "machine", f"{result.machine.get('cpu')}, {result.machine.get('cores_usable')} cores"


def _warnings(result: BenchResult) -> Iterator[str]:
    """Of the whole run, then of each point, in full."""
    yield from (doubt.message for doubt in result.doubts)
    for point in result.points:
        for doubt in point.doubts:
            yield f"{point.model}, {load_of(point)}: {doubt.message}"


def _failures(result: BenchResult) -> Iterator[tuple[str, str]]:
    for run in result.models:
        if run.error is not None:
            yield run.model, _error(run.error)
        for point in run.points:
            if point.error is not None:
                yield f"{point.model}, {load_of(point)}", _error(point.error)
    for each in result.left_out:
        yield f"{each.model}@{each.kind}", _error(each.reason)


def commands_of(result: BenchResult) -> Iterator[tuple[str, str]]:
    """What perf_analyzer was run with for each point."""
    for point in result.points:
        if point.command:
            yield f"{point.model}, {load_of(point)}", shlex.join(point.command)


def _error(error: Mapping[str, Any]) -> str:
    return "\n".join(str(error[key]) for key in ("what", "where", "expected", "got", "fix") if error.get(key))


def results_table(result: BenchResult) -> Table:
    """Every point with all of its figures."""
    headings = (
        "model", "load", "inferences/s [95%]", "p50 ms", "p90 ms", "p95 ms", "p99 ms [95%]", "p99.9 ms",
        "first p50 ms", "first p99 ms", "responses/s",
        "queue ms", "compute ms", "mean batch", "CPU %", "memory MB", "requests", "wrong answers", "doubts",
    )  # fmt: skip
    rows = [_result_row(point) for point in result.points]
    kept = [
        column for column in range(len(headings)) if column < 3 or any(row[column].value is not None for row in rows)
    ]
    return Table(
        "Every point",
        tuple(headings[column] for column in kept),
        tuple(tuple(row[column] for column in kept) for row in rows),
        frozenset(place for place, column in enumerate(kept) if 1 < column < 18),
    )


def _result_row(point: Point) -> tuple[Cell, ...]:
    latency, first, server, usage = point.latency, point.first_response, point.server, point.usage
    load = Cell(str(load_of(point)), load_of(point).order[1])
    if latency is None:
        return (text(point.model), load, Cell("failed", None, "bad"), *[Cell("", None)] * 16)
    memory = usage.memory_bytes if usage else None
    wrong = Cell(f"{point.wrong} of {point.checked}", point.wrong, "bad" if point.wrong else "")
    doubts = ", ".join(words(doubt.code) for doubt in point.doubts)
    meanings = "; ".join(MEANINGS.get(doubt.code, doubt.message) for doubt in point.doubts)
    return (
        text(point.model),
        load,
        ranged(point.inferences_per_s, rate_interval(point), rate),
        time(latency.p50_us),
        time(latency.p90_us),
        time(latency.p95_us),
        ranged(latency.p99_us, p99_interval(point), milliseconds),
        time(latency.p99_9_us),
        time(first.p50_us if first else None),
        time(first.p99_us if first else None),
        number(point.responses_per_s),
        time(server.queue_us if server else None),
        time(server.compute_us if server else None),
        number(server.mean_batch if server else None),
        number(usage.cpu_percent if usage else None),
        number(memory, None if memory is None else f"{memory / 1e6:,.0f}"),
        number(latency.requests, f"{latency.requests:,}"),
        wrong if point.checked else Cell("-", None),
        Cell(doubts, doubts or None, "doubt" if doubts else "", meanings),
    )


def configuration_table(result: BenchResult) -> Table | None:
    """What the models' configurations differ in: a row a field, a column a model; None where none is known.

    Fields whose value is the same in all are left out; with one model all of its fields are there.
    """
    flat = {run.model: dict(flat_fields(run.config)) for run in result.models if run.config}
    if not flat:
        return None
    keys = sorted({key for fields in flat.values() for key in fields})
    many = len(flat) > 1
    shown = [key for key in keys if not many or len({str(fields.get(key)) for fields in flat.values()}) > 1]
    rows = tuple(
        (text(key), *(Cell(fields.get(key, "-"), fields.get(key)) for fields in flat.values())) for key in shown
    )
    caption = "What differs between the configurations" if many else "Configuration"
    return Table(caption, ("field", *flat), rows)


def flat_fields(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """``dynamic_batching.max_queue_delay_microseconds``, ``instance_group[0].count``; what is empty is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat_fields(inner, f"{path}.{key}" if path else str(key))
        if not value and path:
            yield path, "{}"
    elif isinstance(value, (list, tuple)) and any(isinstance(inner, (Mapping, list)) for inner in value):
        for index, inner in enumerate(value):
            yield from flat_fields(inner, f"{path}[{index}]")
    elif value not in (None, "", [], ()) and path != "name":
        yield path, ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _machine(result: BenchResult) -> Iterator[tuple[str, str]]:
    """The facts that must agree to compare, then the others."""
    counted = facts_that_count(result)
    yield from counted.items()
    if result.machine.get("cores") != result.machine.get("cores_usable"):
        yield "cores in all", str(result.machine.get("cores"))
    for key, value in result.machine.items():
        if key not in _COUNTED and value not in (None, "", []):
            yield words(key.removesuffix("_bytes")), _spelled(key, value)
    yield "server's place", result.server.get("runtime", "").partition(" at ")[2] or result.server.get("url", "")


def _spelled(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{value / GIB:.1f} GiB"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
