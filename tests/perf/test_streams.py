"""Models that answer in streams, and models whose requests come in sequences."""

import json

import pytest

from perf import bench
from perf.parse import read_profile

# One worker: perf_analyzer names its shared memory after the tensors, so two at once get in each other's way.
pytestmark = pytest.mark.xdist_group("perf")


def test_the_empty_response_that_ends_a_stream_is_left_out(tmp_path):
    requests = [{"timestamp": 10, "response_timestamps": [11, 12, 19]}, {"timestamp": 20, "response_timestamps": [29]}]
    export = {"experiments": [{"requests": requests, "window_boundaries": [0, 30]}]}
    (tmp_path / "p.json").write_text(json.dumps(export))
    profile = read_profile(tmp_path / "p.json", 1.0)  # two responses, one request with none but the empty one
    assert profile.end_ns.tolist() == [12, 29] and profile.first_ns.tolist() == [11, 29]
    profile = read_profile(tmp_path / "p.json", 2.0)  # the last one says that it is the last: there is no empty one
    assert profile.end_ns.tolist() == [19, 29] and profile.responses.tolist() == [3, 1]


@pytest.mark.server
def test_a_stream_is_measured_to_its_first_and_to_its_last_response(server, tmp_path):
    result = bench(
        url=f"grpc://{server.grpc_url}",
        models=["three"],
        concurrency=[2],
        rate=[20],
        seconds=0.6,
        output=tmp_path,
        rounds=1,
    )
    assert result.ok, [run.error for run in result.models] + [point.error for point in result.points]
    at_once, at_rate = result.points
    for point in result.points:
        assert point.first_response.p50_us < point.latency.p50_us
        assert point.checked is None
        assert "--streaming" in point.command and "--async" in point.command
    # Its own figures are until the last response that holds something: no request differs by more than a neighbour.
    row = (result.folder / at_once.raw / "perf_analyzer.csv").read_text().splitlines()
    own = dict(zip(row[0].split(","), row[1].split(","), strict=True))
    assert at_once.latency.p50_us == pytest.approx(float(own["p50 latency"]), rel=0.02)
    assert at_once.responses_per_s == pytest.approx(float(own["Response Throughput"]), rel=0.001)
    assert at_once.responses_per_s == pytest.approx(3 * at_once.inferences_per_s, rel=0.001)
    assert at_rate.latency.requests == 12 and at_rate.first_response.measured_from == "scheduled"


@pytest.mark.server
def test_sequences_are_sent_in_order(server, repository, tmp_path):
    result = bench(
        repository,
        url=server.http_url,
        models=["counter"],
        concurrency=[2],
        sequence_length=5,
        seconds=0.3,
        output=tmp_path,
    )
    (point,) = result.points
    assert point.ok, point.error
    assert "--sequence-length" in point.command and point.latency.requests > 5
    assert point.server.requests == pytest.approx(point.latency.requests, abs=point.latency.requests + 100)


@pytest.mark.server
def test_what_cannot_be_measured_so_says_how_it_can(server):
    streams, sequences = bench(url=server.http_url, models=["three", "counter"], rate=[20], seconds=0.3).models
    assert "which only gRPC has" in streams.error["what"] and streams.error["fix"] == "--protocol grpc"
    assert "not measured at a rate" in sequences.error["what"] and "--concurrency" in sequences.error["fix"]
