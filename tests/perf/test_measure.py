"""A whole measurement with the real perf_analyzer and a real server."""

import re

import numpy as np
import pytest

from perf import Workload, bench, measure_workload, read_result, runner
from perf.errors import WorkloadError
from perf.parse import read_csv, read_profile
from perf.runner import safe_name

# One worker: perf_analyzer names its shared memory after the tensors, so two at once get in each other's way.
pytestmark = [pytest.mark.server, pytest.mark.xdist_group("perf")]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_sweep_gives_every_figure(server, protocol, tmp_path):
    address = server.http_url if protocol == "http" else server.grpc_url
    result = bench(url=address, models=["scale"], concurrency=[1, 4], protocol=protocol, seconds=0.6, output=tmp_path)
    assert result.ok and [point.concurrency for point in result.points] == [1, 4]
    for point in result.points:
        latency, side = point.latency, point.server
        assert point.inferences_per_s > 0 and latency.source == "requests"
        assert 0 < latency.min_us <= latency.p50_us <= latency.p90_us <= latency.p95_us <= latency.p99_us
        assert len(point.windows) == 3 and sum(window.requests for window in point.windows) == latency.requests
        assert side.failures == 0
        # Of these windows alone: neither before nor after them (more narrowly in test_borders.py).
        assert side.requests == pytest.approx(latency.requests, rel=0.1, abs=5)
        assert 1.0 <= side.mean_batch <= point.concurrency
        # The server's part of a request cannot take longer than the client waited for it (means of nearly the same
        # requests, hence the margin).
        assert 0 < side.queue_us + side.compute_us < latency.mean_us * 1.5
        # Little's law: requests under way = rate x latency; less where the client itself is slow to send the next.
        under_way = point.inferences_per_s * latency.mean_us / 1e6
        assert 0.3 * point.concurrency < under_way < 1.1 * point.concurrency
    assert result.server["version"] and result.tool.version and result.machine["cores"]


def test_our_figures_are_perf_analyzers_own_for_the_same_run(server, tmp_path):
    result = bench(url=server.http_url, models=["scale"], concurrency=[2], seconds=0.6, output=tmp_path)
    (point,) = result.points
    raw = result.folder / point.raw
    row, profile = read_csv(raw / "perf_analyzer.csv"), read_profile(raw / "profile.json")
    mean_us = float(re.search(r"Avg latency: (\d+) usec \(standard deviation", (raw / "stdout.txt").read_text())[1])
    assert point.latency.mean_us == pytest.approx(mean_us, rel=0.01)
    assert point.latency.p50_us == pytest.approx(row.p50_us, rel=0.01)
    # Both divide the same count by the same windows; it prints six digits.
    assert point.inferences_per_s == pytest.approx(row.inferences_per_s, rel=1e-4)
    ordered = np.sort(profile.latency_us)
    for percentile in (50, 90, 95, 99):
        ours = getattr(point.latency, f"p{percentile}_us")
        assert ours in ordered
        # It cuts the fraction of a microsecond, or of each of the two timestamps.
        assert ours == pytest.approx(getattr(row, f"p{percentile}_us"), rel=0.01)


def test_the_files_of_a_run_are_kept_and_read_back(server, tmp_path):
    arguments = {"url": server.http_url, "models": ["scale"], "concurrency": [1], "seconds": 0.3, "output": tmp_path}
    first, second = bench(**arguments), bench(**arguments)
    assert first.folder != second.folder and first.folder.parent == second.folder.parent == tmp_path
    kept = {path.name for path in (first.folder / first.points[0].raw).iterdir()}
    assert kept == {"perf_analyzer.csv", "profile.json", "stdout.txt", "stderr.txt"}  # the export's tensors are not
    assert {path.name for path in first.folder.iterdir()} >= {"raw", "result.json", "result.csv", "result.md"}
    again = read_result(first.folder / "result.json")
    assert again.points == first.points and again.machine == first.machine


