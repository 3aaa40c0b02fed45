"""A point as a row of the history, both ways."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from perf.loads import LoadKey
from perf.result import Point
from perf.spread import p99_interval, rate_interval


@dataclass(frozen=True)
class Row:
    """One point of the history; the columns of ``points``, and of its run.

    Attributes:
        machine: fingerprint of the facts that count; ``facts``: these.
        interval, p99_interval_us: 95%, None where there is none.
        interrupted: what ended the run before all was measured; None where it went through.
    """

    run: str
    started_at: datetime
    revision: str | None
    machine: str
    facts: Mapping[str, str]
    model: str
    version: str
    load: LoadKey
    inferences_per_s: float | None
    interval: tuple[float, float] | None
    p50_us: float | None
    p99_us: float | None
    p99_interval_us: tuple[float, float] | None
    requests: int | None
    doubts: tuple[str, ...]
    error: str | None
    interrupted: str | None = None


def columns(point: Point) -> tuple[Any, ...]:
    """The columns of ``points`` but the run."""
    latency = point.latency
    return (
        point.model,
        point.version,
        point.concurrency,
        point.rate_per_s,
        point.distribution,
        point.batch_size,
        point.inferences_per_s,
        *(rate_interval(point) or (None, None)),
        latency.p50_us if latency else None,
        latency.p99_us if latency else None,
        *(p99_interval(point) or (None, None)),
        latency.requests if latency else None,
        " ".join(doubt.code for doubt in point.doubts),
        str(point.error["what"]) if point.error is not None else None,
    )


def row_of(row: sqlite3.Row) -> Row:
    """A joined row of both tables."""

    def pair(low: str, high: str) -> tuple[float, float] | None:
        return (row[low], row[high]) if row[low] is not None and row[high] is not None else None

    return Row(
        run=row["run"],
        started_at=datetime.fromisoformat(row["started_at"]),
        revision=row["revision"],
        machine=row["machine"],
        facts=json.loads(row["facts"]),
        model=row["model"],
        version=row["version"],
        load=LoadKey(row["concurrency"], row["rate_per_s"], row["distribution"], row["batch_size"]),
        inferences_per_s=row["inferences_per_s"],
        interval=pair("inferences_low", "inferences_high"),
        p50_us=row["p50_us"],
        p99_us=row["p99_us"],
        p99_interval_us=pair("p99_low_us", "p99_high_us"),
        requests=row["requests"],
        doubts=tuple(row["doubts"].split()),
        error=row["error"],
        interrupted=row["interrupted"],
    )
