"""Ratios with their intervals, one below the other, beside the line where both sides are equal: a forest plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from perf.compare_text import ratio_text
from perf.comparison import DIFFERENT, Comparison, Estimate, Pair, Verdict
from perf.html.parts import Cell, Figure, Key, Table, number, text
from perf.html.svg import Drawing, Scale, Spell
from perf.table import milliseconds, rate

KINDS: dict[Verdict, str] = {
    "faster": "faster",
    "slower": "slower",
    "no difference found": "same",
    "cannot tell": "unknown",
}
"""Of each verdict, the class of its colour."""

NAMES = {"inferences_per_s": "inferences/s", "p50_us": "p50", "p99_us": "p99", "mean_us": "mean"}
FAR = 1.6
"""An interval is drawn as far as this factor beyond the outermost ratio; where it goes further, it ends in an arrow."""

_FACTORS = (0.05, 0.1, 0.2, 0.25, 0.33, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)

_LABEL, _LANE, _GAP, _BOTTOM = 15, 16, 9, 46
_LEFT, _RIGHT = 10, 12


@dataclass(frozen=True)
class Line:
    """One ratio of a forest."""

    pair: Pair
    estimate: Estimate
    name: str

    @property
    def kind(self) -> str:
        """The class of its colour."""
        return KINDS[self.estimate.verdict]


def figure_text(metric: str, value: float | None) -> str:
    """A figure with its unit's spelling: inferences per second as they are, times in milliseconds."""
    if value is None:
        return "-"
    return rate(value) if metric == "inferences_per_s" else milliseconds(value)


def forests(comparison: Comparison) -> list[Figure]:
    """One of the throughputs, one of the latencies; either is left out where it has no ratio."""
    made = [
        _forest(
            "throughput",
            "Throughput, B against A",
            "Right of the line B answers more inferences per second than A, left of it fewer.",
            "inferences per second, B/A",
            _lines(comparison, ("inferences_per_s",)),
        ),
        _forest(
            "latency",
            "Latency, B against A",
            "Left of the line B answers sooner than A, right of it later.",
            "latency, B/A",
            _lines(comparison, ("p50_us", "mean_us", "p99_us")),
        ),
    ]
    return [figure for figure in made if figure is not None]


def _lines(comparison: Comparison, metrics: Sequence[str]) -> list[Line]:
    several = len(metrics) > 1
    found = []
    for pair in comparison.pairs:
        own = [
            Line(pair, estimate, f"{pair.name}, {pair.load}" + (f": {NAMES[metric]}" if several else ""))
            for metric in metrics
            if (estimate := pair.estimate(metric)) is not None and estimate.ratio is not None and estimate.ratio > 0
        ]
        # A ratio without an interval says nothing beside those that have one; the table of every figure has it.
        found += [line for line in own if line.estimate.low is not None] or own
    return found


def _forest(identity: str, title: str, about: str, label: str, lines: Sequence[Line]) -> Figure | None:
    if not lines:
        return None
    about += " Marks are ratios, the lines through them 99% intervals (for all rows together); "
    about += "a filled mark is surely on its side."
    drawn = []
    for kind, width in (("wide", 760), ("narrow", 340)):
        drawing = Drawing(width, len(lines) * (_LABEL + _LANE + _GAP) + _BOTTOM + 6)
        _draw(drawing, lines, label)
        drawn.append(Markup(drawing.svg(f"{identity}-{kind}", f"{title}. {about}", kind)))
    seen = dict.fromkeys(line.estimate.verdict for line in lines)
    keys = tuple(Key(Markup(_key(KINDS[verdict])), f"B is {verdict}" if "er" in verdict[-2:] else verdict)
                 for verdict in KINDS if verdict in seen)  # fmt: skip
    return Figure(identity, title, about, drawn[0], drawn[1], keys, _table(title, lines))


def _scale(lines: Sequence[Line], width: int) -> Scale:
    ratios = [line.estimate.ratio or 1.0 for line in lines]
    low, high = min(ratios) / FAR, max(ratios) * FAR
    ends = [end for line in lines for end in (line.estimate.low, line.estimate.high) if end is not None]
    shown = [1.0, *ratios, *(min(max(end, low), high) for end in ends)]
    least, most = min(shown), max(shown)
    if most / least > 1.5:
        return Scale(least / 1.03, most * 1.03, _LEFT, width - _RIGHT, log=True)
    room = max((most - least) * 0.06, 0.01)
    return Scale(least - room, most + room, _LEFT, width - _RIGHT)


