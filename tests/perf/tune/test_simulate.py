"""The simulation against what queueing theory knows, and against the batcher's rules."""

import math

import numpy as np
import pytest

from perf.tune.simulate import Arrivals, Batching, simulate


def exponential(mean_us, seed=7):
    draws = iter(np.random.default_rng(seed).exponential(mean_us, 400_000).tolist())
    return lambda batch, busy: next(draws)


def erlang_c(servers, offered):
    """Probability that a request of an M/M/c queue has to wait; ``offered`` is rate times mean service."""
    top = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return top / (sum(offered**k / math.factorial(k) for k in range(servers)) + top)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_constant_service_waits_as_in_m_d_1(load):
    # Pollaczek and Khinchine: the mean wait is load / (2 (1 - load)) services.
    found = simulate(Batching(), Arrivals(rate_per_s=load * 1e4), lambda batch, busy: 100.0, requests=30_000, seed=3)
    assert found.queue_us == pytest.approx(load / (2 * (1 - load)) * 100, rel=0.1)
    assert found.busy == pytest.approx(load, rel=0.03)
    assert found.latency_us.mean() == pytest.approx(found.queue_us + 100, rel=0.05)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.7), (2, 0.7), (4, 0.8)])
def test_exponential_service_waits_as_in_m_m_c(servers, load):
    offered = servers * load
    found = simulate(
        Batching(instances=servers), Arrivals(rate_per_s=offered * 1e4), exponential(100.0), requests=60_000, seed=5
    )
    expected = erlang_c(servers, offered) * 100 / (servers - offered)
    assert found.queue_us == pytest.approx(expected, rel=0.12)


def test_the_99th_percentile_of_m_m_1():
    # Latency of M/M/1 is exponential with rate (1 - load) / service.
    found = simulate(Batching(), Arrivals(rate_per_s=5_000), exponential(100.0), requests=40_000, seed=11)
    assert found.percentile_us(99) == pytest.approx(200 * math.log(100), rel=0.12)


def test_a_closed_loop_keeps_an_instance_busy_and_obeys_littles_law():
    found = simulate(Batching(), Arrivals(concurrency=4), lambda batch, busy: 100.0)
    assert found.inferences_per_s == pytest.approx(1e4, rel=0.01)
    assert found.inferences_per_s * found.latency_us.mean() / 1e6 == pytest.approx(4, rel=0.01)
    alone = simulate(Batching(), Arrivals(concurrency=1), lambda batch, busy: 100.0, front_us=30, rest_us=20)
    assert alone.percentile_us(50) == pytest.approx(150) and alone.inferences_per_s == pytest.approx(
        1e6 / 150, rel=0.01
    )


def test_the_front_bounds_the_rate():
    found = simulate(Batching(instances=8), Arrivals(concurrency=32), lambda batch, busy: 10.0, front_us=100)
    assert found.inferences_per_s == pytest.approx(1e4, rel=0.02)


def test_requests_that_wait_are_executed_together_up_to_the_maximum():
    def service(batch, busy):
        return 100.0 + batch

    found = simulate(Batching(max_batch_size=8), Arrivals(concurrency=64), service)
    assert found.mean_batch == pytest.approx(8, rel=0.02) and found.inferences_per_s == pytest.approx(
        8e6 / 108, rel=0.02
    )
    preferred = simulate(Batching(max_batch_size=64, preferred=(4,)), Arrivals(concurrency=64), service)
    assert preferred.mean_batch == pytest.approx(4, rel=0.02)  # the largest preferred size is where a batch closes
    without = simulate(Batching(max_batch_size=8, dynamic=False), Arrivals(concurrency=64), service)
    assert without.mean_batch == 1


def test_a_lone_request_waits_the_delay_and_a_preferred_batch_does_not():
    def service(batch, busy):
        return 100.0

    delay = {"max_batch_size": 8, "max_queue_delay_us": 500.0}
    alone = simulate(Batching(**delay), Arrivals(concurrency=1), service)
    assert alone.percentile_us(50) == pytest.approx(600) and alone.queue_us == pytest.approx(500)
    pair = simulate(Batching(**delay, preferred=(2,)), Arrivals(concurrency=2), service, requests=4000)
    assert pair.percentile_us(90) == pytest.approx(100) and pair.mean_batch == pytest.approx(2, rel=0.02)
    eager = simulate(Batching(max_batch_size=8), Arrivals(concurrency=1), service)
    assert eager.percentile_us(50) == pytest.approx(100)


def test_too_high_a_rate_is_told_by_the_growing_queue():
    found = simulate(Batching(), Arrivals(rate_per_s=20_000, distribution="constant"), lambda batch, busy: 100.0)
    assert found.growing and found.percentile_us(99) == math.inf
    fine = simulate(Batching(), Arrivals(rate_per_s=5_000, distribution="constant"), lambda batch, busy: 100.0)
    assert not fine.growing and fine.percentile_us(99) == pytest.approx(100)


def test_a_load_is_one_of_the_two():
    for wrong in ({}, {"concurrency": 1, "rate_per_s": 2.0}):
        with pytest.raises(ValueError, match="a concurrency or a rate"):
            Arrivals(**wrong)


def test_the_same_seed_gives_the_same_figures():
    def once():
        return simulate(Batching(max_batch_size=4), Arrivals(rate_per_s=9_000), lambda batch, busy: 100.0)

    assert np.array_equal(once().latency_us, once().latency_us)
