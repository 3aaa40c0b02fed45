"""Raw files -> numbers. Expected values were worked out by hand, or come from perf_analyzer's own files."""

import json

import numpy as np
import pytest

from perf import parse
from perf.errors import RawFileError
from perf.figures import latency_of, windows_of
from perf.parse import (
    Profile,
    latency_from_csv,
    newest,
    passes_of,
    read_csv,
    read_profile,
    server_side,
    strip_tensors,
)

VERSIONS = ("2.50", "2.60")


def profile_of(latencies_us, boundaries_us=None):
    start = np.arange(len(latencies_us), dtype=np.int64) * 1_000_000
    end = start + (np.array(latencies_us) * 1000).astype(np.int64)
    edges = [0, int(end.max())] if boundaries_us is None else [edge * 1000 for edge in boundaries_us]
    return Profile(start, end, np.array(edges, dtype=np.int64))


def test_percentiles_of_one_to_a_hundred_microseconds():
    # 100 values: the nearest to rank q * 99 counted from zero. p50: 49.5 -> 51; p99: 98.01 -> 99.
    latency = latency_of(profile_of(range(1, 101)))
    assert (latency.requests, latency.mean_us, latency.min_us, latency.max_us) == (100, 50.5, 1.0, 100.0)
    assert [latency.p50_us, latency.p90_us, latency.p95_us, latency.p99_us] == pytest.approx([51.0, 90.0, 95.0, 99.0])


def test_a_request_belongs_to_the_window_in_which_its_answer_came():
    # Sent at 0, 1, 2, 3 ms; answered at 0.5, 1.5, 2.5 and 5 ms; windows 0-2 ms and 2-6 ms.
    windows = windows_of(profile_of([500, 500, 500, 2000], boundaries_us=[0, 2000, 6000]), batch_size=4)
    assert [window.requests for window in windows] == [2, 2]
    assert [window.duration_s for window in windows] == [0.002, 0.004]
    assert [window.inferences_per_s for window in windows] == [4000.0, 2000.0]  # 2 requests of 4 in 2 ms, in 4 ms
    assert [window.mean_us for window in windows] == [500.0, 1250.0]


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_run_agrees_with_perf_analyzers_own_figures(recorded, version):
    raw = recorded(version)
    profile, row = read_profile(raw["export"]), read_csv(raw["csv"])
    latency = latency_of(profile)
    assert latency.requests == int(raw["stdout"].partition("Request count: ")[2].split()[0])
    # perf_analyzer divides by the windows' length too; it prints six digits.
    assert latency.requests / profile.duration_s == pytest.approx(row.inferences_per_s, rel=1e-5)
    ordered = np.sort(profile.latency_us)
    for percentile in (50, 90, 95, 99):
        ours = getattr(latency, f"p{percentile}_us")
        assert ours in ordered
        assert ours == pytest.approx(getattr(row, f"p{percentile}_us"), abs=2.0)  # it cuts off fractions


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_windows_are_those_perf_analyzer_printed(recorded, version):
    raw = recorded(version)
    windows, passes = windows_of(read_profile(raw["export"]), 1), passes_of(raw["stdout"])
    assert len(windows) == len(passes) == 3
    for window, seen in zip(windows, passes, strict=True):
        # At an edge perf_analyzer may count a request to neither window; one request of about 27 is 4%.
        assert window.requests == pytest.approx(seen.inferences_per_s * window.duration_s, abs=1.5)


def test_statistics_of_the_recorded_run(recorded):
    side = server_side(recorded("2.50")["before"], recorded("2.50")["after"])
    # From the file, by hand: 83 requests, 79 executions; nanoseconds 839047942, 2904617, 924186326, 28951547.
    assert (side.model, side.version, side.requests, side.failures) == ("nap", "1", 83, 0)
    assert side.mean_batch == pytest.approx(83 / 79)
    assert side.queue_us == pytest.approx(10109.011, abs=1e-3)
    assert side.compute_input_us == pytest.approx(34.995, abs=1e-3)
    assert side.compute_infer_us == pytest.approx(11134.775, abs=1e-3)
    assert side.compute_output_us == pytest.approx(348.814, abs=1e-3)
    assert side.compute_us == pytest.approx(11518.584, abs=1e-2)


def test_statistics_are_differences_and_take_grpcs_spelling():
    before = {"name": "m", "version": "2", "inference_count": "10", "execution_count": "10"}
    before["inference_stats"] = {"success": {"count": "10", "ns": "1"}, "queue": {"count": "10", "ns": "10000"}}
    after = {"name": "m", "version": "2", "inference_count": "50", "execution_count": "20"}
    after["inference_stats"] = {
        "success": {"count": "30", "ns": "1"},
        "fail": {"count": "3", "ns": "9"},
        "queue": {"count": "30", "ns": "130000"},
    }
    side = server_side(before, after)
    assert (side.requests, side.failures, side.inferences, side.executions, side.mean_batch) == (20, 3, 40, 10, 4.0)
    assert side.queue_us == 6.0  # 120000 ns over 20 requests
    assert side.compute_infer_us is None and side.compute_us is None  # not said is not zero


