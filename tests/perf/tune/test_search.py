"""The search against a server that is itself a simulation: what is true is known, and measuring takes no time."""

import functools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perf.tune.curve import Curve, Timing
from perf.tune.errors import TuneError
from perf.tune.journal import Journal
from perf.tune.judge import Evidence, Measured
from perf.tune.outcome import fields_of, result_of
from perf.tune.predict import Predictor, Trial
from perf.tune.reasons import stayed
from perf.tune.request import Limit, TuneRequest
from perf.tune.search import Search
from perf.tune.simulate import Arrivals, simulate
from perf.tune.space import Settings, Space
from serving.errors import ModelLoadError, ServerUnavailableError

DEFAULT = Settings("fp32", 1, None, 16, (), 2000)
SPACE = Space(DEFAULT, ("fp32", "int8"), (1, 2), (None, 1), (16,), (4, 8), (500, 1000), cores=2)


def curve(variant, threads, factor):
    """500 us and 40 for each of the batch; two side by side are slower unless they have a thread each."""
    slow = {1: 1.0, 2: 1.1 if threads else 1.9}
    timings = [Timing(b, k, factor * slow[k] * (500 + 40 * b), 9) for b in (1, 2, 4, 8, 16) for k in (1, 2)]
    return Curve(variant, threads, tuple(timings), rest_us=100.0)


CURVES = {
    ("fp32", None): curve("fp32", None, 1.0),
    ("fp32", 1): curve("fp32", 1, 1.3),
    ("int8", None): curve("int8", None, 0.6),
    ("int8", 1): curve("int8", 1, 0.7),
}


class World:
    """The truth: executions are slower than their curve says, requests cost the front something, and all is noisy."""

    def __init__(self, noise=0.02, percentile=99.0, slower=1.2, refused=(), dies_after=math.inf, fails=None):
        self.generator, self.noise, self.percentile = np.random.default_rng(4), noise, percentile
        self.slower, self.refused, self.dies_after = slower, refused, dies_after
        self.calls, self.fails = [], fails or (lambda trial, number: False)

    def __hash__(self):
        return id(self)

    @functools.cache  # noqa: B019
    def true(self, trial, requests=700):
        found = CURVES[trial.settings.variant, trial.settings.threads]
        played = simulate(
            trial.settings.batching, trial.arrivals, lambda b, k: self.slower * found.time_us(b, k),
            front_us=40.0, rest_us=120.0, requests=requests,
        )  # fmt: skip
        return played.inferences_per_s, played.percentile_us(self.percentile), played.compute_us

    def __call__(self, trial, number, latency_us):
        self.calls.append(trial)
        if len(self.calls) > self.dies_after:
            raise ServerUnavailableError("no server answers", where="here")
        if trial.settings in self.refused:
            raise ModelLoadError("refused", got="out of memory")
        if self.fails(trial, number):
            raise TuneError("perf_analyzer did not end within 11 s and was stopped")
        rate, latency, compute = self.true(trial)
        one, two = np.exp(self.generator.normal(0, self.noise, 2))
        return Measured(rate * one, latency * two, 500, compute_us=compute)


def disturbed(world, spread, clock=lambda: None):
    """The world with percentiles that are now and then far higher than they are without disturbance."""

    def measure(trial, number, latency_us):
        clock()
        found = world(trial, number, latency_us)
        return replace(found, latency_us=found.latency_us * math.exp(abs(world.generator.normal(0, spread))))

    return measure


def search_for(world, tmp_path, journal=None, resume=False, minutes=5.0, ends_at_s=math.inf, space=SPACE, **asked):
    request = TuneRequest(Path(tmp_path), "m", minutes=minutes, **asked)
    kept = Journal(journal, {"model": "m"}, resume=resume)
    evidence = Evidence(request.goal, request.limit, space.cores)
    predictor = Predictor(CURVES, request.percentile)
    return Search(request, space, predictor, evidence, world, kept, ends_at_s)


def finished(search, **options):
    return result_of(search, seconds=1.0, machine={}, capacity_rate=options.get("capacity"), doubts=())


def best_of(world, search, trials=None):
    return max(world.true(trial)[0] for trial in trials or search.outlook.all())


