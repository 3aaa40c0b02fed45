"""How sure a comparison of a few noisy measurements is: bootstrap intervals, widened for small numbers of them.

Measurements of one round are a pair: what slows the machine down for a moment slows both. So whole rounds are drawn.
A bootstrap of few values is too narrow: with three rounds, one of four pairs of equal models would be told apart. So it
is widened by what Student's t asks for at that number, and made as wide on both sides; all on the scale of logarithms,
as speeds differ by factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
SEED = 20241
LOW_PERCENT, HIGH_PERCENT = 2.5, 97.5
_NORMAL = 1.960
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t at 97.5%, for 1 to 10 degrees of freedom; beyond, :func:`_widening` nears the normal one closely."""


@dataclass(frozen=True)
class Interval:
    """A value with the 95% interval around it."""

    low: float
    value: float
    high: float

    def as_list(self) -> list[float]:
        """The two ends, for a file."""
        return [self.low, self.high]


def ratio_of_medians(first: Sequence[float], second: Sequence[float]) -> Interval:
    """How many times ``second`` the first is; both of the same rounds, in the same order.

    With a single round nothing is known of the noise: the interval is everything.

    Raises:
        ValueError: no values, of different number, or not all above zero.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(a) != len(b) or not len(a) or min(a.min(), b.min()) <= 0:
        raise ValueError("a ratio needs as many values on both sides, all above zero")
    rows = _resamples(len(a))
    return _interval(
        float(np.median(a) / np.median(b)), np.median(a[rows], axis=1) / np.median(b[rows], axis=1), len(a)
    )


def ratio_of_independent_medians(first: Sequence[float], second: Sequence[float]) -> Interval:
    """How many times ``second`` the first is, where the values are no pairs and need not be equally many.

    Raises:
        ValueError: no values on a side, or not all above zero.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not len(a) or not len(b) or min(a.min(), b.min()) <= 0:
        raise ValueError("a ratio needs values on both sides, all above zero")
    random = np.random.default_rng(SEED)
    above, below = (
        np.median(values[random.integers(0, len(values), (RESAMPLES, len(values)))], axis=1) for values in (a, b)
    )
    fewer = min(len(a), len(b))
    freedom = len(a) + len(b) - 2 if fewer > 1 else None
    return _interval(float(np.median(a) / np.median(b)), above / below, fewer, freedom)


def median_with_interval(values: Sequence[float]) -> Interval:
    """The median of values above zero, with its interval."""
    return ratio_of_medians(values, [1.0] * len(values))


def _resamples(count: int) -> NDArray[np.int64]:
    return np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))


def _interval(value: float, resampled: NDArray[np.float64], count: int, freedom: int | None = None) -> Interval:
    if count == 1:
        return Interval(0.0, value, math.inf)
    low, high = (float(end) for end in np.percentile(resampled, (LOW_PERCENT, HIGH_PERCENT)))
    # The larger of both sides, for both: with few values the median often is one of the ends that can be drawn.
    factor = max(value / low, high / value, 1.0) ** _widening(count, freedom or count - 1)
    return Interval(value / factor, value, value * factor)


def _widening(count: int, freedom: int) -> float:
    # Beyond the table by its expansion, t = z + (z^3 + z) / 4n, good to a thousandth there.
    student = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _NORMAL + (_NORMAL**3 + _NORMAL) / (4 * freedom)
    return student / _NORMAL * math.sqrt(count / (count - 1))
