"""Expected values are worked out by hand, or by another formula, beside each."""

import math

import numpy as np
import pytest

from builder.agreement import DEFAULTS, DROP, AgreementJudge
from builder.errors import AccuracyError
from builder.scores import neighbours_kept, ranks, scores, similarities, spearman
from builder.variants import VARIANTS


def _answers(rows, name="y"):
    return [{name: np.asarray(row, np.float32)[None]} for row in rows]


def _requests(count, size=2):
    return [{"x": np.full((1, size), index, np.float32)} for index in range(count)]


def _giving(rows):
    """A runner that answers request i with row i."""
    return lambda inputs: {"y": np.asarray([rows[int(i)] for i in inputs["x"][:, 0]], np.float32)}


def test_the_cosine_is_the_mean_over_samples_and_the_least_is_told():
    # (1,0)-(1,1): 1/sqrt(2); (0,2)-(0,5): 1.
    found = scores(np.float32([[1, 0], [0, 2]]), np.float32([[1, 1], [0, 5]]))
    assert found["cosine"] == pytest.approx((1 / math.sqrt(2) + 1) / 2)
    assert found["cosine min"] == pytest.approx(1 / math.sqrt(2))


def test_top1_and_top5():
    expected = np.float32([[9, 0, 0, 0, 0, 0, 0], [0, 9, 0, 0, 0, 0, 0], [0, 0, 9, 0, 0, 0, 0], [0, 0, 0, 9, 0, 0, 0]])
    got = np.float32([[9, 8, 0, 0, 0, 0, 0], [9, 8, 0, 0, 0, 0, 0], [9, 8, 1, 7, 6, 5, 4], [9, 8, 7, 6, 0, 0, 0]])
    # The best class of the reference stands at places 1, 2, 6 and 4 of the candidate's.
    found = scores(expected, got)
    assert found["top1"] == 0.25
    assert found["top1 in top5"] == 0.75


def test_rows_that_are_no_class_scores_have_a_cosine_only():
    rows = np.ones((20, 2, 3), np.float32)
    assert set(scores(rows, rows)) == {"cosine", "cosine min"}
    assert set(scores(np.ones((20, 1), np.float32), np.ones((20, 1), np.float32))) == {"cosine", "cosine min"}


def test_whole_numbers_are_equal_or_not():
    assert scores(np.int64([[1, 2], [3, 4]]), np.int64([[1, 2], [3, 5]])) == {"equal": 0.75}


def test_nan_is_no_agreement():
    found = scores(np.float32([[1, 2], [1, 2]]), np.float32([[1, np.nan], [1, 2]]))
    assert found["cosine"] == 0.5
    assert found["top1"] == 0.5


def test_ranks_of_equal_values_are_shared():
    assert ranks(np.array([30.0, 10.0, 20.0, 20.0])).tolist() == [4.0, 1.0, 2.5, 2.5]


def test_spearman_without_ties_is_the_textbook_formula():
    # 1 - 6 * sum(d^2) / (n (n^2 - 1)), IQ against hours of television: d^2 sums to 194 over 10 people -> -29/165.
    iq = np.array([106, 100, 86, 101, 99, 103, 97, 113, 112, 110.0])
    hours = np.array([7, 27, 2, 50, 28, 29, 20, 12, 6, 17.0])
    assert spearman(iq, hours) == pytest.approx(-29 / 165)


def test_spearman_with_ties_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 200).astype(float), rng.integers(0, 9, 200).astype(float)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_spearman_of_what_has_no_order():
    assert spearman(np.ones(4), np.ones(4)) == 1.0
    assert spearman(np.ones(4), np.arange(4.0)) == 0.0


def test_neighbours_kept():
    # On a line 0, 1, 3, 7 the nearest are 1, 0, 1, 3. With the last moved to 4 -> -1 they are 1, 0 (or -1), 1, 0.
    def near(points):
        return -np.abs(np.subtract.outer(points, points))

    assert neighbours_kept(near(np.array([0, 1, 3, 7.0])), near(np.array([0, 1, 3, 7.0])), 1) == 1.0
    assert neighbours_kept(near(np.array([0, 1, 3, 7.0])), near(np.array([0, 1, 3, -0.5])), 1) == 0.5


def test_pairs_are_compared_from_sixteen_samples_on():
    rows = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    assert "spearman" not in scores(rows[:15], rows[:15])
    found = scores(rows, rows)
    assert found["spearman"] == pytest.approx(1.0)
    assert found["recall@10"] == 1.0


def test_similarities_are_cosines():
    found = similarities(np.float32([[1, 0], [1, 1], [0, 0]]))
    assert found == pytest.approx(np.array([[1, 0.70710678, 0], [0.70710678, 1, 0], [0, 0, 0]]))


def test_a_judge_says_which_limit_is_missed_and_by_how_much():
    # Cosines 1 and 0 -> mean 0.5; limit 0.9: the distance is -0.4 of the 0.1 that it allows.
    judge = AgreementJudge(_requests(2), _answers([[1, 0], [1, 0]]), {"cosine": 0.9})
    verdict = judge(_giving([[1, 0], [0, 1]]))
    assert not verdict.ok
    assert verdict.failed == ("cosine 0.5 is below 0.9",)
    assert verdict.margin == pytest.approx(-4.0)


