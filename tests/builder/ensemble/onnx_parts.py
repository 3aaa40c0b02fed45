"""Small ONNX files whose inner names all meet: every one has an ``h``, a ``w`` and a node ``n``."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from builder.ensemble.fuse import Part

WIDTH = 4
node = helper.make_node


def value(name, dims=("batch", WIDTH)):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims))


def weight(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape or (WIDTH, WIDTH)).astype(np.float32)


def write(
    path, nodes, inputs, outputs, weights, *, opset=17, ir=8, functions=(), imports=(), dims=("batch", WIDTH), inner=()
):
    graph = helper.make_graph(
        nodes,
        "part",
        [value(name, dims) for name in inputs],
        [value(name, dims) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
        value_info=list(inner),
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(*pair) for pair in imports)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir, functions=list(functions), producer_name="x")
    model.doc_string = "a note"
    helper.set_model_props(model, {"author": path.stem})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def dense(folder, name, *, inputs=("x",), outputs=("y",), opset=17, seed=0, dims=("batch", WIDTH), ir=8):
    """Sum of its inputs through a matrix; the second output is the first one's negative."""
    nodes = [
        node("Sum", list(inputs), ["s"], "n"),
        node("MatMul", ["s", "w"], ["h"]),
        node("Tanh", ["h"], [outputs[0]], "n2"),
    ]
    nodes += [node("Neg", ["h"], [other]) for other in outputs[1:]]
    inner = [value("h", dims)]
    return write(
        folder / f"{name}.onnx", nodes, inputs, outputs, {"w": weight(seed)}, opset=opset, dims=dims, inner=inner, ir=ir
    )


def branching(folder, name, *, opset=17, seed=1):
    """Two subgraphs, which take values of the graph around them and have names of their own."""
    yes = helper.make_graph(
        [node("MatMul", ["x", "w"], ["h"], "n"), node("Relu", ["h"], ["out"])], "yes", [], [value("out")]
    )
    no = helper.make_graph([node("Neg", ["x"], ["h"], "n"), node("Abs", ["h"], ["out"])], "no", [], [value("out")])
    nodes = [
        node("ReduceMax", ["x"], ["top"], "n", keepdims=0),
        node("Greater", ["top", "zero"], ["c"]),
        node("If", ["c"], ["y"], then_branch=yes, else_branch=no),
    ]
    return write(
        folder / f"{name}.onnx", nodes, ["x"], ["y"], {"w": weight(seed), "zero": np.float32(0.5)}, opset=opset
    )


def calling(folder, name, *, scale, opset=17):
    """A local function, of the same name in every file, that does something else in each."""
    body = [
        node("Constant", [], ["k"], value=numpy_helper.from_array(np.float32(scale), "k")),
        node("Mul", ["a", "k"], ["b"]),
    ]
    function = helper.make_function("local", "Scale", ["a"], ["b"], body, [helper.make_opsetid("", opset)])
    nodes = [node("Scale", ["x"], ["h"], domain="local"), node("Identity", ["h"], ["y"])]
    return write(
        folder / f"{name}.onnx", nodes, ["x"], ["y"], {}, opset=opset, functions=[function], imports=[("local", 1)]
    )


def part(path, inputs, outputs):
    return Part(path.stem, path, inputs, outputs)


def request(names=("x",), batch=3, seed=7):
    return {name: weight([seed, k], batch, WIDTH) for k, name in enumerate(names)}
