"""Warnings that need the file: batching that the graph could do, and profiles that the configuration goes beyond."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from builder.check.artifacts.onnx import graphs
from builder.check.artifacts.onnx_signature import is_completed
from builder.check.model import ModelOnDisk
from builder.rules.rule import Hit, Rule

BATCHABLE = Rule(
    "batchable-unbatched",
    "warning",
    "the ONNX file could batch, and `max_batch_size` is 0",
    "Every input and output begins with an open dimension. With batching the server puts waiting requests together: a "
    "small model answers several times as many requests a second (digits here: 10 times at batch 32 in ONNX Runtime), "
    "a large one on a CPU up to 20% more.",
    "Set max_batch_size, take the first dimension out of `dims`, and add dynamic_batching {}.",
    bad="max_batch_size: 0 and dims: [ -1, 4 ] for an input [batch, 4]",
    good="max_batch_size: 8 dynamic_batching {} and dims: [ 4 ]",
)
PROFILE = Rule(
    "batch-beyond-profile",
    "warning",
    "`max_batch_size` is larger than the accelerator's profile",
    "ONNX Runtime builds the TensorRT engine anew, during a request and for minutes, when a batch comes that lies "
    "outside of `trt_profile_max_shapes`.",
    "Lower max_batch_size, or raise trt_profile_max_shapes.",
    bad='max_batch_size: 64 and trt_profile_max_shapes "x:32x4"',
    good="max_batch_size: 32",
)

_SHAPE = re.compile(r"(?P<name>[^,]+):(?P<first>\d+)(?:x\d+)*(?=,|\Z)")


def batchable(model: ModelOnDisk) -> Iterator[Hit]:
    """Graphs that batch where the configuration does not."""
    for _, path, graph in graphs(model):
        config = model.config
        unused = config.max_batch_size == 0 and not is_completed(config) and not config.HasField("sequence_batching")
        entries = [*config.input, *config.output]
        if unused and graph.batches and all(_is_open(entry) for entry in entries):
            message = f"every input and output of {model.relative(path)} begins with an open dimension"
            fix = "set max_batch_size, leave that dimension out of dims, and add dynamic_batching {}"
            yield Hit(f"{message}, and max_batch_size is 0", fix, ("max_batch_size",))
            return


def _is_open(entry: Any) -> bool:
    ragged = getattr(entry, "allow_ragged_batch", False)  # outputs have no such field
    return bool(entry.dims) and entry.dims[0] == -1 and not ragged


def profile(model: ModelOnDisk) -> Iterator[Hit]:
    """Batches that the accelerator's profile leaves out."""
    if model.config is None or model.backend != "onnxruntime":
        return
    accelerators = model.config.optimization.execution_accelerators.gpu_execution_accelerator
    for index, accelerator in enumerate(accelerators):
        text = accelerator.parameters.get("trt_profile_max_shapes", "") if accelerator.name == "tensorrt" else ""
        sizes = [int(match["first"][:9]) for match in _SHAPE.finditer(text)]
        size = model.config.max_batch_size
        if sizes and size > max(sizes):
            where = ("optimization", "execution_accelerators", "gpu_execution_accelerator", index)
            message = f"max_batch_size is {size}, and trt_profile_max_shapes ends at {max(sizes)}"
            yield Hit(message, f"write max_batch_size: {max(sizes)}, or raise trt_profile_max_shapes", where)


GAIN_RULES = (
    (BATCHABLE, batchable),
    (PROFILE, profile),
)
