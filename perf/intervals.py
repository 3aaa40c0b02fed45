"""How sure a comparison of a few noisy measurements is.

Measurements of one round are a pair: what slows the machine down for a moment slows both. So the ratio is taken round
by round, and the interval is that of the middle ratio. Of two equal models each ratio is as likely as its inverse,
whatever the noise; Wilcoxon's signed ranks need no more than that to hold 95%, however heavy the tails. They take six
rounds (more where the confidence is higher); fewer give Student's t, whose interval is wide then, and errs to the safe
side where tails are heavy. All on the scale of logarithms, as speeds differ by factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perf.quantiles import signed_rank_cut, student

CONFIDENCE = 0.95
PARTS = 5
"""That follow one another, into which the rounds of a single run are taken together."""

SIDES = 4
"""With fewer values the median often is one of the ends that can be drawn: the larger side is for both then."""

RESAMPLES = 2000
SEED = 20241
_NORMAL = 1.960

Logs = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value with the interval around it, 95% unless another confidence was asked for."""

    low: float
    value: float
    high: float

    def as_list(self) -> list[float]:
        """The two ends, for a file."""
        return [self.low, self.high]


def ratio_of_pairs(first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """How many times ``second`` the first is; both of the same rounds, in the same order.

    The value is the median of the ratios and of the means of any two of them (Hodges and Lehmann). With a single round
    nothing is known of the noise: the interval is everything.

    Raises:
        ValueError: no values, of different number, or not all above zero.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(a) != len(b) or not len(a) or min(a.min(), b.min()) <= 0:
        raise ValueError("a ratio needs as many values on both sides, all above zero")
    logs = np.log(a / b)
    if len(logs) == 1:
        return Interval(0.0, math.exp(logs[0]), math.inf)
    pairs = np.add.outer(logs, logs)[np.triu_indices(len(logs))] / 2
    walsh = np.sort(pairs)
    middle = float(np.median(walsh))
    cut = signed_rank_cut(confidence, len(logs))
    if cut is not None:
        low, high = float(walsh[cut - 1]), float(walsh[len(walsh) - cut])
    else:
        reach = student(confidence, len(logs) - 1) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
        low, high = float(logs.mean()) - reach, float(logs.mean()) + reach
    return Interval(math.exp(low), math.exp(middle), math.exp(high))


def ratio_without_pairs(first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """How many times ``second`` the first is, where the values are no pairs, but do not depend on each other: runs.

    Welch's interval of the means of logarithms; the value is the ratio of the medians, moved into it where a few values
    lie so far out that it is not.

    Raises:
        ValueError: no values on a side, or not all above zero.
    """
    a, b = _both(first, second)
    value = float(np.median(a) - np.median(b))
    if min(len(a), len(b)) == 1:
        return Interval(0.0, math.exp(value), math.inf)
    parts = [float(values.var(ddof=1)) / len(values) for values in (a, b)]
    weights = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (a, b), strict=True))
    freedom = max(1, math.floor(sum(parts) ** 2 / weights)) if weights else 1
    reach = student(confidence, freedom) * math.sqrt(sum(parts))
    difference = float(a.mean() - b.mean())
    low, high = difference - reach, difference + reach
    return Interval(math.exp(low), math.exp(min(max(value, low), high)), math.exp(high))


def ratio_of_two_runs(first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """How many times ``second`` the first is, where each side is the rounds (or windows) of a single run.

    What slows a machine down goes on for seconds and for hours: rounds that follow one another share it, and their
    median over twice the time is hardly surer about the next run (the noise is flicker noise: ``benchmarks/trust.md``).
    So a run counts as no more than one of its :data:`PARTS`, with the spread that the parts of both show.

    Raises:
        ValueError: no values on a side, or not all above zero.
    """
    a, b = _both(first, second)
    value = float(np.median(a) - np.median(b))
    if min(len(a), len(b)) == 1:
        return Interval(0.0, math.exp(value), math.inf)
    parts = [np.array([np.median(part) for part in np.array_split(each, min(PARTS, len(each)))]) for each in (a, b)]
    freedom = sum(map(len, parts)) - 2
    pooled = sum(float(((each - each.mean()) ** 2).sum()) for each in parts) / freedom
    reach = student(confidence, freedom) * math.sqrt(2 * pooled)
    return Interval(math.exp(value - reach), math.exp(value), math.exp(value + reach))


def _both(first: Sequence[float], second: Sequence[float]) -> tuple[Logs, Logs]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not len(a) or not len(b) or min(a.min(), b.min()) <= 0:
        raise ValueError("a ratio needs values on both sides, all above zero")
    return np.log(a), np.log(b)


def median_with_interval(values: Sequence[float]) -> Interval:
    """The median of values above zero, with its 95% interval: a bootstrap, widened by what Student's t asks for.

    Raises:
        ValueError: no values, or not all above zero.
    """
    given = np.asarray(values, dtype=np.float64)
    if not len(given) or given.min() <= 0:
        raise ValueError("a median needs values, all above zero")
    value, count = float(np.median(given)), len(given)
    if count == 1:
        return Interval(0.0, value, math.inf)
    rows = np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))
    low, high = (float(end) for end in np.percentile(np.median(given[rows], axis=1), (2.5, 97.5)))
    widening = student(CONFIDENCE, count - 1) / _NORMAL * math.sqrt(count / (count - 1))
    down, up = max(value / low, 1.0), max(high / value, 1.0)
    if count < SIDES:
        down = up = max(down, up)
    return Interval(value / down**widening, value, value * up**widening)
