"""What is seen of one value in one request: how large it is, and how far another graph's is off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from builder.numerics import Array


@dataclass
class Seen:
    """What was seen of one value so far.

    Attributes:
        peak: largest finite magnitude.
        error: how far the other graph is off, as a share of the value's length.
        broken: the other graph is not finite where this one is.
    """

    peak: float = 0.0
    error: float = 0.0
    broken: bool = False


def peak_of(array: Array) -> float:
    """The largest finite magnitude."""
    finite = array[np.isfinite(array)]
    return float(np.max(np.abs(finite))) if finite.size else 0.0


def without_cut(array: Array, cut: Array | None, above: float) -> Array:
    """Zero where a value is large only for a mask's constant: cutting that constant has changed it."""
    if cut is None:
        return array
    with np.errstate(invalid="ignore"):  # of two infinities
        masked = (np.abs(array) > above) & (np.abs(array - cut) > 0.01 * np.abs(array))
    return np.where(masked, np.float32(0), array)


def compared(right: Array, got: Array, limit: float) -> Seen:
    """How far ``got`` is off, in length; elements that are beyond the limit on purpose (masks) do not count."""
    counted = np.isfinite(right) & (np.abs(right) <= limit)
    if not np.all(np.isfinite(got[counted])):
        return Seen(broken=True)
    a, b = right[counted].astype(np.float64), got[counted].astype(np.float64)
    length = float(np.linalg.norm(a))
    error = float(np.linalg.norm(a - b))
    return Seen(error=error / length if length else float(error > 0))


def worse(first: Seen | None, second: Seen) -> Seen:
    """Both together."""
    if first is None:
        return second
    return Seen(max(first.peak, second.peak), max(first.error, second.error), first.broken or second.broken)
