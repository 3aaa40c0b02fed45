"""When requests are due: the draws, the files, and latencies counted from there."""

import numpy as np
import pytest

from perf.errors import RawFileError, WorkloadError
from perf.figures import histogram_of, latency_of, nearest_rank, on_schedule, windows_of
from perf.parse import Profile, read_csv, read_profile
from perf.schedule import THREADS, drawn, from_intervals, read_intervals
from perf.stability import late_client, queue_growing
from perf.workload import workload_from


@pytest.mark.parametrize("distribution", ["constant", "poisson"])
def test_a_schedule_keeps_the_rate_and_begins_before_it_is_measured(distribution):
    schedule = drawn(200, distribution, 5.0)
    within = schedule.due_us >= schedule.start_us
    assert within.sum() == pytest.approx(1000, abs=1) and (~within).sum() == pytest.approx(100, abs=1)
    assert schedule.seconds == 5.0 and schedule.due_us.max() <= schedule.end_us == 5_500_000
    assert (np.diff(schedule.due_us) >= 0).all()


def test_constant_gaps_are_equal_and_poisson_ones_are_exponential():
    assert set(np.diff(drawn(1000, "constant", 2.0).due_us).tolist()) == {1000}
    gaps = np.diff(drawn(1000, "poisson", 20.0).due_us)
    # Of an exponential distribution: deviation = mean, and 1 - 1/e below the mean.
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert (gaps < gaps.mean()).mean() == pytest.approx(1 - np.exp(-1), abs=0.01)


def test_each_round_has_its_own_draw_the_same_whenever_it_is_made():
    assert (drawn(50, "poisson", 2.0, number=1).due_us == drawn(50, "poisson", 2.0, number=1).due_us).all()
    assert (drawn(50, "poisson", 2.0, number=1).due_us != drawn(50, "poisson", 2.0, number=2).due_us).any()


def test_a_rate_that_no_microsecond_divides_does_not_drift(tmp_path):
    schedule = drawn(7000, "constant", 10.0)
    schedule.write(tmp_path / "intervals.txt")
    gaps = [int(line) for line in (tmp_path / "intervals.txt").read_text().split()]
    assert sum(gaps) == schedule.due_us[-1] == pytest.approx(11_000_000, abs=200) and set(gaps) == {142, 143}


def test_never_a_thread_without_a_request():
    assert drawn(1, "constant", 2.0).threads == 2 and drawn(100, "constant", 2.0).threads == THREADS
    assert len(from_intervals(np.array([0, 90_000_000]), 1.0).due_us) >= 1


def test_intervals_of_ones_own_are_repeated(tmp_path):
    (tmp_path / "i.txt").write_text("1000\n9000\n")
    schedule = from_intervals(read_intervals(tmp_path / "i.txt"), 1.0)
    assert (schedule.rate_per_s, schedule.distribution) == (200.0, "custom")
    assert schedule.due_us[:4].tolist() == [1000, 10_000, 11_000, 20_000] and schedule.due_us[-1] == 1_100_000


@pytest.mark.parametrize(
    ("text", "what", "where"),
    [
        ("", "no intervals", "i.txt"),
        ("0\n0\n", "no intervals", "i.txt"),
        ("5\n-1\n", "not an interval", "i.txt:2"),
        ("1\n", "too close", "i.txt"),
    ],
)
def test_intervals_that_are_none(tmp_path, text, what, where):
    (tmp_path / "i.txt").write_text(text)
    with pytest.raises(WorkloadError, match=what) as caught:
        read_intervals(tmp_path / "i.txt")
    assert caught.value.where.endswith(where) and caught.value.expected
    with pytest.raises(WorkloadError, match="cannot be read"):
        read_intervals(tmp_path / "absent.txt")


def served(schedule, service_us, *, sent_late_us=0.0, seed=1):
    """What perf_analyzer would export of a server that answers one request after the other: a queueing simulation."""
    due = schedule.due_us.astype(np.float64)
    sent = due + 50 + np.random.default_rng(seed).uniform(0, max(sent_late_us, 1e-9), len(due))
    sent = np.maximum.accumulate(sent)
    end, free = np.empty(len(due)), 0.0
    for index, start in enumerate(sent):
        free = max(free, start) + service_us
        end[index] = free
    epoch_ns = 1_795_281_307_605_040_870
    shuffled = np.random.default_rng(2).permutation(len(due))  # as the threads' records are joined
    start_ns, end_ns = (epoch_ns + np.round(values * 1000).astype(np.int64) for values in (sent, end))
    return Profile(start_ns[shuffled], end_ns[shuffled], np.array([0, 1])), end - due


def test_latency_is_counted_from_when_a_request_was_due():
    schedule = drawn(400, "poisson", 10.0)
    raw, expected_us = served(schedule, 2000)
    profile = on_schedule(raw, schedule, 3)
    latency = latency_of(profile.measured())
    expected_us = expected_us[schedule.due_us >= schedule.start_us]
    # All but the 50 us by which even the most punctual one was late, which nobody can see.
    for percentile in (50, 90, 99):
        expected = nearest_rank(np.sort(expected_us), percentile) - 50
        assert getattr(latency, f"p{percentile}_us") == pytest.approx(expected, abs=0.01)
    assert latency.measured_from == "scheduled" and latency.requests == len(expected_us) == 4000
    # M/D/1 at a load of 0.8: the mean wait is 0.8 / (2 (1 - 0.8)) = 2 services.
    assert latency.mean_us == pytest.approx(3 * 2000, rel=0.35)


