"""How many times a served model is its baselines: the price and the gain of serving."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from perf.baselines.data import Baseline, BaselineRatio
from perf.intervals import ratio_of_pairs
from perf.loads import load_of
from perf.result import ModelRun, Point

TOO_NOISY = 3.0
"""An interval whose end is more than so many times as much says only that nothing is known; as in tables."""

THROUGHPUT, LATENCIES = "inferences_per_s", ("p50_us", "p99_us")


def baseline_ratios(models: Sequence[ModelRun]) -> tuple[BaselineRatio, ...]:
    """Of every served model to each of its baselines, at every load that both were measured at."""
    served = {run.model: run for run in models if run.baseline is None}
    return tuple(
        ratio
        for run in models
        if run.baseline is not None and run.baseline.of in served
        for ratio in _ratios(served[run.baseline.of], run)
    )


def _ratios(served: ModelRun, beside: ModelRun) -> Iterator[BaselineRatio]:
    assert beside.baseline is not None
    others = {load_of(point): point for point in beside.points}
    for point in served.points:
        other = others.get(load_of(point))
        if other is None or point.latency is None or other.latency is None:
            continue
        offered = point.concurrency is None  # then the rate is given, and says nothing
        for metric in (*(() if offered else (THROUGHPUT,)), *LATENCIES):
            found = _ratio(point, other, metric)
            if found is not None:
                ratio, low, high = found
                yield BaselineRatio(
                    model=served.model,
                    kind=beside.baseline.kind,
                    load=str(load_of(point)),
                    metric=metric,
                    ratio=ratio,
                    low=low,
                    high=high,
                )


def _ratio(point: Point, other: Point, metric: str) -> tuple[float, float | None, float | None] | None:
    a = {each.number: float(getattr(each, metric)) for each in point.rounds}
    b = {each.number: float(getattr(each, metric)) for each in other.rounds}
    both = sorted({*a} & {*b})
    if len(both) > 1 and min([*a.values(), *b.values()]) > 0:
        interval = ratio_of_pairs([a[number] for number in both], [b[number] for number in both])
        if math.isfinite(interval.high):
            return interval.value, interval.low, interval.high
    one, two = _figure(point, metric), _figure(other, metric)
    return (one / two, None, None) if one and two else None


def _figure(point: Point, metric: str) -> float | None:
    if metric == THROUGHPUT:
        return point.inferences_per_s
    value: float | None = getattr(point.latency, metric)
    return value


NAMES = {"onnxruntime": "raw onnxruntime", "pytorch": "eager PyTorch", "fastapi": "FastAPI with onnxruntime"}
METRICS = {THROUGHPUT: "the throughput", "p50_us": "the p50", "p99_us": "the p99"}


def in_words(ratios: Sequence[BaselineRatio]) -> list[str]:
    """A line for each model, load and baseline."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for ratio in ratios:
        lines.setdefault((ratio.model, ratio.load, ratio.kind), []).append(f"{spelled(ratio)} {METRICS[ratio.metric]}")
    return [
        f"{model} at {load}: Triton has {', '.join(parts)} of {NAMES[kind]}"
        for (model, load, kind), parts in lines.items()
    ]


def spelled(ratio: BaselineRatio) -> str:
    """``x 0.95 (0.92 to 0.98)``."""
    text = f"x {factor(ratio.ratio)}"
    if ratio.low is None or ratio.high is None:
        return text
    if ratio.high > TOO_NOISY * ratio.ratio:
        return f"{text} (too noisy)"
    return f"{text} ({factor(ratio.low)} to {factor(ratio.high)})"


def described(baseline: Baseline) -> str:
    """What ran, in a line."""
    facts = [f"{name.replace('_', ' ')} {value}" for name, value in baseline.facts.items()]
    number = f"{baseline.instances} request{'s' * (baseline.instances != 1)} at a time"
    return "; ".join([NAMES[baseline.kind], number, *facts, *baseline.notes])


def factor(value: float) -> str:
    """A ratio with three significant digits, two places at least below ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