def test_it_finds_nearly_the_best_of_all_with_few_measurements(tmp_path):
    world = World()
    search = search_for(world, tmp_path, concurrency=16)
    search.run()
    result = finished(search)
    assert result.status == "found" and result.decided and result.chosen.gain_interval[0] > 1.3
    chosen = search.evidence.choice(search.baseline())
    assert world.true(chosen)[0] > 0.93 * best_of(world, search)
    assert result.fields["serve"] == "int8" and len(set(world.calls)) <= 15 < result.predicted
    knobs = {knob.name: knob for knob in result.knobs}
    assert knobs["variant"].interval[0] > 1.1 and all(knob.interval for knob in result.knobs)
    assert all(knob.factor > 1.02 for knob in result.knobs)  # a knob that does nothing stays as it was


def test_the_load_is_found_under_a_limit_and_what_crosses_it_is_not_chosen(tmp_path):
    world = World(noise=0.03)
    search = search_for(world, tmp_path, limit=Limit(99, 6000))
    search.run()
    chosen = search.evidence.choice(search.baseline())
    assert world.true(chosen)[1] < 6000 * 1.02 and search.evidence.latency(chosen).high <= 6000
    holding = [trial for trial in search.outlook.all() if world.true(trial)[1] < 5500]
    assert world.true(chosen)[0] > 0.85 * best_of(world, search, holding)
    assert 4 <= finished(search, capacity=100_000).capacity.machines <= 9


def test_where_the_noise_reaches_the_limit_something_below_it_is_found(tmp_path, monkeypatch):
    """In some 50 measurements, with percentiles that are now and then twice what they are without disturbance."""
    world, clock = World(noise=0.06, slower=1.2), iter(range(10**6))
    monkeypatch.setattr("perf.tune.turns.time.monotonic", lambda: next(clock) / 4)
    search = search_for(world, tmp_path, limit=Limit(99, 3000), minutes=80 / 60, ends_at_s=55.0)

    search.measure = disturbed(world, 0.2)
    search.run()
    chosen = search.evidence.choice(search.baseline())
    assert chosen is not None and world.true(chosen)[1] < 3000
    assert world.true(chosen)[0] > 0.8 * best_of(
        world, search, [trial for trial in search.outlook.all() if world.true(trial)[1] < 2600]
    )


@pytest.mark.parametrize("seed", [1, pytest.param(3, marks=pytest.mark.big)])
def test_on_a_very_noisy_machine_something_below_the_limit_is_found(tmp_path, monkeypatch, seed):
    """p99 of a short round is half as high again as it should be, now and then twice; some 60 measurements."""
    world, spent = World(noise=0.1, slower=1.0 + 0.1 * seed), [0.0]
    world.generator = np.random.default_rng(seed)
    monkeypatch.setattr("perf.tune.turns.time.monotonic", lambda: spent[0])
    search = search_for(world, tmp_path, limit=Limit(99, 3000), minutes=77 / 60, ends_at_s=77.0)

    search.measure = disturbed(world, 0.4, lambda: spent.append(spent.pop() + 1.2))
    search.run()
    chosen = search.evidence.choice(search.baseline())
    assert chosen is not None and world.true(chosen)[1] < 3000
    roomy = [trial for trial in search.outlook.all() if world.true(trial)[1] < 1800]
    assert world.true(chosen)[0] > 0.5 * best_of(world, search, roomy)


@pytest.mark.parametrize(
    ("latency_us", "said"),
    [(900, "nothing is surely better"), (1100, "what is better than the default does not surely")],
)
def test_what_is_better_but_not_below_the_limit_is_said_so(latency_us, said):
    evidence = Evidence("throughput", Limit(99, 1000), 2)
    default, other = (Trial(Settings("fp32", count, 1, 16), Arrivals(concurrency=8)) for count in (1, 2))
    better = 1.0 if latency_us < 1000 else 2.0
    for number in range(8):
        noise = 1 + number % 3 / 100
        evidence.add(default, number, Measured(100 * noise, 900, 100))
        evidence.add(other, number, Measured(100 * better * (2 - noise), latency_us, 100))
    assert stayed(evidence, [other], default, out_of_time=False).startswith(said)