def test_without_output_nothing_stays(server, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = bench(url=server.http_url, models=["scale"], concurrency=[1], seconds=0.3)
    assert result.ok and result.folder is None and result.points[0].raw is None
    assert list(tmp_path.iterdir()) == []


def test_golden_requests_are_sent(server, repository):
    # Random int64 would be refused by this model: only token ids below 100 are answered.
    result = bench(repository, url=server.http_url, models=["tokens"], concurrency=[2], seconds=0.3)
    assert result.ok and result.models[0].inputs == "4 golden requests of version 1 in 3 shapes"
    result = bench(
        repository, url=server.grpc_url, protocol="grpc", models=["tokens"], batch_size=2, concurrency=[2], seconds=0.3
    )
    (point,) = result.points
    assert result.ok and "2 of 4 golden requests" in result.models[0].inputs
    # Each counter is read off between two looks, so they may be one apart.
    assert point.server.inferences == pytest.approx(2 * point.server.requests, abs=2) and point.server.mean_batch >= 2


def test_an_ensemble_shows_its_steps(server):
    result = bench(url=server.http_url, models=["twice"], concurrency=[2], seconds=0.3)
    (point,) = result.points
    (step,) = point.steps
    assert step.model == "scale" and step.requests == pytest.approx(2 * point.server.requests, abs=50)


def test_strings_and_models_without_batching(server):
    result = bench(url=server.http_url, models=["words"], shapes={"x": [2]}, concurrency=[1], seconds=0.3)
    assert result.ok and result.models[0].inputs == "made up: words"
    assert bench(url=server.http_url, models=["nobatch"], concurrency=[1], seconds=0.3).ok


def test_tensors_too_large_to_export_leave_perf_analyzers_own_figures(server, monkeypatch):
    monkeypatch.setattr(runner, "EXPORT_LIMIT_BYTES", 0)
    (point,) = bench(url=server.http_url, models=["scale"], concurrency=[2], seconds=0.6).points
    assert point.ok and point.latency.source == "perf_analyzer" and point.latency.requests > 0
    assert point.latency.p50_us == int(point.latency.p50_us) <= point.latency.p99_us
    assert len(point.windows) == 3 and point.duration_s == pytest.approx(0.6, rel=0.8)
    # In shared memory perf_analyzer sees no tensors, so nothing is in the way of an export.
    (point,) = bench(url=server.http_url, models=["scale"], concurrency=[2], seconds=0.3, shared_memory="system").points
    assert point.ok and point.latency.source == "requests"


def test_the_embedded_server_measures_what_loads_and_reports_what_does_not(repository, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "scale").symlink_to(repository / "scale")
    (models / "broken").mkdir()
    (models / "broken" / "config.pbtxt").write_text('backend: "nonesuch"\nmax_batch_size: 0\n')
    (models / "broken" / "1").mkdir()
    result = bench(models, concurrency=[2], seconds=0.3)
    broken, scale = result.models
    assert not result.ok and scale.ok and scale.points[0].latency.requests > 0
    assert broken.error["what"] == "the model is not ready" and "nonesuch" in broken.error["got"]
    assert result.server["kind"] in ("embedded", "local")


def test_a_point_that_fails_does_not_cost_the_others(server, monkeypatch):
    from perf.errors import AnalyzerError

    real = runner.analyze

    def fails_at_two(binary, load, folder, **others):
        if load.concurrency == 2:
            raise AnalyzerError("perf_analyzer was ended by SIGKILL", got="test")
        return real(binary, load, folder, **others)

    monkeypatch.setattr(runner, "analyze", fails_at_two)
    result = bench(url=server.http_url, models=["scale"], concurrency=[1, 2, 3], seconds=0.3)
    assert [point.ok for point in result.points] == [True, False, True], [point.error for point in result.points]
    assert not result.ok
    assert result.points[1].error == {
        "error": "AnalyzerError",
        "what": "perf_analyzer was ended by SIGKILL",
        "got": "test",
    }


@pytest.mark.parametrize(("crashes", "ok"), [(1, True), (2, False)])
def test_a_crash_of_perf_analyzer_is_tried_once_more(server, monkeypatch, crashes, ok):
    from perf.errors import AnalyzerCrashError

    real, left = runner.analyze, [crashes]

    def may_crash(binary, load, folder, **others):
        if load.windows == 3 and left[0]:
            left[0] -= 1
            raise AnalyzerCrashError("perf_analyzer was ended by SIGABRT", got="Bad file descriptor")
        return real(binary, load, folder, **others)

    monkeypatch.setattr(runner, "analyze", may_crash)
    (point,) = bench(url=server.http_url, models=["scale"], concurrency=[1], seconds=0.3).points
    assert point.ok == ok and left == [0]
    assert ok or point.error["what"] == "perf_analyzer was ended by SIGABRT"


def test_a_server_that_dies_on_the_way_keeps_what_was_measured(repository, monkeypatch):
    from serving import Server

    real = runner.analyze
    with Server(repository, model_control_mode="explicit", load=["scale"]) as dying:

        def killed_before_two(binary, load, folder, **others):
            if load.concurrency == 2:
                dying.stop(at_once=True)
            return real(binary, load, folder, **others)

        monkeypatch.setattr(runner, "analyze", killed_before_two)
        result = bench(url=dying.http_url, models=["scale"], concurrency=[3, 2], seconds=0.3)
    assert [point.ok for point in result.points] == [True, False]
    assert result.points[1].error["what"] == "the server died while it was measured"
    assert result.interrupted == "the server died"


def test_a_model_slower_than_the_windows_gets_longer_ones(server):
    # 0.4 s an answer, windows of 0.1 s: none would hold an answer.
    (point,) = bench(url=server.http_url, models=["late"], concurrency=[1], seconds=0.3).points
    assert point.ok and point.latency.p50_us > 400_000
    assert all(window.requests >= 1 for window in point.windows)
    assert "few_requests" in {doubt.code for doubt in point.doubts}


def test_every_problem_of_every_model_at_once(server):
    with pytest.raises(WorkloadError) as caught:
        bench(url=server.http_url, models=["scal", "nobatch", "words"], batch_size=2, seconds=0.3)
    found = {(problem.what, problem.fix) for problem in caught.value.problems}
    assert found == {
        ("no such model", "did you mean scale?"),
        ("the batch size is larger than the model takes", "--batch-size 1"),
        ("the input has a dynamic dimension and there are no golden requests to take its shape from", "--shape x:16"),
    }


def test_a_shape_for_an_input_nobody_has(server):
    with pytest.raises(WorkloadError, match="no model has an input y") as caught:
        bench(url=server.http_url, models=["scale"], shapes={"y": [4]}, seconds=0.3)
    assert caught.value.expected == "x"


def test_an_output_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(WorkloadError, match="output folder cannot be made"):
            bench(url=server.http_url, models=["scale"], seconds=0.3, output=output)


@pytest.mark.parametrize("name", ["plain-1.2", "..", ".", "a/b", "ü", "a b"])
def test_any_models_name_is_one_folder(name, tmp_path):
    (tmp_path / safe_name(name)).mkdir()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_workload_can_be_built_by_hand(server):
    result = measure_workload(Workload(url=server.http_url, models=("scale",), concurrency=(1,), seconds=0.3))
    assert result.ok and result.workload["models"] == ["scale"]
