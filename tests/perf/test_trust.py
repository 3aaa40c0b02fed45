"""The short form of benchmarks/trust.py and benchmarks/fidelity.py: real runs, their own verdicts, known answers."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from perf import bench
from perf.compare import compare
from perf.punctual import punctual, wake_up_us
from perf.references import Side
from perf.schedule import drawn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def module(name):
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def test_one_layer_more_is_five_percent_more_compute():
    models = module("trust_models")
    layers = {name: [n.op_type for n in models.network(count).graph.node] for name, count in (("a", 20), ("b", 21))}
    assert layers["a"].count("Tanh") == 20 and layers["b"].count("Tanh") == 21
    assert len(layers["b"]) - len(layers["a"]) == 2


@pytest.mark.big  # beside other tests a twin is slower for seconds on end
@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_a_slower_model_is_found_and_the_same_one_under_two_names_is_not(tmp_path):
    repository = module("trust_models").write_repository(tmp_path / "r", {"same": 4, "twin": 4, "heavier": 12})
    result = bench(repository, models=["same", "twin", "heavier"], concurrency=[1], seconds=0.3, rounds=5)
    assert result.ok
    verdicts = {}
    for other in ("twin", "heavier"):
        (pair,) = compare(Side("", (result,), "same"), Side("", (result,), other)).pairs
        verdicts[other] = pair.verdict
        assert pair.decided_by == "inferences_per_s" and pair.estimate("mean_us").basis == "paired rounds"
    assert verdicts["heavier"] == "slower" and verdicts["twin"] in ("no difference found", "cannot tell")
    compute = {point.model: point.server.compute_infer_us for point in result.points}
    assert compute["heavier"] > 1.5 * compute["same"]


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_latency_at_a_rate_is_that_of_the_queue(server):
    """One request after the other, 10 ms each: the same arrivals, played through a queue, give what is measured."""
    rate, seconds = 60.0, 2.5
    (point,) = bench(url=server.http_url, models=["nap"], rate=[rate], distribution="poisson", seconds=seconds).points
    schedule, free, latency_us = drawn(rate, "poisson", seconds), 0.0, []
    busy_us = point.server.compute_input_us + point.server.compute_infer_us + point.server.compute_output_us
    for due_us in schedule.due_us:
        free = max(free, due_us) + busy_us
        latency_us.append(free - due_us)
    expected = np.array(latency_us)[schedule.due_us >= schedule.start_us]
    assert point.latency.requests == len(expected)
    # What a request takes beside the queue is added to each: some hundred microseconds, more on a busy machine.
    assert expected.mean() * 0.97 < point.latency.mean_us < expected.mean() * 1.25 + 1500
    assert np.percentile(expected, 90) * 0.95 < point.latency.p90_us < np.percentile(expected, 90) * 1.3 + 2000


def test_sleeps_end_sooner_when_asked_and_as_before_afterwards():
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    before = prctl(30, 0, 0, 0, 0)
    with punctual():
        assert prctl(30, 0, 0, 0, 0) == 1
    assert prctl(30, 0, 0, 0, 0) == before
    assert 0 <= wake_up_us() < 5000


def test_an_exact_interval_of_a_share(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    trust = module("trust")
    # Clopper and Pearson: none of 50 is 0 to 7.1%, 5 of 50 is 3.3 to 21.8%.
    assert trust.exact_interval(0, 50) == pytest.approx((0.0, 0.0711), abs=1e-3)
    assert trust.exact_interval(5, 50) == pytest.approx((0.0333, 0.2181), abs=1e-3)
    assert trust.exact_interval(50, 50) == pytest.approx((0.9289, 1.0), abs=1e-3)