def test_a_limit_that_nothing_can_keep_names_the_nearest(tmp_path):
    world = World()
    search = search_for(world, tmp_path, limit=Limit(99, 200))
    search.run()
    result = finished(search)
    assert result.status == "none" and result.chosen is None and result.fields == {}
    assert "nothing surely keeps p99=200us" in result.reason and result.nearest.settings["variant"] in ("fp32", "int8")


def test_where_the_default_is_as_good_as_anything_it_stays(tmp_path):
    world = World(noise=0.05)
    space = Space(Settings("int8", 2, 1, 16), ("int8",), (2,), (1,), (16,), (8,), (50,), cores=2)
    search = search_for(world, tmp_path, space=space, concurrency=16)  # nothing beats all at once
    search.run()
    result = finished(search)
    assert result.status == "default" and result.fields == {} and result.chosen == result.default


def test_the_lowest_latency_is_that_of_one_request_without_a_delay(tmp_path):
    search = search_for(World(), tmp_path, goal="latency")
    search.run()
    result = finished(search)
    assert result.status == "found" and result.fields["batch"]["max_queue_delay_microseconds"] == 0
    assert result.load == "concurrency 1" and result.chosen.latency_us < 0.5 * result.default.latency_us


def test_cost_counts_inferences_for_each_core(tmp_path):
    search = search_for(World(), tmp_path, goal="cost", concurrency=16)
    search.run()
    result = finished(search)
    assert (result.chosen.settings["instances"], result.chosen.settings["threads"]) == (1, 1)


def test_without_time_the_default_has_an_interval_all_the_same(tmp_path):
    world = World()
    search = search_for(world, tmp_path, concurrency=16, ends_at_s=0.0)
    search.run()
    result = finished(search)
    assert result.status == "default" and not result.decided and result.default.rounds == 3
    assert set(world.calls) == {Trial(DEFAULT, Arrivals(concurrency=16))}


def test_a_load_that_cannot_be_measured_is_not_tried_again_nor_a_higher_one(tmp_path):
    """perf_analyzer starves itself with many requests under way: the default too is then measured at fewer."""
    world = World(fails=lambda trial, number: trial.arrivals.concurrency > 6)
    search = search_for(world, tmp_path, limit=Limit(99, 9000))
    search.run()
    result = finished(search)
    chosen = search.evidence.choice(search.baseline())
    assert result.status == "found" and chosen.arrivals.concurrency <= 6
    near = [trial for trial in search.outlook.all() if trial.arrivals.concurrency <= 6]
    assert world.true(chosen)[0] > 0.8 * best_of(world, search, near)
    failed = [trial for trial in world.calls if trial.arrivals.concurrency > 6]
    assert 0 < len(failed) == len(set(failed)) == len(search.evidence.failed) <= 6
    for number, trial in enumerate(failed):
        earlier = [other for other in failed[:number] if other.settings == trial.settings]
        assert all(other.arrivals.concurrency > trial.arrivals.concurrency for other in earlier)


@pytest.mark.parametrize("times", [1, 2])
def test_one_failure_of_what_was_measured_before_is_bad_luck_and_two_are_not(tmp_path, times):
    unlucky = []

    def fails(trial, number):
        """The first newcomer that is measured a second time fails then, so many times."""
        again = number > 1 and trial.settings != DEFAULT and search.evidence.count(trial)
        if again and len(unlucky) < times and trial in (unlucky or [trial]):
            unlucky.append(trial)
            return True
        return False

    search = search_for(World(fails=fails), tmp_path, concurrency=16)
    search.run()
    assert len(unlucky) == times and list(search.evidence.failed) == (unlucky[:1] if times == 2 else [])
    assert finished(search).status == "found"


def test_a_default_that_fails_later_keeps_what_is_known_of_it(tmp_path):
    search = search_for(
        World(fails=lambda trial, number: trial.settings == DEFAULT and number), tmp_path, concurrency=16
    )
    search.run()
    result = finished(search)
    assert result.default.rounds == 1 and list(search.evidence.failed) == [search.baseline()]


def test_a_default_that_cannot_be_measured_at_any_load_ends_the_search(tmp_path):
    search = search_for(World(fails=lambda trial, number: True), tmp_path, limit=Limit(99, 9000))
    with pytest.raises(TuneError, match="did not end within"):
        search.run()
    assert len(search.measure.calls) <= 6


