"""One result in all its forms; the figures were chosen so that their spelling is known."""

import csv
import io
import json
from datetime import datetime, timezone

import pytest
from pydantic import ValidationError

from perf.report import read_result, to_csv, to_json, to_markdown, to_text, write_report
from perf.result import BenchResult, Doubt, Latency, ModelRun, Point, ServerSide, Tool


def side(model, **values):
    figures = {"requests": 2000, "failures": 0, "inferences": 4000, "executions": 1000, "mean_batch": 4.0}
    figures |= {"queue_us": 120.0, "compute_input_us": 10.0, "compute_infer_us": 200.0, "compute_output_us": 30.0}
    return ServerSide(model=model, version="3", **(figures | values))


@pytest.fixture
def result(tmp_path):
    latency = Latency(requests=2000, mean_us=600, p50_us=585.4, p90_us=1234.5, p95_us=15_000, p99_us=1_234_567)
    common = {"model": "digits", "version": "3", "batch_size": 2}
    good = Point(
        concurrency=1,
        inferences_per_s=3871.34,
        duration_s=1.0,
        latency=latency,
        server=side("digits"),
        steps=(side("scale", mean_batch=None),),
        **common,
    )
    weak = Point(
        concurrency=4,
        inferences_per_s=12.345,
        latency=latency.model_copy(update={"requests": 150}),
        doubts=(Doubt(code="unstable", message="not stable: a"), Doubt(code="few_requests", message="few: b")),
        **common,
    )
    failed = Point(concurrency=16, error={"what": "no server answers", "got": "x\ny", "fix": "serve-repo"}, **common)
    run = ModelRun(model="digits", version="3", inputs="8 golden requests of version 3", points=(good, weak, failed))
    other = ModelRun(model="a|b", error={"what": "the model is not ready", "got": "UNAVAILABLE"})
    return BenchResult(
        started_at=datetime(2026, 11, 21, tzinfo=timezone.utc),
        duration_s=9.5,
        workload={"protocol": "http", "batch_size": 2, "shared_memory": "none", "seconds": 6.0},
        tool=Tool(path="/pa", version="2.50.0", origin="tritonclient 2.50.0"),
        server={"kind": "url", "url": "http://h:1", "version": "2.51.0"},
        machine={"cpu": "A CPU", "cores_usable": 2, "memory_bytes": 24 * 2**30, "kernel": "6.1"},
        models=(run, other),
        doubts=(Doubt(code="busy_machine", message="the machine was busy"),),
        folder=tmp_path,
    )


def test_the_table_converts_to_milliseconds_and_marks_what_is_weak(result):
    lines = to_text(result).splitlines()
    rows = [line.split() for line in lines]
    head = "model concurrency inferences/s p50 ms p90 ms p95 ms p99 ms queue ms compute ms mean batch requests doubts"
    assert rows[0] == head.split()
    name = ["digits", "(batch", "2)"]
    assert rows[1] == [*name, "1", "3,871", "0.585", "1.23", "15", "1,235", "0.12", "0.24", "4.00", "2000"]
    assert rows[2] == ["scale", "0.12", "0.24", "-"]
    # 150 requests: 15 beyond p90 are enough, 7.5 beyond p95 and 1.5 beyond p99 are not.
    assert rows[3][3:] == [
        "4",
        "12.3?",
        "0.585",
        "1.23",
        "15?",
        "1,235?",
        "-",
        "-",
        "-",
        "150",
        "unstable,",
        "few",
        "requests",
    ]
    assert rows[4] == [*name, "16", "failed"]
    text = "\n".join(lines)
    for line in (
        "the machine was busy",
        "unstable: the windows",
        "few requests: fewer than 10",
        "24 GiB",
        f"files: {result.folder}",
    ):
        assert line in text
    assert "digits at concurrency 16: no server answers; x; y; serve-repo" in text
    assert "a|b: the model is not ready; UNAVAILABLE" in text


def test_a_narrow_terminal_cuts_no_number(result):
    assert "1,235" in to_text(result, width=20) and max(map(len, to_text(result, width=20).splitlines())) > 80


def test_csv_is_in_microseconds(result):
    rows = list(csv.DictReader(io.StringIO(to_csv(result))))
    assert [row["model"] for row in rows] == ["digits", "digits", "digits", "a|b"]
    expected = {"concurrency": "1", "p50_us": "585.4", "p99_us": "1234567.0", "queue_us": "120.0", "mean_batch": "4.0"}
    assert expected.items() <= rows[0].items()
    assert rows[1]["doubts"] == "unstable few_requests" and rows[1]["queue_us"] == ""
    assert rows[2]["error"] == "no server answers" and rows[2]["p50_us"] == ""


def test_json_is_versioned_and_read_back(result, tmp_path):
    write_report(result, tmp_path)
    data = json.loads((tmp_path / "result.json").read_text())
    assert (data["schema"], data["schema_version"]) == ("triton-repo/bench", 2) and "folder" not in data
    again = read_result(tmp_path / "result.json")
    assert again.model_copy(update={"folder": result.folder}) == result
    data["schema_version"] = 3
    (tmp_path / "result.json").write_text(json.dumps(data))
    with pytest.raises(ValidationError, match="schema_version"):
        read_result(tmp_path / "result.json")


def test_json_has_no_number_that_json_has_not(result):
    json.loads(to_json(result), parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))


def test_markdown_is_one_table_whose_rows_are_equally_long(result):
    text = to_markdown(result)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 6 and len({row.count("|") for row in rows}) == 1
    assert "- unstable: the windows" in text and "Not measured:" in text
