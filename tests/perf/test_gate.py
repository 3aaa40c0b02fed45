"""Gates: limits, regressions beyond noise, mistakes with their lines, exit status."""

import json

import pytest

from perf.cli import app
from perf.cli_results import expected
from perf.compare import compare
from perf.gate import gate_markdown, gate_text, heading, judge
from perf.gate_file import GateError, load_gate
from perf.history import History
from perf.references import Side
from perf.report import write_report
from perf.result import Doubt
from serving.terminal import run
from tests.perf.results import latency, point, result

STEADY = (99.0, 100.0, 101.0, 100.5, 99.5, 100.2)


@pytest.fixture
def gate(tmp_path):
    def write(text):
        path = tmp_path / "gate.yaml"
        path.write_text(text)
        return path

    return write


def judged(path, *points):
    return judge(load_gate(path), result(*points))


def against(path, old, new):
    sides = [Side(str(number), (result(*points, number=number),)) for number, points in enumerate((old, new), 1)]
    return judge(load_gate(path), sides[1].newest, compare(*sides))


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        ("p99: 2ms", "passed"),
        ("p99: 1.9ms", "failed"),
        ("p99: 1900us", "failed"),
        ("p50: 0.001s", "passed"),
        ("mean: 1ms", "failed"),
        ("throughput: 100", "passed"),
        ("throughput: 100.5", "failed"),
        ("p99_9: 5ms", "failed"),  # there is none
    ],
)
def test_limits(gate, limits, status):
    outcome = judged(gate(f"checks:\n  - {{model: digits, {limits}}}\n"), point(rates=STEADY))
    (only,) = outcome.outcomes
    assert only.status == status and outcome.passed == (status == "passed")
    assert only.where.endswith("gate.yaml:2")


def test_a_check_is_about_the_points_that_it_names(gate):
    points = [point(name, concurrency) for name in ("digits_a", "digits_b", "bert") for concurrency in (1, 4)]
    points.append(point("bert", None, rate_per_s=50.0, distribution="poisson"))
    text = """checks:
  - {model: "digits_*", concurrency: 4, p99: 1s}
  - {rate: [50, 70], p99: 1s}
  - {throughput: 1}
  - {model: gpt, concurrency: 4, batch_size: 2, p99: 1s}
"""
    outcome = judged(gate(text), *points)
    found = {line: [each.what for each in outcome.outcomes if each.where.endswith(f":{line}")] for line in (2, 3, 4, 5)}
    assert found[2] == ["digits_a at concurrency 4: p99", "digits_b at concurrency 4: p99"]
    assert found[3] == ["bert at rate 50/s poisson: p99"] and len(found[4]) == 7
    # A check that is about nothing fails: a model that was renamed would pass every gate otherwise.
    assert found[5] == ["gpt, concurrency 4, batch_size 2"] and not outcome.passed
    assert "1 of 11 limits" in heading(outcome)


def test_what_was_not_measured_fails(gate):
    failed = point(inferences_per_s=None, latency=None, error={"what": "no answer"})
    outcome = judged(gate("checks: [{throughput: 1}]"), failed)
    assert not outcome.passed and outcome.outcomes[0].note == "no answer"
    broken = result(failed).models[0].model_copy(update={"points": (), "error": {"what": "not ready"}})
    outcome = judge(load_gate(gate("checks: [{p99: 1s}]")), result(failed).model_copy(update={"models": (broken,)}))
    assert [each.note for each in outcome.outcomes] == ["not ready"]


def test_noise_at_the_limit_and_few_requests_are_said(gate):
    path = gate("checks: [{p99: 2.01ms, throughput: 99.9}]")
    weak = point(rates=STEADY).model_copy(update={"latency": latency(requests=150)})
    notes = [each.note for each in judged(path, weak).outcomes]
    assert notes[0] == "within the noise of the limit"
    assert notes[1] == "within the noise of the limit; rests on 2 of 150 requests: longer --seconds"


@pytest.mark.parametrize(
    ("factor", "rule", "passed"),
    [
        (0.8, "{}", False),
        (0.8, "{tolerated: 30%}", True),
        (0.8, "{tolerated: 10%, metrics: throughput}", False),
        (1.0, "{}", True),
        (1.5, "{}", True),
        (0.97, "{}", True),  # within the allowance between two runs
    ],
)
def test_a_regression_is_what_is_surely_slower(gate, factor, rule, passed):
    old, new = point(rates=STEADY), point(rates=[each * factor for each in STEADY], p99_us=2000 / factor)
    outcome = against(gate(f"regression: {rule}"), [old], [new])
    assert outcome.passed is passed, gate_text(outcome)


def test_what_cannot_be_told_passes_unless_the_gate_is_strict(gate):
    old, new = point(rates=(100.0,)), point(rates=(50.0,))
    lenient = against(gate("regression: {metrics: [throughput]}"), [old], [new])
    assert lenient.passed and lenient.outcomes[0].status == "cannot tell" and "1 cannot be told" in heading(lenient)
    strict = gate("regression: {cannot_tell: fails, metrics: [throughput]}")
    assert not against(strict, [old], [new]).passed
    gone = [point(rates=STEADY), point("gone", rates=STEADY)]
    assert not against(strict, gone, [gone[0]]).passed
    doubt = Doubt(code="failed_requests", message="9 of 10 failed")
    failing = against(gate("regression: {}"), [old], [point(rates=STEADY, doubts=(doubt,))])
    assert not failing.passed and failing.outcomes[0].note == "9 of 10 failed"


