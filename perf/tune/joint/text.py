"""A joint result in words: each model under the plan as it is and under the tuned one, what changed and what it did."""

from __future__ import annotations

from collections.abc import Iterator

from perf.report import milliseconds, rate
from perf.tune.joint.result import JointResult, ModelFigures, PlanRow

OTHERS = 4


def to_text(result: JointResult) -> str:
    """For a terminal."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: JointResult) -> Iterator[str]:
    status = {"found": "tuned: ", "default": "left as it is: ", "none": ""}[result.status]
    yield f"{', '.join(result.models)}: {status}{result.reason}"
    limits = ", ".join(f"{name} {limit}" for name, limit in result.limits.items())
    yield f"goal {result.goal}{f' under {limits}' if limits else ''}; load: {result.load}"
    yield ""
    shown = [("as it is", result.default)]
    if result.status == "found" and result.chosen is not None:
        shown.append(("tuned", result.chosen))
    if result.nearest is not None and result.nearest != result.default:
        shown.append(("nearest", result.nearest))
    others = [row for row in result.rows if row.error is None and all(row != each for _, each in shown)]
    for title, row in [*shown, *(("also", row) for row in others[:OTHERS])]:
        yield from _plan(title, row)
    if len(others) > OTHERS:
        yield f"and {len(others) - OTHERS} more (--format json)"
    if result.changes:
        yield ""
        yield "What changed, and what it did (the tuned plan against the same with this put back):"
        for change in result.changes:
            factor = "not known"
            if change.factor is not None:
                known = f"{change.interval[0]:.2f} to {change.interval[1]:.2f}" if change.interval else "predicted"
                factor = f"x {change.factor:.2f} ({known})"
            yield f"  {change.name}: {change.before} -> {change.after}  {factor}"
    if same := [name for name in result.members if result.changes and name not in {c.name for c in result.changes}]:
        yield f"  {', '.join(same)}: as it was"
    if result.carried is not None:
        yield ""
        rates = ", ".join(f"{name} {each:g}/s" for name, each in result.carried.rates_per_s.items())
        yield f"All rates times {result.carried.factor:.2f} would keep the limits, as it is predicted: {rates}"
    if result.server_arguments:
        arguments = " ".join(f"--server-arg={argument}" for argument in result.server_arguments)
        yield f"The rate limiter is the server's: serve-repo {arguments}"
    yield ""
    ended = "decided" if result.decided else "the time was up before all was decided: --minutes with a larger number"
    yield f"{result.measurements} measurements, {result.predicted} plans predicted, {result.seconds:.0f} s; {ended}"
    for row in result.rows:
        if row.error is not None:
            yield f"not measured: {row.title}: {row.error.get('what')}"
    for text in (*result.notes, *result.doubts):
        yield f"note: {text}"


def _plan(title: str, row: PlanRow) -> Iterator[str]:
    gain = ""
    if row.gain is not None:
        ends = f" ({row.gain_interval[0]:.2f} to {row.gain_interval[1]:.2f})" if row.gain_interval else ""
        gain = f"x {row.gain:.2f}{ends}, "
    rounds = f"{row.rounds} round{'s' if row.rounds > 1 else ''}"
    yield f"{title}: {row.title}; {row.load}" if title != "as it is" else f"{title}; {row.load}"
    yield f"  {gain}{rounds}, instances for {row.cores} cores, about {row.memory_bytes / (1 << 20):.0f} MiB"
    width = max(len(each.model) for each in row.models)
    for each in row.models:
        yield f"    {each.model.ljust(width)}  {_figures(each)}"


def _figures(each: ModelFigures) -> str:
    speed, latency = rate(each.inferences_per_s), milliseconds(each.latency_us)
    if each.inferences_interval is not None:
        speed += f" ({rate(each.inferences_interval[0])} to {rate(each.inferences_interval[1])})"
    if each.latency_interval_us is not None:
        latency += f" ({milliseconds(each.latency_interval_us[0])} to {milliseconds(each.latency_interval_us[1])})"
    kept = {"yes": "kept", "no": "NOT kept", "unsure": "perhaps kept"}[each.within_limit]
    limit = (
        f"  {each.limit} {kept}" if each.limit is not None else "" if each.within_limit == "yes" else "  falls behind"
    )
    return f"{speed} inferences/s  p{each.percentile:g} {latency} ms{limit}"
