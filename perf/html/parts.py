"""What a page is made of: tables whose cells know their values, and figures that have a table as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from perf.result import BenchResult, ModelRun, Point
from perf.table import milliseconds, rate, with_interval


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        value: what it is sorted by; None where it has none, which comes last.
        note: said when pointed at, and read out.
    """

    text: str
    value: float | str | None = None
    kind: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table; ``numeric`` are the columns that are set to the right."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    mark: Markup
    name: str


@dataclass(frozen=True)
class Figure:
    """A chart, drawn for a wide and for a narrow screen, with the same figures as a table.

    Attributes:
        about: how to read it.
    """

    id: str
    title: str
    about: str
    wide: Markup
    narrow: Markup
    legend: tuple[Key, ...]
    table: Table


def text(value: str, *, kind: str = "") -> Cell:
    """A cell of words, sorted by them."""
    return Cell(value, value.lower(), kind)


def number(value: float | None, spelled: str | None = None, *, kind: str = "", note: str = "") -> Cell:
    """A cell of a number, sorted by it."""
    if value is None:
        return Cell("-", None)
    return Cell(spelled if spelled is not None else rate(value), value, kind, note)


def time(value_us: float | None, *, kind: str = "", note: str = "") -> Cell:
    """A cell of a time, in milliseconds."""
    return number(value_us, milliseconds(value_us), kind=kind, note=note)


def ranged(value: float | None, interval: tuple[float, float] | None, spell: Callable[[float], str]) -> Cell:
    """A cell of a number with its interval, sorted by the number."""
    if value is None:
        return Cell("-", None)
    if interval is None:
        return Cell(spell(value), value)
    return Cell(with_interval(value, interval, spell), value, note="95% interval")


def measured(run: ModelRun) -> list[Point]:
    """The points of a model that have figures."""
    return [point for point in run.points if point.ok and point.latency is not None and point.inferences_per_s]


def series_of(result: BenchResult) -> dict[str, int]:
    """The number of each model's colour and mark: the same in every figure."""
    return {run.model: index for index, run in enumerate(result.models)}
