"""The page's table of served models beside their baselines."""

from __future__ import annotations

from perf.baselines.data import BaselineRatio
from perf.baselines.ratios import LATENCIES, METRICS, NAMES, THROUGHPUT, spelled
from perf.html.parts import Cell, Table, text
from perf.result import BenchResult

_METRICS = (THROUGHPUT, *LATENCIES)


def beside_table(result: BenchResult) -> Table | None:
    """How many times each served model's figures are its baselines', a row a load; None without baselines."""
    rows: dict[tuple[str, str, str], dict[str, BaselineRatio]] = {}
    for ratio in result.baselines:
        rows.setdefault((ratio.model, ratio.load, ratio.kind), {})[ratio.metric] = ratio
    if not rows:
        return None
    return Table(
        "The served model's figures by those of its baselines, with 95% intervals",
        ("model", "load", "baseline", *(METRICS[metric].removeprefix("the ") for metric in _METRICS)),
        tuple(
            (text(model), text(load), text(NAMES[kind]), *(_cell(found.get(metric)) for metric in _METRICS))
            for (model, load, kind), found in rows.items()
        ),
        frozenset({3, 4, 5}),
    )


def _cell(ratio: BaselineRatio | None) -> Cell:
    return Cell("-", None) if ratio is None else Cell(spelled(ratio), ratio.ratio)
