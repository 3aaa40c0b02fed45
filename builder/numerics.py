"""Two sets of outputs held against each other, and the one table of tolerances.

Used wherever answers are compared: artifact against PyTorch, server against PyTorch, int8 against fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Tolerance:
    """``|got - reference| <= relative * |reference| + absolute * scale``, element by element.

    Attributes:
        relative: share of the reference's own magnitude.
        absolute: share of the output's scale (its largest magnitude), for elements near zero.
        cosine: least cosine of the flattened output.
        reason: why these numbers.
    """

    relative: float
    absolute: float
    cosine: float
    reason: str


TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(
        relative=1e-3,
        absolute=1e-4,
        cosine=0.99999,
        reason="another order of the same float32 sums: ResNet-50 with random weights, the worst seen, differs by "
        "5.3e-5; 1e-4 of the output's scale leaves a margin of two and is still a tenth of what fp16 rounding does",
    ),
    "fp16": Tolerance(
        relative=2e-2,
        absolute=1e-2,
        cosine=0.999,
        reason="eleven bits a value, and sums of many of them: a hundredth of the output's scale; what overflows "
        "is far outside",
    ),
    "bf16": Tolerance(
        relative=1e-1,
        absolute=5e-2,
        cosine=0.99,
        reason="eight bits a value: a twentieth of the output's scale",
    ),
    "int8": Tolerance(
        relative=0.5,
        absolute=0.5,
        cosine=0.9,
        reason="a net for what is plainly wrong, at every batch and size; how good it is, many real samples say "
        "(`agreement` and the metric)",
    ),
    "int8-weights": Tolerance(0.25, 0.25, 0.95, reason="as int8; activations stay in float"),
    "int4-weights": Tolerance(0.5, 0.5, 0.9, reason="as int8, with sixteen steps for a weight"),
    "exact": Tolerance(0.0, 0.0, 1.0, reason="integers, booleans and strings are equal or wrong"),
}


@dataclass(frozen=True)
class Difference:
    """How far one output is from its reference.

    Attributes:
        output: its name.
        ok: within tolerance, same dtype and shape, no new NaN or Inf.
        problem: what is wrong, empty when ok.
        max_abs, max_rel: largest absolute and relative difference (relative to ``max(|reference|, absolute * scale)``).
        cosine: of the flattened arrays; 1.0 for empty ones and for equal all-zero ones.
        excess: largest difference as a multiple of what was allowed; above 1.0 it fails.
    """

    output: str
    ok: bool
    problem: str = ""
    max_abs: float = 0.0
    max_rel: float = 0.0
    cosine: float = 1.0
    excess: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return asdict(self)


def compare(reference: Mapping[str, Array], got: Mapping[str, Array], precision: str) -> list[Difference]:
    """One :class:`Difference` per output of the reference, in its order.

    Args:
        reference: PyTorch's answers by output name.
        got: the answers to judge.
        precision: row of :data:`TOLERANCES` for floating point outputs.
    """
    return [
        _compare_one(name, expected, got[name], TOLERANCES[precision])
        if name in got
        else Difference(name, False, f"output {name!r} is missing; got {', '.join(got) or 'none'}")
        for name, expected in reference.items()
    ]


def worst(differences: list[Difference]) -> Difference:
    """The one to name: a failing one first, then the one nearest to its limit."""
    return max(differences, key=lambda difference: (not difference.ok, difference.excess))


def _compare_one(name: str, reference: Array, got: Array, tolerance: Tolerance) -> Difference:
    if reference.shape != got.shape:
        return Difference(name, False, f"shape {list(got.shape)} instead of {list(reference.shape)}")
    if reference.dtype.kind in "OSU":
        return _compare_exact(name, _as_bytes(reference), _as_bytes(got))
    if reference.dtype != got.dtype:
        return Difference(name, False, f"dtype {got.dtype} instead of {reference.dtype}")
    if reference.dtype.kind != "f":
        return _compare_exact(name, reference, got)
    return _compare_float(name, reference.astype(np.float64), got.astype(np.float64), tolerance)


def _as_bytes(array: Array) -> Array:
    flat = [item.encode() if isinstance(item, str) else bytes(item) for item in array.reshape(-1)]
    return np.array(flat, dtype=object).reshape(array.shape)


def _compare_exact(name: str, reference: Array, got: Array) -> Difference:
    different = reference != got
    count = int(np.count_nonzero(different))
    if not count:
        return Difference(name, True)
    largest = 0.0
    if reference.dtype.kind in "iub":
        largest = float(np.max(np.abs(reference.astype(np.float64) - got.astype(np.float64))))
    place = tuple(int(i) for i in np.argwhere(different)[0])
    problem = f"{count} of {reference.size} elements differ, first at {place}: {got[place]!r}, not {reference[place]!r}"
    return Difference(name, False, problem, max_abs=largest, excess=float("inf"))


def _compare_float(name: str, reference: Array, got: Array, tolerance: Tolerance) -> Difference:
    finite = np.isfinite(reference)
    if not np.array_equal(reference[~finite], got[~finite], equal_nan=True) or not np.all(np.isfinite(got[finite])):
        bad = int(np.count_nonzero(~np.isfinite(got)))
        known = int(np.count_nonzero(~finite))
        return Difference(
            name, False, f"{bad} elements are NaN or Inf, in the reference {known}", excess=float("inf"), cosine=0.0
        )
    a, b = reference[finite], got[finite]
    if a.size == 0:
        return Difference(name, True)
    scale = float(np.max(np.abs(a)))
    error = np.abs(a - b)
    allowed = tolerance.relative * np.abs(a) + tolerance.absolute * scale + np.finfo(np.float32).tiny
    excess = float(np.max(error / allowed))
    near_zero = max(tolerance.absolute * scale, float(np.finfo(np.float32).tiny))
    max_rel = float(np.max(error / np.maximum(np.abs(a), near_zero)))
    similarity = cosine(a, b)
    problem = ""
    if excess > 1.0:
        problem = f"largest difference {float(np.max(error)):.3g} is {excess:.3g} times what is allowed"
    elif similarity < tolerance.cosine:
        problem = f"cosine {similarity:.6f} is below {tolerance.cosine}"
    return Difference(name, not problem, problem, float(np.max(error)), max_rel, similarity, excess)


def cosine(a: Array, b: Array) -> float:
    """Cosine of two arrays of one size, flattened; 1.0 when they are equal, 0.0 when one is all zero."""
    a, b = a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64)
    if np.array_equal(a, b):
        return 1.0
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.dot(a, b) / norms) if norms else 0.0
