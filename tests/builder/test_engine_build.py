"""Engines for real: TensorRT-RTX builds them ahead of time, without a GPU."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builder.engine import EngineOptions, describe_engine, engine_answers, engine_from_onnx
from builder.engine.device import has_gpu
from builder.engine.running import _fitting
from builder.errors import EngineError

PROFILE = {"x": ((1, 16), (4, 16), (8, 16))}
SHAPES = (PROFILE,)


def options(**given):
    return EngineOptions(**{"gpus": ("sm86",), "profiles": SHAPES, **given})


def save(path, nodes, weights, elem=TensorProto.FLOAT, output=TensorProto.FLOAT, width=16):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", elem, ["batch", 16])],
        [helper.make_tensor_value_info("y", output, ["batch", width])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("mine", 1)])
    model.ir_version = 10
    onnx.save(model, path)
    return path


@pytest.fixture
def plain(tmp_path):
    weight = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="mul"),
        helper.make_node("Relu", ["h"], ["y"], name="act"),
    ]
    return save(tmp_path / "plain.onnx", nodes, {"w": weight})


@pytest.fixture
def half(tmp_path):
    weight = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], name="in", to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["a", "w"], ["h"], name="mul"),
        helper.make_node("Cast", ["h"], ["y"], name="out", to=TensorProto.FLOAT),
    ]
    return save(tmp_path / "half.onnx", nodes, {"w": weight})


@pytest.fixture
def quantized(tmp_path):
    """s8 symmetric, the weight per channel: what TensorRT takes."""
    weights = {
        "w": np.random.default_rng(0).integers(-127, 127, (16, 16)).astype(np.int8),
        "ws": np.full(16, 0.01, np.float32),
        "wz": np.zeros(16, np.int8),
        "s": np.array(0.05, np.float32),
        "z": np.array(0, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="q"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], name="dq"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], name="wdq", axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["y"], name="mul"),
    ]
    return save(tmp_path / "quantized.onnx", nodes, weights)


@pytest.mark.parametrize("precision, dtype", [("plain", "float32"), ("half", "float16"), ("quantized", "int8")])
def test_an_engine_of_each_precision(precision, dtype, request, tmp_path):
    built = engine_from_onnx(
        request.getfixturevalue(precision), tmp_path / "model.plan", kind="tensorrt-rtx", options=options()
    )
    assert built.path.stat().st_size == built.size_bytes > 1000
    assert dtype in built.layers
    assert built.inputs["x"]["dtype"] == "float32" and built.outputs["y"]["dtype"] == "float32"
    assert "Finished engine building" in built.log.read_text()


def test_one_engine_for_several_architectures_with_several_profiles(plain, tmp_path):
    several = ({"x": ((1, 16), (1, 16), (1, 16))}, {"x": ((1, 16), (8, 16), (64, 16))})
    names = ("l4", "sm86", "RTX 5090", "sm89")
    built = engine_from_onnx(
        plain, tmp_path / "a.plan", kind="tensorrt-rtx", options=options(gpus=names, profiles=several)
    )
    facts = describe_engine(built)
    assert facts["gpus"] == ["sm86", "sm89", "sm120"]
    assert facts["profiles"][1]["x"] == {"min": [1, 16], "opt": [8, 16], "max": [64, 16]}
    assert facts["library"] == "TensorRT-RTX" and facts["version"].startswith("1.") and facts["options"] == {}


def test_the_options_that_it_has_are_used_and_named(plain, tmp_path):
    given = options(workspace_bytes=1 << 30, optimization_level=2, sparsity=True, weight_streaming=True)
    built = engine_from_onnx(plain, tmp_path / "a.plan", kind="tensorrt-rtx", options=given)
    said = built.log.read_text()
    assert "SPARSE_WEIGHTS" in said and "WEIGHT_STREAMING" in said and "1024.00 MiB" in said
    assert describe_engine(built)["options"] == {
        "workspace_bytes": 1 << 30,
        "optimization_level": 2,
        "sparsity": True,
        "weight_streaming": True,
    }


def refusal(source, to, **given):
    with pytest.raises(EngineError) as caught:
        engine_from_onnx(source, to, kind="tensorrt-rtx", options=options(**given))
    assert not to.exists() and not to.with_name(to.name + ".partial").exists()
    return str(caught.value)


def test_every_node_that_the_parser_refuses_is_named(tmp_path):
    nodes = [
        helper.make_node("Det", ["x"], ["a"], name="the_determinant"),
        helper.make_node("Frobnicate", ["x"], ["b"], name="my_own", domain="mine"),
        helper.make_node("Unique", ["x"], ["c"], name="the_set"),
        helper.make_node("Relu", ["x"], ["y"], name="fine"),
    ]
    text = refusal(save(tmp_path / "bad.onnx", nodes, {}), tmp_path / "a.plan")
    assert "3 places are refused" in text
    assert "the_determinant (Det): UNSUPPORTED_NODE" in text
    assert "my_own (Frobnicate): INVALID_NODE: Plugin not found" in text
    assert "the_set (Unique): UNSUPPORTED_NODE" in text
    assert "engine.plugins" in text and "fine" not in text


def test_types_that_do_not_agree_are_said_with_the_reason(tmp_path):
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], name="in", to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="mixed_up"),
    ]
    path = save(tmp_path / "mixed.onnx", nodes, {"w": np.ones((16, 16), np.float32)})
    text = refusal(path, tmp_path / "a.plan")
    assert "mixed_up (MatMul)" in text and "must have same input types" in text and "Half" in text


def test_a_file_that_is_no_model(tmp_path):
    path = tmp_path / "noise.onnx"
    path.write_bytes(b"this is no graph")
    assert "cannot read the graph" in refusal(path, tmp_path / "a.plan")


@pytest.mark.parametrize(
    "option, value",
    [("version_compatible", True), ("hardware_compatibility", "ampere_plus"), ("dla_core", 0), ("refit", True)],
)
def test_an_option_that_the_library_lacks_is_named(option, value, plain, tmp_path):
    text = refusal(plain, tmp_path / "a.plan", **{option: value})
    assert f"has no `{option}`" in text and "TensorRT-RTX 1." in text and f"engine.{option}" in text


def test_too_little_workspace_gives_the_builders_own_reason(plain, tmp_path):
    text = refusal(plain, tmp_path / "a.plan", workspace_bytes=1 << 20)
    assert "workspace limit" in text and "raise `workspace`" in text and "a.plan.log" in text


def test_a_profile_that_does_not_fit_the_graph(plain, tmp_path):
    assert "`z` is no input" in refusal(plain, tmp_path / "a.plan", profiles=({**PROFILE, "z": ((1,), (1,), (1,))},))
    assert "is in no profile" in refusal(plain, tmp_path / "a.plan", profiles=())
    wide = {"x": ((1, 17), (4, 17), (8, 17))}
    assert "[-1, 16] in the graph and [1, 17]" in refusal(plain, tmp_path / "a.plan", profiles=(wide,))


def test_turing_takes_half_and_says_what_it_does_not_take(plain, half, tmp_path):
    text = refusal(plain, tmp_path / "a.plan", gpus=("t4", "sm86"))
    assert "FP32 GEMM is not supported" in text and "take sm75 out of `gpu`" in text
    given = options(gpus=("t4", "sm86"))
    built = engine_from_onnx(half, tmp_path / "b.plan", kind="tensorrt-rtx", options=given)
    assert built.capabilities == ("7.5", "8.6")


def test_attention_in_float32_is_put_together_out_of_several_kernels(tmp_path):
    """ONNX's Attention has one kernel in half precision, none in float32."""
    nodes = [helper.make_node("Attention", ["q", "k", "v"], ["y"], name="attention")]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2, 8, 16]) for name in "qkvy"]
    model = helper.make_model(helper.make_graph(nodes, "graph", info[:3], info[3:]), ir_version=11)
    model.opset_import[0].version = 23
    onnx.save(model, tmp_path / "attention.onnx")
    profile = dict.fromkeys("qkv", ((1, 2, 8, 16), (4, 2, 8, 16), (8, 2, 8, 16)))
    built = engine_from_onnx(
        tmp_path / "attention.onnx", tmp_path / "a.plan", kind="tensorrt-rtx", options=options(profiles=(profile,))
    )
    assert built.size_bytes > 1000


