"""The doubts: each rule at both sides of its limit."""

import numpy as np
import pytest

from perf.result import Latency, ServerSide, Window
from perf.stability import (
    MEANINGS,
    client_behind,
    few_requests,
    machine_doubts,
    queue_growing,
    server_doubts,
    slow_start,
    spread_percent,
    unstable,
)


def window(rate, mean_us):
    return Window(duration_s=1.0, requests=int(rate), inferences_per_s=rate, mean_us=mean_us)


def latency(requests):
    return Latency(requests=requests, mean_us=1, p50_us=1, p90_us=1, p95_us=1, p99_us=1)


def side(**values):
    defaults = {"requests": 100, "failures": 0, "inferences": 100, "executions": 50, "mean_batch": 2.0}
    defaults |= {"queue_us": 1.0, "compute_input_us": 1.0, "compute_infer_us": 1.0, "compute_output_us": 1.0}
    return ServerSide(model="m", version="1", **(defaults | values))


def test_spread_is_of_the_smallest():
    assert spread_percent([100, 110, 120]) == pytest.approx(20.0)
    assert spread_percent([5, 5]) == 0.0
    assert spread_percent([0, 5]) == float("inf")


def test_windows_that_agree_raise_no_doubt():
    assert unstable([window(100, 10), window(109, 9.5), window(105, 9.6)], 10.0) == []
    assert unstable([window(100, 10)], 10.0) == []


def test_windows_that_disagree_say_how_far():
    (doubt,) = unstable([window(100, 10), window(130, 8), window(110, 9)], 10.0)
    assert doubt.code == "unstable"
    assert "throughput differs by 30% and mean latency by 25% between 3 windows (limit 10%)" in doubt.message
    (doubt,) = unstable([window(100, 10), window(101, 13)], 10.0)
    assert "not stable: mean latency differs by 30%" in doubt.message


@pytest.mark.parametrize(
    ("requests", "weak"),
    [(1000, ""), (999, "p99 (10 slower)"), (200, "p99 (2 slower)"), (150, "p95 (8 slower), p99 (2 slower)")],
)
def test_a_percentile_wants_ten_requests_beyond_it(requests, weak):
    doubts = few_requests(latency(requests))
    assert [doubt.code for doubt in doubts] == (["few_requests"] if weak else [])
    if weak:
        assert f"of {requests}, {weak}; 10 are wanted" in doubts[0].message


def test_the_server_may_contradict_the_client():
    assert server_doubts(side(), 100) == []
    (failed,) = server_doubts(side(failures=3), 100)
    assert (failed.code, failed.message) == ("failed_requests", "3 of 103 failed")
    (other,) = server_doubts(side(requests=1000), 100)
    assert other.code == "other_traffic" and "answered 1000 requests while 100 were measured" in other.message
    (cached,) = server_doubts(side(cache_hits=25), 100)
    assert cached.code == "cache_hits" and cached.message.startswith("25% of the answers")


def test_perf_analyzers_own_warning_is_passed_on():
    warning = "[WARNING] Perf Analyzer is not able to keep up with the desired load. The results may not be accurate."
    assert [doubt.code for doubt in client_behind(warning)] == ["client_behind"]
    assert client_behind("all is well") == []


def test_a_busy_machine_is_mentioned():
    assert machine_doubts(0.9, 2, 0.0) == []
    assert machine_doubts(None, 2, None) == []
    busy, steal = machine_doubts(3.0, 2, 5.25)
    assert (busy.code, steal.code) == ("busy_machine", "cpu_steal")
    assert "load 3.00 on 2 cores" in busy.message and "5.2%" in steal.message


def test_every_doubt_of_a_point_has_a_meaning_for_the_table():
    doubts = (
        unstable([window(1, 1), window(2, 2)], 10.0) + few_requests(latency(1)) + client_behind("not able to keep up")
    )
    doubts += server_doubts(side(failures=1, requests=1000, cache_hits=1), 100)
    doubts += queue_growing([window(1, 1), window(1, 9)], 100, 10)
    doubts += slow_start(np.array([900.0] + [1.0] * 99))
    elsewhere = {"cut_short", "wrong_answers", "client_saturated", "throttled", "clock_throttled"}  # rounds, usage
    assert {doubt.code for doubt in doubts} | elsewhere == set(MEANINGS)


def test_a_slow_start_is_only_one_that_stands_out():
    usual = np.random.default_rng(1).exponential(1000, 5000)
    assert slow_start(usual) == [] and slow_start(np.array([9.0, 1, 1])) == []
    (doubt,) = slow_start(np.concatenate([np.full(60, 50_000.0), usual]))
    assert "the first 50 of 5060 requests took 50 ms" in doubt.message
