"""Two runs, or two variants of one, held against each other: a ratio, how sure it is, and what that means.

What is compared are medians over rounds, over windows where there were no rounds, over runs where each side has
several. Rounds of one run are pairs; what was measured at different times is not: its interval is that of a part of a
run, and as even that does not know what else differed between the two (another process, another place in memory), an
allowance widens it, unless there are several runs on both sides to see that in.

Which figure of a row decides: :func:`perf.deciding.deciding`. All rows hold together: with several each interval is
wider (Bonferroni), so that of equal sides one comparison in a hundred calls any row different by its throughput, and
one at most by its median latency. That leaves room for what no interval knows, and still at most one in twenty is
called so (``benchmarks/trust.md``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from perf.comparison import DIFFERENT, Comparison, Estimate, Pair, Verdict
from perf.deciding import METRICS, WRONG_SHARE, confidence_of, deciding, figure
from perf.history_text import ID_LENGTH
from perf.intervals import Interval, ratio_of_pairs, ratio_of_two_runs, ratio_without_pairs
from perf.loads import LoadKey, load_of
from perf.machines import differences
from perf.references import Side, unlike_loads
from perf.result import ModelRun, Point
from serving.errors import UsageError

ALLOWANCE_PERCENT = 5.0
"""Between what was measured at different times: what rounds cannot show, beyond their own spread. ``--allowance`` sets
it; how often two runs of one model differed by more: the last table of ``benchmarks/trust.md``."""

TOO_WIDE = 1.25
"""An interval that reaches beyond this factor on both sides of equal says nothing worth saying."""

ENOUGH_RUNS = 3
SERIOUS = ("failed_requests", "other_traffic", "cache_hits")
"""Doubts with which the figures of a point are not those of the model."""


class UnlikeError(UsageError):
    """What was measured on unlike machines, or in unlike ways, is not compared."""


def compare(
    first: Side, second: Side, *, force: bool = False, allowance_percent: float | None = None, figures: int = 1
) -> Comparison:
    """Hold two sides against each other.

    Args:
        force: compare unlike machines too.
        allowance_percent: for what differs between two runs; :data:`ALLOWANCE_PERCENT` by default.
        figures: of each row, how many something is made to depend on (a gate: see :func:`perf.gate.figures_of`).

    Raises:
        UnlikeError: unlike machines or ways to measure, without ``force``.
        UsageError: they have nothing in common.
    """
    same_run = first.newest.id == second.newest.id
    unlike = [*map(str, differences(first.newest, second.newest)), *unlike_loads(first.newest, second.newest)]
    if unlike and not force:
        raise UnlikeError(
            "these runs are not comparable",
            where=f"{first} and {second}",
            expected="the same machine, tools, protocol and shared memory",
            got="\n".join(unlike),
            fix="measure both on one machine; --force compares them all the same, and says so",
        )
    by_runs = not same_run and min(len(first.results), len(second.results)) >= ENOUGH_RUNS
    percent = ALLOWANCE_PERCENT if allowance_percent is None else allowance_percent
    names = _models(first, second)
    found, unmatched = [], []
    for one, other in names:
        for load in _loads(first, one, second, other):
            if load[1] is None or load[2] is None:
                unmatched.append(f"{one if load[1] else other} at {load[0]}: only in {'A' if load[1] else 'B'}")
                continue
            found.append((load[0], load[1], load[2]))
    confidence = confidence_of(len(found) * figures)
    how = _How(first, second, same_run, by_runs, 1 + percent / 100, confidence)
    pairs = [_pair(how, *each) for each in found]
    caveats = _caveats(how, pairs, percent)
    caveats += [
        f"{letter} was interrupted ({side.newest.interrupted}): not all that was asked was measured"
        for letter, side in (("A", first), ("B", second))
        if side.newest.interrupted is not None
    ]
    unmatched += _unmatched_models(first, second, names)
    if not pairs:
        raise UsageError(
            "these runs have nothing in common",
            where=f"{first} and {second}",
            expected="a model that both measured under the same load",
            got="\n".join(unmatched),
            fix="measure both at one load (--concurrency, --rate), or name a model of each: A:MODEL B:MODEL",
        )
    return Comparison(
        first=str(first),
        second=str(second),
        pairs=tuple(pairs),
        unlike=tuple(unlike),
        confidence_percent=confidence * 100,
        caveats=tuple(caveats),
        unmatched=tuple(unmatched),
    )


@dataclass(frozen=True)
class _How:
    """What holds for every row."""

    first: Side
    second: Side
    same_run: bool
    by_runs: bool
    allowance: float
    confidence: float


def _caveats(how: _How, pairs: Sequence[Pair], percent: float) -> list[str]:
    """What the intervals do not know."""
    bases = {estimate.basis for pair in pairs if (estimate := pair.estimate(pair.decided_by)) is not None}
    found = []
    if not how.same_run and not how.by_runs:
        found.append(
            f"two runs at different times: rounds are no pairs, and intervals are widened by {percent:g}% for what "
            f"differed between them; {ENOUGH_RUNS} runs of each revision, or both variants in one run, say it instead"
        )
    elif "windows" in bases:
        found.append(
            f"each was measured once, at different times: intervals are widened by {percent:g}%; several --rounds "
            "say it instead"
        )
    if len(pairs) > 1:
        found.append(
            f"the intervals of the {len(pairs)} rows hold together with {100 - WRONG_SHARE * 100:g}%: each with "
            f"{how.confidence * 100:.4g}%"
        )
    return found


def _models(first: Side, second: Side) -> list[tuple[str, str]]:
    """Which model is held against which."""
    if first.model or second.model:
        one, other = first.model or second.model, second.model or first.model
        assert one is not None and other is not None
        if one == other and first.newest.id == second.newest.id:
            raise UsageError(
                "a variant is compared with itself",
                where=f"{first.text} and {second.text}",
                expected="two runs, or two models of one",
                got=f"{one} of run {first.newest.id[:ID_LENGTH]} twice",
                fix="name another run, or another of its models: bench-repo history lists both",
            )
        return [(one, other)]
    if first.newest.id == second.newest.id:
        names = [run.model for run in first.newest.models]
        several = len(names) > 1
        raise UsageError(
            "a run is compared with itself",
            where=first.text,
            expected="two runs, or two models of one",
            got=f"run {first.newest.id[:ID_LENGTH]} twice",
            fix=f"name two of its models: {first.text}:{names[0]} {second.text}:{names[1]}"
            if several
            else "name another run: bench-repo history MODEL lists them",
        )
    known = {run.model for run in second.newest.models}
    return [(run.model, run.model) for run in _served(first) if run.model in known]


def _served(side: Side) -> list[ModelRun]:
    """Its models; a baseline is compared where it is named."""
    return [run for run in side.newest.models if run.baseline is None]


def _unmatched_models(first: Side, second: Side, names: list[tuple[str, str]]) -> list[str]:
    if first.model or second.model:
        return []
    both = {one for one, _ in names}
    sides = (("A", first), ("B", second))
    return [f"{run.model}: only in {side}" for side, each in sides for run in _served(each) if run.model not in both]


def points_of(side: Side, model: str) -> Iterator[dict[LoadKey, Point]]:
    """Each run's points of a model, by load; the newest run first."""
    for result in side.results:
        yield {load_of(point): point for run in result.models if run.model == model for point in run.points}