def test_a_judge_lets_through_what_is_within():
    judge = AgreementJudge(_requests(2), _answers([[1, 0], [1, 0]]), {"cosine": 0.4})
    verdict = judge(_giving([[1, 0], [0, 1]]))
    assert verdict.ok
    assert verdict.margin == pytest.approx(0.1 / 0.6)


def test_the_worst_output_counts_and_is_named():
    answers = [{"a": np.float32([[1, 0]]), "b": np.float32([[1, 0]])}]
    judge = AgreementJudge(_requests(1), answers, {"cosine": 0.9})
    verdict = judge(lambda inputs: {"a": np.float32([[1, 0]]), "b": np.float32([[0, 1]])})
    assert verdict.failed == ("cosine of b 0 is below 0.9",)


def test_a_metric_may_lose_no_more_than_its_limit():
    def judge(limit):
        metric = lambda runner: float(runner({"x": np.zeros((1, 2), np.float32)})["y"][0, 0])  # noqa: E731
        return AgreementJudge(_requests(1), _answers([[0.9, 0]]), {DROP: limit}, metric, metric_reference=0.9)

    verdict = judge(0.1)(_giving([[0.85, 0]]))
    assert verdict.ok
    assert verdict.scores[DROP] == pytest.approx(0.05)
    assert verdict.margin == pytest.approx(0.5)
    assert judge(0.01)(_giving([[0.85, 0]])).failed == ("accuracy drop 0.05 is above 0.01",)


def test_a_better_metric_is_no_drop():
    judge = AgreementJudge(_requests(1), _answers([[1, 0]]), {DROP: 0.0}, lambda runner: 0.8, metric_reference=0.7)
    assert judge(_giving([[1, 0]])).ok


def test_samples_of_one_shape_go_together_and_no_more_than_allowed():
    shapes = [3, 2, 3, 3, 2]
    requests = [{"x": np.zeros((1, size), np.float32)} for size in shapes]
    answers = [{"y": np.float32([[size, 1]])} for size in shapes]
    seen = []

    def runner(inputs):
        seen.append(inputs["x"].shape)
        count, size = inputs["x"].shape
        return {"y": np.float32([[size, 1]] * count)}

    assert AgreementJudge(requests, answers, {"cosine": 0.999}, batch=2)(runner).ok
    assert seen == [(2, 3), (1, 3), (2, 2)]


def test_a_model_without_a_batch_is_asked_one_by_one():
    requests = [{"x": np.float32([index, 1])} for index in range(3)]
    answers = [{"y": np.float32([index, 1])} for index in range(3)]
    verdict = AgreementJudge(requests, answers, {"top1": 1.0}, batch=1)(lambda inputs: {"y": inputs["x"]})
    assert verdict.scores["cosine"] == 1.0


def test_a_quick_judge_asks_fewer_and_leaves_out_what_they_cannot_say():
    rows = np.random.default_rng(0).standard_normal((40, 4))
    asked = []

    def runner(inputs):
        asked.extend(int(i) for i in inputs["x"][:, 0])
        return _giving(rows)(inputs)

    judge = AgreementJudge(
        _requests(40), _answers(rows), {"cosine": 0.9, "spearman": 0.9, DROP: 0.1}, lambda _: 1.0, metric_reference=1.0
    )
    verdict = judge.quick(4)(runner)
    assert asked == [0, 10, 20, 30]
    assert dict(verdict.limits) == {"cosine": 0.9}
    assert set(judge.quick(20)(runner).limits) == {"cosine", "spearman"}


def test_the_digest_says_what_the_verdict_depends_on():
    def digest(limit=0.9, row=(1, 0), metric=None):
        return AgreementJudge(_requests(1), _answers([row]), {"cosine": limit}, metric).digest

    assert digest() == digest()
    assert len({digest(), digest(limit=0.8), digest(row=(1, 1)), digest(metric=lambda _: 1.0)}) == 4


@pytest.mark.parametrize(
    ("limits", "count", "text"),
    [
        ({"spearman": 0.9}, 5, "'spearman' cannot be measured"),
        ({"equal": 0.9}, 5, "an output that is not floating point"),
        ({DROP: 0.1}, 5, "a metric: `evaluate`"),
        ({}, 0, "there is no sample to judge by"),
    ],
)
def test_limits_that_say_nothing_are_refused(limits, count, text):
    with pytest.raises(AccuracyError) as caught:
        AgreementJudge(_requests(count), _answers([[1, 0]] * count), limits)
    assert text in str(caught.value)


def test_an_answer_of_another_shape_is_an_error():
    judge = AgreementJudge(_requests(1), _answers([[1, 0]]), {"cosine": 0.9})
    with pytest.raises(AccuracyError, match="'y' cannot be held against fp32's"):
        judge(lambda inputs: {"y": np.float32([[1, 0, 0]])})
    with pytest.raises(AccuracyError, match="no such output"):
        judge(lambda inputs: {"z": np.float32([[1, 0]])})


def test_every_precision_has_limits_of_its_own():
    assert {variant.precision for variant in VARIANTS.values()} == set(DEFAULTS)
    whole = DEFAULTS["int8"].as_limits([{"a": np.float32([1]), "b": np.int64([1])}])
    assert set(whole) == {"cosine", "equal"}
    assert set(DEFAULTS["int8"].as_limits([{"b": np.int64([1])}])) == {"equal"}
