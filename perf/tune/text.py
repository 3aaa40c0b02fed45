"""A result in words: default -> tuned with intervals, what each knob did, what else was measured, how many machines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from perf.report import milliseconds, rate
from perf.tune.result import Capacity, Row, TuneResult

_STATUS = {"found": "tuned", "default": "left as it is", "none": "no configuration surely keeps the limit"}
_NAMES = {"max_queue_delay_microseconds": "queue delay (us)", "preferred": "preferred sizes", "threads": "threads each"}


def to_text(result: TuneResult, *, width: int = 110) -> str:
    """For a terminal."""
    return "\n".join(_lines(result, width)) + "\n"


def _lines(result: TuneResult, width: int) -> Iterator[str]:
    limit = f" under {result.limit}" if result.limit else ""
    yield f"{result.model}: {_STATUS[result.status]}: {result.reason}"
    yield f"goal {result.goal}{limit}; load: {result.load}"
    yield ""
    percentile = f"p{result.percentile:g} ms"
    shown = _unique([("default", result.default), ("tuned", result.chosen if result.status == "found" else None)])
    shown += [("nearest", result.nearest)] if result.nearest is not None else []
    others = [row for row in result.rows if row.error is None and all(row != each for _, each in shown)]
    cells: list[tuple[str, ...]] = [
        ("", "inferences/s", percentile, "against default", "batch", "rounds", "configuration")
    ]
    for title, row in [*shown, *((" ", row) for row in others[:6])]:
        if row is not None:
            cells.append(_cells(title, row))
    yield from _table(cells, width)
    if len(others) > 6:
        yield f"and {len(others) - 6} more (--format json)"
    if result.knobs:
        yield ""
        yield "What each knob did (the tuned one against the same with this knob put back):"
        for knob in result.knobs:
            factor = "not known"
            if knob.factor is not None:
                known = f"{knob.interval[0]:.2f} to {knob.interval[1]:.2f}" if knob.interval else "predicted"
                factor = f"x {knob.factor:.2f} ({known})"
            yield f"  {_NAMES.get(knob.name, knob.name)}: {_spell(knob.before)} -> {_spell(knob.after)}  {factor}"
    if result.capacity is not None:
        yield ""
        yield _capacity(result.capacity)
    yield ""
    ended = "decided" if result.decided else "the time was up before all was decided: --minutes with a larger number"
    yield (
        f"{result.measurements} measurements, {result.predicted} configurations and loads predicted, "
        f"{result.seconds:.0f} s; {ended}"
    )
    failed = [row for row in result.rows if row.error is not None]
    for row in failed:
        yield f"not measured: {row.title}: {(row.error or {}).get('what')}"
    for text in (*result.notes, *result.doubts):
        yield f"note: {text}"


def _unique(rows: list[tuple[str, Row | None]]) -> list[tuple[str, Row | None]]:
    return [(title, row) for title, row in rows if row is not None]


def _cells(title: str, row: Row) -> tuple[str, ...]:
    assert row.inferences_per_s is not None and row.latency_us is not None
    speed = rate(row.inferences_per_s)
    if row.inferences_interval is not None:
        speed += f" ({rate(row.inferences_interval[0])} to {rate(row.inferences_interval[1])})"
    latency = milliseconds(row.latency_us)
    if row.latency_interval_us is not None:
        latency += f" ({milliseconds(row.latency_interval_us[0])} to {milliseconds(row.latency_interval_us[1])})"
    latency += {"no": " !", "unsure": " ?"}.get(row.within_limit or "", "")
    gain = ""
    if row.gain is not None:
        ends = f" ({row.gain_interval[0]:.2f} to {row.gain_interval[1]:.2f})" if row.gain_interval else ""
        gain = f"x {row.gain:.2f}{ends}"
    batch = f"{row.mean_batch:.1f}" if row.mean_batch is not None else ""
    return title, speed, latency, gain, batch, str(row.rounds), f"{row.title}, {row.load}"


def _table(rows: list[tuple[str, ...]], width: int) -> Iterator[str]:
    """Columns; what does not fit beside them, the configuration, stands below its row."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    beside = sum(widths) + 2 * len(widths) + max(len(row[-1]) for row in rows) <= width
    for row in rows:
        text = "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=False))
        if beside:
            yield f"{text}  {row[-1]}".rstrip()
            continue
        yield text.rstrip()
        if row is not rows[0]:
            yield f"    {row[-1]}"


def _spell(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "/".join(map(str, value)) or "none"
    return "default" if value is None else str(value)


def _capacity(capacity: Capacity) -> str:
    low, high = capacity.machines_interval
    span = f"{low} to {high}" if high is not None else f"{low} or more"
    ends = " to ".join(rate(end) for end in capacity.sustained_interval)
    return (
        f"{capacity.rate_per_s:g} requests/s need {capacity.machines} of this machine ({span}): one carries "
        f"{rate(capacity.sustained_per_s)}/s ({ends}) with random arrivals, its instances "
        f"busy {capacity.busy:.0%} of the time"
    )
