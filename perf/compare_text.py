"""A comparison for people: text and Markdown."""

from __future__ import annotations

from perf.columns import escape, markdown_table, text_table
from perf.comparison import Comparison, Estimate, Pair
from perf.table import TOO_NOISY, milliseconds, rate

HEADINGS = (
    "model",
    "load",
    "inferences/s A",
    "B",
    "B/A (99%)",
    "p99 ms A",
    "p99 B",
    "p99 B/A (99%)",
    "B is",
)
_SPELLED = {"inferences_per_s": "throughput", "p50_us": "p50", "p99_us": "p99", "mean_us": "mean latency"}
LEFT = {"model", "load", "B is"}


def to_text(comparison: Comparison) -> str:
    """A table, why it is as it is, and what was compared."""
    table = text_table(HEADINGS, [_row(pair) for pair in comparison.pairs], LEFT)
    notes = [f"{line}" for line in _notes(comparison)]
    return "\n".join([*table, "", *notes, *_sides(comparison)])


def to_markdown(comparison: Comparison) -> str:
    """The same as Markdown."""
    table = markdown_table(HEADINGS, [_row(pair) for pair in comparison.pairs], LEFT)
    lines = [f"- {escape(line)}" for line in [*_notes(comparison), *_sides(comparison)]]
    return "\n".join(["# Comparison", "", *table, "", *lines])


def ratio_text(estimate: Estimate | None) -> str:
    """``1.05 [1.01, 1.09]``; without an interval the ratio with a question mark."""
    if estimate is None or estimate.ratio is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.ratio:.3f}?"
    if estimate.high > TOO_NOISY * estimate.ratio:
        return f"{estimate.ratio:.3f} [too noisy]"
    return f"{estimate.ratio:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _row(pair: Pair) -> tuple[str, ...]:
    speed, p99 = pair.estimate("inferences_per_s"), pair.estimate("p99_us")
    return (
        pair.name,
        pair.load,
        _rate(speed.first if speed else None),
        _rate(speed.second if speed else None),
        ratio_text(speed),
        milliseconds(p99.first if p99 else None),
        milliseconds(p99.second if p99 else None),
        ratio_text(p99),
        pair.verdict,
    )


def _rate(value: float | None) -> str:
    return rate(value) if value is not None else "-"


def _notes(comparison: Comparison) -> list[str]:
    lines = [f"{pair.name} at {pair.load}: {pair.verdict}: {pair.why}" for pair in comparison.pairs if pair.why]
    deciding = sorted({pair.decided_by for pair in comparison.pairs if pair.decided_by})
    lines += [f"decided by {' or '.join(_SPELLED[metric] for metric in deciding)}"] if deciding else []
    for pair in comparison.pairs:
        if pair.decided_by == "p50_us" and pair.concurrency is not None:
            found = ratio_text(pair.estimate("p50_us"))
            why = f"by its p50, {found}: throughput tells no difference"
            lines.append(f"{pair.name} at {pair.load}: {pair.verdict} {why}")
        p99 = pair.estimate("p99_us")
        if p99 is not None and p99.verdict == "slower" and pair.verdict != "slower":
            lines.append(f"{pair.name} at {pair.load}: its p99 is slower, which does not decide")
    lines += [f"not compared: {line}" for line in comparison.unmatched]
    lines += [f"NOT ALIKE, compared by --force: {line}" for line in comparison.unlike]
    return lines + list(comparison.caveats)


def _sides(comparison: Comparison) -> list[str]:
    return [f"A: {comparison.first}", f"B: {comparison.second}"]
