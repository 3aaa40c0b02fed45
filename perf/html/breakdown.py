"""Where a request's time goes: bars of queue, compute and the way there and back, an ensemble's steps below it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from perf.html.parts import Figure, Key, Table, measured, text, time
from perf.html.svg import Drawing, Scale, Spell
from perf.loads import load_of
from perf.result import BenchResult, Point, ServerSide
from perf.table import milliseconds

PARTS = ("queue", "compute input", "compute infer", "compute output", "network and client")
_SWATCH = (
    '<svg class="key" viewBox="0 0 16 16" aria-hidden="true"><rect class="part p{}" width="16" height="16"/></svg>'
)
_BAR, _GAP, _NAME = 16, 10, 15


@dataclass(frozen=True)
class Bar:
    """One request on average; microseconds of each of :data:`PARTS`, None for what is not known."""

    name: str
    parts_us: tuple[float | None, ...]
    step: bool = False

    @property
    def total_us(self) -> float:
        """All that is known."""
        return sum(part for part in self.parts_us if part is not None)


def bars_of(result: BenchResult) -> list[Bar]:
    """Every measured point, in the order of models and loads, with its steps."""
    return [bar for run in result.models for bar in _bars(measured(run))]


def _bars(points: list[Point]) -> Iterator[Bar]:
    for point in points:
        if point.server is None or point.latency is None:
            continue
        server = _server(point.server)
        known = [part for part in server if part is not None]
        rest = max(0.0, point.latency.mean_us - sum(known)) if len(known) == len(server) else None
        name = f"{point.model}, {load_of(point)}"
        yield Bar(name, (*server, rest))
        for step in point.steps:
            yield Bar(f"{name}: step {step.model}", (*_server(step), None), step=True)


def _server(side: ServerSide) -> tuple[float | None, ...]:
    return (side.queue_us, side.compute_input_us, side.compute_infer_us, side.compute_output_us)


def breakdown(result: BenchResult) -> Figure | None:
    """The chart; None where the server told nothing."""
    bars = [bar for bar in bars_of(result) if bar.total_us > 0]
    if not bars:
        return None
    title = "Where a request's time goes"
    about = (
        "Means per request. Queue and compute are the server's own figures; network and client is what the client saw "
        "beyond them. Steps of an ensemble stand below it."
    )
    longest = max(bar.total_us for bar in bars) / 1000
    drawn = []
    for kind, width in (("wide", 760), ("narrow", 340)):
        drawing = Drawing(width, len(bars) * (_BAR + _GAP + _NAME) + 46)
        scale = Scale(0, longest * 1.02, 8, width - 60)
        for tick in scale.ticks(6 if kind == "wide" else 3):
            drawing.line(scale(tick), 4, scale(tick), drawing.height - 40, "grid")
            drawing.text(scale(tick), drawing.height - 24, Spell()(tick))
        drawing.text(width / 2, drawing.height - 6, "mean, ms", kind="label")
        for row, bar in enumerate(bars):
            y = row * (_BAR + _GAP + _NAME) + _NAME
            left = scale(0)
            drawing.text(left, y - 2, _shortened(bar.name, width), "start", "name" + (" step" if bar.step else ""))
            for index, part in enumerate(bar.parts_us):
                length = (part or 0) / 1000 / (longest * 1.02) * (scale.end - scale.start)
                hint = f"{bar.name}: {PARTS[index]} {milliseconds(part)} ms"
                drawing.box(left, y + 3, length, _BAR, f"part p{index}", hint)
                left += length
            drawing.text(left + 5, y + 15, f"{milliseconds(bar.total_us)} ms", "start")
        drawn.append(Markup(drawing.svg(f"breakdown-{kind}", f"{title}. {about}", kind)))
    rows = tuple((text(bar.name), *(time(part) for part in bar.parts_us), time(bar.total_us)) for bar in bars)
    headings = ("model and load", *(f"{part} ms" for part in PARTS), "together ms")
    table = Table(title, headings, rows, frozenset(range(1, len(headings))))
    keys = tuple(Key(Markup(_SWATCH.format(index)), part) for index, part in enumerate(PARTS))
    return Figure("breakdown", title, about, drawn[0], drawn[1], keys, table)


def _shortened(name: str, width: int) -> str:
    """A name that fits into a drawing; the table has it whole."""
    most = width // 7
    return name if len(name) <= most else f"{name[: most - 12]}…{name[-11:]}"
