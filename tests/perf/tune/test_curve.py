"""The times of executions: between and beyond what was timed, and of what was not timed."""

import pytest

from perf.tune.curve import Curve, Timing, supposed


def curve(variant, threads, factor):
    timings = [Timing(batch, busy, factor * (100 + 10 * batch) * busy, 5) for batch in (1, 4, 16) for busy in (1, 2)]
    return Curve(variant, threads, tuple(timings), rest_us=50.0)


def test_between_what_was_timed_it_is_a_line_and_beyond_it_goes_on():
    found = curve("fp32", None, 1.0)
    assert [found.time_us(batch, 1) for batch in (1, 2, 4, 10, 16, 32)] == [110, 120, 140, 200, 260, 420]
    assert found.time_us(4, 2) == 280 and found.time_us(4, 3) == 280  # more at once than was timed


def test_threads_that_were_not_timed_are_supposed_to_do_what_they_do_for_another_variant():
    seen, other = curve("fp32", None, 1.0), curve("fp32", 1, 1.5)
    found = supposed(curve("int8", None, 0.5), 1, seen, other)
    assert (found.variant, found.threads, found.rest_us) == ("int8", 1, 50.0)
    assert found.time_us(4, 2) == pytest.approx(0.5 * 1.5 * 280)
    assert Curve.from_dict(found.as_dict()).timings[0].us == pytest.approx(82.5)
