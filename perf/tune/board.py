"""The search as a table that is drawn anew while it goes on: who is in it, and how sure it is by now."""

from __future__ import annotations

from perf.report import milliseconds, rate
from perf.tune.judge import Evidence
from perf.tune.predict import Trial

SHOWN = 8


def board(evidence: Evidence, default: Trial | None, now: Trial | None) -> list[str]:
    """Lines of equal columns, the best first; empty before anything was measured.

    Args:
        now: what is being measured.
    """
    trials = evidence.trials
    if not trials:
        return []
    leader = evidence.leader(trials)
    shown = sorted(trials, key=lambda trial: (not evidence.seems_to_hold(trial), -evidence.worth(trial)))
    shown = _without_more(shown, default)
    percentile = f"p{evidence.limit.percentile:g}" if evidence.limit is not None else "latency"
    cells: list[tuple[str, ...]] = [
        ("", "inferences/s", f"{percentile} ms", "against default", "rounds", "configuration")
    ]
    cells += [_cells(evidence, trial, default, leader, now) for trial in shown]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    left = len(trials) - len(shown)
    return [*lines, f"and {left} more"] if left > 0 else lines


def _without_more(trials: list[Trial], default: Trial | None) -> list[Trial]:
    """The first few, and the default whatever its place."""
    shown = trials[:SHOWN]
    if default in trials and default not in shown:
        assert default is not None
        shown = [*shown[: SHOWN - 1], default]
    return shown


def _cells(
    evidence: Evidence, trial: Trial, default: Trial | None, leader: Trial | None, now: Trial | None
) -> tuple[str, ...]:
    speed, latency = evidence.rate(trial), evidence.latency(trial)
    several = evidence.count(trial) > 1
    mark = "> " if trial == now else "  "
    mark += "leads" if trial == leader else "out" if evidence.is_out(trial, leader) else ""
    gain = evidence.ratio(trial, default) if default is not None and trial != default else None
    against = "default" if trial == default else ""
    if gain is not None:
        against = f"x {gain.value:.2f}" + (f" ({gain.low:.2f} to {gain.high:.2f})" if gain.low > 0 else "")
    return (
        mark,
        rate(speed.value) + (f" ({rate(speed.low)} to {rate(speed.high)})" if several else ""),
        milliseconds(latency.value) + _keeps(evidence, trial),
        against,
        str(evidence.count(trial)),
        f"{trial.settings.spell()}, {trial.load}",
    )


def _keeps(evidence: Evidence, trial: Trial) -> str:
    """Of the limit: nothing where it is surely kept, ``?`` where that is open, ``!`` where it is not."""
    return "" if evidence.holds(trial) else " ?" if evidence.seems_to_hold(trial) else " !"
