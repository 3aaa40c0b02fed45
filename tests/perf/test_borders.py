"""The server's counters at the borders of what was measured: between two readings, and of a real server."""

import threading

import pytest

from perf import bench
from perf.analyzer import Load
from perf.borders import BEFORE_S, Borders, Reading, Span, moments_of
from perf.parse import server_side
from perf.schedule import drawn
from serving.errors import ServerUnavailableError

MS = 1_000_000


def entry(count, *, text=False, **more):
    spelled = str(count) if text else count
    return {"m": {"name": "007", "version": "1", "inference_count": spelled, "execution_count": spelled, **more}}


def borders_with(*readings):
    made = Borders(dict)
    made._readings = [Reading(at_ms * MS, statistics) for at_ms, statistics in readings]
    return made


def counted(made, span):
    before, after = made.between(span)
    return server_side(before["m"], after["m"]).inferences


def test_between_two_readings_counters_grow_evenly():
    made = borders_with((0, entry(100)), (950, entry(1000)), (1050, entry(1100)))
    first = 10 * MS  # until then nothing was sent: 100 grows from there
    assert counted(made, Span(10 * MS, 1000 * MS, first)) == 1050 - 100
    assert counted(made, Span(10 * MS, 975 * MS, first)) == 1025 - 100
    assert counted(made, Span(480 * MS, 950 * MS, first)) == 1000 - 550
    assert counted(made, None) == 1000
    assert counted(made, Span(10 * MS, 5000 * MS, first)) == 1000  # beyond what was read: the last reading


def test_after_the_last_answer_nothing_grows():
    made = borders_with((0, entry(0)), (900, entry(90)), (2000, entry(100)))
    assert counted(made, Span(0, 1000 * MS, 1)) == 91
    assert counted(made, Span(0, 1000 * MS, 1, last_ns=1000 * MS)) == 100


def test_counts_as_grpc_spells_them_and_what_is_no_number():
    steps = {"inference_stats": {"queue": {"count": "10", "ns": "1000"}}}
    made = borders_with(
        (0, entry(0, text=True)), (100, entry(10, text=True, **steps, batch_stats=[{"batch_size": "1"}]))
    )
    before, after = made.between(Span(0, 50 * MS, 0))
    assert after["m"]["name"] == "007" and after["m"]["batch_stats"] == [{"batch_size": "1"}]
    side = server_side(before["m"], after["m"])  # zeros are left out over gRPC
    assert (side.inferences, side.queue_us) == (5, 0.1)


def test_when_it_is_looked_at():
    load = Load("m", "h:1", "http", 4, 1, "none", 0.5)
    assert moments_of(load) == [1.5 - BEFORE_S]  # it begins with the first request, which is seen before
    rated = Load("m", "h:1", "http", None, 1, "none", 0.5, schedule=drawn(100, "constant", 2.0))
    assert moments_of(rated) == pytest.approx([0.2 - BEFORE_S, 0.2 + BEFORE_S, 2.2 - BEFORE_S])


def test_a_load_that_begins_anew_is_looked_at_anew_and_no_thread_stays():
    seen, two = [], threading.Event()

    def read():
        seen.append(threading.current_thread().name)
        if len(seen) == 2:
            two.set()
        if len(seen) > 2 and seen[-1] == "borders":
            raise ServerUnavailableError("no server answers")
        return entry(len(seen))

    before = threading.active_count()
    with Borders(read) as made:
        made.begin(Load("m", "h:1", "http", 4, 1, "none", 100.0))  # this moment never comes
        made.begin(Load("m", "h:1", "http", 4, 1, "none", 0.01))
        assert two.wait(10)
        made.begin(Load("m", "h:1", "http", 4, 1, "none", 0.01))  # its server is gone: the run says so, not this
        made.end()
        made.end()
    assert threading.active_count() == before and seen.count("MainThread") == 2


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_the_servers_counts_are_those_of_the_window(server):
    result = bench(
        url=server.http_url, models=["scale"], concurrency=[4], rate=[500], distribution="poisson", seconds=2
    )
    for point in result.points:
        assert point.duration_s == pytest.approx(2, rel=0.1)
        # Answers that came within the windows: of the schedule's others a tenth came before.
        answered = point.inferences_per_s * point.duration_s
        assert point.server.inferences == pytest.approx(answered, rel=0.015, abs=3)
        assert point.server.executions * point.server.mean_batch == pytest.approx(point.server.inferences)
        assert point.server.requests == point.server.inferences
