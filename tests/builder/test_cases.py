"""What a model is asked: sizes and batches, and how much of it is held in memory."""

import numpy as np
import pytest

from builder.samples import Samples
from builder.tensors import Interface, parse_tensor
from builder.verify import cases
from builder.verify.cases import batch_sizes, cases_of, single_cases

KB = 1000


@pytest.fixture
def samples():
    """Rows of 1 kB at the natural size of 250."""
    inputs = (parse_tensor("x", "float32[batch, n: 1..1000]"),)
    interface = Interface(inputs, (parse_tensor("y", "float32[batch, n, 4]"),))
    rows = tuple({"x": np.full(250, k, np.float32)} for k in range(20))
    return Samples(rows, interface, "data.py:samples")


def _widened(inputs):
    """Answers with four times its input."""
    return {"y": np.repeat(inputs["x"][..., None], 4, axis=2)}


def _names(samples, max_batch=8):
    return [case.name for case in cases_of(samples, samples.interface, max_batch, _widened)]


def test_natural_sizes_and_both_ends_at_one_an_odd_and_the_largest_batch(samples):
    assert batch_sizes(8) == [1, 5, 8]
    assert _names(samples) == [f"batch {batch}, n {n}" for n in (250, 1, 1000) for batch in (1, 5, 8)]


def test_a_batch_that_would_be_too_large_with_its_answer_is_asked_smaller(samples, monkeypatch):
    monkeypatch.setattr(cases, "_MAX_CASE_BYTES", 16 * KB)  # three rows of the natural size with their answers
    assert _names(samples)[:2] == ["batch 1, n 250", "batch 3, n 250"]
    assert _names(samples)[2:5] == ["batch 1, n 1", "batch 5, n 1", "batch 8, n 1"]
    assert _names(samples)[5:] == ["batch 1, n 1000"]


def test_all_cases_together_stay_below_their_limit(samples, monkeypatch):
    monkeypatch.setattr(cases, "_MAX_BYTES", 60 * KB)
    asked = cases_of(samples, samples.interface, 8, _widened)
    assert [case.name for case in asked if case.batch > 1][:1] == ["batch 5, n 250"]
    held = sum(case.inputs["x"].nbytes + case.expected["y"].nbytes for case in asked)
    assert held < 80 * KB  # the first of each size is asked in any case


def test_a_natural_sample_above_the_limit_is_asked_all_the_same(samples, monkeypatch):
    monkeypatch.setattr(cases, "_MAX_CASE_BYTES", 500)
    assert _names(samples) == ["batch 1, n 250", "batch 1, n 1", "batch 5, n 1", "batch 8, n 1"]


def test_single_requests_are_as_many_as_asked_for_and_as_different_as_fit(samples, monkeypatch):
    def different():
        return [case.name for case in single_cases(samples, 64, _widened)][:20]

    assert different() == [f"sample {k}" for k in range(20)]
    monkeypatch.setattr(cases, "_MAX_CASE_BYTES", 16 * KB)
    assert different()[:4] == ["sample 0", "sample 1", "sample 2", "sample 0"]
    monkeypatch.setattr(cases, "_MAX_CASE_BYTES", 1)
    assert set(different()) == {"sample 0"}
    assert len(single_cases(samples, 64, _widened)) == 64
