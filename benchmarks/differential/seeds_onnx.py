# ruff: noqa: E501 - configurations as people write them
"""Valid repositories of one ONNX model, their configurations as people write them."""

from __future__ import annotations

from benchmarks.differential.case import Case
from benchmarks.differential.onnx_models import onnx_model

_DENSE = """
name: "dense_id"
platform: "onnxruntime_onnx"
max_batch_size: 16
input [
  {
    name: "x"
    data_type: TYPE_FP32
    dims: [ 4 ]
  }
]
output [
  {
    name: "y"
    data_type: TYPE_FP32
    dims: [ 3 ]
    label_filename: "labels.txt"
  }
]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
}
version_policy: { latest: { num_versions: 1 } }
"""
_FIXED = """
# no batching: the shape is whole
backend: 'onnxruntime'
max_batch_size: 0
input { name: 'image' data_type: TYPE_FP32 format: FORMAT_NCHW dims: 3 dims: 8 dims: 8 }
output { name: 'mask' data_type: TYPE_FP32 dims: 3 dims: 8 dims: 8 }
instance_group { count: 1 }
optimization { graph { level: 1 } }
"""
_PAIR = """
name: "pair_id"
backend: "onnxruntime"
max_batch_size: 8
input [
  { name: "ids" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "mask" data_type: TYPE_INT32 dims: [ -1 ] }
]
output [
  { name: "embedding" data_type: TYPE_FP32 dims: [ 6 ] },
  { name: "length" data_type: TYPE_INT64 dims: [ -1 ] }
]
instance_group { count: 1 kind: KIND_CPU }
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
parameters { key: "execution_mode" value: { string_value: "0" } }
"""
_TEXT = """
backend: "onnxruntime"
max_batch_size: 4
input: [{ name: "text", data_type: TYPE_STRING, dims: [1] }]
output: [{ name: "copy", data_type: TYPE_STRING, dims: [1] }]
instance_group: [{ count: 1 }]
metric_tags { key: "team" value: "search" }
"""
_DYNAMIC = """
name: "dynamic_id"
backend: "onnxruntime"
max_batch_size: 4
input { name: "frames" data_type: TYPE_FP32 dims: [ -1, 2 ] }
output { name: "same" data_type: TYPE_FP32 dims: [ -1, 2 ] }
instance_group { count: 1 }
dynamic_batching { }
model_warmup [
  { name: "short" batch_size: 1 inputs { key: "frames" value: { data_type: TYPE_FP32 dims: [ 3, 2 ] zero_data: true } } },
  { name: "full" batch_size: 4 inputs { key: "frames" value: { data_type: TYPE_FP32 dims: [ 5, 2 ] random_data: true } } }
]
"""
_SCALAR = """
backend: "onnxruntime"
input { name: "t" data_type: TYPE_INT64 dims: [ 1 ] }
input { name: "v" data_type: TYPE_FP64 dims: [ 2 ] }
output { name: "u" data_type: TYPE_FP64 dims: [ 2 ] }
instance_group { count: 1 }
"""
_RESHAPED = """
name: "reshaped_id"
backend: "onnxruntime"
max_batch_size: 32
input { name: "age" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
input { name: "grid" data_type: TYPE_UINT8 dims: [ 4, 4 ] reshape: { shape: [ 16 ] } }
output { name: "score" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
output { name: "flat" data_type: TYPE_UINT8 dims: [ 2, 8 ] reshape: { shape: [ 16 ] } }
instance_group { count: 1 }
dynamic_batching { max_queue_delay_microseconds: 500 }
"""
_VERSIONS = """
name: "versions_id"
platform: "onnxruntime_onnx"
backend: "onnxruntime"
max_batch_size: 8
version_policy { specific { versions: [ 1, 3 ] } }
input [ { name: "x" data_type: TYPE_FP16 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP16 dims: [ 4 ] } ]
instance_group { count: 1 }
"""
_CONTROLLED = """
name: "controlled_id"
backend: "onnxruntime"
max_batch_size: 2
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 4 }
instance_group { count: 1 kind: KIND_CPU }
sequence_batching {
  max_sequence_idle_microseconds: 5000000
  direct { }
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] },
    { name: "READY" control [ { kind: CONTROL_SEQUENCE_READY fp32_false_true: [ 0, 1 ] } ] }
  ]
}
"""
_NAMED = """
backend: "onnxruntime"
default_model_filename: "net.onnx"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
instance_group { name: "cpus" count: 2 kind: KIND_CPU }
optimization { priority: PRIORITY_MAX input_pinned_memory { enable: false } }
response_cache { enable: true }
dynamic_batching { preferred_batch_size: 8 preserve_ordering: true }
"""
_LEVELS = """
name: "levels_id"
backend: "onnxruntime"
max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
instance_group { count: 1 }
dynamic_batching {
  preferred_batch_size: [ 8, 16 ]
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 100000 max_queue_size: 64 }
  priority_queue_policy { key: 1 value: { allow_timeout_override: true } }
  priority_queue_policy { key: 3 value: { timeout_action: DELAY default_timeout_microseconds: 10 } }
}
"""
_RATED = """
name: "rated_id"
backend: "onnxruntime"
max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
instance_group [
  { count: 1 kind: KIND_CPU rate_limiter { resources [ { name: "R1" count: 2 }, { name: "R2" global: true count: 1 } ] priority: 1 } },
  { name: "second" count: 1 kind: KIND_CPU rate_limiter { resources { name: "R1" count: 1 } priority: 2 } }
]
"""
_DEFAULTS = """
backend: "onnxruntime"
max_batch_size: 0
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
input { name: "scale" data_type: TYPE_FP32 dims: [ 1 ] optional: true }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
instance_group { count: 1 }
"""
_FP32 = ("FLOAT", ["batch", 4])