def test_a_client_that_is_late_does_not_hide_it():
    schedule = drawn(100, "constant", 5.0)
    raw, _ = served(schedule, 100, sent_late_us=5000)
    profile = on_schedule(raw, schedule, 3).measured()
    assert latency_of(profile).p50_us > 2000 and profile.late_us.max() > 4000
    (doubt,) = late_client(profile.late_us, profile.latency_us)
    assert doubt.code == "client_behind" and "another machine" in doubt.message
    assert late_client(profile.late_us / 100, profile.latency_us) == []


def test_a_server_that_cannot_keep_up_is_seen():
    schedule = drawn(1000, "constant", 3.0)
    profile = on_schedule(served(schedule, 2000)[0], schedule, 3)
    windows = windows_of(profile, 1)
    assert profile.answered / profile.duration_s == pytest.approx(500, rel=0.01)  # what it can do, not what was asked
    assert [window.requests for window in windows] == [1000, 1000, 1001]
    (doubt,) = queue_growing(windows, 1000, 500)
    assert doubt.code == "queue_growing"
    kept_up = on_schedule(served(schedule, 900)[0], schedule, 3)
    assert queue_growing(windows_of(kept_up, 1), 1000, kept_up.answered / kept_up.duration_s) == []


def test_an_export_that_lacks_requests_is_not_taken():
    schedule = drawn(100, "constant", 1.0)
    raw, _ = served(schedule, 100)
    with pytest.raises(RawFileError, match="every request of the schedule"):
        on_schedule(Profile(raw.start_ns[1:], raw.end_ns[1:], raw.boundaries_ns), schedule, 3)


def test_a_histogram_holds_every_request_and_its_bins_are_the_same_everywhere():
    one, other = histogram_of(np.array([100.0, 150.0, 99.9, 1000.0])), histogram_of(np.array([120.0, 5000.0]))
    assert sum(one.counts) == 4 and len(one.edges_us) == len(one.counts) + 1
    assert one.edges_us[0] <= 99.9 < one.edges_us[1] == 100.0 and one.edges_us[-2] == 1000.0
    assert set(other.edges_us) & set(one.edges_us) and histogram_of(np.zeros(2)).counts == (2,)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"rate": 0.1}, "too few requests to measure"),
        ({"distribution": "poisson"}, "a distribution without a rate"),
        ({"rate": []}, "rate is empty"),
        ({"rate": [-1]}, "rate is out of range"),
        ({"rate": 5, "distribution": "gamma"}, "distribution has no such value"),
        ({"precision": 0}, "precision is out of range"),
        ({"budget": 60}, "a budget without a precision"),
        ({"rate": 100_000, "seconds": 60}, "too many requests"),
    ],
)
def test_loads_that_make_no_sense(values, what):
    with pytest.raises(WorkloadError, match=what):
        workload_from(url="h:1", **values)


def test_a_rate_replaces_the_default_of_concurrency_and_stands_beside_one_that_is_given():
    assert workload_from(url="h:1", rate=50).concurrency == ()
    both = workload_from(url="h:1", rate=[50, 50, 100], concurrency=2)
    assert (both.concurrency, both.rate) == ((2,), (50.0, 100.0))


@pytest.mark.server
@pytest.mark.xdist_group("perf")
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_rate_is_kept_and_every_request_counted(server, tmp_path, protocol):
    from perf import bench

    address = server.http_url if protocol == "http" else server.grpc_url
    (tmp_path / "i.txt").write_text("10000\n30000\n")
    result = bench(
        url=address,
        protocol=protocol,
        models=["scale"],
        rate=[40],
        distribution="poisson",
        intervals=tmp_path / "i.txt",
        seconds=1,
        output=tmp_path / "out",
    )
    assert result.ok, [point.error for point in result.points]
    drawn_point, own = result.points
    assert (drawn_point.concurrency, drawn_point.rate_per_s, drawn_point.distribution) == (None, 40.0, "poisson")
    assert drawn_point.latency.requests == 40 and drawn_point.inferences_per_s == pytest.approx(40, abs=6)
    assert drawn_point.latency.measured_from == "scheduled" and sum(drawn_point.latency.histogram.counts) == 40
    # perf_analyzer's own figures are from when a request was sent, of all requests: ours of the same are the same.
    raw = result.folder / own.raw
    row, profile = read_csv(raw / "perf_analyzer.csv"), read_profile(raw / "profile.json")
    assert float(np.median(profile.latency_us)) == pytest.approx(row.p50_us, rel=0.05, abs=2)
    assert own.latency.p50_us >= float(np.median(profile.latency_us)) * 0.9  # what was late comes on top
    assert (own.rate_per_s, own.distribution, own.latency.requests) == (50.0, "custom", pytest.approx(50, abs=1))
    assert (result.folder / own.raw / "intervals.txt").is_file()
    assert own.server.requests == pytest.approx(50, abs=2)  # without the lead-in's five


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_an_overloaded_model_shows_its_queue(server):
    from perf import bench

    # It answers 8 requests (a batch) in 0.4 s, so 20 a second; requests that wait for none of that come at 60.
    (point,) = bench(url=server.http_url, models=["late"], rate=[60], seconds=1.5).points
    assert point.ok and point.latency.requests == pytest.approx(90, abs=1)
    assert point.inferences_per_s < 30 and point.latency.max_us > 1_500_000
    assert "queue_growing" in {doubt.code for doubt in point.doubts}
