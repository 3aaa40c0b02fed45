"""The simulation of several stations: against queueing theory, and against that of one station."""

import math

import pytest

from perf.tune import simulate as one
from perf.tune.joint.network import Station, Step, Stream
from perf.tune.joint.simulate import play
from perf.tune.simulate import Arrivals, Batching


def constant(us):
    return lambda batch, busy: us


def shared(us, cores):
    """An execution alone takes so long; with more threads busy than cores each goes on more slowly."""
    return lambda batch, busy: us * max(1.0, busy / cores)


def m_d_1(load, service_us):
    return load / (2 * (1 - load)) * service_us


@pytest.mark.parametrize(
    ("batching", "arrivals"),
    [
        (Batching(), Arrivals(rate_per_s=6_000)),
        (Batching(instances=2, max_batch_size=8), Arrivals(rate_per_s=30_000)),
        (
            Batching(instances=2, max_batch_size=8, preferred=(4,), max_queue_delay_us=300.0),
            Arrivals(rate_per_s=12_000),
        ),
        (Batching(max_batch_size=16, max_queue_delay_us=500.0), Arrivals(rate_per_s=3_000, distribution="constant")),
        (Batching(instances=2, max_batch_size=4), Arrivals(concurrency=9)),
    ],
)
def test_one_station_is_as_the_simulation_of_one(batching, arrivals):
    def time_us(batch, busy):
        return 90.0 + 11.0 * batch

    options = {"front_us": 20.0, "rest_us": 35.0}
    alone = one.simulate(batching, arrivals, time_us, requests=4000, **options)
    joint = play([Station(batching, 1, time_us)], [Stream(arrivals, (Step(0),), **options)], requests=4000)
    (found,) = joint.streams
    assert found.inferences_per_s == pytest.approx(alone.inferences_per_s, rel=0.01)
    assert found.mean_batch == pytest.approx(alone.mean_batch, rel=0.03)
    for percentile in (50, 90, 99):
        assert found.percentile_us(percentile) == pytest.approx(alone.percentile_us(percentile), rel=0.03)
    assert joint.stations[0].compute_us == pytest.approx(alone.compute_us, rel=0.02)


def test_executions_that_slow_each_other_are_nearly_as_in_the_simulation_of_one():
    def by_instances(batch, busy):
        return 100.0 * (1.0, 1.0, 1.5, 2.0)[busy - 1]

    batching, arrivals = Batching(instances=4), Arrivals(rate_per_s=14_000)
    alone = one.simulate(batching, arrivals, by_instances, requests=8_000)
    station = Station(batching, 1, shared(100.0, cores=2))
    (found,) = play([station], [Stream(arrivals, (Step(0),))], requests=8_000).streams
    # There a time is fixed when an execution begins, here it changes with what else is under way.
    assert found.percentile_us(50) == pytest.approx(alone.percentile_us(50), rel=0.1)
    assert found.latency_us.mean() == pytest.approx(alone.latency_us.mean(), rel=0.2)


def test_two_models_with_a_core_each_wait_as_in_m_d_1():
    stations = [Station(Batching(), 1, shared(us, cores=2)) for us in (100.0, 1000.0)]
    streams = [Stream(Arrivals(rate_per_s=rate), (Step(place),)) for place, rate in enumerate((6_000, 700))]
    fast, slow = play(stations, streams, requests=3_000, seed=3).streams
    assert fast.latency_us.mean() - 100 == pytest.approx(m_d_1(0.6, 100), rel=0.1)
    assert slow.latency_us.mean() - 1000 == pytest.approx(m_d_1(0.7, 1000), rel=0.15)


def test_on_one_core_they_share_it_as_a_processor_that_is_shared():
    # M/G/1 processor sharing: mean latency is a request's service over what is left of the core.
    stations = [Station(Batching(instances=64), 1, shared(us, cores=1)) for us in (100.0, 1000.0)]
    streams = [Stream(Arrivals(rate_per_s=rate), (Step(place),)) for place, rate in enumerate((3_000, 300))]
    played = play(stations, streams, requests=2_500, seed=5)
    for found, us in zip(played.streams, (100.0, 1000.0), strict=True):
        assert found.latency_us.mean() == pytest.approx(us / (1 - 0.6), rel=0.12)


@pytest.mark.parametrize("services_us", [(100.0, 60.0), (60.0, 100.0)])
def test_steps_one_after_the_other_wait_as_at_the_slowest_alone(services_us):
    # Constant times in a row: whatever their order, the wait is that of M/D/1 at the slowest (Friedman 1965).
    stations = [Station(Batching(), 1, constant(us)) for us in services_us]
    way = (Step(0), Step(1, (0,)))
    (found,) = play(stations, [Stream(Arrivals(rate_per_s=7_000), way)], requests=15_000, seed=3).streams
    assert found.latency_us.mean() == pytest.approx(160 + m_d_1(0.7, 100), rel=0.05)
    assert found.queue_us == pytest.approx(m_d_1(0.7, 100), rel=0.1)


def test_steps_side_by_side_take_as_long_as_the_longest():
    stations = [Station(Batching(), 1, constant(us)) for us in (100.0, 400.0, 50.0)]
    way = (Step(0), Step(1), Step(2, (0, 1)))
    (found,) = play(stations, [Stream(Arrivals(concurrency=1), way, rest_us=10.0)], requests=200).streams
    assert found.percentile_us(50) == pytest.approx(460.0) and found.inferences_per_s == pytest.approx(
        1e6 / 460, rel=0.01
    )
    twice = (Step(0), Step(0, (0,)))  # one model may be two steps
    (found,) = play(stations, [Stream(Arrivals(concurrency=1), twice)], requests=200).streams
    assert found.percentile_us(99) == pytest.approx(200.0)


def test_the_limiter_lets_no_more_threads_begin_than_there_are_cores():
    stations = [Station(Batching(instances=2), 2, shared(100.0, cores=2)) for _ in range(2)]
    streams = [Stream(Arrivals(concurrency=2), (Step(place),)) for place in range(2)]
    free, limited = play(stations, streams), play(stations, streams, cores=2)
    assert free.busy_threads == pytest.approx(8, rel=0.05) and limited.busy_threads == pytest.approx(2, rel=0.05)
    assert limited.stations[0].compute_us == pytest.approx(100, rel=0.01) and free.stations[
        0
    ].compute_us == pytest.approx(400, rel=0.05)
    rates = [found.inferences_per_s for found in limited.streams]
    assert rates[0] == pytest.approx(rates[1], rel=0.05) and sum(rates) == pytest.approx(1e4, rel=0.02)


def test_a_stream_that_asks_too_much_is_told_and_the_other_is_not_blamed():
    stations = [Station(Batching(), 1, shared(us, cores=2)) for us in (100.0, 100.0)]
    streams = [Stream(Arrivals(rate_per_s=rate), (Step(place),)) for place, rate in enumerate((15_000, 2_000))]
    high, fine = play(stations, streams, requests=3_000).streams
    assert high.growing and high.percentile_us(99) == math.inf and not fine.growing
