"""Answers under load, compared with those without: on exports of both releases, and with a model that is at fault."""

import numpy as np
import pytest

from perf import bench
from perf.answers import Checked, References, check_export, wrong_answers
from perf.inputs import ModelSpec, TensorSpec, golden_requests
from serving.dtypes import BY_CONFIG

FP32, INT64, BYTES = BY_CONFIG["TYPE_FP32"], BY_CONFIG["TYPE_INT64"], BY_CONFIG["TYPE_STRING"]
SCALE = ModelSpec("scale", "1", 8, (TensorSpec("x", FP32, (4,)),), (TensorSpec("y", FP32, (4,)),))


def rights(*pairs):
    """References of (sent, answer)."""
    places = {sent.tobytes(): place for place, (sent, _) in enumerate(pairs)}
    return References(SCALE, len(pairs), places, {place: {"y": answer} for place, (_, answer) in enumerate(pairs)})


SENT = np.array([1.8521564417127638e31, -9.816348528062273e26, -1.3273038267438975e-12, 29181.97265625], np.float32)


@pytest.mark.parametrize("version", ["2.50", "2.60"])
def test_the_answers_of_a_recorded_export(recorded, version):
    export = recorded(version)["export"]
    right = rights((SENT, SENT * 2))
    found = check_export(export, right, 1)
    assert found.checked > 50 and found.wrong == 0 and wrong_answers(found, right) == []
    wrong = rights((SENT, SENT * 2.2))
    found = check_export(export, wrong, 1)
    assert found.wrong == found.checked and "output y is off by" in found.example
    (doubt,) = wrong_answers(found, wrong)
    assert doubt.code == "wrong_answers" and f"{found.checked} of {found.checked} answers under load" in doubt.message
    assert check_export(export, rights((SENT * 3, SENT)), 1) == Checked(0, 0)  # of unknown requests nothing is said


def test_each_sample_of_a_batch_is_compared(tmp_path):
    text = '{"experiments":[{"requests":[{"timestamp":5,"request_inputs":{"x":[1,2,3,4,5,6,7,8]},'
    text += '"response_timestamps":[9],"response_outputs":[{"y":[2,4,6,8,10,12,14,99]}]}],"window_boundaries":[1,2]}]}'
    (tmp_path / "e.json").write_text(text)
    first, second = np.arange(1, 5, dtype=np.float32), np.arange(5, 9, dtype=np.float32)
    right = rights((first, first * 2), (second, second * 2))
    found = check_export(tmp_path / "e.json", right, 2)
    assert (found.checked, found.wrong) == (2, 1)
    # perf_analyzer 2.50 writes the inputs of the first sample only.
    (tmp_path / "e.json").write_text(text.replace(",5,6,7,8]},", "]},"))
    assert check_export(tmp_path / "e.json", right, 2) == found
    (tmp_path / "e.json").write_text(text[: text.index('"y"') + 9])  # a full disk: what is cut off is not looked at
    assert check_export(tmp_path / "e.json", right, 2) == Checked(0, 0)


@pytest.mark.parametrize(
    ("answer", "example"),
    [
        ({"y": [1.0, 2.0]}, "has 2 numbers instead of 3"),
        ({}, "output y is missing"),
        ({"y": [1.0, None, 3.0]}, "NaN or infinity"),
    ],
)
def test_wrong_in_other_ways(tmp_path, answer, example):
    import json

    export = {"requests": [{"timestamp": 5, "request_inputs": {"x": [1, 2, 3, 4]}}]}
    export["requests"][0] |= {"response_timestamps": [9], "response_outputs": [answer]}
    (tmp_path / "e.json").write_text(json.dumps(export, separators=(",", ":")))
    right = rights((np.arange(1, 5, dtype=np.float32), np.array([1.0, 2, 3])))
    found = check_export(tmp_path / "e.json", right, 1)
    assert found.wrong == 1 and example in found.example


def test_golden_answers_stay_with_their_requests(tmp_path, write_golden):
    rows = [{"x": np.full((1, 4), number, np.float32)} for number in range(3)]
    write_golden(tmp_path / "scale" / "1", rows, [{"y": row["x"] * 2} for row in rows])
    data = golden_requests(SCALE, tmp_path)
    assert [float(answer["y"][0, 0]) for answer in data.expected] == [0.0, 2.0, 4.0]


@pytest.mark.server
@pytest.mark.xdist_group("perf")
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_model_that_errs_only_under_load_is_found(server, batch_size):
    crowded, scale = bench(
        url=server.http_url,
        models=["crowded", "scale"],
        concurrency=[4],
        seconds=0.3,
        batch_size=batch_size,
        rounds=1,
    ).points
    assert 0 < crowded.wrong <= crowded.checked <= 200 * batch_size
    assert "wrong_answers" in {doubt.code for doubt in crowded.doubts}
    assert scale.checked >= 50 and scale.wrong == 0 and "wrong_answers" not in {doubt.code for doubt in scale.doubts}


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_a_server_with_another_model_than_the_golden_one_is_found(server, tmp_path, write_golden):
    rows = [{"x": np.full((1, 4), number, np.float32)} for number in (1, 2)]
    write_golden(tmp_path / "scale" / "1", rows, [{"y": row["x"] * -2} for row in rows])
    (point,) = bench(tmp_path, url=server.http_url, models=["scale"], concurrency=[2], seconds=0.3).points
    (doubt,) = [doubt for doubt in point.doubts if doubt.code == "wrong_answers"]
    assert "2 of 2 golden requests are answered wrong even without load" in doubt.message and point.wrong == 0
    # Strings, and what goes through shared memory, are not in an export: nothing is claimed of them.
    (point,) = bench(url=server.http_url, models=["scale"], concurrency=[2], seconds=0.3, shared_memory="system").points
    assert point.ok and point.checked is None and point.wrong is None
