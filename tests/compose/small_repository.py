"""A repository of one ONNX model for the containers, and the same question asked over HTTP and gRPC.

small_repository.py make DIR            writes DIR/scale: y = 2 x + 1, four values a row, batched
small_repository.py call HTTP GRPC      asks host:port over both protocols, exit status 1 for a wrong answer
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

CONFIG = """\
name: "scale"
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 4 }
dynamic_batching {}
"""


def make(folder: Path) -> None:
    """Write the repository, readable by whatever user the container runs as."""
    import numpy as np
    from onnx import TensorProto, checker, helper, numpy_helper, save

    constants = [
        numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("two", 2.0), ("one", 1.0))
    ]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["doubled"]), helper.make_node("Add", ["doubled", "one"], ["y"])],
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    checker.check_model(model, full_check=True)
    version = folder / "scale/1"
    version.mkdir(parents=True)
    save(model, version / "model.onnx")
    (folder / "scale/config.pbtxt").write_text(CONFIG)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def call(http: str, grpc: str) -> None:
    """Ask both doors of the server; the answer is known."""
    import tritonclient.grpc
    import tritonclient.http

    for name, library, url in (("HTTP", tritonclient.http, http), ("gRPC", tritonclient.grpc, grpc)):
        _ask(name, library, url)


def _ask(name: str, library: Any, url: str) -> None:
    import numpy as np

    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    with library.InferenceServerClient(url) as client:
        tensor = library.InferInput("x", list(x.shape), "FP32")
        tensor.set_data_from_numpy(x)
        y = client.infer("scale", [tensor]).as_numpy("y")
    np.testing.assert_array_equal(y, 2 * x + 1)
    sys.stdout.write(f"{name} {url}: {y.shape} as expected\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder]:
            make(Path(folder))
        case ["call", http, grpc]:
            call(http, grpc)
        case _:
            sys.exit(__doc__)
