"""A few shapes as SVG text. Colours are the page's (classes ``s0`` to ``s7``): light and dark are one drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

SERIES = 8
"""Colours and markers; beyond, they begin again."""

MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 62, 16, 12, 44


@dataclass(frozen=True)
class Scale:
    """From values to pixels.

    Attributes:
        low, high: values at the ends, ``start`` and ``end`` their pixels.
        log: equal factors are equally far.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where a value is; one beyond the ends stands at the end."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, wanted: int) -> list[float]:
        """Round values, about so many."""
        if self.log:
            steps = (1, 2, 5) if math.log10(self.high / self.low) < 2 else (1,)
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [step * 10.0**decade for decade in decades for step in steps]
        else:
            raw = (self.high - self.low) / max(wanted, 1)
            power = 10 ** math.floor(math.log10(raw))
            step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
            first = math.ceil(self.low / step)
            found = [(first + number) * step for number in range(int((self.high - self.low) / step) + 2)]
        return [value for value in found if self.low * 0.9999 <= value <= self.high * 1.0001]


def scale_of(
    values: Sequence[float], start: float, end: float, *, zero: bool = True, log: bool = False, share: float = 0.06
) -> Scale:
    """A scale with a little room around all values.

    Args:
        zero: begin at zero (not with ``log``).
        share: of the values' range that is left free beyond them.
    """
    low, high = min(values), max(values)
    if log:
        return Scale(low / 1.15, high * 1.15, start, end, log=True)
    room = (high - (0 if zero else low)) * share or abs(high) * 0.1 or 1.0
    return Scale(0.0 if zero else low - room, high + room, start, end)


def wide_spread(values: Sequence[float]) -> bool:
    """Whether values differ so much that only factors can be shown."""
    return min(values) > 0 and max(values) / min(values) > 30


@dataclass
class Drawing:
    """An SVG drawing under way; shapes are added from the back to the front."""

    width: int
    height: int
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A straight line."""
        self.parts.append(f'<line class="{kind}" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>')

    def path(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """A line through points."""
        steps = " ".join(f"{'L' if number else 'M'}{x:g} {y:g}" for number, (x, y) in enumerate(points))
        self.parts.append(f'<path class="{kind}" d="{steps}"/>')

    def box(self, x: float, y: float, width: float, height: float, kind: str, hint: str = "") -> None:
        """A rectangle."""
        self.parts.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{max(width, 0):.1f}" height="{height:g}">'
            f"{_hint(hint)}</rect>"
        )

    def text(self, x: float, y: float, text: str, anchor: str = "middle", kind: str = "") -> None:
        """A line of text; ``anchor`` is ``start``, ``middle`` or ``end``."""
        name = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text{name} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>')

    def marker(self, x: float, y: float, series: int, *, hollow: bool = False, size: float = 5, hint: str = "") -> None:
        """A mark whose shape tells the series as its colour does."""
        kind = f"mark s{series % SERIES}" + (" hollow" if hollow else "")
        corners = _MARKERS[series % len(_MARKERS)]
        if corners is None:
            shape = f'<circle class="{kind}" cx="{x:g}" cy="{y:g}" r="{size:g}">{_hint(hint)}</circle>'
        else:
            points = " ".join(f"{x + dx * size:.1f},{y + dy * size:.1f}" for dx, dy in corners)
            shape = f'<polygon class="{kind}" points="{points}">{_hint(hint)}</polygon>'
        self.parts.append(shape)

    def axes(self, x: Scale, y: Scale, labels: tuple[str, str], spell: tuple[Spell, Spell]) -> None:
        """A grid with ticks, and what the axes are.

        Args:
            labels: of x and y, with units.
            spell: a tick of x, and one of y, as text.
        """
        left, right, top, bottom = x.start, x.end, y.end, y.start
        for value in y.ticks(5):
            self.line(left, y(value), right, y(value), "grid")
            self.text(left - 6, y(value) + 4, spell[1](value), "end")
        last = -math.inf
        for value in x.ticks(7 if self.width > 500 else 4):
            if x(value) - last < 34:
                continue
            last = x(value)
            self.line(last, bottom, last, bottom + 4, "axis")
            self.text(last, bottom + 17, spell[0](value))
        self.line(left, bottom, right, bottom, "axis")
        self.text((left + right) / 2, self.height - 8, labels[0], kind="label")
        self.parts.append(
            f'<text class="label" transform="translate(11 {(top + bottom) / 2:g}) rotate(-90)" '
            f'text-anchor="middle">{escape(labels[1])}</text>'
        )

    def svg(self, identity: str, title: str, kind: str) -> str:
        """The whole, named for those who do not see it."""
        return (
            f'<svg class="{kind}" viewBox="0 0 {self.width} {self.height}" role="img" aria-labelledby="{identity}">'
            f'<title id="{identity}">{escape(title)}</title>{"".join(self.parts)}</svg>'
        )


def legend_mark(series: int) -> str:
    """A series' mark alone, beside its name."""
    drawing = Drawing(16, 16)
    drawing.marker(8, 8, series)
    return f'<svg class="key" viewBox="0 0 16 16" aria-hidden="true">{"".join(drawing.parts)}</svg>'


class Spell:
    """A number as the text of a tick."""

    def __call__(self, value: float) -> str:
        """``0.25``, ``3``, ``1,200``, ``12k``."""
        if abs(value) >= 10_000:
            return f"{value / 1000:,.10g}k"
        return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _hint(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


_MARKERS: tuple[tuple[tuple[float, float], ...] | None, ...] = (
    None,
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.2), (1.1, 0.9), (-1.1, 0.9)),
    ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    ((0, 1.2), (1.1, -0.9), (-1.1, -0.9)),
    ((-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4), (0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4),
     (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)),
    ((0, -1.2), (1.15, -0.35), (0.7, 1), (-0.7, 1), (-1.15, -0.35)),
    ((1.2, 0), (0.6, 1.05), (-0.6, 1.05), (-1.2, 0), (-0.6, -1.05), (0.6, -1.05)),
)  # fmt: skip
