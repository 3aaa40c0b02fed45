"""The two distributions that intervals of few values rest on: Student's t, and Wilcoxon's signed ranks."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

EXACT = 60
"""Up to so many values the signed ranks are counted; beyond, they are as good as normally distributed."""


@lru_cache(maxsize=1024)
def student(confidence: float, freedom: int) -> float:
    """How many standard errors to either side hold a mean so surely.

    Args:
        confidence: of both sides together, 0.95 for 95%.
        freedom: degrees of freedom, at least 1.

    Raises:
        ValueError: out of range.
    """
    if not 0 < confidence < 1 or freedom < 1:
        raise ValueError("a confidence lies between 0 and 1, and takes a degree of freedom")
    low, high = 0.0, 1.0
    while _within(high, freedom) < confidence:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """Probability of [-t, t], by the finite series (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    odd = freedom % 2
    if freedom == 1:
        return 2 * angle / math.pi
    term = total = cosine if odd else 1.0
    for step in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine * cosine * (step - 1) / step
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


@lru_cache(maxsize=1024)
def signed_rank_cut(confidence: float, count: int) -> int | None:
    """Which of the ordered Walsh averages of ``count`` values, counted from either end (from 1), bound the middle.

    Between the two lies the middle of any symmetric distribution, with ``confidence`` at least. None where not even the
    first and the last are sure enough: with five values, no 95% can be had.
    """
    tail = (1 - confidence) / 2
    if count > EXACT:
        mean = count * (count + 1) / 4
        spread = math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
        return max(0, math.floor(mean - 0.5 + NormalDist().inv_cdf(tail) * spread) + 1)
    ways = np.zeros(count * (count + 1) // 2 + 1)
    ways[0] = 1.0
    for rank in range(1, count + 1):
        ways[rank:] += ways[:-rank].copy()
        ways /= 2
    below = np.cumsum(ways)  # probability of a sum of ranks up to this
    fits = int(np.searchsorted(below, tail, side="right"))
    return fits if fits else None