MISTAKES = """checks:
  - model: 3
    p99: 20
    concurency: 4
  - concurrency: 4
  - {rate: 5, concurrency: 5, throughput: fast}
  - p99
regression:
  against: [1]
  tolerated: 5
  metrics: [p99, trhoughput]
  cannot_tell: fail
  tolerated: 7%
gates: 1
"""


def test_every_mistake_with_its_line(gate):
    path = gate(MISTAKES)
    with pytest.raises(GateError) as caught:
        load_gate(path)
    found = {problem.where.removeprefix(f"{path}:"): problem for problem in caught.value.problems}
    assert sorted(found, key=lambda where: int(where.split(",")[0])) == [
        "2, checks[0].model",
        "3, checks[0].p99",
        "4, checks[0].concurency",
        "5, checks[1]",
        "6, checks[2].throughput",
        "6, checks[2]",
        "7, checks[3]",
        "9, regression.against",
        "10, regression.tolerated",
        "11, regression.metrics[1]",
        "12, regression.cannot_tell",
        "13",
        "14, gates",
    ]
    assert found["4, checks[0].concurency"].fix == "did you mean concurrency?"
    assert found["11, regression.metrics[1]"].fix == "did you mean throughput?"
    assert found["12, regression.cannot_tell"].fix == "did you mean fails?"
    assert "20ms" in found["3, checks[0].p99"].expected and found["3, checks[0].p99"].got == "20"
    assert caught.value.exit_code == 2 and "13 problems in the gate" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "lets everything pass"),
        ("checks: 1", "checks is no list"),
        ("regression: yes", "regression is no mapping"),
        ("- a", "not a gate"),
        ("checks: [", "not valid YAML"),
        (None, "the gate cannot be read"),
    ],
)
def test_what_is_no_gate(gate, tmp_path, text, what):
    with pytest.raises(GateError) as caught:
        load_gate(gate(text) if text is not None else tmp_path / "nothing.yaml")
    assert (what in str(caught.value) and "gate.yaml" in str(caught.value)) or text is None


def test_compare_with_a_gate_as_it_is_typed(gate, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, (name, factor) in enumerate((("old", 1.0), ("new", 0.5)), 1):
        (tmp_path / name).mkdir()
        rates = [each * factor for each in STEADY]
        write_report(result(point(rates=rates), number=number), tmp_path / name)
    path = gate("regression: {against: whatever}\nchecks: [{throughput: 10}]\n")
    assert run(app, ["compare", "old", "new", "--gate", str(path)]) == 1
    text = capsys.readouterr().out
    assert "gate failed: 1 of 3 limits" in text and "slower than the baseline, beyond noise" in text
    assert run(app, ["compare", "new", "old", "--gate", str(path), "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["gate"]["passed"] is True and len(data["gate"]["outcomes"]) == 3
    assert run(app, ["compare", "old", "new", "--gate", str(path), "--format", "markdown"]) == 1
    lines = capsys.readouterr().out.splitlines()
    heading_at = next(number for number, line in enumerate(lines) if "Gate failed" in line)
    rows = [line for line in lines[heading_at:] if line.startswith("|")]
    assert (
        rows[2].startswith("| failed | digits at concurrency 4: throughput") and len({r.count("|") for r in rows}) == 1
    )
    path.write_text("checks: [{p99: 20}]")
    assert run(app, ["compare", "old", "new", "--gate", str(path)]) == 2
    assert "gate.yaml:1, checks[0].p99" in capsys.readouterr().err


def test_a_gate_is_read_and_its_baseline_found_before_measuring(gate, tmp_path, capsys):
    arguments = ["--url", "127.0.0.1:1", "--history", str(tmp_path / "h.sqlite"), "--gate"]
    for text, words in (
        ("regression: {}", "no baseline is named"),
        ("regression: {against: feedfeed}", "there is no history here"),
        ("checks: [{p99: 1}]", "p99 is no time"),
    ):
        assert run(app, [*arguments, str(gate(text))]) in (1, 2)
        error = capsys.readouterr().err
        assert words in error and "no server" not in error
    History(tmp_path / "h.sqlite").append(result(point(rates=STEADY), id="feedfeed" * 4))
    wanted = expected(gate("regression: {against: feedfeed}"), tmp_path / "h.sqlite")
    assert wanted.judge(result(point(rates=STEADY), number=5)).passed
    assert not wanted.judge(result(point(rates=[each / 2 for each in STEADY]), number=5)).passed


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_a_real_run_is_kept_gated_and_compared(gate, server, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--url", server.http_url, "--model", "scale", "--concurrency", "2", "--seconds", "0.3"]
    arguments += ["--history", "h.sqlite"]
    path = gate("checks: [{model: scale, p99: 10s, throughput: 1}, {model: scale, throughput: 1000000000}]")
    assert run(app, [*arguments, "--gate", str(path), "--format", "markdown"]) == 1
    text = capsys.readouterr().out
    assert "Gate failed: 1 of 3 limits" in text and "1,000,000,000 per s or more" in text
    (row,) = History(tmp_path / "h.sqlite").rows("scale")
    assert row.inferences_per_s > 1 and row.p99_us > 0
    path.write_text(f"regression: {{against: {row.run[:8]}, tolerated: 99%}}")
    assert run(app, [*arguments, "--gate", str(path), "--format", "json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["schema_version"] == 2 and "gate passed" in captured.err
    newest = History(tmp_path / "h.sqlite").rows("scale")[-1].run
    assert newest != row.run
    assert run(app, ["compare", row.run[:8], newest[:8], "--history", "h.sqlite"]) == 0
    assert "scale  concurrency 2" in capsys.readouterr().out


def test_markdown_escapes(gate):
    outcome = judged(gate('checks: [{model: "a|b", p99: 1s}]'), point("a|b"))
    assert "a\\|b" in gate_markdown(outcome)