def _ticks(scale: Scale, width: int) -> list[float]:
    """Ratios to write below, 1 always among them."""
    found = [tick for tick in _FACTORS if scale.low <= tick <= scale.high] if scale.log else []
    if len(found) < 3:
        found = scale.ticks(7 if width > 500 else 4)
    kept = [1.0]
    for tick in sorted(found, key=lambda tick: abs(math.log(tick))):
        if all(abs(scale(tick) - scale(other)) >= 40 for other in kept):
            kept.append(tick)
    return kept


def _draw(drawing: Drawing, lines: Sequence[Line], label: str) -> None:
    scale = _scale(lines, drawing.width)
    bottom = drawing.height - _BOTTOM
    before: Pair | None = None
    shaded = False
    for row, line in enumerate(lines):
        shaded = shaded != (line.pair is not before and before is not None)
        before = line.pair
        if shaded:
            step = _LABEL + _LANE + _GAP
            drawing.box(0, row * step + 3, drawing.width, step, "stripe")
    for tick in _ticks(scale, drawing.width):
        at = scale(tick)
        for row in range(len(lines)):  # beside the marks alone: a line through a name is hard to read
            y = row * (_LABEL + _LANE + _GAP) + _LABEL + 4
            drawing.line(at, y, at, y + _LANE, "equal" if tick == 1 else "grid")
        drawing.line(at, bottom, at, bottom + 4, "axis")
        drawing.text(min(max(at, 14), drawing.width - 14), bottom + 16, Spell()(tick))
    drawing.line(scale.start, bottom, scale.end, bottom, "axis")
    if drawing.width > 500:
        drawing.line(scale(1.0), 4, scale(1.0), bottom + 4, "equal")
    drawing.text(drawing.width / 2, drawing.height - 8, label, kind="label")
    for row, line in enumerate(lines):
        _row(drawing, scale, line, row * (_LABEL + _LANE + _GAP) + _LABEL)


def _row(drawing: Drawing, scale: Scale, line: Line, y: float) -> None:
    estimate = line.estimate
    assert estimate.ratio is not None
    said = ratio_text(estimate)
    if drawing.width > 500:
        said += f"  {estimate.verdict}"
    most = (drawing.width - _LEFT - _RIGHT) // 7 - len(said)
    name = line.name if len(line.name) <= most else f"{line.name[: max(most - 13, 4)]}…{line.name[-11:]}"
    drawing.text(_LEFT - 4, y, name, "start", "name")
    drawing.text(drawing.width - 4, y, said, "end")
    at, lane = scale(estimate.ratio), y + 3 + _LANE / 2
    if estimate.low is not None and estimate.high is not None:
        low, high = scale(estimate.low), scale(estimate.high)
        drawing.line(low, lane, high, lane, f"estimate v-{line.kind}")
        for end, given, side in ((low, estimate.low, -1), (high, estimate.high, 1)):
            if scale.low <= given <= scale.high:
                drawing.line(end, lane - 4, end, lane + 4, f"estimate v-{line.kind}")
            else:  # it goes on
                drawing.path(
                    [(end - 5 * side, lane - 4), (end, lane), (end - 5 * side, lane + 4)], f"estimate v-{line.kind}"
                )
    decided = estimate.verdict in DIFFERENT
    hint = f"{line.name}: {said} {estimate.verdict}"
    drawing.box(at - 4, lane - 4, 8, 8, f"dot v-{line.kind}" + ("" if decided else " hollow"), hint)


def _key(kind: str) -> str:
    decided = kind in DIFFERENT
    return (
        '<svg class="key" viewBox="0 0 16 16" aria-hidden="true">'
        f'<line class="estimate v-{kind}" x1="0" y1="8" x2="16" y2="8"/>'
        f'<rect class="dot v-{kind}{"" if decided else " hollow"}" x="4" y="4" width="8" height="8"/></svg>'
    )


def _table(caption: str, lines: Sequence[Line]) -> Table:
    rows = tuple(
        (
            text(line.name),
            number(line.estimate.ratio, f"{line.estimate.ratio:.3f}"),
            number(line.estimate.low, None if line.estimate.low is None else f"{line.estimate.low:.3f}"),
            number(line.estimate.high, None if line.estimate.high is None else f"{line.estimate.high:.3f}"),
            verdict_cell(line.estimate.verdict),
        )
        for line in lines
    )
    headings = ("what", "B/A", "99% from", "to", "B is")
    return Table(caption, headings, rows, frozenset({1, 2, 3}))


def verdict_cell(verdict: Verdict) -> Cell:
    """A verdict in its colour."""
    return text(verdict, kind=f"verdict {KINDS[verdict]}")
