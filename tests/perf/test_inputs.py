"""Request data: golden requests, made-up ones, and the file perf_analyzer reads."""

import base64
import json

import numpy as np
import pytest

from perf.errors import WorkloadError
from perf.inputs import TensorSpec, export_bytes, model_spec, request_data, write_input_data
from serving.dtypes import BY_CONFIG


def spec_of(*inputs, batch=8, version="1", outputs=()):
    def tensors(entries):
        return [{"name": n, "data_type": t, "dims": [str(d) for d in dims]} for n, t, dims in entries]

    config = {"name": "m", "max_batch_size": batch, "input": tensors(inputs), "output": tensors(outputs)}
    return model_spec(config, version)


def data_of(spec, repository=None, shapes=None, batch_size=1):
    return request_data(spec, repository=repository, shapes=shapes or {}, batch_size=batch_size)


IDS = ("ids", "TYPE_INT64", (-1,))


def test_a_configuration_is_read_in_either_spelling():
    spec = spec_of(("x", "TYPE_FP16", (3, -1)), batch=0)
    assert spec.inputs == (TensorSpec("x", BY_CONFIG["TYPE_FP16"], (3, -1)),)
    assert (spec.max_batch_size, spec.steps, spec.decoupled) == (0, (), False)


def test_an_ensembles_steps_are_named_once():
    steps = [{"model_name": "a"}, {"model_name": "b"}, {"model_name": "a"}]
    config = {"name": "e", "ensemble_scheduling": {"step": steps}, "model_transaction_policy": {"decoupled": True}}
    spec = model_spec(config, "1")
    assert (spec.steps, spec.decoupled) == (("a", "b"), True)


def test_made_up_data_is_harmless():
    data = data_of(
        spec_of(
            ("f", "TYPE_FP32", (2, 3)), ("i", "TYPE_INT64", (4,)), ("b", "TYPE_BOOL", (1,)), ("s", "TYPE_STRING", (2,))
        )
    )
    (request,) = data.requests
    assert request["f"].dtype == np.float32 and request["f"].shape == (2, 3)
    assert ((request["f"] >= 0) & (request["f"] < 1)).all() and len(np.unique(request["f"])) > 1
    assert request["i"].dtype == np.int64 and not request["i"].any()
    assert request["b"].dtype == bool and request["s"].tolist() == [b"benchmark"] * 2
    assert data.source == "made up: random numbers 0..1, words, zeros"


def test_made_up_data_is_the_same_every_time():
    spec = spec_of(("f", "TYPE_FP32", (5,)))
    assert np.array_equal(data_of(spec).requests[0]["f"], data_of(spec).requests[0]["f"])


def test_bfloat16_is_the_upper_half_of_a_float():
    (request,) = data_of(spec_of(("x", "TYPE_BF16", (100,)))).requests
    values = (request["x"].astype(np.uint32) << 16).view(np.float32)
    assert request["x"].itemsize == 2 and ((values >= 0) & (values <= 1)).all()


def test_every_missing_shape_is_reported_with_the_flag_that_gives_it():
    with pytest.raises(WorkloadError) as caught:
        data_of(spec_of(IDS, ("image", "TYPE_FP32", (3, -1, -1))))
    assert [problem.fix for problem in caught.value.problems] == ["--shape ids:16", "--shape image:3,16,16"]
    assert "model m, input ids" in str(caught.value)


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 4), (3,)])
def test_a_shape_that_does_not_fit_is_refused(shape):
    with pytest.raises(WorkloadError, match="does not fit the model's input") as caught:
        data_of(spec_of(("x", "TYPE_FP32", (3, -1))), shapes={"x": shape})
    assert caught.value.expected == "[3, -1], without the batch dimension"
    assert caught.value.fix == "--shape x:3,16"


def test_golden_requests_lose_their_batch_dimension(tmp_path, write_golden):
    write_golden(tmp_path / "m" / "1", [{"ids": np.array([[1, 2, 3]])}, {"ids": np.array([[4, 5]])}])
    data = data_of(spec_of(IDS), tmp_path)
    assert [request["ids"].tolist() for request in data.requests] == [[1, 2, 3], [4, 5]]
    assert data.source == "2 golden requests of version 1 in 2 shapes"


