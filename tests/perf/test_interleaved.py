"""Rounds over several models: the statistics with made-up figures, the rounds themselves with the real tools."""

import math

import numpy as np
import pytest

from perf.errors import WorkloadError
from perf.interleaved import MAX_REQUESTS, Rounds, in_turn, measure_interleaved, subject_of
from perf.intervals import median_with_interval, ratio_of_pairs
from perf.result import Point
from perf.target import Target
from serving import Client
from serving.errors import ServerUnavailableError

ROWS = [{"x": np.full((1, 4), number, dtype=np.float32)} for number in range(3)]


def test_each_model_is_first_equally_often():
    orders = [in_turn(["a", "b", "c"], number) for number in range(4)]
    assert orders == [["a", "b", "c"], ["c", "a", "b"], ["b", "c", "a"], ["a", "b", "c"]]


def test_a_ratio_of_pairs_and_its_interval():
    ratio = ratio_of_pairs([200, 210, 190, 205, 195], [100, 100, 100, 100, 100])
    assert ratio.value == pytest.approx(2.0, rel=1e-3) and 1.7 < ratio.low < 2.0 < ratio.high < 2.3
    inverse = ratio_of_pairs([100, 100, 100, 100, 100], [200, 210, 190, 205, 195])
    assert inverse.low == pytest.approx(1 / ratio.high) and inverse.high == pytest.approx(1 / ratio.low)
    assert ratio_of_pairs([3, 3, 3], [2, 2, 2]).as_list() == [1.5, 1.5]
    assert median_with_interval([3, 5, 4]).value == 4


def test_what_slows_a_whole_round_down_does_not_blur_a_ratio():
    # The machine is four times slower in some rounds: each model's own figures say nothing, their ratio everything.
    rounds = np.array([1.0, 0.25, 1.0, 0.3, 0.9, 0.25])
    ratio = ratio_of_pairs(1200 * rounds, 1000 * rounds)
    assert ratio.as_list() == pytest.approx([1.2, 1.2])
    assert median_with_interval(1200 * rounds).high > 2 * median_with_interval(1200 * rounds).low


def test_few_rounds_that_disagree_say_little():
    # As measured on a busy machine.
    ratio = ratio_of_pairs([91.8, 72.4, 61.3], [73.5, 63.2, 27.2])
    assert ratio.low < 0.7 < 1.2 < ratio.value < 1.6 < 3 < ratio.high


def test_one_round_says_nothing_of_the_noise_and_none_is_an_error():
    alone = ratio_of_pairs([3], [2])
    assert (alone.low, alone.value, alone.high) == (0.0, pytest.approx(1.5), math.inf)
    for first, second in (([], []), ([1], [1, 2]), ([1, 0], [1, 1])):
        with pytest.raises(ValueError, match="as many values"):
            ratio_of_pairs(first, second)


def test_only_rounds_that_both_were_in_are_compared():
    def point(rate):
        return Point(model="m", version="1", concurrency=1, batch_size=1, inferences_per_s=rate)

    failed = Point(model="m", version="1", concurrency=1, batch_size=1, error={"what": "no answer"})
    rounds = Rounds({"a": {0: point(1), 1: point(2), 2: point(3)}, "b": {0: point(5), 2: point(6), 3: failed}})
    assert rounds.paired_rates("a", "b") == ([1, 3], [5, 6])
    assert rounds.error("b") == {"what": "no answer"} and rounds.error("a") is None


@pytest.fixture(scope="module")
def target(server):
    with Client(f"http://{server.http_url}") as client:
        yield Target(client, server.http_url, {"url": server.http_url})


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_models_are_measured_in_rounds_until_enough_is_known(target, tmp_path):
    seen = []

    def still_wanted(rounds):
        seen.append({model: sorted(rounds.measured(model)) for model in rounds.points})
        return [["scale", "nobatch", "positive"], ["nobatch"], []][len(seen) - 1]

    zero = {"x": np.zeros((1, 1), dtype=np.int32)}  # the model refuses it: an error while warming up
    subjects = [
        subject_of(target, "scale", ROWS, "rows"),
        subject_of(target, "nobatch", [{"x": row["x"][0]} for row in ROWS], "rows"),
        subject_of(target, "positive", [zero], "zero"),
    ]
    rounds = measure_interleaved(
        target, subjects, concurrency=2, seconds=0.3, folder=tmp_path / "raw files", still_wanted=still_wanted
    )
    assert seen == [
        {"scale": [0], "nobatch": [0], "positive": []},
        {"scale": [0, 1], "nobatch": [0, 1], "positive": []},
        {"scale": [0, 1], "nobatch": [0, 1, 2], "positive": []},
    ]
    assert "zero is not positive" in rounds.error("positive")["got"]
    assert all(rate > 0 for rate in rounds.rates("nobatch").values()) and rounds.elapsed_s > 5 * 0.3
    assert (tmp_path / "raw files/raw/nobatch/round-3/profile.json").is_file()
    assert rounds.measured("scale")[1].latency.requests > 0 and rounds.measured("scale")[1].concurrency == 2


@pytest.mark.server
def test_requests_are_given_as_the_model_takes_them(target):
    subject = subject_of(target, "scale", [{"x": np.ones((1, 4))}] * 100, "doubles")
    assert len(subject.data.requests) == MAX_REQUESTS and subject.data.source == "64 of 100 requests: doubles"
    assert {(row["x"].dtype.name, row["x"].shape) for row in subject.data.requests} == {("float32", (4,))}
    with pytest.raises(WorkloadError, match="none of the requests fits the model") as caught:
        subject_of(target, "scale", [{"x": np.ones((1, 5), dtype=np.float32)}], "too wide")
    assert caught.value.expected == "x FP32[4]" and caught.value.got == "x float32[1, 5]"
    assert subject_of(target, "nonesuch", ROWS, "rows").error.got == "the server does not know it"


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_a_server_that_dies_on_the_way_is_an_error(repository, tmp_path):
    from serving import Server

    with Server(repository, model_control_mode="explicit", load=["scale"]) as dying:

        def stop(rounds):
            dying.stop(at_once=True)
            return list(rounds.points)

        with Client(f"http://{dying.http_url}") as client:
            there = Target(client, dying.http_url, {"url": dying.http_url})
            subjects = [subject_of(there, "scale", ROWS, "rows")]
            with pytest.raises(ServerUnavailableError, match="no server answers"):
                measure_interleaved(
                    there, subjects, concurrency=1, seconds=0.3, folder=tmp_path / "raw", still_wanted=stop
                )