def _loads(first: Side, one: str, second: Side, other: str) -> list[tuple[LoadKey, Point | None, Point | None]]:
    """Every load of the newest runs, with its point on each side."""
    a, b = next(points_of(first, one)), next(points_of(second, other))
    return [(load, a.get(load), b.get(load)) for load in sorted({*a, *b}, key=lambda load: load.order)]


def _pair(how: _How, load: LoadKey, one: Point, other: Point) -> Pair:
    reason = _unusable("A", one) or _unusable("B", other) or _both_growing(one, other)
    estimates = []
    for metric in METRICS:
        a, b = figure(one, metric), figure(other, metric)
        if a is None and b is None:
            continue
        basis, interval = ("", None) if reason else _ratio(how, load, one, other, metric)
        apart = basis in ("rounds", "windows")
        estimates.append(_estimate(metric, a, b, basis, interval, how.allowance if apart else 1.0, reason))
    decisive = _decisive(load, estimates)
    return Pair(
        first_model=one.model,
        second_model=other.model,
        load=str(load),
        concurrency=load.concurrency,
        rate_per_s=load.rate_per_s,
        batch_size=load.batch_size,
        verdict=decisive.verdict if decisive else "cannot tell",
        decided_by=decisive.metric if decisive else "",
        why=decisive.why if decisive else reason,
        estimates=tuple(estimates),
    )


