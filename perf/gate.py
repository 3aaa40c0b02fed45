"""A result held against a gate: each limit with what was measured, and whether it passed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Literal

from perf.columns import markdown_table, text_table
from perf.comparison import Comparison, Estimate, Pair
from perf.gate_file import LATENCIES, Check, Gate, Regression
from perf.loads import load_of
from perf.result import BenchResult, Latency, Point, _Data
from perf.spread import p99_interval, rate_interval
from perf.stability import MINIMUM_BEYOND
from perf.table import milliseconds, rate, with_interval

Status = Literal["passed", "failed", "cannot tell"]
_SPELLED = {field: key for key, field in LATENCIES.items()} | {"inferences_per_s": "throughput"}
_BEYOND_PERCENT = {"p50_us": 50.0, "p90_us": 10.0, "p95_us": 5.0, "p99_us": 1.0, "p99_9_us": 0.1}
_HEADINGS = ("", "what", "must be", "is", "note", "rule")


class Outcome(_Data):
    """One limit on one point.

    Attributes:
        status: ``cannot tell`` fails nothing, unless the gate says so.
        what: model, load and metric.
        limit, got: in words, with units.
        where: file and line of the rule.
    """

    status: Status
    what: str
    limit: str
    got: str
    note: str = ""
    where: str


class GateOutcome(_Data):
    """All limits; ``passed`` when none failed."""

    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        """True when no limit failed."""
        return all(outcome.status != "failed" for outcome in self.outcomes)


def judge(gate: Gate, result: BenchResult, comparison: Comparison | None = None) -> GateOutcome:
    """Hold a result against a gate.

    Args:
        comparison: of the baseline (A) with the result (B); needed where the gate has a regression rule.
    """
    outcomes = [outcome for check in gate.checks for outcome in _check(check, result)]
    if gate.regression is not None and comparison is not None:
        outcomes += _regressions(gate.regression, comparison, result)
    return GateOutcome(outcomes=tuple(outcomes))


def figures_of(gate: Gate) -> int:
    """How many of each row's two-sided intervals the gate hangs on: only one side of two of them can fail it."""
    return max(1, math.ceil(len(gate.regression.metrics) / 2)) if gate.regression is not None else 1


def _check(check: Check, result: BenchResult) -> Iterator[Outcome]:
    runs = [run for run in result.models if run.baseline is None or "@" in check.model]  # a baseline where it is named
    about = [point for run in runs for point in run.points if _is_about(check, point)]
    broken = [run for run in runs if run.error is not None and fnmatchcase(run.model, check.model)]
    for run in broken:
        if not run.points:
            assert run.error is not None
            yield _outcome("failed", run.model, "measured", "not measured", check.where, str(run.error["what"]))
    for point in about:
        name = f"{point.model} at {load_of(point)}"
        if point.error is not None:
            yield _outcome("failed", name, "measured", "not measured", check.where, str(point.error["what"]))
            continue
        if check.throughput is not None:
            yield _throughput(check, name, point)
        for field, limit_us in (check.latencies_us or {}).items():
            yield _latency(check.where, name, point, field, limit_us)
    if not about and not broken:
        loads = {
            "concurrency": check.concurrency,
            "rate": check.rate,
            "batch_size": check.batch_size,
        }
        what = check.model + "".join(
            f", {key} {', '.join(f'{value:g}' for value in values)}" for key, values in loads.items() if values
        )
        yield _outcome("failed", what, "measured", "nothing", check.where, "no point is what this check is about")


def _is_about(check: Check, point: Point) -> bool:
    wanted = (
        (check.concurrency, point.concurrency),
        (check.rate, point.rate_per_s),
        (check.batch_size, point.batch_size),
    )
    return fnmatchcase(point.model, check.model) and all(not values or got in values for values, got in wanted)


def _throughput(check: Check, name: str, point: Point) -> Outcome:
    assert check.throughput is not None
    value, interval = point.inferences_per_s or 0.0, rate_interval(point)
    got = with_interval(value, interval, rate) + " per s"
    note = "within the noise of the limit" if interval and interval[0] < check.throughput < interval[1] else ""
    status: Status = "passed" if value >= check.throughput else "failed"
    return _outcome(status, f"{name}: throughput", f"{rate(check.throughput)} per s or more", got, check.where, note)


