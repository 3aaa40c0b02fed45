"""Models on disk for the tests of rules about files: small, real files, and what the rules find in them."""

import numpy as np
import onnx
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper

from builder.check.artifacts import ARTIFACT_RULES
from builder.check.model import ModelOnDisk
from builder.releases import RELEASES
from builder.triton_fields import model_config_class

FILENAMES = {"onnxruntime": "model.onnx", "pytorch": "model.pt", "tensorrt": "model.plan", "python": "model.py"}
FILENAMES |= {"openvino": "model.xml", "tensorflow": "model.savedmodel"}


def value(name, kind=TensorProto.FLOAT, shape=("batch", 4)):
    return helper.make_tensor_value_info(name, kind, list(shape) if shape is not None else None)


def graph(nodes=None, inputs=None, outputs=None, weights=None, *, opset=17, ir_version=8, opsets=None, functions=()):
    """``y = x + w`` unless told otherwise."""
    made = helper.make_graph(
        nodes if nodes is not None else [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        inputs if inputs is not None else [value("x")],
        outputs if outputs is not None else [value("y")],
        [
            numpy_helper.from_array(np.asarray(array, np.float32), name)
            for name, array in (weights or {"w": [1.0] * 4}).items()
        ],
    )
    imports = opsets or [helper.make_opsetid("", opset)]
    return helper.make_model(made, opset_imports=imports, ir_version=ir_version, functions=functions)


def on_disk(folder, config, files, *, backend="onnxruntime", versions=(1,), filename=None, release=None, text=None):
    """A model folder with these files, and what reading it gives; ``files``: relative path -> content."""
    message = model_config_class()()
    text_format.Parse(config, message)
    for version in versions:
        (folder / str(version)).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, onnx.ModelProto):
            content = content.SerializeToString()
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    (folder / "config.pbtxt").write_text(config)
    name = filename or message.default_model_filename or FILENAMES.get(backend, "")
    return ModelOnDisk(
        folder.parent, folder, folder.name, message, True, config, {v: folder / str(v) for v in versions},
        tuple(versions), backend, name, RELEASES[release] if release else None,
    )  # fmt: skip


def found(model, *, warnings=True):
    """``{rule id: [messages]}`` of everything that is found."""
    hits = {}
    for rule, function in ARTIFACT_RULES:
        for hit in function(model):
            if warnings or rule.severity == "error":
                hits.setdefault(rule.id, []).append(hit)
    return hits


CONFIG = """
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
"""
UNBATCHED = CONFIG.replace("size: 8", "size: 0").replace("[ 4 ]", "[ -1, 4 ]")