def test_an_idle_model_has_no_means():
    entry = {"name": "m", "version": "1", "inference_count": 5, "execution_count": 5}
    side = server_side(entry, entry)
    assert (side.requests, side.mean_batch, side.queue_us) == (0, None, None)


def test_newest_version_by_number_not_by_text():
    entries = [{"name": "m", "version": "9"}, {"name": "m", "version": "10"}, {"name": "n", "version": "11"}]
    assert newest(entries, "m") == {"name": "m", "version": "10"}
    assert newest(entries, "other") is None


@pytest.mark.parametrize("chunk_bytes", [7, 1000, 1 << 22])
@pytest.mark.parametrize("version", VERSIONS)
def test_stripping_keeps_every_timestamp(recorded, tmp_path, monkeypatch, version, chunk_bytes):
    if chunk_bytes < 100:
        monkeypatch.setattr(parse, "_LONGEST_PIECE_BYTES", 64)  # or the carry-over would make this quadratic
    monkeypatch.setattr(parse, "_CHUNK_BYTES", chunk_bytes)
    source = recorded(version)["export"]
    strip_tensors(source, tmp_path / "small.json")
    whole, small = read_profile(source), read_profile(tmp_path / "small.json")
    for name in ("start_ns", "end_ns", "boundaries_ns"):
        assert np.array_equal(getattr(whole, name), getattr(small, name))
    assert (tmp_path / "small.json").stat().st_size < source.stat().st_size / 2
    assert "request_inputs" not in (tmp_path / "small.json").read_text()


def test_stripping_is_not_led_astray_by_text_in_tensors(tmp_path):
    request = {
        "timestamp": 5,
        "request_inputs": {"x": 'a "timestamp":7,"response_timestamps":[8] in a string'},
        "response_timestamps": [9],
        "response_outputs": [{"y": '"window_boundaries":[1]'}],
    }
    document = {"experiments": [{"requests": [request], "window_boundaries": [0, 10]}], "version": ""}
    data = json.dumps(document, separators=(",", ":")).encode().replace(b"in a", b"\xff\xfe a")
    (tmp_path / "raw.json").write_bytes(data)  # perf_analyzer writes string tensors as they are, UTF-8 or not
    strip_tensors(tmp_path / "raw.json", tmp_path / "small.json")
    profile = read_profile(tmp_path / "small.json")
    assert (list(profile.start_ns), list(profile.end_ns), list(profile.boundaries_ns)) == ([5], [9], [0, 10])


def test_a_cut_off_export_is_not_taken_for_a_short_one(recorded, tmp_path):
    data = recorded("2.50")["export"].read_bytes()
    (tmp_path / "cut.json").write_bytes(data[: len(data) // 2])
    with pytest.raises(RawFileError, match="the profile export is not complete") as caught:
        strip_tensors(tmp_path / "cut.json", tmp_path / "small.json")
    assert "no windows" in caught.value.got and "--output" in caught.value.fix


@pytest.mark.parametrize("text", ["", "{}", '{"experiments":[]}', "not json"])
def test_a_profile_of_another_form_is_explained(tmp_path, text):
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(RawFileError, match="not of the form") as caught:
        read_profile(tmp_path / "profile.json")
    assert str(tmp_path / "profile.json") in str(caught.value)


def test_a_profile_without_requests_is_explained(tmp_path):
    (tmp_path / "profile.json").write_text('{"experiments":[{"requests":[],"window_boundaries":[1,2]}]}')
    with pytest.raises(RawFileError, match="holds no request"):
        read_profile(tmp_path / "profile.json")


@pytest.mark.parametrize("text", ["", "Concurrency\n1\n", "Concurrency,Inferences/Second\n"])
def test_a_csv_of_another_form_is_explained(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(RawFileError, match="CSV file is not of the form"):
        read_csv(tmp_path / "x.csv")


def test_figures_without_an_export_are_perf_analyzers_own(recorded):
    raw = recorded("2.50")
    latency = latency_from_csv(read_csv(raw["csv"]), raw["stdout"])
    assert (latency.requests, latency.source) == (80, "perf_analyzer")
    assert (latency.p50_us, latency.p90_us, latency.p95_us, latency.p99_us) == (22013, 22774, 23079, 56047)
    assert latency.mean_us == pytest.approx((24613 + 21089 + 21078) / 3)
