"""Graphs written by hand for the tests of precision: small, and each with something that is easily forgotten."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def weight(*shape, scale=0.5):
    """Normal numbers, the same for the same shape whatever was made before."""
    return (np.random.default_rng(shape).standard_normal(shape) * scale).astype(np.float32)


def model(nodes, inputs, outputs, weights, *, opset=17, also_inputs=()):
    """``inputs`` and ``outputs``: name -> shape; ``weights``: name -> array."""

    def value(name, shape):
        kind = TensorProto.INT64 if name.startswith("ids") else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, shape)

    given = [value(name, shape) for name, shape in inputs.items()]
    given += [value(name, weights[name].shape) for name in also_inputs]
    made = helper.make_graph(
        nodes,
        "by_hand",
        given,
        [value(name, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


node = helper.make_node


def mlp(*, relu=True, trans=False, size=16, opset=17):
    first = weight(size, 8) if trans else weight(8, size)
    nodes = [
        node("Gemm", ["x", "w1", "b1"], ["h"], name="first", transB=int(trans)),
        node("Relu" if relu else "Tanh", ["h"], ["a"], name="act"),
        node("Gemm", ["a", "w2", "b2"], ["y"], name="second"),
    ]
    weights = {"w1": first, "b1": weight(size), "w2": weight(size, 4), "b2": weight(4)}
    return model(nodes, {"x": ["batch", 8]}, {"y": ["batch", 4]}, weights, opset=opset)


def transformer():
    """An embedding, a norm, a product, a mask with float's lowest number, a softmax, two values multiplied."""
    nodes = [
        node("Gather", ["table", "ids"], ["e"], name="embed"),
        node("LayerNormalization", ["e", "gain", "shift"], ["n"], name="norm", axis=-1),
        node("MatMul", ["n", "wq"], ["q"], name="query"),
        node("MatMul", ["n", "wk"], ["k"], name="key"),
        node("Transpose", ["k"], ["kt"], name="turn", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["scores"], name="scores"),
        node("Mul", ["mask", "lowest"], ["huge"], name="mask_huge"),
        node("Add", ["scores", "huge"], ["masked"], name="mask_add"),
        node("Softmax", ["masked"], ["p"], name="softmax", axis=-1),
        node("MatMul", ["p", "n"], ["c"], name="context"),
        node("MatMul", ["c", "wo"], ["o"], name="out"),
        node("Add", ["o", "bo"], ["y"], name="bias"),
    ]
    weights = {"table": weight(50, 16), "gain": 1 + weight(16, scale=0.1), "shift": weight(16, scale=0.1)}
    weights |= {"wq": weight(16, 16), "wk": weight(16, 16), "wo": weight(16, 12), "bo": weight(12)}
    weights["lowest"] = np.array(np.finfo(np.float32).min, np.float32)
    return model(nodes, {"ids": ["batch", "n"], "mask": ["batch", 1, "n"]}, {"y": ["batch", "n", 12]}, weights)