def test_a_refused_configuration_is_left_out_and_said(tmp_path):
    first = search_for(World(), tmp_path, concurrency=16)
    first.run()
    refused = first.evidence.choice(first.baseline()).settings
    second = search_for(World(refused=(refused,)), tmp_path, concurrency=16)
    second.run()
    result = finished(second)
    assert result.status == "found" and result.chosen.title != refused.spell()
    assert [row.error["got"] for row in result.rows if row.error] == ["out of memory"]


def test_a_search_that_was_cut_short_goes_on_where_it_was(tmp_path):
    journal = tmp_path / "kept" / "m.jsonl"
    dying = search_for(World(dies_after=7), tmp_path, journal, concurrency=16)
    with pytest.raises(ServerUnavailableError):
        dying.run()
    with journal.open("a") as handle:
        handle.write('{"trial": {"settings"')  # cut in the middle of a line
    world = World()
    again = search_for(world, tmp_path, journal, resume=True, concurrency=16)
    again.run()
    assert again.evidence.count(dying.baseline()) > 3 and finished(again).status == "found"
    assert finished(again).measurements == 7 + len(world.calls)
    with pytest.raises(TuneError, match="another search") as caught:
        Journal(journal, {"model": "other"}, resume=True)
    assert (caught.value.expected, caught.value.got) == ("model other", "model m")


def test_what_was_measured_under_another_load_is_not_taken_for_this_one(tmp_path):
    journal = tmp_path / "m.jsonl"
    with pytest.raises(ServerUnavailableError):
        search_for(World(dies_after=3), tmp_path, journal, concurrency=16).run()
    again = search_for(World(), tmp_path, journal, resume=True, ends_at_s=0.0, concurrency=4)
    again.run()
    assert {trial.arrivals.concurrency for trial in again.evidence.trials} == {4}
    assert finished(again).default.load == "concurrency 4"


def test_of_equal_configurations_none_is_called_better():
    generator, called = np.random.default_rng(8), 0
    trials = [Trial(Settings("a", count, None, 8), Arrivals(concurrency=4)) for count in range(1, 9)]
    for _ in range(60):
        evidence = Evidence("throughput", None, 2)
        for trial in trials:
            for number in range(4):
                evidence.add(trial, number, Measured(float(np.exp(generator.normal(0, 0.1))), 1.0, 100))
        called += evidence.choice(trials[0]) != trials[0]
    assert called <= 3  # of 60, with seven rivals each


def test_a_sure_gain_is_taken_though_another_looks_better():
    default, sure, lucky = (Trial(Settings("a", n, None, 8), Arrivals(concurrency=4)) for n in (1, 2, 4))
    evidence = Evidence("throughput", None, 2)
    figures = {default: (100, 101, 99), sure: (140, 142, 139), lucky: (60, 300, 150)}
    for trial, rates in figures.items():
        for number, rate in enumerate(rates):
            evidence.add(trial, number, Measured(float(rate), 1.0, 100))
    assert evidence.leader(evidence.trials) == lucky and evidence.choice(default) == sure


def test_a_journal_that_cannot_be_written_is_said():
    with pytest.raises(TuneError) as caught:
        Journal(Path("/dev/full"), {"model": "m"}, resume=False)
    assert caught.value.got == "No space left on device" and "--journal" in caught.value.fix


def test_each_knob_is_put_back_alone():
    tuned = Settings("int8", 2, None, 32, (32,), 0)
    backs = tuned.put_back(DEFAULT)
    assert set(backs) == {"variant", "instances", "preferred", "max_queue_delay_microseconds"}  # 32 of at most 16: no
    assert backs["instances"] == Settings("int8", 1, None, 32, (32,), 0) and DEFAULT.put_back(DEFAULT) == {}


def test_fields_name_only_what_differs():
    assert fields_of(DEFAULT, DEFAULT) == {}
    other = Settings("int8", 2, 1, 32, (8,), 0)
    assert fields_of(other, DEFAULT) == {
        "serve": "int8",
        "batch": {"max": 32, "preferred": [8], "max_queue_delay_microseconds": 0},
        "instances": {"count": 2},
        "parameters": {"intra_op_thread_count": "1"},
    }