def test_golden_requests_of_a_model_without_batching_stay_whole(tmp_path, write_golden):
    write_golden(tmp_path / "m" / "1", [{"ids": np.array([[1, 2, 3]])}])
    (request,) = data_of(spec_of(("ids", "TYPE_INT64", (1, -1)), batch=0), tmp_path).requests
    assert request["ids"].shape == (1, 3)


def test_the_served_versions_golden_requests_come_before_newer_ones(tmp_path, write_golden):
    for version in (2, 9, 10):
        write_golden(tmp_path / "m" / str(version), [{"ids": np.array([[version]])}])
    assert data_of(spec_of(IDS, version="9"), tmp_path).requests[0]["ids"].tolist() == [9]
    assert data_of(spec_of(IDS, version="3"), tmp_path).requests[0]["ids"].tolist() == [10]  # by number, not by text


def test_one_request_of_several_samples_takes_one_shape(tmp_path, write_golden):
    lengths = (3, 5, 5, 8)
    write_golden(tmp_path / "m" / "1", [{"ids": np.zeros((1, length), dtype=np.int64)} for length in lengths])
    data = data_of(spec_of(IDS), tmp_path, batch_size=2)
    assert [request["ids"].shape for request in data.requests] == [(5,), (5,)]
    assert "2 of 4 golden requests" in data.source and "only equal shapes" in data.source


def test_a_shape_that_was_asked_for_wins_over_golden_requests(tmp_path, write_golden):
    write_golden(tmp_path / "m" / "1", [{"ids": np.array([[1, 2, 3]])}])
    (request,) = data_of(spec_of(IDS), tmp_path, shapes={"ids": (7,)}).requests
    assert request["ids"].shape == (7,)


@pytest.mark.parametrize(
    ("request_", "got"),
    [
        ({"other": np.zeros((1, 3), np.int64)}, "no inputs of these names"),
        ({"ids": np.zeros((1, 3), np.int32)}, "ids int32[3]"),
        ({"ids": np.zeros((1, 3, 2), np.int64)}, "ids int64[3, 2]"),
    ],
)
def test_golden_requests_of_another_model_are_refused(tmp_path, write_golden, request_, got):
    write_golden(tmp_path / "m" / "1", [request_])
    with pytest.raises(WorkloadError, match="do not fit the model") as caught:
        data_of(spec_of(IDS), tmp_path)
    assert (caught.value.expected, caught.value.got) == ("ids INT64[-1]", got)


def test_a_broken_golden_file_is_named(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "golden.npz").write_text("no archive")
    with pytest.raises(WorkloadError, match="golden requests cannot be read") as caught:
        data_of(spec_of(IDS), tmp_path)
    assert "golden.npz" in caught.value.where


def test_the_file_holds_exact_bytes(tmp_path, write_golden):
    values = np.array([[0.1, np.nan, 3e38]], dtype=np.float32)
    words = np.array([[b"a", "wörld".encode()]], dtype="S")
    write_golden(tmp_path / "m" / "1", [{"x": values, "s": words}])
    data = data_of(spec_of(("x", "TYPE_FP32", (3,)), ("s", "TYPE_STRING", (2,))), tmp_path)
    write_input_data(data, tmp_path / "inputs.json")
    (entry,) = json.loads((tmp_path / "inputs.json").read_text())["data"]
    assert base64.b64decode(entry["x"]["b64"]) == values.tobytes() and entry["x"]["shape"] == [3]
    # Strings travel with their length in front: 1, then 6 bytes, little endian.
    assert base64.b64decode(entry["s"]["b64"]) == b"\x01\0\0\0a\x06\0\0\0w\xc3\xb6rld"


def test_a_photograph_makes_megabytes_of_text_and_half_floats_none():
    photograph = spec_of(("x", "TYPE_FP32", (3, 224, 224)), outputs=[("y", "TYPE_FP32", (1000,))])
    # Measured: 3.3 MB a request in a file of 300 requests.
    assert export_bytes(photograph, data_of(photograph)) == pytest.approx(3.3e6, rel=0.1)
    halves = spec_of(("x", "TYPE_FP16", (3, 224, 224)))
    assert export_bytes(halves, data_of(halves)) == 0