def _one(name: str, text: str | None, model: bytes, *more: str, file: str = "model.onnx", **extra: str) -> Case:
    files = {f"{name}/{version}/{file}": model for version in more or ("1",)}
    files |= {f"{name}/{path.replace('__', '.')}": content.encode() for path, content in extra.items()}
    if text is not None:
        files[f"{name}/config.pbtxt"] = text.encode()
    return Case(name.removesuffix("_id"), files, name)


def onnx_seeds() -> list[Case]:
    """Models behind the ONNX Runtime backend, each alone in its repository."""
    same = onnx_model({"x": _FP32}, {"y": _FP32})
    dense = onnx_model({"x": _FP32}, {"y": ("FLOAT", ["batch", 3])})
    image = ("FLOAT", [3, 8, 8])
    words = ("INT64", ["batch", "n"])
    half = ("FLOAT16", ["batch", 4])
    flat = ("UINT8", ["batch", 16])
    signal = {"x": _FP32, "START": ("FLOAT", ["batch", 1]), "READY": ("FLOAT", ["batch", 1])}
    text = ("STRING", ["batch", 1])
    frames = ("FLOAT", ["batch", "time", 2])
    optional = {"x": ("FLOAT", [4]), "scale": ("FLOAT", [1])}
    return [
        _one("dense_id", _DENSE, dense, labels__txt="cat\ndog\nbird\n"),
        _one("fixed_id", _FIXED, onnx_model({"image": image}, {"mask": image})),
        _one(
            "pair_id",
            _PAIR,
            onnx_model(
                {"ids": words, "mask": ("INT32", ["batch", "n"])},
                {"embedding": ("FLOAT", ["batch", 6]), "length": words},
            ),
        ),
        _one("text_id", _TEXT, onnx_model({"text": text}, {"copy": text})),
        _one("dynamic_id", _DYNAMIC, onnx_model({"frames": frames}, {"same": frames})),
        _one("scalar_id", _SCALAR, onnx_model({"v": ("DOUBLE", [2]), "t": ("INT64", [])}, {"u": ("DOUBLE", [2])})),
        _one(
            "reshaped_id",
            _RESHAPED,
            onnx_model({"age": ("FLOAT", ["batch"]), "grid": flat}, {"score": ("FLOAT", ["batch"]), "flat": flat}),
        ),
        _one("versions_id", _VERSIONS, onnx_model({"x": half}, {"y": half}), "1", "2", "3"),
        _one("controlled_id", _CONTROLLED, onnx_model(signal, {"y": _FP32})),
        _one("named_id", _NAMED, same, file="net.onnx"),
        _one("levels_id", _LEVELS, same),
        _one("rated_id", _RATED, same),
        _one("defaults_id", _DEFAULTS, onnx_model(optional, {"y": ("FLOAT", [4])}, overridable=["scale"])),
        _one("minimal_id", 'backend: "onnxruntime"\ninstance_group { count: 1 }\n', dense),
        _one("bare_id", None, same),
    ]
