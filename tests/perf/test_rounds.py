"""Points of several rounds: joined in numbers, measured in turn with the real tools, and kept when something dies."""

import json
import math

import numpy as np
import pytest

from perf import bench, measure_workload, read_result, runner
from perf.about import about_model
from perf.figures import latency_from
from perf.merged import merged, relative_width_percent
from perf.points import Measured
from perf.result import Doubt, Point, ServerSide, Usage
from perf.revision import revision
from perf.workload import workload_from


def one_round(rate, latencies, **more):
    latency_us = np.asarray(latencies, dtype=np.float64)
    point = Point(
        model="m",
        version="1",
        concurrency=2,
        batch_size=1,
        inferences_per_s=rate,
        duration_s=1.0,
        latency=latency_from(latency_us, scheduled=False),
        raw="raw/m/x",
        **more,
    )
    return Measured(point, latency_us)


def side(requests, queue_us, executions=1):
    figures = dict.fromkeys(("compute_input_us", "compute_infer_us", "compute_output_us"), 1.0)
    return ServerSide(
        model="m",
        version="1",
        requests=requests,
        failures=0,
        inferences=requests,
        executions=executions,
        mean_batch=requests / executions,
        queue_us=queue_us,
        **figures,
    )


def test_percentiles_are_those_of_all_requests_and_rates_are_medians():
    rounds = [(0, one_round(100, [1, 2, 3])), (1, one_round(110, [4, 5, 6])), (3, one_round(90, [7, 8, 9]))]
    point = merged(rounds, 15)
    assert point.inferences_per_s == 100 and point.latency.requests == 9 and point.latency.p50_us == 5
    assert [one.number for one in point.rounds] == [0, 1, 3] and [one.p50_us for one in point.rounds] == [2, 5, 8]
    low, high = point.inferences_interval
    assert low < 90 < 110 < high and low * high == pytest.approx(100**2)  # as wide on both sides, as a factor
    assert point.p99_interval_us[0] < 6 < point.p99_interval_us[1] and point.duration_s == 3.0
    assert merged(rounds[:1], 15) is rounds[0][1].point  # a single one stays what it is


def test_the_servers_figures_are_weighted_by_requests_and_usage_is_joined():
    usage = {"usage": Usage(cpu_percent=50.0, memory_bytes=10)}
    more = {"usage": Usage(cpu_percent=70.0, memory_bytes=30)}
    rounds = [
        (0, one_round(1, [1], server=side(100, 10.0, 50), checked=5, wrong=0, **usage)),
        (1, one_round(1, [1], server=side(300, 30.0, 50), steps=(side(7, 1.0),), checked=6, wrong=1, **more)),
    ]
    point = merged(rounds, 15)
    assert (point.server.requests, point.server.queue_us, point.server.mean_batch) == (400, 25.0, 4.0)
    assert point.steps[0].requests == 7 and (point.checked, point.wrong) == (11, 1)
    assert point.usage == Usage(cpu_percent=60.0, memory_bytes=30)


def test_doubts_are_judged_anew_or_counted():
    seen = Doubt(code="cache_hits", message="50% of the answers")
    rounds = [(0, one_round(100, [1] * 9, doubts=(seen,))), (1, one_round(200, [1] * 9))]
    doubts = {doubt.code: doubt.message for doubt in merged(rounds, 15).doubts}
    assert doubts["cache_hits"] == "in 1 of 2 rounds: 50% of the answers"
    assert "throughput differs by 100% between 2 rounds" in doubts["unstable"] and "of 18" in doubts["few_requests"]


def test_the_width_of_an_interval():
    assert relative_width_percent((90.9090909, 110.0)) == pytest.approx(10.0)
    assert relative_width_percent(None) == relative_width_percent((0.0, math.inf)) == math.inf


