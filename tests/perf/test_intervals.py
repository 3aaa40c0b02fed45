"""Intervals hold what they promise: against tables, against made-up noise of every kind, and where rounds go on."""

import math

import numpy as np
import pytest

from perf.deciding import FOUND_FACTOR, confidence_of
from perf.intervals import (
    median_with_interval,
    ratio_of_pairs,
    ratio_of_two_runs,
    ratio_without_pairs,
)
from perf.quantiles import signed_rank_cut, student
from perf.result import Point
from perf.settling import ratio_widths, settled
from perf.workload import Workload, workload_from


@pytest.mark.parametrize(
    ("confidence", "freedom", "expected"),
    # Abramowitz and Stegun, table 26.10.
    [(0.95, 1, 12.706), (0.95, 2, 4.303), (0.95, 5, 2.571), (0.95, 30, 2.042), (0.99, 3, 5.841), (0.99, 10, 3.169)],
)
def test_students_t_is_that_of_the_tables(confidence, freedom, expected):
    assert student(confidence, freedom) == pytest.approx(expected, abs=6e-4)


def test_signed_ranks_are_those_of_the_tables():
    # Critical values of Wilcoxon's test (two sides, 5%): 0 for 6, 3 for 8, 8 for 10, 52 for 20; the next one bounds.
    assert {n: signed_rank_cut(0.95, n) for n in (5, 6, 8, 10, 20)} == {5: None, 6: 1, 8: 4, 10: 9, 20: 53}
    assert [signed_rank_cut(0.99, n) for n in (7, 8, 10)] == [None, 1, 4]
    # Counted, and by the normal distribution.
    assert signed_rank_cut(0.95, 61) == pytest.approx(signed_rank_cut(0.95, 60) + 24, abs=2)
    for wrong in ((1.0, 3), (0.95, 0)):
        with pytest.raises(ValueError, match="confidence"):
            student(*wrong)


