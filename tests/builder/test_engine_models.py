"""fp16 and int8 engines of examples with real weights: what a precision step writes, a real TensorRT takes."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest

from builder.engine import EngineOptions, engine_from_onnx, profiles_of
from builder.precision.apply import apply
from builder.precision.prepare import prepared
from builder.precision.recipe import Recipe
from builder.tensors import Interface, parse_tensor

ROOT = Path(__file__).parent.parent.parent
INPUTS = {
    "efficientnet": {"image": "float32[batch, 3, 224, 224]"},
    "minilm": {"input_ids": "int64[batch, seq: 1..128]", "attention_mask": "int64[batch, seq]"},
}
RECIPES = {
    "fp16": Recipe("fp16", "cast"),
    "int8": Recipe("int8", "static", options={"activation": "s8", "symmetric": True, "calibrator": "minmax"}),
}


def shapes(name, batch, seq):
    tensors = [parse_tensor(key, text) for key, text in INPUTS[name].items()]
    return {tensor.name: tensor.shape({"batch": batch, "seq": seq}) for tensor in tensors}


def requests(name, batch=2, seq=16):
    rng = np.random.default_rng(0)
    if name == "minilm":
        return {
            "input_ids": rng.integers(1000, 20000, (batch, seq)),
            "attention_mask": np.ones((batch, seq), np.int64),
        }
    return {"image": rng.random(shapes(name, batch, seq)["image"], np.float32)}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The prepared graph of each model; exported by TorchScript, which takes a second."""
    import torch

    made = {}

    def graph(name):
        if name not in made:
            spec = importlib.util.spec_from_file_location(f"{name}_model", ROOT / "examples" / name / "model.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            folder = tmp_path_factory.mktemp(name)
            sample = requests(name)
            axes = {key: {0: "batch", **({1: "seq"} if name == "minilm" else {})} for key in sample}
            torch.onnx.export(
                module.load().eval(),
                tuple(torch.from_numpy(array) for array in sample.values()),
                str(folder / "model.onnx"),
                input_names=list(sample),
                output_names=["out"],
                dynamic_axes={**axes, "out": {0: "batch"}},
                opset_version=20,
                dynamo=False,
            )
            prepared(folder / "model.onnx", folder / "prepared.onnx")
            made[name] = folder / "prepared.onnx"
        return made[name]

    return graph


@pytest.mark.slow
@pytest.mark.parametrize("precision", RECIPES)
@pytest.mark.parametrize("name", INPUTS)
def test_an_example_becomes_an_engine(name, precision, graphs, tmp_path):
    typed = tmp_path / "typed.onnx"
    apply(RECIPES[precision], graphs(name), typed, feeds=lambda: iter([requests(name)]))
    inputs = tuple(parse_tensor(key, text) for key, text in INPUTS[name].items())
    profiles = profiles_of(Interface(inputs, (parse_tensor("out", "float32[batch, 4]"),)), max_batch=8)
    built = engine_from_onnx(
        typed,
        tmp_path / "model.plan",
        kind="tensorrt-rtx",
        options=EngineOptions(gpus=("sm86", "l4"), profiles=profiles),
    )
    wanted = "float16" if precision == "fp16" else "int8"
    quantized = sum(node.op_type == "QuantizeLinear" for node in onnx.load(typed, load_external_data=False).graph.node)
    assert built.layers[wanted] >= (quantized if precision == "int8" else 10)
    assert built.outputs["out"]["dtype"] == "float32" and set(built.inputs) == set(INPUTS[name])
    assert built.size_bytes > 100_000
