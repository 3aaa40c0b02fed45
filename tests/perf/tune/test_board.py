"""The table that is drawn while a search goes on."""

from perf.tune.board import SHOWN, board
from perf.tune.judge import Evidence, Measured
from perf.tune.predict import Trial
from perf.tune.request import Limit
from perf.tune.simulate import Arrivals
from perf.tune.space import Settings


def trial(instances, concurrency=16):
    return Trial(Settings("fp32", instances, None, 16), Arrivals(concurrency=concurrency))


def evidence_of(figures):
    evidence = Evidence("throughput", Limit(99, 10_000), cores=2)
    for each, rounds in figures.items():
        for number, (rate, latency_us) in enumerate(rounds):
            evidence.add(each, number, Measured(rate, latency_us, 500))
    return evidence


def test_it_says_who_leads_who_is_out_and_what_is_measured_now():
    default, best, slow = trial(1), trial(2), trial(4)
    evidence = evidence_of({
        default: [(100.0, 5000.0), (101.0, 5100.0), (99.0, 5000.0)],
        best: [(200.0, 5000.0), (202.0, 5050.0), (199.0, 5000.0)],
        slow: [(300.0, 30_000.0), (301.0, 31_000.0), (302.0, 30_000.0)],
    })  # fmt: skip
    head, first, second, third = board(evidence, default, default)
    assert head.split() == ["inferences/s", "p99", "ms", "against", "default", "rounds", "configuration"]
    assert first.startswith("  leads") and "x 2.0" in first and "2 instances" in first
    assert second.startswith(">") and " default " in second and "  5  " in second
    assert third.startswith("  out") and " ! " in third
    assert len({line.index("instance") for line in (first, second, third)}) == 1


def test_nothing_measured_is_no_table_and_many_are_cut_but_not_the_default():
    assert board(evidence_of({}), None, None) == []
    default = trial(1)
    figures = {trial(number, 8): [(100.0 + number, 1000.0)] for number in range(2, 15)}
    lines = board(evidence_of({default: [(10.0, 1000.0)], **figures}), default, None)
    assert len(lines) == 1 + SHOWN + 1 and lines[-1] == "and 6 more"
    assert " default " in lines[-2]
