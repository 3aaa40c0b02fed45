"""The models of ``benchmarks/trust.py``: one under two names, and one that does exactly one layer in twenty more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS = 20
"""Of the same shape and on the same weights, so that one more of them is 5% more compute."""

ROWS, WIDTH = 128, 256
INPUT = 64

_CONFIG = f"""backend: "onnxruntime"
max_batch_size: 0
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ {INPUT} ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ {ROWS} ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
parameters {{ key: "inter_op_thread_count" value {{ string_value: "1" }} }}
"""


def network(layers: int) -> onnx.ModelProto:
    """``x`` [INPUT] -> so many equal layers on [ROWS, WIDTH] -> ``y`` [ROWS].

    Each layer is a product with the same matrix and a Tanh, on weights that keep the values in its range. Input and
    output are small, so that what a request costs besides stays little and the same.
    """
    random = np.random.default_rng(7)
    weight = random.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "spread"], ["spread_x"]),
        helper.make_node("MatMul", ["spread_x", "first"], ["h0"]),
    ]
    for number in range(layers):
        nodes += [
            helper.make_node("MatMul", [f"h{number}", "weight"], [f"m{number}"], name=f"layer_{number}"),
            helper.make_node("Tanh", [f"m{number}"], [f"h{number + 1}"], name=f"bend_{number}"),
        ]
    nodes.append(helper.make_node("ReduceMean", [f"h{layers}"], ["y"], axes=[1], keepdims=0))
    constants = {
        "spread": random.uniform(0.5, 1.5, (ROWS, INPUT)).astype(np.float32),
        "first": random.normal(0, INPUT**-0.5, (INPUT, WIDTH)).astype(np.float32),
        "weight": weight,
    }
    graph = helper.make_graph(
        nodes,
        f"{layers}_layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [INPUT])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [ROWS])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def write_repository(folder: Path, models: dict[str, int]) -> Path:
    """A Triton repository of such networks.

    Args:
        models: number of layers, by name.
    """
    for name, layers in models.items():
        place = folder / name / "1"
        place.mkdir(parents=True)
        (place.parent / "config.pbtxt").write_text(_CONFIG)
        (place / "model.onnx").write_bytes(network(layers).SerializeToString())
    return folder
