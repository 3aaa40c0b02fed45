"""Two runs held against each other: what is found, what is not, what cannot be told, what is refused."""

import json
import random
import subprocess

import pytest

from perf.cli import app
from perf.compare import UnlikeError, compare
from perf.compare_text import to_markdown, to_text
from perf.history import History
from perf.intervals import ratio_without_pairs
from perf.references import Side, find_side
from perf.report import write_report
from perf.result import Doubt
from serving.errors import UsageError
from serving.terminal import run
from tests.perf.results import point, result

STEADY = (99.0, 100.0, 101.0, 100.5, 99.5, 100.2)


def side(*results, model=None):
    return Side("text", tuple(results), model)


def scaled(rates, factor):
    return tuple(rate * factor for rate in rates)


def only(comparison):
    (pair,) = comparison.pairs
    return pair


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.2, "faster"), (0.8, "slower"), (1.0, "no difference found"), (1.03, "no difference found")],
)
def test_two_runs(factor, verdict):
    one, other = result(point(rates=STEADY), number=1), result(point(rates=scaled(STEADY, factor)), number=2)
    pair = only(compare(side(one), side(other)))
    assert (pair.verdict, pair.decided_by) == (verdict, "inferences_per_s")
    estimate = pair.estimate("inferences_per_s")
    assert estimate.ratio == pytest.approx(factor) and estimate.low < factor < estimate.high
    assert estimate.basis == "rounds"


def test_variants_of_one_run_are_pairs_and_need_no_allowance():
    noise = (1.0, 0.7, 1.2, 0.9, 1.1, 0.8)  # the machine's, the same for both
    fast, slow = (point(name, rates=scaled(noise, 100 * factor)) for name, factor in (("a", 1.03), ("b", 1.0)))
    one = result(slow, fast)
    pair = only(compare(side(one, model="b"), side(one, model="a")))
    assert (pair.verdict, pair.name) == ("faster", "b -> a")
    assert pair.estimate("inferences_per_s").basis == "paired rounds"
    apart = compare(side(one, model="b"), side(one.model_copy(update={"id": "f" * 32}), model="a"))
    assert only(apart).verdict == "cannot tell" and "too noisy" in only(apart).why
    assert "widened by 5%" in apart.caveats[0]


def test_where_throughput_tells_nothing_the_median_latency_may():
    """Moments in which the machine did something else, in other rounds of one than of the other."""
    stalls = ((1.0, 0.6, 1.0, 1.0, 0.7, 1.0, 1.0, 1.0, 0.8, 1.0), (1.0, 1.0, 0.8, 1.0, 1.0, 0.7, 1.0, 0.6, 1.0, 1.0))

    def of(name, rates, p50_us):
        made = point(name, rates=scaled(rates, 100), p50_us=p50_us)
        steady = [p50_us * (1 + number % 3 / 1000) for number in range(len(rates))]
        rounds = [each.model_copy(update={"p50_us": us}) for each, us in zip(made.rounds, steady, strict=True)]
        return made.model_copy(update={"rounds": tuple(rounds)})

    run = result(of("a", stalls[0], 1000.0), of("b", stalls[1], 1000.0), of("c", stalls[1], 1040.0))
    equal, slower = (compare(side(run, model="a"), side(run, model=name)) for name in "bc")
    assert (only(equal).decided_by, only(slower).decided_by) == ("inferences_per_s", "p50_us")
    assert only(slower).verdict == "slower" and only(equal).verdict != "slower"
    assert only(slower).estimate("inferences_per_s").verdict in ("no difference found", "cannot tell")
    assert "slower by its p50, 1.040 [1.0" in to_text(slower) and "decided by p50" in to_text(slower)


def test_windows_where_there_were_no_rounds():
    one, other = (
        result(point(rates=scaled((99, 100, 101), factor), rounds=False), number=number)
        for number, factor in ((1, 1.0), (2, 2.0))
    )
    pair = only(compare(side(one), side(other)))
    assert pair.verdict == "faster" and pair.estimate("inferences_per_s").basis == "windows"
    assert pair.estimate("p99_us").verdict == "cannot tell" and "several rounds" in pair.estimate("p99_us").why


def test_measured_once_it_cannot_be_told():
    one, other = result(point(rates=(100.0,)), number=1), result(point(rates=(300.0,)), number=2)
    pair = only(compare(side(one), side(other)))
    assert pair.verdict == "cannot tell" and "measured once" in pair.why
    assert pair.estimate("inferences_per_s").ratio == 3 and "3.000?" in to_text(compare(side(one), side(other)))


