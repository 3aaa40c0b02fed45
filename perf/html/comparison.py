"""Two sides held against each other, as a page: verdicts, ratios, what else differs, the exact commands."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perf.compare_text import ratio_text
from perf.comparison import Comparison, Pair
from perf.history_text import ID_LENGTH, short_revision
from perf.html.forest import KINDS, NAMES, figure_text, forests, verdict_cell
from perf.html.page import commands_of, flat_fields
from perf.html.parts import Cell, Table, number, text
from perf.html.template import rendered
from perf.loads import load_of
from perf.machines import facts_that_count
from perf.references import Side
from perf.result import BenchResult, ModelRun
from perf.table import words

TEMPLATE = "bench_comparison.html.j2"
_OF_THE_LOAD = (
    "protocol",
    "shared_memory",
    "sequence_length",
    "seconds",
    "rounds",
    "precision",
    "batch_size",
    "repository",
)


def comparison_html(comparison: Comparison, first: Side, second: Side, command: str) -> str:
    """One page with everything: nothing is fetched, nothing lies beside it.

    Args:
        command: that makes this page.
    """
    sides = (("A", first), ("B", second))
    pairs = list(dict.fromkeys((pair.first_model, pair.second_model) for pair in comparison.pairs))
    configurations = [(f"{letter}: {run.model}", json.dumps(run.config, indent=2))
                      for letter, run in _runs(pairs, first, second) if run.config]  # fmt: skip
    return rendered(
        TEMPLATE,
        heading=f"Comparison of {first.text} and {second.text}",
        sides=[(letter, list(_facts(side))) for letter, side in sides],
        unlike=list(comparison.unlike),
        caveats=[*comparison.caveats, *(f"not compared: {line}" for line in comparison.unmatched)],
        tally=list(_tally(comparison.pairs)),
        verdicts=_verdicts(comparison.pairs),
        figures=forests(comparison),
        every=_every(comparison.pairs),
        configuration=_configuration(pairs, first, second),
        configurations=configurations,
        machine=_machine(first.newest, second.newest),
        doubts=_doubts(sides, pairs),
        command=command,
        commands=[(f"{letter}: {name}", said) for letter, side in sides for name, said in commands_of(side.result)],
    )


def _facts(side: Side) -> Iterator[tuple[str, str]]:
    run = side.newest
    yield "", side.text
    count = len(side.results)
    yield "measured", f"{run.started_at:%Y-%m-%d %H:%M} UTC" + (f", and {count - 1} runs before" if count > 1 else "")
    yield "run", run.id[:ID_LENGTH]
    if run.revision:
        yield "revision", short_revision(run.revision)
    yield "models", ", ".join(each.model for each in side.result.models)
    yield "server", run.server.get("runtime", "").partition(" at ")[0] or run.server.get("url", "")
    yield "machine", f"{run.machine.get('cpu')}, {run.machine.get('cores_usable')} cores"


def _tally(pairs: Sequence[Pair]) -> Iterator[tuple[str, str, int]]:
    counts = Counter(pair.verdict for pair in pairs)
    for verdict, kind in KINDS.items():
        if counts[verdict]:
            yield verdict, kind, counts[verdict]


def _verdicts(pairs: Sequence[Pair]) -> Table:
    rows = []
    for pair in pairs:
        decisive = pair.estimate(pair.decided_by)
        rows.append(
            (
                text(pair.name),
                _load(pair),
                verdict_cell(pair.verdict),
                text(NAMES.get(pair.decided_by, pair.decided_by) or "-"),
                Cell(ratio_text(decisive), decisive.ratio if decisive else None),
                wrapped(pair.why),
            )
        )
    headings = ("model", "load", "B is", "by", "B/A [99%]", "why")
    return Table("Verdicts", headings, tuple(rows), frozenset({4}))


def wrapped(value: str) -> Cell:
    """A cell of a sentence."""
    return text(value or "-", kind="wrap")


def _load(pair: Pair) -> Cell:
    return Cell(pair.load, pair.rate_per_s or pair.concurrency or pair.load)


def _every(pairs: Sequence[Pair]) -> Table:
    rows = tuple(
        (
            text(pair.name),
            _load(pair),
            text(NAMES[each.metric] + ("" if each.metric == "inferences_per_s" else " ms")),
            number(each.first, figure_text(each.metric, each.first)),
            number(each.second, figure_text(each.metric, each.second)),
            Cell(ratio_text(each), each.ratio),
            text(each.basis or "-"),
            verdict_cell(each.verdict),
            wrapped(each.why),
        )
        for pair in pairs
        for each in pair.estimates
    )
    headings = ("model", "load", "figure", "A", "B", "B/A [99%]", "interval from", "B is", "why")
    return Table("Every figure", headings, rows, frozenset({3, 4, 5}))


def _run(side: Side, model: str) -> ModelRun | None:
    return next((run for run in side.newest.models if run.model == model), None)


def _runs(pairs: Sequence[tuple[str, str]], first: Side, second: Side) -> Iterator[tuple[str, ModelRun]]:
    for letter, side, place in (("A", first, 0), ("B", second, 1)):
        for model in dict.fromkeys(pair[place] for pair in pairs):
            if (run := _run(side, model)) is not None:
                yield letter, run


def _configuration(pairs: Sequence[tuple[str, str]], first: Side, second: Side) -> Table | None:
    """The fields in which both sides' configurations differ; None where neither side's is known."""
    rows, known = [], False
    for one, other in pairs:
        a, b = _run(first, one), _run(second, other)
        if a is None or b is None or not (a.config and b.config):
            continue
        known = True
        left, right = dict(flat_fields(a.config)), dict(flat_fields(b.config))
        name = one if one == other else f"{one} -> {other}"
        for key in sorted({*left, *right}):
            if left.get(key) != right.get(key):
                rows.append((text(name), text(key), _value(left, key), _value(right, key)))
    if not known:
        return None
    return Table("What differs between A and B", ("model", "field", "A", "B"), tuple(rows))


def _value(fields: Mapping[str, str], key: str) -> Cell:
    return Cell(fields.get(key, "-"), fields.get(key))


def _machine(first: BenchResult, second: BenchResult) -> Table:
    """What must agree, what does not have to, and the loads; what differs is marked."""
    one, other = facts_that_count(first), facts_that_count(second)
    rows = [_alike(fact, one[fact], other[fact], counts=True) for fact in one]
    for key in ("kernel", "hostname"):
        rows.append(_alike(key, first.machine.get(key), second.machine.get(key), counts=False))
    for key in _OF_THE_LOAD:
        a, b = first.workload.get(key), second.workload.get(key)
        if a is not None or b is not None:
            counts = key in ("protocol", "shared_memory", "sequence_length")
            rows.append(_alike(words(key), a, b, counts=counts))
    differing = sum(row[3].text != "same" for row in rows)
    caption = "All alike" if not differing else f"{differing} of {len(rows)} facts differ"
    return Table(caption, ("fact", "A", "B", "alike"), tuple(rows))


def _alike(name: str, first: Any, second: Any, *, counts: bool) -> tuple[Cell, ...]:
    one, other = ("-" if value in (None, "") else str(value) for value in (first, second))
    if one == other:
        said = text("same")
    else:
        said = text("differs: not to be compared", kind="bad") if counts else text("differs", kind="doubt")
    return text(name), text(one), text(other), said


def _doubts(sides: Sequence[tuple[str, Side]], pairs: Sequence[tuple[str, str]]) -> Table:
    rows = []
    for place, (letter, side) in enumerate(sides):
        models = {pair[place] for pair in pairs}
        for doubt in side.newest.doubts:
            rows.append(
                (text(letter), text("the whole run"), text(words(doubt.code), kind="doubt"), wrapped(doubt.message))
            )
        for point in side.result.points:
            for doubt in point.doubts if point.model in models else ():
                where = f"{point.model}, {load_of(point)}"
                rows.append((text(letter), text(where), text(words(doubt.code), kind="doubt"), wrapped(doubt.message)))
    return Table("Doubts", ("side", "where", "doubt", "in full"), tuple(rows))
