# ruff: noqa: E501 - configurations as people write them
"""Valid repositories of one model written in Python."""

from __future__ import annotations

from benchmarks.differential.case import Case

MODEL = """import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.config = json.loads(args["model_config"])

    def execute(self, requests):
        responses = []
        for request in requests:
            tensors = []
            for output in self.config["output"]:
                kind = pb_utils.triton_string_to_numpy(output["data_type"])
                batch = [1] if int(self.config["max_batch_size"]) else []
                shape = batch + [max(1, int(d)) for d in output["dims"]]
                tensors.append(pb_utils.Tensor(output["name"], np.zeros(shape, kind)))
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses

    def finalize(self):
        self.config = None
"""
_SENDER = """import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
_COMPLETES = """import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        config = auto_complete_model_config
        config.set_max_batch_size(8)
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [4]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [4]})
        config.set_dynamic_batching()
        return config

    def execute(self, requests):
        return [pb_utils.InferenceResponse([]) for _ in requests]
"""
_PLAIN = """
# tokenizer, by hand
name: "plain_id"
backend: "python"
max_batch_size: 8

input [
  {
    name: "text"
    data_type: TYPE_STRING
    dims: [ 1 ]
  },
  {
    name: "limit"
    data_type: TYPE_INT32
    dims: [ 1 ]
    optional: true
  }
]
output [
  {
    name: "ids"
    data_type: TYPE_INT64
    dims: [ -1 ]
  },
  {
    name: "mask"
    data_type: TYPE_INT32
    dims: [ -1 ]
  }
]
instance_group [{ kind: KIND_CPU, count: 1 }]
dynamic_batching {
  max_queue_delay_microseconds: 1000
}
parameters: {
  key: "FORCE_CPU_ONLY_INPUT_TENSORS"
  value: {
    string_value: "no"
  }
}
"""
_DECOUPLED = """
name: "decoupled_id"
backend: "python"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input { name: "prompt" data_type: TYPE_STRING dims: [ -1 ] }
output { name: "token" data_type: TYPE_STRING dims: [ 1 ] }
instance_group { count: 1 }
"""
_DIRECT = """
name: "direct_id"
backend: "python"
max_batch_size: 4
input [ { name: "INPUT" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "OUTPUT" data_type: TYPE_FP32 dims: [ 2 ] } ]
instance_group [ { count: 1 } ]
sequence_batching {
  direct { max_queue_delay_microseconds: 100 minimum_slot_utilization: 0.5 }
  max_sequence_idle_microseconds: 1000000
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] },
    { name: "END" control [ { kind: CONTROL_SEQUENCE_END bool_false_true: [ false, true ] } ] },
    { name: "READY" control [ { kind: CONTROL_SEQUENCE_READY fp32_false_true: [ 0, 1 ] } ] },
    { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }
  ]
}
"""
_OLDEST = """
backend: "python"
max_batch_size: 8
input { name: "INPUT" data_type: TYPE_INT32 dims: 1 }
output { name: "OUTPUT" data_type: TYPE_INT32 dims: 1 }
instance_group { count: 1 }
sequence_batching {
  oldest { max_candidate_sequences: 16 preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 200 }
  control_input { name: "START" control { kind: CONTROL_SEQUENCE_START int32_false_true: 0 int32_false_true: 1 } }
  control_input { name: "ID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } }
  state [
    {
      input_name: "STATE_IN"
      output_name: "STATE_OUT"
      data_type: TYPE_INT32
      dims: [ 1 ]
      initial_state { data_type: TYPE_INT32 dims: [ 1 ] zero_data: true name: "zeros" }
    }
  ]
}
"""
_RAGGED = """
name: "ragged_id"
backend: "python"
max_batch_size: 16
input [ { name: "values" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true } ]
output [ { name: "sums" data_type: TYPE_FP32 dims: [ 1 ] } ]
batch_input [
  { kind: BATCH_ACCUMULATED_ELEMENT_COUNT target_name: "ends" data_type: TYPE_FP32 source_input: "values" }
]
batch_output [ { target_name: "sums" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "values" } ]
dynamic_batching { max_queue_delay_microseconds: 100 }
instance_group { count: 1 }
"""
_WARM = """
name: "warm_id"
backend: "python"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
input { name: "s" data_type: TYPE_STRING dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
instance_group { count: 1 }
model_warmup {
  name: "real"
  batch_size: 1
  inputs { key: "x" value { data_type: TYPE_FP32 dims: 2 input_data_file: "x_data" } }
  inputs { key: "s" value { data_type: TYPE_STRING dims: 1 zero_data: true } }
  count: 2
}
"""
_ORDERLY = """
name: "orderly_id"
backend: "python"
max_batch_size: 32
input { name: "a" data_type: TYPE_BOOL dims: [ 1 ] }
output { name: "b" data_type: TYPE_BOOL dims: [ 1 ] label_filename: "b.txt" }
instance_group { count: 1 }
version_policy { all { } }
dynamic_batching {
  preferred_batch_size: [ 16 ]
  priority_levels: 5
  default_priority_level: 3
  default_queue_policy { max_queue_size: 100 }
  priority_queue_policy { key: 2 value { timeout_action: DELAY default_timeout_microseconds: 5000 allow_timeout_override: true } }
}
response_cache { enable: false }
"""


def _one(name: str, text: str | None, model: str = MODEL, **extra: bytes) -> Case:
    files = {f"{name}/1/model.py": model.encode()}
    files |= {f"{name}/{path.replace('__', '/').replace('_DOT_', '.')}": content for path, content in extra.items()}
    if text is not None:
        files[f"{name}/config.pbtxt"] = text.encode()
    return Case(name.removesuffix("_id"), files, name)


def python_seeds() -> list[Case]:
    """Models behind the Python backend, each alone in its repository."""
    import struct

    return [
        _one("plain_id", _PLAIN),
        _one("completed_id", 'backend: "python"\ninstance_group { count: 1 }\n', _COMPLETES),
        _one("decoupled_id", _DECOUPLED, _SENDER),
        _one("direct_id", _DIRECT),
        _one("oldest_id", _OLDEST),
        _one("ragged_id", _RAGGED),
        _one("warm_id", _WARM, warmup__x_data=struct.pack("<2f", 1.0, 2.0)),
        _one("orderly_id", _ORDERLY, b_DOT_txt=b"yes\n"),
    ]