def test_where_the_load_is_a_rate_latency_decides():
    rated = {"concurrency": None, "rate_per_s": 100.0, "distribution": "poisson"}
    one, other = (
        result(point(rates=scaled(STEADY, 1 / factor), p99_us=2000 * factor, **rated), number=number)
        for number, factor in ((1, 1.0), (2, 1.5))
    )
    pair = only(compare(side(one), side(other)))
    assert (pair.verdict, pair.decided_by, pair.load) == ("slower", "p99_us", "rate 100/s poisson")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"doubts": (Doubt(code="failed_requests", message="7 of 9 failed"),)}, "B: 7 of 9 failed"),
        ({"checked": 10, "wrong": 3}, "B gave 3 wrong answers of 10"),
        ({"error": {"what": "no answer"}, "inferences_per_s": None, "latency": None}, "B was not measured: no answer"),
    ],
)
def test_figures_that_are_not_the_models_decide_nothing(broken, why):
    one, other = result(point(rates=STEADY), number=1), result(point(rates=scaled(STEADY, 2), **broken), number=2)
    pair = only(compare(side(one), side(other)))
    assert (pair.verdict, pair.why) == ("cannot tell", why)


def test_several_runs_of_a_revision_speak_for_themselves():
    old = [result(point(rates=scaled(STEADY, factor)), number=n) for n, factor in enumerate((1.0, 1.01, 0.99))]
    new = [result(point(rates=scaled(STEADY, factor)), number=n) for n, factor in enumerate((1.3, 1.31, 1.29), 10)]
    comparison = compare(side(*old), side(*new))
    assert only(comparison).estimate("inferences_per_s").basis == "runs" and only(comparison).verdict == "faster"
    assert comparison.caveats == ()
    assert only(comparison).estimate("p99_us").basis == "runs"


def test_unlike_machines_are_refused_unless_forced():
    one, other = (
        result(point(rates=STEADY), number=1),
        result(point(rates=STEADY), number=2, machine={"cores_usable": 8}, workload={"protocol": "grpc"}),
    )
    with pytest.raises(UnlikeError) as caught:
        compare(side(one), side(other))
    assert caught.value.exit_code == 2 and caught.value.got == "cores: 2 and 8\nprotocol: http and grpc"
    assert "--force" in caught.value.fix
    forced = compare(side(one), side(other), force=True)
    assert forced.unlike == ("cores: 2 and 8", "protocol: http and grpc")
    assert "NOT ALIKE, compared by --force: cores: 2 and 8" in to_text(forced)


def test_only_what_both_have_is_compared():
    one = result(point(rates=STEADY), point(concurrency=16, rates=STEADY), point("old", rates=STEADY), number=1)
    other = result(point(rates=STEADY), point("new", rates=STEADY), number=2)
    comparison = compare(side(one), side(other))
    assert only(comparison).load == "concurrency 4"
    assert comparison.unmatched == (
        "digits at concurrency 16: only in A",
        "old: only in A",
        "new: only in B",
    )
    with pytest.raises(UsageError, match="nothing in common"):
        compare(side(result(point("x"), number=1)), side(result(point("y"), number=2)))
    with pytest.raises(UsageError, match="compared with itself"):
        compare(side(one), side(one))
    with pytest.raises(UsageError, match="variant is compared with itself"):
        compare(side(one, model="old"), side(one, model="old"))


def test_equal_models_are_rarely_called_different_and_five_percent_is_found():
    """In one run, paired rounds; noise of 4% that both share and 1% of their own, as rounds in turn show it.

    Throughput and p50 have their own: either may be wrong.
    """
    random.seed(7)

    def noisy(name, factor, shared):
        rates, medians = (
            [100 * factor * each * random.lognormvariate(0, 0.01) for each in shared] for _ in ("throughput", "p50")
        )
        made = point(name, rates=tuple(rates))
        rounds = [
            each.model_copy(update={"p50_us": 1e5 / rate}) for each, rate in zip(made.rounds, medians, strict=True)
        ]
        return made.model_copy(update={"rounds": tuple(rounds)})

    verdicts = {1.0: [], 0.95: []}
    for factor, found in verdicts.items():
        for _ in range(100):
            shared = [random.lognormvariate(0, 0.04) for _ in range(10)]
            one = result(noisy("a", 1, shared), noisy("b", factor, shared))
            found.append(only(compare(side(one, model="a"), side(one, model="b"))).verdict)
    assert verdicts[1.0].count("faster") + verdicts[1.0].count("slower") <= 5
    assert verdicts[0.95].count("slower") >= 90 and "faster" not in verdicts[0.95]


