from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serving import Server
from serving.runtime import Runtime
from serving.status import read_model
from serving.usage import example_inputs, how_to_call


def metadata(**inputs: tuple[str, list[int]]) -> dict:
    tensors = [{"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in inputs.items()]
    return {"name": "m", "inputs": tensors, "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]}


def text(config: dict | None = None, **inputs: tuple[str, list[int]]) -> str:
    return how_to_call(metadata(**inputs), config or {}, http_url="h:8000", grpc_url="h:8001")


def test_a_small_request_is_written_out() -> None:
    curl = text(x=("FP32", [-1, 3])).splitlines()[1]
    assert curl.startswith("curl -s http://h:8000/v2/models/m/infer -d '")
    assert json.loads(curl.partition("-d '")[2][:-1]) == {
        "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0.0, 0.0, 0.0]}]
    }


def test_the_signature_heads_it() -> None:
    assert text(x=("FP32", [-1, 3])).splitlines()[0] == "# m: x FP32[-1, 3] -> y FP32[-1, 2]"


def test_values_fit_their_type() -> None:
    examples = example_inputs(metadata(a=("BYTES", [1]), b=("BOOL", [1]), c=("INT64", [1]), d=("UINT8", [1])), {})
    assert [example.zero for example in examples] == ["text", False, 0, 0]


def test_half_precision_has_no_curl() -> None:
    lines = text(x=("FP16", [-1, 3])).splitlines()
    assert lines[1] == "# no curl: Triton has no JSON form for FP16 and BF16"
    assert "np.float16" in "\n".join(lines)


def test_optional_inputs_are_left_out_unless_all_are() -> None:
    config = {"input": [{"name": "a", "optional": True}, {"name": "b"}]}
    given = metadata(a=("FP32", [1]), b=("FP32", [1]))
    assert [example.name for example in example_inputs(given, config)] == ["b"]
    config["input"][1]["optional"] = True
    assert [example.name for example in example_inputs(given, config)] == ["a", "b"]


def test_sequences_and_streams() -> None:
    assert '"sequence_id": 1' in text({"sequence_batching": {}}, x=("FP32", [1]))
    assert "start_stream" in text({"model_transaction_policy": {"decoupled": True}}, x=("FP32", [1]))


def test_a_real_request_gives_shapes_and_values(tmp_path: Path) -> None:
    for version, value in (("2", 20), ("10", 100)):
        folder = tmp_path / "m" / version
        folder.mkdir(parents=True)
        np.savez(folder / "golden.npz", **{"inputs/x/0": np.full((1, 4), value), "inputs/s/0": np.array([[b"hi"]])})
    given = metadata(x=("INT64", [-1, -1]), s=("BYTES", [-1, 1]))
    numbers, strings = example_inputs(given, {}, [tmp_path])
    assert (numbers.shape, numbers.values) == ((1, 4), (100,) * 4)
    assert strings.values == ("hi",)
    (tmp_path / "m/10/golden.npz").write_text("broken")
    assert example_inputs(given, {}, [tmp_path])[0].shape == (1, 1)


@pytest.mark.server
def test_what_is_printed_works_when_pasted(tmp_path: Path, triton_runtime: Runtime, write_model) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    echo = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        tensors = [pb_utils.get_input_tensor_by_name(request, "it's").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", tensor)]) for tensor in tensors]
"""
    config = """
backend: "python"
max_batch_size: 4
input [{ name: "it's" data_type: TYPE_%s dims: [ %s ] }]
output [{ name: "OUT" data_type: TYPE_%s dims: [ %s ] }]
"""
    models = {"image": ("FP32", "3, 224, 224"), "words": ("STRING", "-1"), "flag": ("BOOL", "2"), "half": ("FP16", "2")}
    for name, (kind, dims) in models.items():
        write_model(tmp_path, name, code=echo, config=config % (kind, dims, kind, dims))
    with Server(tmp_path, runtime=triton_runtime) as server:
        printed = {
            name: how_to_call(*read_model(server.http_url, name), http_url=server.http_url, grpc_url=server.grpc_url)
            for name in models
        }
        script = "set -e\n" + "\n".join(printed.values())
        environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(Path.cwd())}
        ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, timeout=120)
        assert ran.returncode == 0, ran.stderr
        answers = ran.stdout
        assert "error" not in answers
        assert '"datatype":"FP32","shape":[1,3,224,224]' in answers  # the body that a line of Python made
        assert '"datatype":"BYTES","shape":[1,1],"data":["text"]' in answers
        assert "array([[0., 0.]], dtype=float16)" in answers
        assert answers.count("OUT") == 4 * 3 - 1  # curl but for half, tritonclient, ours