def flicker(generator, shape, size=0.05):
    """1/f noise, [runs, values]: as much of it at every scale of time, as machines have it."""
    count = shape[1] * 4
    spectrum = generator.normal(size=(shape[0], count // 2 + 1)) + 1j * generator.normal(
        size=(shape[0], count // 2 + 1)
    )
    spectrum /= np.sqrt(np.maximum(np.arange(count // 2 + 1), 1))
    noise = np.fft.irfft(spectrum, count)[:, : shape[1]]
    return size * noise / noise.std()


def series(kind, generator, rounds):
    """Logarithms of what two equal models show in turn (A B, B A, ...), [2, rounds]."""
    if kind == "normal":
        return generator.normal(0, 0.05, (2, rounds))
    if kind == "heavy tails":
        return 0.03 * generator.standard_t(2, (2, rounds))
    if kind == "stalls":
        return generator.normal(0, 0.01, (2, rounds)) - 0.3 * (generator.random((2, rounds)) < 0.1)
    line = {
        "drift": lambda: -np.linspace(0, 0.5, 2 * rounds) + generator.normal(0, 0.02, 2 * rounds),
        "flicker": lambda: flicker(generator, (1, 2 * rounds))[0],
        "steps": lambda: np.repeat(generator.normal(0, 0.1, rounds), 2)[: 2 * rounds],
    }[kind]()
    turns = line.reshape(rounds, 2)
    turns[1::2] = turns[1::2, ::-1]
    return turns.T + (generator.normal(0, 0.01, (2, rounds)) if kind == "steps" else 0)


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "stalls", "drift", "flicker", "steps"])
@pytest.mark.parametrize("rounds", [3, 6, 10, 25])
def test_equal_models_are_seldom_called_different_whatever_the_noise(kind, rounds):
    generator, apart = np.random.default_rng(rounds), 0
    for _ in range(300):
        first, second = np.exp(series(kind, generator, rounds))
        ratio = ratio_of_pairs(first, second, 0.95)
        assert ratio.low <= ratio.value <= ratio.high
        apart += not ratio.low <= 1 <= ratio.high
    assert apart <= 27  # 5% is 15; 27 in 300 comes by chance once in 500


@pytest.mark.parametrize("rounds", [10, 25])
def test_an_interval_is_no_wider_than_it_has_to_be(rounds):
    generator, widths = np.random.default_rng(2), []
    for _ in range(100):
        ratio = ratio_of_pairs(*np.exp(generator.normal(0, 0.05, (2, rounds))))
        widths.append(math.log(ratio.high / ratio.low) / 2)
    best = student(0.95, rounds - 1) * 0.05 * math.sqrt(2 / rounds)  # Student's, the best for such noise
    assert np.mean(widths) == pytest.approx(best, rel=0.12)


def test_runs_at_different_times_share_what_goes_on_for_long():
    """Each run is ten rounds of 1/f noise that follow one another: their median knows nothing of the next run."""
    generator = np.random.default_rng(4)
    lines = np.exp(flicker(generator, (300, 40)))
    apart, fooled = 0, 0
    for line in lines:
        first, second = line[:10], line[-10:]
        ratio, naive = ratio_of_two_runs(first, second), ratio_without_pairs(first, second)
        apart += not ratio.low <= 1 <= ratio.high
        fooled += not naive.low <= 1 <= naive.high
    assert apart <= 25 and fooled > 60
    assert ratio_of_two_runs([2.0], [1.0]).high == math.inf == ratio_without_pairs([2.0], [1.0]).high


def test_a_median_is_within_its_interval_nineteen_times_in_twenty():
    generator = np.random.default_rng(6)
    for rounds in (3, 10):
        off = 0
        for _ in range(150):
            interval = median_with_interval(np.exp(generator.normal(0, 0.05, rounds)))
            off += not interval.low <= 1 <= interval.high
        assert off <= 14
    with pytest.raises(ValueError, match="above zero"):
        median_with_interval([0.0])


def point(rate):
    return Point(model="m", version="1", concurrency=1, batch_size=1, inferences_per_s=rate)


def until_known(generator, factor, difference):
    """A run with ``--difference``: rounds go on as in a campaign; the verdict at its end, and the number of rounds."""
    rounds = {("a", "load"): [], ("b", "load"): []}
    for number in range(100):
        shared, own = generator.normal(0, 0.1), 0.04 * generator.standard_t(3, 2)
        rounds["a", "load"].append((number, point(math.exp(shared + own[0]))))
        rounds["b", "load"].append((number, point(factor * math.exp(shared + own[1]))))
        if number >= 9 and ratio_widths(rounds)["b", "load"] <= difference / FOUND_FACTOR:
            break
    values = [[each.inferences_per_s for _, each in rounds[name, "load"]] for name in ("b", "a")]
    ratio = ratio_of_pairs(*values, confidence_of(1))
    return (ratio.low > 1) - (ratio.high < 1), number + 1


def test_rounds_that_go_on_until_enough_is_known_find_what_is_there_and_nothing_else():
    generator = np.random.default_rng(9)
    equal = [until_known(generator, 1.0, 5) for _ in range(120)]
    slower = [until_known(generator, 0.95, 5) for _ in range(120)]
    assert sum(verdict != 0 for verdict, _ in equal) <= 5  # 1%, and what stopping adds: 5 of 120 is once in 200
    assert sum(verdict < 0 for verdict, _ in slower) >= 0.85 * 120 and all(verdict <= 0 for verdict, _ in slower)
    counts = [count for _, count in (*equal, *slower)]
    assert min(counts) >= 10 and max(counts) < 100


def test_how_often_and_how_long_where_nobody_says_it():
    def of(models, **given):
        found = settled(Workload(url="h:1", **given), models)
        return found.rounds, found.seconds

    assert of(1) == (1, 6.0) and of(2) == (10, 2.0)
    assert of(2, seconds=6) == (3, 6) and of(2, seconds=0.3) == (10, 0.3) and of(2, seconds=60) == (3, 60)
    assert of(2, rounds=4) == (4, 6.0) and of(1, rounds=4) == (4, 6.0) and of(3, rounds=4, seconds=1) == (4, 1)
    assert of(2, difference=5) == (10, 0.5) and of(2, difference=5, rate=(50.0,), concurrency=()) == (10, 2.0)
    assert of(2, rate=(0.5,), concurrency=()) == (5, 4.0)


def test_a_difference_takes_two_models():
    from perf.errors import WorkloadError

    with pytest.raises(WorkloadError, match="a difference takes two models") as caught:
        workload_from(url="h:1", models=["digits"], difference=5)
    assert caught.value.got == "digits" and "--precision 5" in caught.value.fix
    assert workload_from(url="h:1", models=["a", "b"], difference=5, budget=60).adaptive