def test_a_ratio_of_what_is_no_pair():
    assert ratio_without_pairs([2.0] * 5, [1.0] * 3).value == 2
    assert ratio_without_pairs([2.0] * 5, [1.0]).low == 0
    for values in ([], [0.0]):
        with pytest.raises(ValueError, match="above zero"):
            ratio_without_pairs(values, [1.0])


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A git checkout whose two commits were measured, and the history of that."""
    monkeypatch.chdir(tmp_path)

    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q", "-b", "main")
    history = History(tmp_path / "history.sqlite")
    for number, name in enumerate(("v1", "v2", "v3"), 1):
        git("commit", "-q", "--allow-empty", "-m", name)
        git("tag", name)
        rates = scaled(STEADY, 1.5 if name == "v2" else 1)
        changed = "+" if name == "v3" else ""
        history.append(result(point(rates=rates), number=number, revision=git("rev-parse", "HEAD") + changed))
    return history


def test_references_mean_files_runs_and_revisions(kept, tmp_path):
    assert find_side("v1", kept).newest.id[:4] == "0001" == find_side("main~2", kept).newest.id[:4]
    assert find_side("0002", kept).newest.id[:4] == "0002"
    assert find_side("HEAD+", kept).newest.id[:4] == "0003"
    assert find_side("v2:digits", kept).model == "digits"
    folder = tmp_path / "results" / "20261121"
    folder.mkdir(parents=True)
    write_report(result(point(), number=9), folder)
    assert find_side(str(folder), kept).newest.id[:4] == "0009"
    assert find_side(f"{folder}/result.json:digits", kept).model == "digits"
    assert "revision" in str(find_side("v1", kept)) and "run 00010001" in str(find_side("v1", kept))


@pytest.mark.parametrize(
    ("reference", "what", "hint"),
    [
        ("HEAD", "no run of this revision", "HEAD+"),
        ("v1:digit", "this run has no such model", "digits"),
        ("00", "no such run", "bench-repo history"),
        ("beef", "no such run", "bench-repo history"),
        ("nowhere/result.json", "no such file", "result.json"),
        ("results", "not the folder of a run", "results/20261121"),
        ("broken.json", "not a result of bench-repo", "Invalid JSON"),
        ("old.json", "not a result of bench-repo", "schema_version"),
        ("", "no run is named", "result.json or its folder"),
        ("0002", "this means several runs", "more digits"),
    ],
)
def test_references_that_mean_nothing(kept, tmp_path, reference, what, hint):
    folder = tmp_path / "results" / "20261121"
    folder.mkdir(parents=True)
    write_report(result(point()), folder)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "old.json").write_text((folder / "result.json").read_text().replace('_version": 2', '_version": 1'))
    if "several" in what:
        kept.append(result(point(), number=5, id="0002ffff" * 4))
    with pytest.raises(UsageError) as caught:
        find_side(reference, kept)
    assert caught.value.what == what and hint in str(caught.value)


def test_as_it_is_typed(kept, capsys):
    arguments = ["--history", str(kept.path)]
    assert run(app, ["compare", "v1", "v2", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("model") and lines[1].endswith("faster") and "1.500 [" in lines[1]
    assert any(line.startswith("A: v1 (run 00010001, 2026-11-21 13:00 UTC, revision ") for line in lines)
    assert run(app, ["compare", "v2", "v1", *arguments, "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["schema"], data["schema_version"], data["pairs"][0]["verdict"]) == ("triton-repo/compare", 1, "slower")
    assert run(app, ["compare", "v1", "HEAD+", *arguments, "--format", "markdown"]) == 0
    assert "| no difference found |" in capsys.readouterr().out
    assert run(app, ["compare", "v1", "v1", *arguments]) == 2
    assert run(app, ["compare", "v1", *arguments]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert run(app, ["compare", "--help"]) == 0
    assert "--allowance" in capsys.readouterr().out


def test_markdown_rows_are_equally_long():
    one = result(point("a|b", rates=STEADY), number=1)
    text = to_markdown(compare(side(one), side(one.model_copy(update={"id": "f" * 32}))))
    rows = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 3 and len({row.count("|") for row in rows}) == 1


def test_the_allowance_bears_what_differs_between_two_runs():
    """Three rounds each with 2% of noise, and runs that differ by 2% as a whole: rounds alone would be fooled."""
    random.seed(3)

    def measured(number):
        level = 100 * random.lognormvariate(0, 0.02)
        return side(result(point(rates=[level * random.lognormvariate(0, 0.02) for _ in range(3)]), number=number))

    verdicts = [only(compare(measured(1), measured(2))).verdict for _ in range(60)]
    assert verdicts.count("faster") + verdicts.count("slower") <= 3
