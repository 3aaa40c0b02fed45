"""The joint search against a machine that is itself a simulation: what is true is known, measuring takes no time."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perf.tune.curve import Curve, Timing
from perf.tune.joint import predict
from perf.tune.joint.explore import Explorer
from perf.tune.joint.judge import JointEvidence, Seen
from perf.tune.joint.kept import curves_of, keep_curve, keep_round, rounds_of
from perf.tune.joint.outcome import result_of
from perf.tune.joint.plan import JointTrial, Scene, way_of
from perf.tune.joint.predict import JointPredictor, execution_time
from perf.tune.joint.request import of_ensemble, of_models
from perf.tune.joint.search import JointSearch
from perf.tune.joint.text import to_text
from perf.tune.joint.writing import write_joint
from perf.tune.journal import Journal
from perf.tune.judge import Measured
from perf.tune.overrides import read_overrides
from perf.tune.request import Limit, TuneRequest
from perf.tune.simulate import Arrivals
from perf.tune.space import Settings, Space
from serving.errors import ServerUnavailableError


@pytest.fixture(autouse=True)
def short_simulations(monkeypatch):
    """Rougher percentiles, in a fifth of the time."""
    monkeypatch.setattr(predict, "SLOWEST_REQUESTS", 100)
    monkeypatch.setattr(predict, "MOST_REQUESTS", 600)


QUICK = Settings("fp32", 2, None, 8, (), 2000)
SLOW = Settings("fp32", 2, None, 8, (), 2000)


def space(default):
    return Space(default, ("fp32",), (1, 2), (None, 1), (8,), (4,), (500,), cores=2)


def curve(threads, us):
    """An execution on two threads takes 0.7 of one on one; what does not fit the two cores slows it down."""
    alone = us * (1.4 if threads else 1.0)
    slow = {1: 1.0, 2: 1.0 if threads else 2.0}
    timings = [Timing(b, k, round(alone * slow[k] * (0.8 + 0.2 * b), 1), 9) for b in (1, 2, 4, 8) for k in (1, 2)]
    return Curve("fp32", threads, tuple(timings), rest_us=100.0)


CURVES = {
    (name, "fp32", threads): curve(threads, us)
    for name, us in (("quick", 500.0), ("slow", 12_000.0))
    for threads in (None, 1)
}
SPACES = {"quick": space(QUICK), "slow": space(SLOW)}


class Machine:
    """The truth: executions are slower than their curves say, and all is noisy."""

    def __init__(self, scene, noise=0.03, dies_after=math.inf):
        self.scene, self.noise, self.dies_after = scene, noise, dies_after
        self.generator, self.calls, self.known = np.random.default_rng(4), [], {}
        self.truth = JointPredictor(scene, CURVES, stretch=dict.fromkeys(scene.members, 1.2))

    def true(self, trial):
        if trial not in self.known:
            self.known[trial] = self.truth.play(trial)
        return self.known[trial]

    def __call__(self, trial, number, latency_us):
        self.calls.append(trial)
        if len(self.calls) > self.dies_after:
            raise ServerUnavailableError("no server answers", where="here")
        played, models = self.true(trial), {}
        for wanted, found in zip(self.scene.request.wanted, played.streams, strict=True):
            noise = float(np.exp(self.generator.normal(0, self.noise)))
            latency = float(np.percentile(found.latency_us, wanted.percentile))
            rate = self.truth._outlook(played, trial).figures[wanted.model][0]
            models[wanted.model] = Measured(rate, latency * noise, 200)
        served = zip(self.scene.members, played.stations, strict=True)
        return Seen(models, {name: each.compute_us for name, each in served})


def search_for(request, way=None, minutes=0.4, journal=None, resume=False, **options):
    scene = Scene(replace(request, minutes=minutes), ("quick", "slow"), 2, way=way, threads={"quick": 2, "slow": 2})
    machine = Machine(scene, **options)
    kept = Journal(journal, {"models": "both"}, resume=resume)

    def keep(trial, number, seen):
        keep_round(kept, trial, number, seen)

    explorer = Explorer(scene, SPACES, JointPredictor(scene, CURVES))
    search = JointSearch(explorer, JointEvidence(scene), machine, keep, math.inf)
    return search, machine, kept


def finished(search):
    return result_of(search, seconds=1.0, machine={}, kinds={}, notes=(), doubts=())


def both(*limits, quick=300, slow=40, **options):
    rates = (f"quick={quick}", f"slow={slow}")
    return of_models(Path(), ("quick", "slow"), rates=rates, limits=limits, **options)


def test_plans_are_found_under_which_both_keep_their_limits(tmp_path):
    search, machine, _ = search_for(both("quick:p99=30ms", "slow:p99=100ms"))
    search.run()
    result = finished(search)
    assert result.status == "found" and result.decided and result.chosen.gain_interval[0] > 1.1, result.reason
    assert {row.within_limit for row in result.chosen.models} == {"yes"}
    chosen, default = search.evidence.choice(search.baseline()), search.baseline()
    assert chosen.plan != default.plan and len(set(machine.calls)) < 16 < result.predicted
    limits = {"quick": 30e3, "slow": 100e3}

    def headroom(trial):
        found = zip(limits.values(), machine.true(trial).streams, strict=True)
        return max(float(np.percentile(each.latency_us, 99)) / limit for limit, each in found)

    assert headroom(chosen) < 0.9 * headroom(default)
    tried = [headroom(trial) for trial in search.explorer.predictor.predicted[::5]]
    assert headroom(chosen) < 1.2 * min(tried)
    assert {change.name for change in result.changes} <= {"quick", "slow"} and result.carried.factor >= 1
    assert set(result.fields) == {change.name for change in result.changes}
    write_joint(tmp_path / "overrides.yaml", result)
    data = read_overrides(tmp_path / "overrides.yaml")
    assert data["models"] == {name: dict(fields) for name, fields in result.fields.items()}
    assert data["evidence"]["slow"]["together_with"] == ["quick"] and "tuned" in data["evidence"]["quick"]
    text = to_text(result)
    assert "quick, slow: tuned: " in text and "p99=30ms kept" in text and "All rates times" in text


@pytest.mark.big
def test_cost_takes_the_fewest_cores_that_keep_the_limits():
    search, _, _ = search_for(both("quick:p99=60ms", "slow:p99=400ms", slow=10, goal="cost"))
    search.run()
    result = finished(search)
    assert result.status == "found" and result.chosen.cores == 2 < result.default.cores == 8, to_text(result)


def test_a_model_that_nothing_can_hold_is_named_with_the_rate_that_could_be_carried():
    search, _, _ = search_for(both("quick:p99=500ms", "slow:p99=100ms", slow=600), minutes=0.1)
    search.run()
    result = finished(search)
    assert result.status == "none" and result.bottleneck == "slow" and "slow is the bottleneck" in result.reason
    assert 0.1 < result.carried.factor < 1 and result.carried.rates_per_s["slow"] < 600 and result.fields == {}
    assert "in the nearest plan it has p99" in to_text(result)


@pytest.mark.big
def test_the_steps_of_an_ensemble_are_tuned_together_at_the_load_that_is_found():
    way = (("quick", ()), ("slow", (0,)))
    asked = of_ensemble(TuneRequest(Path(), "chain", limit=Limit(99, 150e3)))
    search, machine, _ = search_for(asked, way, minutes=0.3)
    search.run()
    result = finished(search)
    chosen = search.evidence.choice(search.baseline())
    assert result.status in ("found", "default") and result.models == ("chain",) and result.carried is None
    assert float(np.percentile(machine.true(chosen).streams[0].latency_us, 99)) < 150e3 * 1.05
    assert machine.true(chosen).streams[0].inferences_per_s > 0.95 * max(
        machine.true(trial).streams[0].inferences_per_s for trial in machine.calls if search.evidence.holds(trial)
    )


def test_an_ensemble_that_may_break_its_limit_is_tried_at_a_lower_load():
    asked = of_ensemble(TuneRequest(Path(), "chain", limit=Limit(99, 150e3)))
    search, _, _ = search_for(asked, (("quick", ()), ("slow", (0,))))
    unsure = JointTrial(search.explorer.default, (Arrivals(concurrency=8),))

    def measured(trial, *latencies_us):
        for number, latency_us in enumerate(latencies_us):
            search.evidence.add(trial, number, Seen({"chain": Measured(50.0, latency_us, 200)}))

    measured(unsure, 120e3, 140e3, 170e3)
    search.explorer.predictor.fit(unsure, search.evidence)
    search.learn(unsure)
    (lower,) = set(search.lower.instead(unsure, unsure, []))
    assert lower.loads[0].concurrency < 8 and lower.plan == unsure.plan and lower in search._wanted()
    measured(lower, 60e3, 61e3, 62e3)  # it surely keeps the limit: nothing lower is asked
    assert search.evidence.choice(unsure) == lower
    assert search.lower.instead(unsure, unsure, []) == []
    rates, _, _ = search_for(both("quick:p99=30ms", "slow:p99=100ms"))
    assert rates._below(rates.default_trial()) == []  # a rate is what it is


@pytest.mark.big
def test_a_search_that_was_cut_short_goes_on_where_it_was(tmp_path):
    journal = tmp_path / "kept" / "both.jsonl"
    request = both("quick:p99=30ms", "slow:p99=100ms")
    dying, _, kept = search_for(request, journal=journal, dies_after=4, minutes=0.1)
    keep_curve(kept, "quick", CURVES["quick", "fp32", 1])
    with pytest.raises(ServerUnavailableError):
        dying.run()
    again, machine, kept = search_for(request, journal=journal, resume=True, minutes=0.1)
    (timed,) = curves_of(kept).items()
    assert timed[0] == ("quick", "fp32", 1) and timed[1].time_us(8, 2) == CURVES[timed[0]].time_us(8, 2)
    known = rounds_of(kept)
    assert len(known) == 4 and known[0][0] == dying.baseline()
    again.run(known)
    assert finished(again).measurements == 4 + len(machine.calls)


def test_more_threads_than_were_measured_share_the_cores():
    time_us = execution_time(curve(1, 100.0), threads=1, cores=2)
    assert time_us(1, 1) == time_us(1, 2) == pytest.approx(140)
    assert time_us(1, 4) == pytest.approx(280) and time_us(1, 3) == pytest.approx(210)
    wide = execution_time(curve(None, 100.0), threads=2, cores=2)
    assert wide(1, 2) == pytest.approx(100) and wide(1, 3) == pytest.approx(150) and wide(1, 6) == pytest.approx(300)


def test_the_way_of_an_ensemble_is_read_from_its_tensors():
    step = {"model_version": -1}
    steps = [
        {**step, "model_name": "text", "input_map": {"t": "T"}, "output_map": {"e": "a"}},
        {**step, "model_name": "image", "input_map": {"i": "I"}, "output_map": {"e": "b"}},
        {**step, "model_name": "both", "input_map": {"x": "a", "y": "b"}, "output_map": {"z": "Z"}},
    ]
    assert way_of({"name": "e", "ensemble_scheduling": {"step": steps}}) == (
        ("text", ()),
        ("image", ()),
        ("both", (0, 1)),
    )