def test_what_a_manifest_says(tmp_path):
    folder = tmp_path / "m" / "3"
    folder.mkdir(parents=True)
    assert about_model(tmp_path, "m", "3") == about_model(None, "m", "3") == {}
    (folder / "manifest.json").write_text("{")
    assert about_model(tmp_path, "m", "3") == {}
    manifest = {"variant": "onnx-int8", "precision": "int8", "size_bytes": 7, "notes": []}
    manifest["verification"] = {"accuracy": {"value": 0.97, "reference": 0.98}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert about_model(tmp_path, "m", "3") == {
        "variant": "onnx-int8",
        "precision": "int8",
        "size_bytes": 7,
        "accuracy": 0.97,
    }


def test_the_revision_is_the_checkouts(tmp_path):
    import subprocess

    assert revision(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a").write_text("1")
    subprocess.run([*git, "add", "a"], check=True)
    subprocess.run([*git, "commit", "-qm", "a"], check=True)
    commit = revision(tmp_path)
    assert len(commit) == 40
    (tmp_path / "untracked").write_text("1")
    assert revision(tmp_path) == commit
    (tmp_path / "a").write_text("2")
    assert revision(tmp_path) == commit + "+"


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_several_models_are_measured_in_turn(server, tmp_path, monkeypatch):
    order = []
    real = runner.analyze

    def noted(binary, load, folder, **others):
        order.append((load.model, folder.name))
        return real(binary, load, folder, **others)

    monkeypatch.setattr(runner, "analyze", noted)
    result = bench(
        url=server.http_url, models=["scale", "nobatch"], concurrency=[2], rounds=2, seconds=0.3, output=tmp_path
    )
    assert order[2:] == [
        ("scale", "concurrency-2-round-1"),
        ("nobatch", "concurrency-2-round-1"),
        ("nobatch", "concurrency-2-round-2"),
        ("scale", "concurrency-2-round-2"),
    ]
    for point in result.points:
        assert [one.number for one in point.rounds] == [0, 1] and point.raw is None
        assert sum(one.requests for one in point.rounds) == point.latency.requests == point.latency.requests
        assert (result.folder / point.rounds[1].raw / "profile.json").is_file()
        low, high = point.inferences_interval
        assert low <= point.inferences_per_s <= high
    assert result.models[0].config["name"] == "scale" and result.workload["rounds"] == 2
    again = read_result(result.folder / "result.json")
    assert again.points == result.points and again.id == result.id and again.revision == result.revision


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_rounds_go_on_until_the_budget_is_spent_and_that_is_said(server):
    # No two rounds are alike to a thousandth of a percent; the budget has room for one more round at most.
    result = bench(
        url=server.http_url, models=["scale"], concurrency=[2], seconds=0.3, precision=0.001, budget=0.001, rounds=2
    )
    (point,) = result.points
    assert len(point.rounds) == 2
    (doubt,) = [doubt for doubt in result.doubts if doubt.code == "imprecise"]
    assert "scale concurrency 2" in doubt.message and "--budget" in doubt.message


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_what_was_measured_before_a_server_died_is_kept(repository, monkeypatch):
    from serving import Server

    real = runner.analyze
    with Server(repository, model_control_mode="explicit", load=["scale"]) as dying:

        def killed(binary, load, folder, **others):
            if folder.name == "concurrency-2-round-2":
                dying.stop(at_once=True)
            return real(binary, load, folder, **others)

        monkeypatch.setattr(runner, "analyze", killed)
        result = bench(url=dying.http_url, models=["scale"], concurrency=[2], rounds=3, seconds=0.3)
    (run,) = result.models
    (point,) = run.points
    assert not result.ok and run.error["what"] == "the server died while it was measured"
    assert point.ok and point.latency.requests > 0 and point.rounds == ()
    assert "ended after 1 rounds: the server died while it was measured" in {doubt.message for doubt in point.doubts}


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_an_interruption_leaves_what_was_measured(server, tmp_path, monkeypatch):
    real = runner.analyze

    def interrupted(binary, load, folder, **others):
        if folder.name == "concurrency-2":
            raise KeyboardInterrupt
        return real(binary, load, folder, **others)

    monkeypatch.setattr(runner, "analyze", interrupted)
    workload = workload_from(url=server.http_url, models=["scale"], concurrency=[1, 2], seconds=0.3)
    with pytest.raises(KeyboardInterrupt):
        measure_workload(workload, output=tmp_path)
    (folder,) = tmp_path.iterdir()
    (point,) = read_result(folder / "result.json").points
    assert point.concurrency == 1 and point.ok
