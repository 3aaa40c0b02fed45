"""Expected values are worked out by hand, beside each."""

import numpy as np
import pytest

from builder.numerics import TOLERANCES, compare, cosine, worst


def _one(reference, got, precision="fp32"):
    return compare({"y": np.asarray(reference)}, {"y": np.asarray(got)}, precision)[0]


def test_equal_arrays_have_no_difference():
    difference = _one(np.float32([1, 2]), np.float32([1, 2]))
    assert (difference.ok, difference.max_abs, difference.excess, difference.cosine) == (True, 0.0, 0.0, 1.0)


def test_the_excess_is_the_error_over_what_is_allowed():
    # scale 4; at the first element allowed = 1e-3 * 1 + 1e-4 * 4 = 1.4e-3, the error is 2.8e-3: twice that.
    difference = _one(np.float64([1, 4]), np.float64([1.0028, 4]))
    assert difference.excess == pytest.approx(2.0)
    assert difference.max_abs == pytest.approx(2.8e-3)
    assert difference.max_rel == pytest.approx(2.8e-3)
    assert not difference.ok
    assert "2 times what is allowed" in difference.problem


def test_elements_near_zero_are_held_against_the_scale():
    # 0 -> 5e-5 is infinitely far relatively, and half of what the scale of 1 allows.
    difference = _one(np.float64([0, 1]), np.float64([5e-5, 1]))
    assert difference.ok
    assert difference.excess == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("reference", "got", "problem"),
    [
        (np.float32([1, 2]), np.float32([[1, 2]]), "shape [1, 2] instead of [2]"),
        (np.float32([1, 2]), np.float64([1, 2]), "dtype float64 instead of float32"),
        (np.float32([1, 2]), np.float32([1, np.nan]), "NaN or Inf"),
        (np.float32([1, 2]), np.float32([1, np.inf]), "NaN or Inf"),
        (np.int64([1, 2, 3]), np.int64([1, 5, 3]), "1 of 3 elements differ, first at (1,)"),
        (np.array([b"a", b"b"], object), np.array([b"a", b"c"], object), "1 of 2 elements differ"),
    ],
)
def test_what_is_not_the_same_says_how(reference, got, problem):
    difference = _one(reference, got)
    assert not difference.ok
    assert problem in difference.problem


def test_the_same_nan_in_both_is_no_difference():
    assert _one(np.float32([1, np.nan]), np.float32([1, np.nan])).ok


def test_text_and_bytes_are_the_same_string():
    assert _one(np.array(["a"], object), np.array([b"a"], object)).ok


def test_a_missing_output_is_named():
    difference = compare({"y": np.zeros(1)}, {"z": np.zeros(1)}, "fp32")[0]
    assert difference.problem == "output 'y' is missing; got z"


def test_empty_arrays_are_equal():
    assert _one(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)).ok


def test_the_worst_is_a_failing_one_first():
    good, bad = _one(np.float32([1]), np.float32([1.0009])), _one(np.int64([1]), np.int64([2]))
    assert worst([good, bad]) is bad


def test_cosine():
    assert cosine(np.float32([1, 0]), np.float32([1, 1])) == pytest.approx(2**-0.5)
    assert cosine(np.zeros(2), np.zeros(2)) == 1.0
    assert cosine(np.zeros(2), np.ones(2)) == 0.0


def test_every_tolerance_has_its_reason():
    assert all(len(tolerance.reason) > 20 for tolerance in TOLERANCES.values())
