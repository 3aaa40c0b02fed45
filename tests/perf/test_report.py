"""One result in all its forms; the figures were chosen so that their spelling is known."""

import csv
import io
import json
import re
from datetime import datetime, timezone

import pytest
from pydantic import ValidationError

from perf.model_analyzer import instance_groups, to_model_analyzer_csv
from perf.report import read_result, to_csv, to_json, to_markdown, to_text, write_report
from perf.result import BenchResult, Doubt, Latency, ModelRun, Point, ServerSide, Tool
from perf.table import plus_minus, rate, with_interval
from tests.perf import results


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
    assert "digits at concurrency 16, batch 2: no server answers; x; y; serve-repo" in text
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


def test_rates_rounds_and_checked_answers_have_columns_where_there_are_any():
    steady = (99.0, 100.0, 101.0, 100.5, 99.5, 100.2)
    rated = {"concurrency": None, "rate_per_s": 50.0, "distribution": "poisson", "checked": 300, "wrong": 2}
    made = results.point(rates=steady, latency=results.latency(requests=20_000, p99_9_us=3000.0), **rated)
    text = to_text(results.result(made, results.point(concurrency=4, rates=(5.0,))))
    lines = text.splitlines()
    assert "  load  " in lines[0] and "p99.9 ms" in lines[0] and "wrong" in lines[0]
    assert re.match(r"digits  rate 50/s poisson +100 ±1\.\d%  ", lines[1]) and "2 of 300" in lines[1]
    assert "concurrency 4" in lines[2] and "±" not in lines[2]
    row = next(csv.DictReader(io.StringIO(to_csv(results.result(made)))))
    assert (row["rate_per_s"], row["distribution"], row["concurrency"], row["rounds"]) == ("50.0", "poisson", "", "6")
    assert float(row["inferences_low"]) < 99 < 101 < float(row["inferences_high"])
    assert (row["p99_9_us"], row["checked"], row["wrong"], row["requests"]) == ("3000.0", "300", "2", "20000")


def test_model_analyzers_columns():
    """The header of its own golden file (tests/common/single-model-ckpt of its repository), and its units."""
    config = {"max_batch_size": 8, "instance_group": [{"kind": "KIND_CPU", "count": 2}]}
    usage = results.Usage(cpu_percent=80.0, memory_bytes=512_000_000)
    points = [results.point(concurrency=number, usage=usage, p99_us=12_345.6) for number in (1, 4)]
    failed = results.point(concurrency=8, inferences_per_s=None, latency=None, error={"what": "w"})
    made = results.result(*points, failed, config={"digits": config}, about={"digits": {"variant": "onnx-int8"}})
    head = to_model_analyzer_csv(made).splitlines()[0]
    golden = "Model,Batch,Concurrency,Model Config Path,Instance Group,Max Batch Size,Satisfies Constraints"
    assert head.startswith(golden + ",Throughput (infer/sec),") and "p99 Latency (ms)" in head.split(",")
    rows = list(csv.DictReader(io.StringIO(to_model_analyzer_csv(made))))
    assert [row["Concurrency"] for row in rows] == ["1", "4"]
    assert {"Model Config Path": "onnx-int8", "Instance Group": "2:CPU", "Max Batch Size": "8"}.items() <= rows[
        0
    ].items()
    assert (rows[0]["p99 Latency (ms)"], rows[0]["RAM Usage (MB)"]) == ("12.346", "512.0")
    assert rows[0]["Server Compute Infer time (ms)"] == "0.2" and "GPU Utilization (%)" not in rows[0]
    rated = results.point(concurrency=None, rate_per_s=50.0, distribution="constant")
    assert "Model,Batch,Request Rate,Model Config Path" in to_model_analyzer_csv(results.result(rated))


@pytest.mark.parametrize(
    ("groups", "gpu", "text"),
    [
        (None, False, "1:CPU"),
        ([{"count": 2, "kind": "KIND_AUTO"}], True, "2:GPU"),
        ([{"kind": "KIND_GPU", "count": 1}, {"kind": "KIND_CPU", "count": 3}], True, "1:GPU + 3:CPU"),
    ],
)
def test_instance_groups_as_model_analyzer_spells_them(groups, gpu, text):
    assert instance_groups({"instance_group": groups} if groups else {}, gpu) == text


def test_streams_have_columns_where_there_are_any():
    streamed = results.point(first_response=results.latency(50.0, 90.0), responses_per_s=800.0)
    made = results.result(streamed, results.point("other"))
    lines = to_text(made).splitlines()
    assert "first p50 ms  first p99 ms  responses/s" in lines[0]
    assert lines[1].split()[7:10] == ["0.05", "0.09", "800"] or "0.05          0.09          800" in lines[1]
    row = next(csv.DictReader(io.StringIO(to_csv(made))))
    assert (row["first_p50_us"], row["first_p99_us"], row["responses_per_s"]) == ("50.0", "90.0", "800.0")
    rows = [line for line in to_markdown(made).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1


def test_an_interval_that_says_nothing_is_said_to():
    assert plus_minus(100, (98, 103)) == " ±3.0%" and plus_minus(100, (20, 5000)) == " ±>100%"
    assert with_interval(100, (98, 103), rate) == "100 [98, 103]"
    assert with_interval(100, (1, 5000), rate) == "100 [too noisy]" and with_interval(100, None, rate) == "100"