def test_plugins(plain, tmp_path):
    assert "a plugin is not there" in refusal(plain, tmp_path / "a.plan", plugins=("/nowhere/mine.so",))
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    assert "a plugin cannot be loaded" in refusal(plain, tmp_path / "a.plan", plugins=(str(broken),))


def test_a_builder_that_is_killed_is_one_failed_build(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "builder.engine.building._CODE", "import os; print('[E] the last words', flush=True); os.kill(os.getpid(), 9)"
    )
    text = refusal(plain, tmp_path / "a.plan")
    assert "died" in text and "SIGKILL: probably out of memory" in text and "the last words" in text


def test_weights_outside_the_file(tmp_path):
    weight = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    path = save(tmp_path / "plain.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"], name="mul")], {"w": weight})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="plain.onnx.data", size_threshold=0)
    assert Path(f"{path}.data").exists()
    assert engine_from_onnx(path, tmp_path / "a.plan", kind="tensorrt-rtx", options=options()).size_bytes > 1000


@pytest.mark.skipif(has_gpu(), reason="there is a GPU, on which it may well run")
def test_an_engine_that_nothing_here_can_run_says_so(plain, tmp_path):
    built = engine_from_onnx(plain, tmp_path / "m.plan", kind="tensorrt-rtx", options=options())
    with pytest.raises(EngineError) as caught:
        engine_answers(built.path, [{"x": np.zeros((2, 16), np.float32)}], kind="tensorrt-rtx")
    message = str(caught.value)
    assert "could not run the engine" in message and "a GPU that the engine was built for" in message
    assert str(built.path) in message and "run.log" in message


def test_the_profile_that_a_request_fits(tmp_path):
    class Engine:  # what is asked of TensorRT's own, which only a GPU gives
        num_optimization_profiles = 2

        def get_tensor_profile_shape(self, name, profile):
            return [((1, 4), (2, 4), (4, 4)), ((5, 4), (8, 4), (16, 4))][profile]

    assert [_fitting(Engine(), {"x": np.zeros((size, 4))}) for size in (1, 4, 5, 16)] == [0, 0, 1, 1]
    with pytest.raises(EngineError, match="fits none of the engine's profiles"):
        _fitting(Engine(), {"x": np.zeros((17, 4))})
