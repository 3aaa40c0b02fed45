"""Throughput against latency, the Pareto front, and how latencies are spread: each with its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from perf.html.parts import Cell, Figure, Key, Table, measured, number, ranged, series_of, text, time
from perf.html.svg import (
    MARGIN_BOTTOM,
    MARGIN_LEFT,
    MARGIN_RIGHT,
    MARGIN_TOP,
    Drawing,
    Scale,
    Spell,
    legend_mark,
    scale_of,
    wide_spread,
)
from perf.loads import LoadKey, load_of
from perf.result import BenchResult, Point
from perf.spread import p99_interval, rate_interval
from perf.table import TOO_NOISY, milliseconds, rate

WIDE, NARROW = (760, 360), (340, 300)
SPELL = (Spell(), Spell())
MB = 1e6


def figure(
    identity: str, title: str, about: str, draw: Callable[[Drawing], None], legend: Mapping[str, int], table: Table
) -> Figure:
    """A chart drawn in both sizes."""
    drawn = []
    for kind, (width, height) in (("wide", WIDE), ("narrow", NARROW)):
        drawing = Drawing(width, height)
        draw(drawing)
        drawn.append(Markup(drawing.svg(f"{identity}-{kind}", f"{title}. {about}", kind)))
    keys = tuple(Key(Markup(legend_mark(series)), name) for name, series in legend.items())
    return Figure(identity, title, about, drawn[0], drawn[1], keys, table)


def plot_scales(
    drawing: Drawing, xs: Sequence[float], ys: Sequence[float], *, x_zero: bool = True
) -> tuple[Scale, Scale]:
    """Scales of x and y that fill a drawing; by factors where values differ much."""
    x = scale_of(xs, MARGIN_LEFT, drawing.width - MARGIN_RIGHT, zero=x_zero, log=wide_spread(xs))
    y = scale_of(ys, drawing.height - MARGIN_BOTTOM, MARGIN_TOP, log=wide_spread(ys))
    return x, y


def throughput_against_latency(result: BenchResult) -> Figure | None:
    """A curve per model: what it answers each second, and the p99 that this costs; None without two points."""
    series = series_of(result)
    curves = {run.model: sorted(measured(run), key=lambda point: load_of(point).order) for run in result.models}
    curves = {model: points for model, points in curves.items() if points}
    points = [point for curve in curves.values() for point in curve]
    if len(points) < 2:
        return None
    xs = [each for point in points for each in (point.inferences_per_s or 0, *(rate_interval(point) or ()))]
    ys = [each / 1000 for point in points for each in (_p99(point), *(p99_interval(point) or ()))]
    xs = _near(xs, [point.inferences_per_s or 0 for point in points])
    ys = _near(ys, [_p99(point) / 1000 for point in points])

    def draw(drawing: Drawing) -> None:
        x, y = plot_scales(drawing, xs, ys)
        drawing.axes(x, y, ("inferences per second", "p99, ms"), SPELL)
        for model, curve in curves.items():
            kind = f"s{series[model] % 8}"
            if len(curve) > 1:
                drawing.path([(x(p.inferences_per_s or 0), y(_p99(p) / 1000)) for p in curve], f"curve {kind}")
            for point in curve:
                at = (x(point.inferences_per_s or 0), y(_p99(point) / 1000))
                if interval := rate_interval(point):
                    drawing.line(x(interval[0]), at[1], x(interval[1]), at[1], f"whisker {kind}")
                if interval := p99_interval(point):
                    drawing.line(at[0], y(interval[0] / 1000), at[0], y(interval[1] / 1000), f"whisker {kind}")
                level = point.rate_per_s or point.concurrency
                if level is not None:
                    drawing.text(at[0] + 8, at[1] + 14, SPELL[0](level), "start", "level")
                speed = f"{rate(point.inferences_per_s or 0)}/s, p99 {milliseconds(_p99(point))} ms"
                drawing.marker(*at, series[model], hint=f"{model}, {load_of(point)}: {speed}")

    rows = tuple(
        (
            text(point.model),
            Cell(str(load_of(point)), load_of(point).order[1]),
            ranged(point.inferences_per_s, rate_interval(point), rate),
            ranged(_p99(point), p99_interval(point), milliseconds),
        )
        for point in points
    )
    table = Table(
        "Throughput and latency", ("model", "load", "inferences/s [95%]", "p99 ms [95%]"), rows, frozenset({2, 3})
    )
    about = (
        "Further right is more, further down is sooner; lines through the marks are 95% intervals. Beside each mark: "
        "requests under way at once, or a second where the load was a rate."
    )
    legend = {model: series[model] for model in curves}
    return figure("curve", "Throughput against latency", about, draw, legend, table)


def _near(ends: Sequence[float], values: Sequence[float]) -> list[float]:
    """Ends of intervals without those that are far from every value: what is hardly known must not squeeze the rest."""
    return [end for end in ends if min(values) / TOO_NOISY <= end <= max(values) * TOO_NOISY]


def _p99(point: Point) -> float:
    return point.latency.p99_us if point.latency is not None else 0.0


def shared_load(
    result: BenchResult, *, heaviest: bool, usable: Callable[[Point], bool] = lambda point: True
) -> LoadKey | None:
    """The load that most models have (usable) figures for: the lightest of these, or the heaviest."""
    counts = Counter(load_of(point) for run in result.models for point in measured(run) if usable(point))
    if not counts:
        return None
    most = max(counts.values())
    loads = sorted((load for load, count in counts.items() if count == most), key=lambda load: load.order)
    return loads[-1 if heaviest else 0]


@dataclass(frozen=True)
class Candidate:
    """A variant in the trade between accuracy, latency and size; larger accuracy, smaller others are better.

    Attributes:
        task: names of its inputs and outputs: those of another task are no choice.
    """

    model: str
    task: frozenset[str]
    accuracy: float | None
    latency_us: float
    size_bytes: float | None

    def beats(self, other: Candidate) -> bool:
        """At least as good in everything that both tell, and better in something."""
        pairs = [(-self.latency_us, -other.latency_us)]
        if self.accuracy is not None and other.accuracy is not None:
            pairs.append((self.accuracy, other.accuracy))
        if self.size_bytes is not None and other.size_bytes is not None:
            pairs.append((-self.size_bytes, -other.size_bytes))
        return all(mine >= theirs for mine, theirs in pairs) and any(mine > theirs for mine, theirs in pairs)


def pareto_front(result: BenchResult) -> Figure | None:
    """Accuracy against latency, size as size; None where fewer than two variants of a task tell accuracy or size."""
    load = shared_load(result, heaviest=False)
    found = []
    for run in result.models:
        point = next((point for point in measured(run) if load_of(point) == load), None)
        if point is not None and point.latency is not None:
            accuracy, size = (_float(run.about.get(key)) for key in ("accuracy", "size_bytes"))
            found.append(Candidate(run.model, _task(run.config), accuracy, point.latency.p50_us, size))
    tasks = Counter(each.task for each in found)
    found = [each for each in found if each.task == tasks.most_common(1)[0][0]]
    by_accuracy = sum(each.accuracy is not None for each in found) > 1
    shown = [each for each in found if (each.accuracy if by_accuracy else each.size_bytes) is not None]
    if len(shown) < 2:
        return None
    series = series_of(result)
    front = {each.model for each in shown if not any(other.beats(each) for other in shown)}
    largest = max((each.size_bytes or 0 for each in shown), default=0) or 1
    label = "accuracy" if by_accuracy else "size, MB"

    def height(each: Candidate) -> float:
        return (each.accuracy or 0) if by_accuracy else (each.size_bytes or 0) / MB

    def draw(drawing: Drawing) -> None:
        xs, ys = [each.latency_us / 1000 for each in shown], [height(each) for each in shown]
        # Marks are up to 34 pixels high: none is to stand on the axis, or beyond the edge.
        x = scale_of(xs, MARGIN_LEFT, drawing.width - MARGIN_RIGHT, log=wide_spread(xs), share=0.12)
        y = scale_of(ys, drawing.height - MARGIN_BOTTOM, MARGIN_TOP, zero=not by_accuracy, share=0.12)
        drawing.axes(x, y, (f"p50, ms, at {load}", label), SPELL)
        for each in sorted(shown, key=lambda each: -(each.size_bytes or 0)):
            size = 5 + 9 * ((each.size_bytes or 0) / largest) ** 0.5
            on_front = each.model in front
            hint = f"{each.model}: {milliseconds(each.latency_us)} ms, {label} {height(each):g}"
            at = (x(each.latency_us / 1000), y(height(each)))
            drawing.marker(*at, series[each.model], hollow=not on_front, size=size, hint=hint)
        if drawing.width == WIDE[0]:
            for each in shown:
                at, beside = (x(each.latency_us / 1000), y(height(each))), 26
                right = at[0] < drawing.width / 2
                drawing.text(at[0] + (beside if right else -beside), at[1] + 4, each.model, "start" if right else "end")

    rows = tuple(
        (
            text(each.model),
            number(each.accuracy, None if each.accuracy is None else f"{each.accuracy:.4f}"),
            time(each.latency_us),
            number(each.size_bytes, None if each.size_bytes is None else f"{each.size_bytes / MB:,.2f}"),
            text("yes" if each.model in front else "no"),
        )
        for each in shown
    )
    headings = ("variant", "accuracy", "p50 ms", "size MB", "on the front")
    about = "A filled mark is on the Pareto front: no other variant is better in one thing and as good in the rest."
    about += " Larger marks are larger files." if by_accuracy else " Accuracy is not known: built without evaluate."
    title = "Accuracy, latency and size" if by_accuracy else "Latency and size"
    legend = {each.model: series[each.model] for each in shown}
    return figure("front", title, about, draw, legend, Table(title, headings, rows, frozenset({1, 2, 3})))


def _task(config: Mapping[str, Any]) -> frozenset[str]:
    tensors = [*(config.get("input") or ()), *(config.get("output") or ())]
    return frozenset(str(tensor.get("name")) for tensor in tensors)


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def latency_histogram(result: BenchResult) -> Figure | None:
    """Share of the requests by how long they took, at the heaviest load that the models share."""
    load = shared_load(result, heaviest=True, usable=lambda point: bool(point.latency and point.latency.histogram))
    series = series_of(result)
    shown = [
        (run.model, point.latency)
        for run in result.models
        for point in measured(run)
        if load_of(point) == load and point.latency is not None and point.latency.histogram is not None
    ]
    bins = {
        model: [
            (low / 1000, high / 1000, count / max(1, sum(latency.histogram.counts)) * 100)
            for low, high, count in zip(
                latency.histogram.edges_us, latency.histogram.edges_us[1:], latency.histogram.counts, strict=False
            )
        ]
        for model, latency in shown
        if latency.histogram is not None and latency.histogram.counts
    }
    if not bins:
        return None
    edges = [edge for steps in bins.values() for low, high, _ in steps for edge in (low, high)]

    def draw(drawing: Drawing) -> None:
        log = min(edges) > 0 and max(edges) / min(edges) > 4
        x = Scale(min(edges), max(edges), MARGIN_LEFT, drawing.width - MARGIN_RIGHT, log=log)
        top = max(share for steps in bins.values() for _, _, share in steps)
        y = Scale(0, top * 1.08, drawing.height - MARGIN_BOTTOM, MARGIN_TOP)
        drawing.axes(x, y, ("latency, ms", "% of requests"), SPELL)
        for model, steps in bins.items():
            kind = f"s{series[model] % 8}"
            outline = [(x(steps[0][0]), y(0))]
            for low, high, share in steps:
                outline += [(x(low), y(share)), (x(high), y(share))]
            outline.append((x(steps[-1][1]), y(0)))
            drawing.path(outline, f"area {kind}")
        for model, latency in shown:
            hint = f"{model}: p99 {milliseconds(latency.p99_us)} ms"
            drawing.marker(x(latency.p99_us / 1000), y(0) - 6, series[model], hint=hint)

    rows = tuple(
        (text(model), Cell(f"{low:.3g} to {high:.3g}", low), number(share, f"{share:.2f}"))
        for model, steps in bins.items()
        for low, high, share in steps
        if share
    )
    about = f"At {load}; the marks on the axis are each model's p99."
    legend = {model: series[model] for model in bins}
    table = Table("Requests by latency", ("model", "latency ms", "% of requests"), rows, frozenset({1, 2}))
    return figure("histogram", "How long requests took", about, draw, legend, table)