def convolutions():
    """A stem, a depthwise and a grouped convolution, a shortcut, a pool, a reshape, a product."""
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], name="stem", kernel_shape=[3, 3], pads=[1] * 4),
        node("Clip", ["c0", "low", "high"], ["a0"], name="clip"),
        node("Conv", ["a0", "w1", "b1"], ["c1"], name="depthwise", kernel_shape=[3, 3], pads=[1] * 4, group=8),
        node("Relu", ["c1"], ["a1"], name="relu"),
        node("Conv", ["a1", "w2"], ["c2"], name="grouped", kernel_shape=[1, 1], group=2),
        node("Add", ["c2", "a0"], ["s"], name="shortcut"),
        node("MaxPool", ["s"], ["m"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", ["m", "shape"], ["f"], name="flat"),
        node("Gemm", ["f", "w3", "b3"], ["y"], name="head", transB=1),
    ]
    weights = {
        "w0": weight(8, 3, 3, 3),
        "b0": weight(8),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
    }
    weights |= {"w1": weight(8, 1, 3, 3), "b1": weight(8), "w2": weight(8, 4, 1, 1), "shape": np.array([0, -1])}
    weights |= {"w3": weight(5, 8 * 4 * 4, scale=0.1), "b3": weight(5)}
    return model(nodes, {"x": ["batch", 3, 8, 8]}, {"y": ["batch", 5]}, weights)


def odd():
    """One after the other, what cannot or need not be quantized."""
    inner = helper.make_graph(
        [node("MatMul", ["x", "shared"], ["t"], name="inner")],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, ["batch", 8])],
    )
    other = helper.make_graph(
        [node("Neg", ["x"], ["e"], name="neg")],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, ["batch", 8])],
    )
    nodes = [
        node("MatMul", ["x", "shared"], ["a"], name="left"),
        node("Gemm", ["x", "shared", "bias"], ["b"], name="right", transB=1),
        node("Add", ["a", "b"], ["ab"], name="sum"),
        node("MatMul", ["ab", "settable"], ["c"], name="settable_weight"),
        node("ReduceMax", ["x"], ["top"], name="top", keepdims=0),
        node("Greater", ["top", "bottom"], ["yes"], name="ask"),
        node("If", ["yes"], ["d"], name="branch", then_branch=inner, else_branch=other),
        node("Add", ["c", "d"], ["cd"], name="joined"),
        node("Gemm", ["cd", "shared"], ["g"], name="scaled", alpha=0.5),
        node("Slice", ["g", "zero", "zero", "one"], ["nothing"], name="empty"),
        node("MatMul", ["nothing", "none"], ["n"], name="of_nothing"),
        node("Concat", ["g", "n"], ["y"], name="put", axis=1),
        node("MatMul", ["x", "w3"], ["z"], name="stacked"),
    ]
    weights = {"shared": weight(8, 8), "bias": weight(8), "settable": weight(8, 8), "bottom": np.array(-9, np.float32)}
    weights |= {
        "zero": np.array([0]),
        "one": np.array([1]),
        "none": np.zeros((0, 3), np.float32),
        "w3": weight(2, 8, 3),
    }
    return model(
        nodes,
        {"x": ["batch", 8]},
        {"y": ["batch", 11], "z": [2, "batch", 3]},
        weights,
        also_inputs=["settable"],
    )


def transposed_convolution(group=1):
    nodes = [node("ConvTranspose", ["x", "w", "b"], ["y"], name="up", strides=[2, 2], kernel_shape=[2, 2], group=group)]
    weights = {"w": weight(4, 6 // group, 2, 2), "b": weight(6)}
    return model(nodes, {"x": ["batch", 4, 3, 3]}, {"y": ["batch", 6, 6, 6]}, weights)


def requests_of(made, count=6, batch=2, seed=0):
    """Feeds: the same random requests each time they are asked for."""
    weights = {tensor.name for tensor in made.graph.initializer}

    def give():
        source = np.random.default_rng(seed)
        for _ in range(count):
            request = {}
            for value in made.graph.input:
                if value.name in weights:
                    continue
                dims = [
                    dim.dim_value or (batch if dim.dim_param == "batch" else 5)
                    for dim in value.type.tensor_type.shape.dim
                ]
                if value.name.startswith("ids"):
                    request[value.name] = source.integers(0, 50, dims)
                elif value.name == "mask":
                    request[value.name] = (np.arange(dims[-1]) > 2).astype(np.float32) * np.ones(dims, np.float32)
                else:
                    request[value.name] = source.standard_normal(dims).astype(np.float32)
            yield request

    return give


GRAPHS = {
    "mlp": mlp,
    "mlp_transposed": lambda: mlp(trans=True),
    "transformer": transformer,
    "convolutions": convolutions,
    "odd": odd,
    "transposed_convolution": transposed_convolution,
    "transposed_convolution_grouped": lambda: transposed_convolution(2),
}


def written(made, to):
    onnx.checker.check_model(made)
    onnx.save(made, to)
    return to