def _latency(where: str, name: str, point: Point, field: str, limit_us: float) -> Outcome:
    name, limit = f"{name}: {_SPELLED[field]}", f"{milliseconds(limit_us)} ms or less"
    value = getattr(point.latency, field) if point.latency is not None else None
    if value is None:
        return _outcome("failed", name, limit, "not measured", where, "perf_analyzer gave no such percentile")
    assert isinstance(point.latency, Latency)
    notes = []
    interval = p99_interval(point) if field == "p99_us" else None
    got = with_interval(value, interval, milliseconds) + " ms"
    if interval is not None and interval[0] < limit_us < interval[1]:
        notes.append("within the noise of the limit")
    beyond = point.latency.requests * _BEYOND_PERCENT.get(field, 100.0) / 100
    if beyond < MINIMUM_BEYOND:
        notes.append(f"rests on {beyond:.0f} of {point.latency.requests} requests: longer --seconds")
    return _outcome("passed" if value <= limit_us else "failed", name, limit, got, where, "; ".join(notes))


def _regressions(rule: Regression, comparison: Comparison, result: BenchResult) -> Iterator[Outcome]:
    points = {(point.model, str(load_of(point))): point for point in result.points}
    for pair in comparison.pairs:
        if fault := _fault(points.get((pair.second_model, pair.load))):
            yield _outcome("failed", f"{pair.name} at {pair.load}", "measured", "not measured", rule.where, fault)
            continue
        for metric in rule.metrics:
            if (estimate := pair.estimate(metric)) is not None:
                yield _regression(rule, pair, estimate)
    for missing in comparison.unmatched:
        if missing.endswith("only in A"):
            what = missing.partition(": only")[0]
            yield _untold(rule, what, "as in the baseline", "not measured", "the baseline has it")


def _fault(point: Point | None) -> str:
    """What is wrong with a point whatever its speed; empty for nothing."""
    if point is None:
        return ""
    if point.error is not None:
        return str(point.error["what"])
    if point.wrong:
        return f"{point.wrong} wrong answers of {point.checked}"
    return next((doubt.message for doubt in point.doubts if doubt.code == "failed_requests"), "")


def _regression(rule: Regression, pair: Pair, estimate: Estimate) -> Outcome:
    name = f"{pair.name} at {pair.load}: {_SPELLED[estimate.metric]}"
    more = f" by {rule.tolerated_percent:g}% or more" if rule.tolerated_percent else ""
    limit = f"not slower{more}"
    if estimate.ratio is None or estimate.low is None or estimate.high is None:
        return _untold(rule, name, limit, "no interval", estimate.why)
    got = f"{estimate.ratio:.3f} [{estimate.low:.3f}, {estimate.high:.3f}] times"
    tolerated = rule.tolerated_percent / 100
    throughput = estimate.metric == "inferences_per_s"
    slower = estimate.high < 1 - tolerated if throughput else estimate.low > 1 + tolerated
    if slower:
        return _outcome("failed", name, limit, got, rule.where, "slower than the baseline, beyond noise")
    if estimate.verdict == "cannot tell":
        return _untold(rule, name, limit, got, estimate.why)
    within = "slower, but not surely by so much" if estimate.verdict == "slower" else estimate.verdict
    return _outcome("passed", name, limit, got, rule.where, within)


def _untold(rule: Regression, what: str, limit: str, got: str, note: str) -> Outcome:
    return _outcome("failed" if rule.strict else "cannot tell", what, limit, got, rule.where, note)


def _outcome(status: Status, what: str, limit: str, got: str, where: str, note: str = "") -> Outcome:
    return Outcome(status=status, what=what, limit=limit, got=got, note=note, where=where)


def _rows(outcome: GateOutcome) -> list[tuple[str, ...]]:
    """What failed comes first."""
    order = ("failed", "cannot tell", "passed")
    found = sorted(outcome.outcomes, key=lambda each: order.index(each.status))
    return [(each.status, each.what, each.limit, each.got, each.note, each.where) for each in found]


def heading(outcome: GateOutcome) -> str:
    """``gate failed: 1 of 4 limits``."""
    failed = sum(each.status == "failed" for each in outcome.outcomes)
    untold = sum(each.status == "cannot tell" for each in outcome.outcomes)
    text = f"{failed} of {len(outcome.outcomes)} limits" if failed else f"{len(outcome.outcomes)} limits"
    return f"gate {'failed' if failed else 'passed'}: {text}" + (f", {untold} cannot be told" if untold else "")


def gate_text(outcome: GateOutcome) -> str:
    """A table for the terminal, what failed first."""
    return "\n".join([heading(outcome), *text_table(_HEADINGS, _rows(outcome), set(_HEADINGS))])


def gate_markdown(outcome: GateOutcome) -> str:
    """The same as Markdown, for the summary of a pull request."""
    rows = _rows(outcome)
    mark = "✅" if outcome.passed else "❌"
    return "\n".join(
        [f"## {mark} {heading(outcome).capitalize()}", "", *markdown_table(_HEADINGS, rows, set(_HEADINGS))]
    )
