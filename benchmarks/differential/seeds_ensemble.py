# ruff: noqa: E501 - configurations as people write them
"""Valid repositories of an ensemble and its steps."""

from __future__ import annotations

from benchmarks.differential.case import Case
from benchmarks.differential.onnx_models import Tensors, onnx_model
from benchmarks.differential.seeds_python import MODEL

_CHAIN = """
name: "chain_id"
platform: "ensemble"
max_batch_size: 8
input [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "EMBEDDING" data_type: TYPE_FP32 dims: [ 6 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "tokens_id"
      model_version: -1
      input_map { key: "text" value: "TEXT" }
      output_map { key: "ids" value: "token_ids" }
      output_map { key: "mask" value: "token_mask" }
    },
    {
      model_name: "encoder_id"
      model_version: -1
      input_map { key: "ids" value: "token_ids" }
      input_map { key: "mask" value: "token_mask" }
      output_map { key: "embedding" value: "EMBEDDING" }
    }
  ]
}
"""
_BRANCH = """
# three encoders side by side, then the head
platform: 'ensemble'
max_batch_size: 4
input { name: 'image' data_type: TYPE_FP32 dims: [ 4 ] }
input { name: 'sound' data_type: TYPE_FP32 dims: [ 4 ] }
output { name: 'score' data_type: TYPE_FP32 dims: [ 2 ] }
output { name: 'seen' data_type: TYPE_FP32 dims: [ 3 ] }
ensemble_scheduling {
  step { model_name: 'look_id' model_version: 1 input_map { key: 'x' value: 'image' } output_map { key: 'y' value: 'seen' } }
  step { model_name: 'listen_id' model_version: -1 input_map { key: 'x' value: 'sound' } output_map { key: 'y' value: 'heard' } }
  step {
    model_name: 'head_id'
    model_version: -1
    input_map { key: 'a' value: 'seen' }
    input_map { key: 'b' value: 'heard' }
    output_map { key: 'z' value: 'score' }
  }
}
"""
_WHOLE = """
name: "whole_id"
platform: "ensemble"
max_batch_size: 0
input [ { name: "IN" data_type: TYPE_UINT8 dims: [ -1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 3, 2 ] } ]
ensemble_scheduling {
  step [
    { model_name: "decode_id" model_version: -1 input_map { key: "bytes" value: "IN" } output_map { key: "pixels" value: "P" } },
    { model_name: "normal_id" model_version: -1 input_map { key: "p" value: "P" } output_map { key: "q" value: "OUT" } }
  ]
}
parameters { key: "owner" value { string_value: "vision" } }
"""
_SHAPED = """
name: "shaped_id"
platform: "ensemble"
max_batch_size: 8
input { name: "IN" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: [ 4 ] } }
output { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] }
ensemble_scheduling {
  step [
    {
      model_name: "wide_id"
      model_version: -1
      input_map { key: "x" value: "IN" }
      output_map { key: "y" value: "OUT" }
    }
  ]
}
"""
_STREAM = """
name: "stream_id"
platform: "ensemble"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input { name: "PROMPT" data_type: TYPE_STRING dims: [ -1 ] }
output { name: "TOKEN" data_type: TYPE_STRING dims: [ 1 ] }
ensemble_scheduling {
  step {
    model_name: "speak_id"
    model_version: -1
    input_map { key: "prompt" value: "PROMPT" }
    output_map { key: "token" value: "TOKEN" }
  }
}
"""
_TYPES = {
    "FLOAT": "TYPE_FP32",
    "INT64": "TYPE_INT64",
    "INT32": "TYPE_INT32",
    "UINT8": "TYPE_UINT8",
    "STRING": "TYPE_STRING",
}
_SPEAK = """import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            request.get_response_sender().send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


def _config(backend: str, batch: int, inputs: Tensors, outputs: Tensors, more: str = "") -> str:
    def tensors(role: str, given: Tensors) -> str:
        lines = []
        for name, (kind, dims) in given.items():
            shown = [dim if isinstance(dim, int) else -1 for dim in (dims[1:] if batch else dims)]
            lines.append(f'{role} {{ name: "{name}" data_type: {_TYPES[kind]} dims: {shown} }}')
        return "\n".join(lines)

    body = f'backend: "{backend}"\nmax_batch_size: {batch}\n{tensors("input", inputs)}\n{tensors("output", outputs)}\n'
    return f"{body}instance_group {{ count: 1 }}\n{more}"


def _onnx(name: str, batch: int, inputs: Tensors, outputs: Tensors, more: str = "") -> dict[str, bytes]:
    return {
        f"{name}/config.pbtxt": _config("onnxruntime", batch, inputs, outputs, more).encode(),
        f"{name}/1/model.onnx": onnx_model(inputs, outputs),
    }


def _python(
    name: str, batch: int, inputs: Tensors, outputs: Tensors, more: str = "", code: str = MODEL
) -> dict[str, bytes]:
    return {
        f"{name}/config.pbtxt": _config("python", batch, inputs, outputs, more).encode(),
        f"{name}/1/model.py": code.encode(),
    }


def _ensemble(name: str, text: str, *steps: dict[str, bytes]) -> Case:
    files = {path: content for step in steps for path, content in step.items()}
    return Case(name.removesuffix("_id"), {**files, f"{name}/config.pbtxt": text.encode(), f"{name}/1/": b""}, name)


def ensemble_seeds() -> list[Case]:
    """A chain, a branch, one without batching, one with a reshape, one that streams."""
    words = {"ids": ("INT64", ["batch", "n"]), "mask": ("INT32", ["batch", "n"])}
    four, three = ("FLOAT", ["batch", 4]), ("FLOAT", ["batch", 3])
    prompt, token = {"prompt": ("STRING", ["n"])}, {"token": ("STRING", [1])}
    return [
        _ensemble(
            "chain_id",
            _CHAIN,
            _python("tokens_id", 8, {"text": ("STRING", ["batch", 1])}, words),
            _onnx("encoder_id", 16, words, {"embedding": ("FLOAT", ["batch", 6])}, "dynamic_batching { }\n"),
        ),
        _ensemble(
            "branch_id",
            _BRANCH,
            _onnx("look_id", 4, {"x": four}, {"y": three}),
            _onnx("listen_id", 8, {"x": four}, {"y": four}),
            _onnx("head_id", 4, {"a": three, "b": four}, {"z": ("FLOAT", ["batch", 2])}),
        ),
        _ensemble(
            "whole_id",
            _WHOLE,
            _python("decode_id", 0, {"bytes": ("UINT8", ["n"])}, {"pixels": ("FLOAT", [3, "w"])}),
            _onnx("normal_id", 0, {"p": ("FLOAT", [3, 2])}, {"q": ("FLOAT", [3, 2])}),
        ),
        _ensemble("shaped_id", _SHAPED, _onnx("wide_id", 8, {"x": four}, {"y": ("FLOAT", ["batch", 1])})),
        _ensemble(
            "stream_id",
            _STREAM,
            _python("speak_id", 0, prompt, token, "model_transaction_policy { decoupled: true }\n", _SPEAK),
        ),
    ]
