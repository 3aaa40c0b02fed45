"""Why a search ended as it did, in one sentence: what one of a single model and a joint one say alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from perf.intervals import Interval

T = TypeVar("T", contravariant=True)


class Compared(Protocol[T]):
    """What is known of trials."""

    def ratio(self, first: T, second: T) -> Interval | None:
        """How many times as good the first is."""

    def holds(self, trial: T) -> bool:
        """True where it surely keeps the limit."""

    def worth(self, trial: T) -> float:
        """What the goal counts; more is better."""


def too_early(minutes: float) -> str:
    """Nothing has an interval yet."""
    return f"the time was up before anything was measured twice: give it more --minutes than {minutes:g}"


def gained(known: Compared[T], chosen: T, default: T, what: str) -> str:
    """Something else than the default is chosen; ``what`` is what the goal counts."""
    ratio = known.ratio(chosen, default)
    if ratio is None:
        return "the default does not keep the limit, this does"
    times = f"{ratio.value:.2f} times ({ratio.low:.2f} to {ratio.high:.2f})"
    if not known.holds(default):
        return f"the default does not surely keep the limit, this does; {what}: {times} the default"
    return f"{what}: {times} as good as the default"


def stayed(known: Compared[T], others: Sequence[T], default: T, *, out_of_time: bool) -> str:
    """The default is chosen; ``others`` are what was measured beside it."""
    if not others:
        return "nothing else was promising enough to be measured" + (", the time was up" if out_of_time else "")
    best = max(others, key=known.worth)
    ratio = known.ratio(best, default)
    if ratio is None or ratio.low <= 0:
        return "nothing else was measured often enough to be surely better: more --minutes"
    times = f"{ratio.value:.2f} times as good ({ratio.low:.2f} to {ratio.high:.2f})"
    if ratio.low > 1.0 and not known.holds(best):
        return f"what is better than the default does not surely keep the limit: the best of it is {times}"
    return f"nothing is surely better than the default: the best other is {times}"
