"""What config.pbtxt needs for GPUs and OpenVINO: as text that Triton's own protobuf reads, and with a real provider."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builder.config import accelerators
from builder.config.accelerators import PRECISIONS, accelerator_fields, openvino_missing
from builder.config.model_config import ModelConfig
from builder.config.render import parse, render
from builder.errors import ConfigError
from builder.variants import VARIANTS
from serving import Client, Server
from serving.errors import RuntimeUnavailableError

TREE = {
    "name": "m",
    "backend": "onnxruntime",
    "max_batch_size": 8,
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [16]}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [16]}],
}
PROFILE = {
    "ids": {"min": [1, 1], "opt": [8, 64], "max": [32, 512]},
    "mask": {"min": [1, 1], "opt": [8, 64], "max": [32, 512]},
}


def message_of(fields):
    return parse(render(ModelConfig({**TREE, **fields})))


@pytest.mark.parametrize("variant", [v for v in VARIANTS.values() if v.target in PRECISIONS and v.format == "onnx"])
def test_every_variant_with_an_accelerator_is_read_by_triton(variant):
    message = message_of(accelerator_fields(variant.target, variant.precision, [PROFILE], key="0123"))
    (group,) = message.instance_group
    assert group.kind == (group.KIND_CPU if variant.target == "openvino" else group.KIND_GPU)
    chosen = message.optimization.execution_accelerators
    names = [a.name for a in (*chosen.gpu_execution_accelerator, *chosen.cpu_execution_accelerator)]
    assert names == {"cuda": [], "tensorrt": ["tensorrt"], "openvino": ["openvino"]}[variant.target]


def test_tensorrt_gets_its_shapes_and_a_cache_of_its_own():
    second = {name: {"min": [1, 1], "opt": [1, 16], "max": [1, 16]} for name in PROFILE}
    fields = accelerator_fields(
        "tensorrt", "fp16", [PROFILE, second], key="ab12", workspace_bytes=1 << 32, optimization_level=4, sparsity=True
    )
    (accelerator,) = message_of(fields).optimization.execution_accelerators.gpu_execution_accelerator
    assert dict(accelerator.parameters) == {
        "trt_profile_min_shapes": "ids:1x1,mask:1x1,ids:1x1,mask:1x1",
        "trt_profile_opt_shapes": "ids:8x64,mask:8x64,ids:1x16,mask:1x16",
        "trt_profile_max_shapes": "ids:32x512,mask:32x512,ids:1x16,mask:1x16",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "/tmp/tensorrt-cache-ab12",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": "/tmp/tensorrt-cache-ab12",
        "max_workspace_size_bytes": "4294967296",
        "trt_builder_optimization_level": "4",
        "trt_sparsity_enable": "1",
    }
    (plain,) = message_of(accelerator_fields("tensorrt", "int8")).optimization.execution_accelerators.ListFields()[0][1]
    assert plain.name == "tensorrt" and not plain.parameters  # no key, no cache: it could be another model's


def test_instances_keep_what_the_spec_says_but_for_their_kind():
    given = [{"count": 3, "kind": "KIND_AUTO", "gpus": [1]}]
    assert accelerator_fields("cuda", "fp32", instance_groups=given) == {
        "instance_group": [{"count": 3, "kind": "KIND_GPU", "gpus": [1]}]
    }
    assert accelerator_fields("openvino", "fp32", instance_groups=given)["instance_group"] == [
        {"count": 3, "kind": "KIND_CPU"}
    ]


@pytest.mark.parametrize(
    ("profile", "what", "got"),
    [
        ({"ids": {"min": [1], "opt": [2]}}, "the profile is not complete", "min: [1], opt: [2]"),
        ({"ids": {"min": [1], "opt": [2], "max": [4, 4]}}, "the profile is not complete", "max: [4, 4]"),
        ({"ids": {"min": [1], "opt": [8], "max": [4]}}, "the profile's shapes are out of order", "opt: [8], max: [4]"),
        ({"ids": {"min": [0], "opt": [1], "max": [4]}}, "the profile's shapes are out of order", "min: [0]"),
    ],
)
def test_a_profile_that_is_none(profile, what, got):
    with pytest.raises(ConfigError, match=what) as caught:
        accelerator_fields("tensorrt", "fp32", [profile])
    assert caught.value.where == "engine.profiles[0].ids" and got in caught.value.got


def test_profiles_of_different_inputs_and_targets_that_do_not_fit():
    with pytest.raises(ConfigError, match="the profiles name different inputs") as caught:
        accelerator_fields("tensorrt", "fp32", [PROFILE, {"ids": PROFILE["ids"]}])
    assert (caught.value.where, caught.value.expected, caught.value.got) == ("engine.profiles[1]", "ids, mask", "ids")
    with pytest.raises(ConfigError, match="openvino does not run bf16") as caught:
        accelerator_fields("openvino", "bf16")
    assert caught.value.expected == "fp32, fp16, int8"
    with pytest.raises(ConfigError, match="no accelerator is called 'tpu'"):
        accelerator_fields("tpu", "fp32")


@pytest.fixture
def anew():
    accelerators._openvino_problem.cache_clear()
    yield
    accelerators._openvino_problem.cache_clear()


def test_where_openvino_cannot_be_had_it_says_why(anew, monkeypatch):
    def refuse(*args, **others):
        raise RuntimeUnavailableError("pip could not install what it needs", got="no route", fix="check the network")

    monkeypatch.delenv("TRITONSERVER", raising=False)
    monkeypatch.setattr("serving.openvino.provide_openvino", refuse)
    error = openvino_missing("onnx-openvino-int8")
    assert error.what == "onnx-openvino-int8 cannot be run on this machine"
    assert error.got == "pip could not install what it needs: no route" and error.fix == "check the network"


def test_with_another_server_openvino_is_its_own_business(anew, monkeypatch, tmp_path):
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("TRITONSERVER", str(program))
    error = openvino_missing("onnx-openvino-fp32")
    assert str(program) in error.got and "unset TRITONSERVER" in error.fix


@pytest.mark.server
def test_openvino_answers_through_the_server_like_the_cpu_provider(anew, triton_runtime, tmp_path):
    if error := openvino_missing("onnx-openvino-fp32"):
        pytest.skip(str(error))
    weight = numpy_helper.from_array(np.linspace(-1, 1, 256, dtype=np.float32).reshape(16, 16), "w")
    tensors = [helper.make_tensor_value_info(t, TensorProto.FLOAT, ["batch", 16]) for t in ("x", "y")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for name, fields in (("plain", {}), ("accelerated", accelerator_fields("openvino", "fp32"))):
        (tmp_path / name / "1").mkdir(parents=True)
        onnx.save(model, tmp_path / name / "1/model.onnx")
        (tmp_path / name / "config.pbtxt").write_text(render(ModelConfig({**TREE, **fields, "name": name})))
    x = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    with Server(tmp_path, runtime=triton_runtime, exit_timeout_s=1) as server, Client(server.http_url) as client:
        answers = [client.infer(name, {"x": x})["y"] for name in ("plain", "accelerated")]
        log = server.log()
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5, atol=1e-5)
    # A provider that is missing, or did not start, is a warning that names it.
    assert "OpenVINOExecutionProvider" not in log and "'openvino' is ignored" not in log
