"""Versions to bring a server to, made without a build: ``y = k * x`` in ONNX, or code for the Python backend."""

import io
import itertools
import threading
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from builder.config import ModelConfig
from builder.repository.publish import Staged, publish
from serving import Client
from serving.errors import TritonRepoError

WIDTH = 4
_count = itertools.count()

PYTHON = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.name = args["model_name"]
        {initialize}

    def execute(self, requests):
        factor = {factor}
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x * factor)]) for x in inputs]
"""


def times(k):
    """``y = k * x`` as the bytes of an ONNX file."""
    shape = ["batch", WIDTH]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "k"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("k", TensorProto.FLOAT, [], [float(k)])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def golden(k, requests=3):
    """The bytes of a ``golden.npz`` with the answers of ``y = k * x``."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(requests):
            x = np.arange(WIDTH, dtype=np.float32)[None] + number + 1
            for key, array in ((f"inputs/x/{number}", x), (f"outputs/y/{number}", x * np.float32(k))):
                data = io.BytesIO()
                np.save(data, array)
                archive.writestr(f"{key}.npy", data.getvalue())
    return stream.getvalue()


def put(repository, k, *, answers=None, onnx=None, python=None, policy=None, name="m", activate=False, **manifest):
    """Publish a version of ``y = k * x``; gives what ``publish`` gives.

    Args:
        answers: the factor that its golden requests were answered with; ``k`` where it is honest.
        onnx: other bytes for its model.onnx.
        python: ``(initialize, factor)``, source code for a model of the Python backend instead.
        policy: a version_policy of the user's.
        activate: serve it, instead of letting it wait for a reload.
        manifest: other fields of its manifest.
    """
    folder = repository.parent / f".build/staging/{name}-{next(_count)}"
    folder.mkdir(parents=True)
    (folder / "golden.npz").write_bytes(golden(k if answers is None else answers))
    if python is None:
        (folder / "model.onnx").write_bytes(times(k) if onnx is None else onnx)
    else:
        (folder / "model.py").write_text(PYTHON.format(initialize=python[0], factor=python[1]))
    tensor = {"data_type": "TYPE_FP32", "dims": [WIDTH]}
    tree = {
        "name": name,
        "backend": "onnxruntime" if python is None else "python",
        "max_batch_size": 8,
        **({"version_policy": policy} if policy else {}),
        "input": [{"name": "x", **tensor}],
        "output": [{"name": "y", **tensor}],
    }
    known = {
        "model": name, "variant": "onnx-fp32", "format": "onnx", "precision": "fp32",
        "created": "2026-11-21T00:00:00+00:00", "size_bytes": 1, "inputs": {}, "outputs": {}, "notes": [],
        "spec": {"file": "models.yaml", "sha256": "0" * 64, "model": {}},
        "provenance": {"git": None, "tools": {}, "host": {}},
        "verification": {"parity": None, "accuracy": None, "serve": None}, "seconds": {},
    }  # fmt: skip
    staged = Staged(name, folder, ModelConfig(tree), (f"{name}: written by build-repo",), known | manifest)
    return publish(staged, Path(repository), activate=activate)


@dataclass
class Load:
    """Clients that ask a model all the time, over HTTP and gRPC, and never try again; a context manager."""

    server: object
    name: str = "m"
    answers: list = field(default_factory=list)
    failures: list = field(default_factory=list)
    slowest_s: float = 0.0
    not_ready: int = 0

    def __enter__(self):
        self._stop = threading.Event()
        urls = [f"http://{self.server.http_url}", f"grpc://{self.server.grpc_url}"] * 2
        self._threads = [threading.Thread(target=self._ask, args=(url,)) for url in urls]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, url):
        x = np.ones((1, WIDTH), np.float32)
        with Client(url, retries=0, timeout_s=60) as client:
            while not self._stop.is_set():
                started = time.perf_counter()
                try:
                    self.answers.append(float(client.infer(self.name, {"x": x})["y"][0, 0]))
                except TritonRepoError as error:
                    self.failures.append(error)
                self.slowest_s = max(self.slowest_s, time.perf_counter() - started)
                self.not_ready += not client.is_ready() or not client.is_ready(self.name)
                self._stop.wait(0.002)  # a load, not a benchmark: the server under test needs a core too