def _decisive(load: LoadKey, estimates: list[Estimate]) -> Estimate | None:
    deciders = []
    for order in deciding(concurrency=load.concurrency if load.rate_per_s is None else None):
        found = [each for metric in order for each in estimates if each.metric == metric]
        known = [each for each in found if each.ratio is not None and each.basis]
        deciders += known[:1] or found[:1]
    return next((each for each in deciders if each.verdict in DIFFERENT), deciders[0] if deciders else None)


def _unusable(side: str, point: Point) -> str:
    """Why the figures of a point cannot be compared; empty when they can."""
    if point.error is not None:
        return f"{side} was not measured: {point.error['what']}"
    if point.wrong:
        return f"{side} gave {point.wrong} wrong answers of {point.checked}"
    return next((f"{side}: {doubt.message}" for doubt in point.doubts if doubt.code in SERIOUS), "")


def _both_growing(one: Point, other: Point) -> str:
    """Neither kept up with its load: then the latencies say how long it was measured, and nothing else."""
    if all(any(doubt.code == "queue_growing" for doubt in point.doubts) for point in (one, other)):
        return "the queue grew on both sides: neither can bear this load"
    return ""


def _over_runs(side: Side, model: str, load: LoadKey, metric: str) -> list[float]:
    points = [each[load] for each in points_of(side, model) if load in each and not _unusable("", each[load])]
    return [value for point in points if (value := figure(point, metric)) is not None]


def _ratio(how: _How, load: LoadKey, one: Point, other: Point, metric: str) -> tuple[str, Interval | None]:
    """The second by the first, and what its interval rests on."""
    if how.by_runs:
        second, first = (
            _over_runs(how.second, other.model, load, metric),
            _over_runs(how.first, one.model, load, metric),
        )
        enough = _several(second, first)
        return "runs", ratio_without_pairs(second, first, how.confidence) if enough else None
    a, b = _by_round(one, metric), _by_round(other, metric)
    if min(len(a), len(b)) > 1:
        both = sorted({*a} & {*b})
        if how.same_run and len(both) > 1:
            return "paired rounds", ratio_of_pairs([b[n] for n in both], [a[n] for n in both], how.confidence)
        return "rounds", _of_two_runs(how, [*b.values()], [*a.values()])
    if metric in ("inferences_per_s", "mean_us"):
        second, first = (
            [value for window in point.windows if (value := getattr(window, metric)) is not None]
            for point in (other, one)
        )
        return "windows", _of_two_runs(how, second, first)
    return "", None


def _by_round(point: Point, metric: str) -> dict[int, float]:
    """A figure by the number of the round; rounds of older results have no mean."""
    values = {each.number: getattr(each, metric) for each in point.rounds}
    return {number: float(value) for number, value in values.items() if value is not None}


def _of_two_runs(how: _How, second: list[float], first: list[float]) -> Interval | None:
    return ratio_of_two_runs(second, first, how.confidence) if _several(second, first) else None


def _several(first: list[float], second: list[float]) -> bool:
    return min(len(first), len(second)) > 1 and min([*first, *second]) > 0


def _estimate(
    metric: str,
    first: float | None,
    second: float | None,
    basis: str,
    interval: Interval | None,
    allowance: float,
    reason: str,
) -> Estimate:
    figures = {"metric": metric, "first": first, "second": second}
    if interval is None or not math.isfinite(interval.high):
        ratio = second / first if first and second is not None else None
        needs = "several rounds, or several runs of a revision" if metric in ("p50_us", "p99_us") else "several windows"
        why = reason or f"measured once: an interval takes {needs}"
        return Estimate(**figures, ratio=ratio, verdict="cannot tell", why=why)
    low, high = interval.low / allowance, interval.high * allowance
    verdict, why = _verdict(low, high, higher_is_better=metric == "inferences_per_s")
    return Estimate(**figures, ratio=interval.value, low=low, high=high, basis=basis, verdict=verdict, why=why)


def _verdict(low: float, high: float, *, higher_is_better: bool) -> tuple[Verdict, str]:
    """What an interval of the ratio means; with a reason where it decides nothing."""
    if low > 1 or high < 1:
        return ("faster" if (low > 1) == higher_is_better else "slower"), ""
    reach = max(high, 1 / low) if low > 0 else math.inf
    if reach > TOO_WIDE:
        return "cannot tell", f"too noisy: anything from {low:.2f} to {high:.2f} times may be"
    return "no difference found", f"one above {(reach - 1) * 100:.0f}% would have been seen"
