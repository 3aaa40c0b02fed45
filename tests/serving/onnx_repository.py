"""Small ONNX models by hand, in a model repository: what the backend's tests load."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def model(nodes, inputs, outputs, initializers=(), opset=18):
    """An ONNX model; inputs and outputs as ``{name: (type, shape)}``."""

    def infos(tensors):
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in tensors.items()]

    graph = helper.make_graph(nodes, "graph", infos(inputs), infos(outputs), list(initializers))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(made)
    return made


def one_op(op, kind=FLOAT, shape=("batch", 4), out_kind=None, out_shape=None, **attributes):
    """``y = op(x)``."""
    node = helper.make_node(op, ["x"], ["y"], **attributes)
    return model([node], {"x": (kind, shape)}, {"y": (out_kind or kind, shape if out_shape is None else out_shape)})


def doubler(shape=("batch", 4), **parts):
    """``y = x + x``."""
    return model([helper.make_node("Add", ["x", "x"], ["y"])], {"x": (FLOAT, shape)}, {"y": (FLOAT, shape)}, **parts)


def lookup(rows=10):
    """``y = table[index]``, row by row; an index that is out of range fails the whole run."""
    table = helper.make_tensor("table", FLOAT, [rows, 2], [float(i) for i in range(2 * rows)])
    return model(
        [helper.make_node("Gather", ["table", "index"], ["y"])],
        {"index": (INT64, ("batch", "n"))},
        {"y": (FLOAT, ("batch", "n", 2))},
        [table],
    )


def add(repository, name, made, config=None, version=1, filename="model.onnx", **save):
    """Writes ``<repository>/<name>/<version>/<filename>`` and, unless None, its config.pbtxt."""
    folder = Path(repository, name, str(version))
    (folder / filename).parent.mkdir(parents=True, exist_ok=True)
    if isinstance(made, bytes):
        (folder / filename).write_bytes(made)
    elif made is not None:
        onnx.save(made, folder / filename, **save)
    if config is not None:
        (folder.parent / "config.pbtxt").write_text('backend: "onnxruntime"\n' + config)


def io(inputs, outputs):
    """The ``input`` and ``output`` of a config.pbtxt from ``{name: "TYPE_FP32[4]"}``; more fields after a ``;``."""

    def entries(role, tensors):
        parts = []
        for name, spec in tensors.items():
            kind, _, rest = spec.partition("[")
            dims, _, more = rest.partition("]")
            parts.append(f'{{ name: "{name}" data_type: {kind} dims: [{dims}] {more.lstrip("; ")} }}')
        return f"{role} [ {', '.join(parts)} ]\n"

    return entries("input", inputs) + entries("output", outputs)
