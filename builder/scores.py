"""How close one output's rows are to the reference's, over many samples: cosine, classes, order among each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import AccuracyError
from builder.numerics import Array, cosine

PAIRWISE_SAMPLES = 16
"""Fewer samples than this have too few pairs to be ranked."""
NEIGHBOURS = 10
_MOST_PAIRWISE = 1024


def scores(reference_rows: Iterable[Array], got_rows: Iterable[Array]) -> dict[str, float]:
    """How close one output's rows (one a sample) are to the reference's.

    Returns:
        ``cosine`` (mean over the samples) and ``cosine min``; for one-dimensional rows ``top1`` (share of samples with
        the same largest element) and ``top1 in top5`` (share whose largest element is among the five largest); from
        16 samples on also ``spearman`` (of the cosines of all pairs of samples) and ``recall@10`` (share of the ten
        nearest neighbours that are kept). For rows that are not floating point: ``equal``, the share of equal elements.
    """
    tally = Tally("output")
    for index, (expected, got) in enumerate(zip(reference_rows, got_rows, strict=True)):
        tally.add(index, expected, got)
    return tally.scores()


class Tally:
    """Scores of one output, row by row; keeps the rows themselves only where pairs of them are compared."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._cosines: list[float] = []
        self._top1: list[bool] = []
        self._top5: list[bool] = []
        self._equal = self._elements = 0
        self._rows: list[tuple[int, Array, Array]] = []
        self._pairwise = True

    def add(self, index: int, expected: Array, got: Array) -> None:
        """Take one sample in, by its place among all."""
        if expected.shape != got.shape:
            raise misshapen(self._name, expected, got)
        if expected.dtype.kind != "f":
            self._elements += expected.size
            self._equal += int(np.count_nonzero(expected == got))
            return
        self._cosines.append(_row_cosine(expected, got))
        classes = expected.ndim == 1 and expected.size >= 2
        if classes:
            best = int(np.argmax(expected))
            usable = bool(np.all(np.isfinite(got[np.isfinite(expected)])))
            self._top1.append(usable and int(np.argmax(got)) == best)
            self._top5.append(usable and best in np.argsort(-got, kind="stable")[:5])
        self._pairwise &= classes and (not self._rows or self._rows[0][1].size == expected.size)
        if not self._pairwise:
            self._rows.clear()
        elif index < _MOST_PAIRWISE:
            self._rows.append((index, expected.astype(np.float32), got.astype(np.float32)))

    def scores(self) -> dict[str, float]:
        """Of all that were taken in; see :func:`scores`."""
        if not self._cosines:
            return {"equal": self._equal / self._elements} if self._elements else {}
        found = {"cosine": float(np.mean(self._cosines)), "cosine min": min(self._cosines)}
        if len(self._top1) == len(self._cosines):
            found |= {"top1": float(np.mean(self._top1)), "top1 in top5": float(np.mean(self._top5))}
        if self._pairwise and len(self._rows) >= PAIRWISE_SAMPLES:
            self._rows.sort(key=lambda row: row[0])
            expected, got = (similarities(np.stack([row[k] for row in self._rows])) for k in (1, 2))
            pairs = np.triu_indices(len(expected), k=1)
            found |= {"spearman": spearman(expected[pairs], got[pairs]), "recall@10": neighbours_kept(expected, got)}
        return found


def names_for(dtype: np.dtype[Any], rows: Sequence[Array]) -> set[str]:
    """The scores that rows like these can give."""
    if dtype.kind != "f":
        return {"equal"}
    found = {"cosine", "cosine min"}
    if all(row.ndim == 1 and row.size >= 2 for row in rows):
        found |= {"top1", "top1 in top5"}
        if len(rows) >= PAIRWISE_SAMPLES and len({row.size for row in rows}) == 1:
            found |= {"spearman", "recall@10"}
    return found


def _row_cosine(expected: Array, got: Array) -> float:
    """Cosine of two rows; 0 where one is NaN or Inf and the other is not."""
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], got[~finite], equal_nan=True) or not np.all(np.isfinite(got[finite])):
        return 0.0
    return min(1.0, cosine(expected[finite], got[finite]))


def similarities(rows: Array) -> NDArray[np.float64]:
    """Cosines of all pairs of rows."""
    wide = np.nan_to_num(rows.astype(np.float64), posinf=0.0, neginf=0.0)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    unit = wide / np.where(norms, norms, 1.0)
    result: NDArray[np.float64] = unit @ unit.T
    return result


def ranks(values: Array) -> NDArray[np.float64]:
    """Rank of every value from 1 on; equal ones share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    result: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse.reshape(-1)]
    return result


def spearman(a: Array, b: Array) -> float:
    """Pearson's correlation of the ranks. Where one has no order at all: 1.0 if both have none, else 0.0."""
    first, second = ranks(a), ranks(b)
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    if not norm:
        return 1.0 if not first.any() and not second.any() else 0.0
    return min(1.0, float(first @ second) / norm)


def neighbours_kept(expected: Array, got: Array, count: int = NEIGHBOURS) -> float:
    """The share of each sample's ``count`` nearest neighbours that stay among them, from two similarity matrices."""
    kept = 0
    count = min(count, len(expected) - 1)
    nearest = []
    for matrix in (expected, got):
        alone = matrix.copy()
        np.fill_diagonal(alone, -np.inf)
        nearest.append(np.argsort(-alone, axis=1, kind="stable")[:, :count])
    for before, after in zip(*nearest, strict=True):
        kept += len(np.intersect1d(before, after))
    return kept / (count * len(expected))


def misshapen(name: str, expected: Array, got: Array | None) -> AccuracyError:
    """The error for an output that is not there, or has another shape."""
    return AccuracyError(
        f"output {name!r} cannot be held against fp32's",
        expected=f"{expected.dtype}{list(expected.shape)} a sample",
        got="no such output" if got is None else f"{got.dtype}{list(got.shape)}",
        fix="leave the variant out, and report the model: another precision may not change shapes",
    )
