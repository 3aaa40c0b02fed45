"""fp16 and bf16 of small graphs: types, borders, constants, graphs inside; and what must stay, found by measuring."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser

from builder.errors import CalibrationError, PrecisionError
from builder.graphs import onnx_graph
from builder.precision.half import cast_half, emulated, half_array
from builder.precision.prepare import prepared
from builder.precision.ranges_half import keep_in_fp32
from builder.reference import OnnxRunner

HALF = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 8)).astype(np.float32)


@pytest.fixture
def graph(tmp_path):
    """``graph(text, w=array, ...)`` -> a prepared ONNX file."""

    def make(text, /, **weights):
        model = parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, tmp_path / "source.onnx")
        prepared(tmp_path / "source.onnx", tmp_path / "prepared.onnx")
        return tmp_path / "prepared.onnx"

    return make


@pytest.fixture
def half(tmp_path):
    """Converts, checks and loads; gives the model and what runs it."""

    def convert(path, precision="fp16", keep=(), io="fp32"):
        to = tmp_path / f"{precision}.onnx"
        notes = cast_half(path, to, precision=precision, keep=keep, io=io)
        model = onnx.load(to)
        onnx.checker.check_model(model, full_check=True)
        return model, (OnnxRunner(to, threads=1) if precision == "fp16" else None), notes

    return convert


def types_of(model):
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def operators(model):
    return [node.op_type for node in model.graph.node]


def node_types(model):
    """Element types that every node takes, by its name."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    everything = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    known = {value.name: value.type.tensor_type.elem_type for value in everything} | types_of(model)
    return {node.name: [known[name] for name in node.input if name] for node in model.graph.node}


def run(path, **inputs):
    return OnnxRunner(path, threads=1)(inputs)


def name_of(path, op_type, index=0):
    return [node.name for node in onnx.load(path).graph.node if node.op_type == op_type][index]


def close(got, right, relative=5e-3):
    return np.linalg.norm(got.astype(np.float64) - right) <= relative * np.linalg.norm(right)


MLP = "g (float[n, 8] x) => (float[n, 3] y) { h = MatMul(x, w)\n r = Relu(h)\n y = Gemm(r, v, b) }"
WEIGHTS = {
    "w": RNG.standard_normal((8, 16)).astype(np.float32),
    "v": RNG.standard_normal((16, 3)).astype(np.float32),
    "b": RNG.standard_normal(3).astype(np.float32),
}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_weights_are_half_and_casts_stand_at_the_ends_only(graph, half, precision):
    path = graph(MLP, **WEIGHTS)
    model, runner, notes = half(path, precision)
    assert set(types_of(model).values()) == {HALF[precision]}
    assert operators(model) == ["Cast", "MatMul", "Relu", "Gemm", "Cast"]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["x", "y"]
    assert notes == ()
    if runner:
        got = runner({"x": X})["y"]
        assert got.dtype == np.float32
        assert close(got, run(path, x=X)["y"])


def test_inputs_and_outputs_are_fp16_on_request(graph, half):
    path = graph(MLP, **WEIGHTS)
    model, runner, _ = half(path, io="fp16")
    assert "Cast" not in operators(model)
    got = runner({"x": X.astype(np.float16)})["y"]
    assert got.dtype == np.float16
    assert close(got, run(path, x=X)["y"])
    model, _, _ = half(path, "bf16", io="fp16")
    ends = [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
    assert ends == [TensorProto.FLOAT16, TensorProto.FLOAT16]


def test_the_same_graph_gives_the_same_bytes(graph, tmp_path):
    path = graph(MLP, **WEIGHTS)
    for name in ("a.onnx", "b.onnx"):
        cast_half(path, tmp_path / name, precision="fp16", keep=[name_of(path, "Relu")])
        emulated(path, tmp_path / f"emulated-{name}", precision="bf16")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert (tmp_path / "emulated-a.onnx").read_bytes() == (tmp_path / "emulated-b.onnx").read_bytes()


def test_kept_nodes_have_casts_at_their_borders_and_their_weights_as_they_were(graph, half):
    path = graph(MLP, **WEIGHTS)
    model, runner, _ = half(path, keep=[name_of(path, "Gemm")])
    assert operators(model) == ["Cast", "MatMul", "Relu", "Cast", "Gemm"]
    assert sorted(types_of(model).values()) == [TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.FLOAT16]
    assert close(runner({"x": X})["y"], run(path, x=X)["y"])


def test_a_weight_that_both_kinds_use_is_there_twice(graph, half):
    path = graph(
        "g (float[n, 8] x) => (float[n, 8] y) { a = MatMul(x, w)\n y = MatMul(a, w) }", w=np.eye(8, dtype="f4")
    )
    model, _, _ = half(path, keep=[name_of(path, "MatMul", 1)])
    assert sorted(types_of(model).values()) == [TensorProto.FLOAT, TensorProto.FLOAT16]


def test_between_two_kept_nodes_nothing_is_rounded(graph, half):
    path = graph(
        "g (float[n, 8] x) => (float[n, 8] y)"
        "{ a = Mul(x, x)\n b = Transpose(a)\n c = Transpose(b)\n d = Exp(c)\n y = Neg(d) }"
    )
    model, _, notes = half(path, keep=[name_of(path, "Mul"), name_of(path, "Exp")])
    taken = node_types(model)
    assert taken[name_of(path, "Transpose")] == [TensorProto.FLOAT]
    assert taken[name_of(path, "Neg")] == [TensorProto.FLOAT16]
    assert "2 Transpose" in notes[0]


def test_operators_without_half_stay_in_float32_by_the_schema(graph, half):
    text = """g (float[1, 1, 4, 4] x, float[1, 6, 4] boxes, float[1, 1, 6] scores)
    => (float[1, 1, 8, 8] y, int64[k, 3] s)
    { y = Resize<mode = "nearest">(x, , scales)
      s = NonMaxSuppression(boxes, scores) }"""
    path = graph(text, scales=np.array([1, 1, 2, 2], np.float32))
    model, runner, notes = half(path)
    taken = node_types(model)
    assert taken[name_of(path, "Resize")] == [TensorProto.FLOAT16, TensorProto.FLOAT]
    assert taken[name_of(path, "NonMaxSuppression")] == [TensorProto.FLOAT] * 2
    assert "1 NonMaxSuppression" in notes[0]
    feed = {"x": RNG.random((1, 1, 4, 4), np.float32), "boxes": RNG.random((1, 6, 4), np.float32)}
    feed["scores"] = RNG.random((1, 1, 6), np.float32)
    right = run(path, **feed)
    got = runner(feed)
    assert np.array_equal(got["s"], right["s"])
    assert close(got["y"], right["y"])


def test_integers_and_their_casts_are_retargeted(graph, half):
    text = """g (int64[n, 4] ids, float[n, 4] x) => (float[n, 4] y, int64[n] best, int64[2] size, bool[n, 4] above)
    { f = Cast<to = 1>(ids)
      y = Add(f, x)
      best = ArgMax<axis = 1, keepdims = 0>(y)
      size = Shape(x)
      z = Cast<to = 1>(y)
      above = Greater(z, f) }"""
    path = graph(text)
    model, runner, _ = half(path)
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == 3  # x in, y out, ids: none from half to half
    assert [node.attribute[0].i for node in casts].count(TensorProto.FLOAT16) == 2
    feed = {"ids": np.arange(8).reshape(2, 4), "x": np.ones((2, 4), np.float32)}
    right, got = run(path, **feed), runner(feed)
    assert all(np.array_equal(got[name], right[name]) for name in right)
    assert node_types(model)[name_of(path, "Shape")] == [TensorProto.FLOAT]  # no Cast for a look at the shape


def test_attributes_that_name_a_type_follow(graph, half):
    text = """g (int64[2] shape, float[2, 3] x) => (float[a, b] y, float[2, 3] z)
    { filled = ConstantOfShape<value = float[1] {3}>(shape)
      eye = EyeLike<dtype = 1>(filled)
      y = Add(filled, eye)
      noise = RandomNormalLike<seed = 1.0, scale = 0.0001>(x)
      z = Add(noise, x) }"""
    path = graph(text)
    model, runner, _ = half(path)
    feed = {"shape": np.array([2, 3]), "x": np.ones((2, 3), np.float32)}
    right, got = run(path, **feed), runner(feed)
    assert np.array_equal(got["y"], right["y"])
    assert np.allclose(got["z"], right["z"], atol=2e-3)
    assert operators(model).count("Cast") == 3  # one input, two outputs


FLOWS = {
    "If": """g (bool c, float[n, 8] x) => (float[n, 8] y)
    { t = MatMul(x, w)
      h = If(c) <then_branch = a () => (float[n, 8] p) { p = MatMul(t, w) },
                 else_branch = b () => (float[n, 8] q) { r = Relu(x)
                                                         q = Add(r, t) }>
      y = Neg(h) }""",
    "Loop": """g (bool c, float[n, 8] x) => (float[n, 8] y)
    { k = Constant<value = int64 {3}>()
      y, all = Loop(k, c, x) <body = a (int64 i, bool go, float[n, 8] s) => (bool go2, float[n, 8] s2, float[n, 8] o)
        { go2 = Identity(go)
          m = MatMul(s, w)
          s2 = Tanh(m)
          o = Identity(m) }> }""",
}


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("right_branch", [True, False])
def test_graphs_inside_are_converted_too(graph, half, tmp_path, flow, kept, right_branch):
    path = graph(FLOWS[flow], w=WEIGHTS["w"][:, :8] / 4)
    model, runner, _ = half(path, keep=[name_of(path, flow)] if kept else ())
    feed = {"c": np.array(right_branch), "x": X}
    right = run(path, **feed)["y"]
    assert close(runner(feed)["y"], right)
    if not kept:
        assert set(types_of(model).values()) - {TensorProto.INT64} == {TensorProto.FLOAT16}
    emulated(path, tmp_path / "emulated.onnx", precision="fp16", keep=[name_of(path, flow)] if kept else ())
    assert close(run(tmp_path / "emulated.onnx", **feed)["y"], right)


def test_a_scan_carries_halves(graph, half):
    text = """g (float[3] start, float[t, 3] x) => (float[3] last, float[t, 3] all)
    { last, all = Scan<num_scan_inputs = 1, body = b (float[3] s, float[3] e) => (float[3] s2, float[3] o)
        { s2 = Add(s, e)
          o = Neg(s2) }>(start, x) }"""
    path = graph(text)
    _, runner, _ = half(path)
    feed = {"start": np.zeros(3, np.float32), "x": np.ones((5, 3), np.float32)}
    assert np.array_equal(runner(feed)["all"], run(path, **feed)["all"])


def test_sequences_stay_as_they_are(half, tmp_path):
    text = """<ir_version: 10, opset_import: ["": 20]> g (float[n, 8] x, int64 at) => (float[n, 8] y)
    { t = Tanh(x)
      s = SequenceConstruct(x, t)
      one = SequenceAt(s, at)
      y = Relu(one) }"""
    path = tmp_path / "typed.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(parser.parse_model(text)), path)
    _, runner, notes = half(path)
    feed = {"x": X, "at": np.array(1)}
    assert close(runner(feed)["y"], run(path, **feed)["y"])
    assert "SequenceAt" in notes[0]


def test_an_operator_that_nobody_describes_stays_in_float32(tmp_path, half):
    text = """<ir_version: 10, opset_import: ["": 20, "com.microsoft": 1]> g (float[n, 8] x) => (float[n, 8] y)
    { a = MatMul(x, w)
      b = com.microsoft.FastGelu(a)
      y = MatMul(b, w) }"""
    model = parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(np.eye(8, dtype=np.float32), "w"))
    onnx.save(model, tmp_path / "source.onnx")
    prepared(tmp_path / "source.onnx", tmp_path / "prepared.onnx")
    cast_half(tmp_path / "prepared.onnx", tmp_path / "half.onnx", precision="fp16")
    assert close(run(tmp_path / "half.onnx", x=X)["y"], run(tmp_path / "prepared.onnx", x=X)["y"])


MASKED = """g (float[n, 8] x, float[n, 8] mask) => (float[n, 8] y)
{ m = Mul(mask, huge)
  s = Add(x, m)
  y = Softmax(s) }"""


def test_a_masks_constant_is_cut_to_the_largest_half_and_nothing_is_kept_for_it(graph, half):
    path = graph(MASKED, huge=np.float32([np.finfo(np.float32).min]))
    mask = np.zeros((4, 8), np.float32)
    mask[:, 5:] = 1
    mask[3] = 1  # all of a row
    feed = {"x": X, "mask": mask}
    model, runner, notes = half(path)
    held = next(numpy_helper.to_array(t) for t in model.graph.initializer)
    assert held.tolist() == [-65504.0]
    assert "huge" in notes[0] and "65504" in notes[0]
    got = runner(feed)["y"][:3]
    assert close(got, run(path, **feed)["y"][:3])
    assert keep_in_fp32(path, lambda: iter([{name: array[:3] for name, array in feed.items()}]), "fp16").nodes == ()


def test_a_constant_that_counts_is_not_cut(graph, half):
    path = graph("g (float[n, 8] x) => (float[n, 8] y) { a = Mul(x, big)\n y = Mul(a, small) }",
                 big=np.float32([1e6]), small=np.float32([1e-6]))  # fmt: skip
    found = keep_in_fp32(path, lambda: iter([{"x": X}]), "fp16")
    assert "'big' holds 1e+06" in found.reasons[name_of(path, "Mul")]
    _, runner, _ = half(path, keep=found.nodes)
    assert close(runner({"x": X})["y"], X)


OVERFLOW = """g (float[n, 8] x) => (float[n, 8] y)
{ a = Mul(x, thousand)
  b = Mul(a, a)
  total = ReduceSum<keepdims = 1>(b, axes)
  n = Div(b, total)
  y = MatMul(n, w) }"""


def test_what_overflows_is_kept_and_only_that(graph, half, tmp_path):
    path = graph(OVERFLOW, thousand=np.float32([1000]), axes=np.array([1]), w=WEIGHTS["w"][:, :8])
    right = run(path, x=X)["y"]
    emulated(path, tmp_path / "rounded.onnx", precision="fp16")
    assert not np.all(np.isfinite(run(tmp_path / "rounded.onnx", x=X)["y"]))
    found = keep_in_fp32(path, lambda: iter([{"x": X}]), "fp16")
    assert name_of(path, "MatMul") not in found.nodes
    assert "fp16 ends at 65504" in found.reasons[name_of(path, "ReduceSum")]
    assert found.off["y"] < 0.01
    emulated(path, tmp_path / "rounded.onnx", precision="fp16", keep=found.nodes)
    assert close(run(tmp_path / "rounded.onnx", x=X)["y"], right)
    model, runner, _ = half(path, keep=found.nodes)
    assert close(runner({"x": X})["y"], right)
    assert TensorProto.FLOAT16 in types_of(model).values()


INSIDE = {  # nodes, weights, a size of x at which the sum is beyond fp16 and the output is not
    "ReduceMean": ("y = ReduceMean<keepdims = 1>(x, axes)", {"axes": np.array([1])}, 20000.0),
    "ReduceL2": ("y = ReduceL2<keepdims = 1>(x, axes)", {"axes": np.array([1])}, 200.0),
    "MatMul": ("y = MatMul(x, w)", {"w": np.float32([[1], [-1]] * 4)}, 15000.0),
    "Conv": ("u = Reshape(x, shape)\n v = Conv(u, w)\n y = Squeeze(v, axes)",
             {"shape": np.array([-1, 1, 8]), "w": np.float32([[[1, -1, 1, -1, 1, -1, 1, -1]]]), "axes": np.array([2])},
             15000.0),
    "LayerNormalization": ("y = LayerNormalization(x, one)", {"one": np.ones(8, np.float32)}, 500.0),
}  # fmt: skip


def test_scores_inside_of_attention_count(tmp_path):
    text = """<ir_version: 11, opset_import: ["": 23]> g (float[n, 8, 16] q, float[n, 8, 16] k) => (float[n, 8, 16] y)
    { y = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, k) }"""
    onnx.save(parser.parse_model(text), tmp_path / "source.onnx")
    prepared(tmp_path / "source.onnx", tmp_path / "prepared.onnx")
    small = RNG.standard_normal((1, 8, 16)).astype(np.float32)
    for scale, kept in ((200, 1), (1, 0)):
        feed = {"q": small * scale, "k": small * scale}
        found = keep_in_fp32(tmp_path / "prepared.onnx", lambda feed=feed: iter([feed]), "fp16")
        assert len(found.nodes) == kept


@pytest.mark.parametrize("op_type", INSIDE)
def test_sums_inside_a_node_count_where_its_output_does_not_show_them(graph, op_type):
    nodes, weights, size = INSIDE[op_type]
    path = graph(f"g (float[n, 8] x) => (float[n, {8 if op_type[0] == 'L' else 1}] y) {{ {nodes} }}", **weights)
    for scale, kept in ((size, (name_of(path, op_type),)), (1.0, ())):
        x = np.full((2, 8), scale, np.float32)
        assert keep_in_fp32(path, lambda x=x: iter([{"x": x}]), "fp16").nodes == kept


def test_an_underflow_that_ruins_a_division_is_found_by_rounding(graph, tmp_path):
    text = """g (float[n, 8] x) => (float[n, 8] y)
    { a = Mul(x, tiny)
      b = Mul(a, a)
      v = ReduceMean<keepdims = 1>(b, axes)
      r = Sqrt(v)
      d = Div(a, r)
      y = MatMul(d, w) }"""
    path = graph(text, tiny=np.float32([1e-4]), axes=np.array([1]), w=WEIGHTS["w"][:, :8])
    emulated(path, tmp_path / "rounded.onnx", precision="fp16")
    assert not np.all(np.isfinite(run(tmp_path / "rounded.onnx", x=X)["y"]))
    found = keep_in_fp32(path, lambda: iter([{"x": X}]), "fp16")
    assert name_of(path, "MatMul") not in found.nodes
    assert found.off["y"] < 0.01
    assert any("in fp16" in reason for reason in found.reasons.values())
    emulated(path, tmp_path / "rounded.onnx", precision="fp16", keep=found.nodes)
    assert close(run(tmp_path / "rounded.onnx", x=X)["y"], run(path, x=X)["y"], 0.01)


def test_where_errors_only_add_up_the_first_nodes_are_kept(graph, tmp_path):
    steps = "".join(f"a{k} = Sub(one, y{k})\n b{k} = Mul(y{k}, a{k})\n y{k + 1} = Mul(b{k}, four)\n" for k in range(6))
    path = graph(f"g (float[n, 8] y0) => (float[n, 8] y6) {{ {steps} }}", one=np.float32([1]), four=np.float32([4]))
    feed = {"y0": RNG.random((16, 8), np.float32)}  # each step doubles what the one before was off by
    emulated(path, tmp_path / "rounded.onnx", precision="fp16")
    assert not close(run(tmp_path / "rounded.onnx", **feed)["y6"], run(path, **feed)["y6"], 0.02)
    found = keep_in_fp32(path, lambda: iter([feed]), "fp16")
    order = [node.name for node in onnx.load(path).graph.node]
    assert set(found.nodes) == set(order[: len(found.nodes)])
    assert 0 < len(found.nodes) <= len(order) // 2
    assert found.off["y6"] <= 0.01
    assert "first nodes" in found.reasons[order[0]]


def test_indices_computed_in_float_stay_exact(graph, tmp_path):
    text = """g (int64[n] at, float[n] x) => (int64[n] slot, float[n] y)
    { f = Cast<to = 1>(at)
      s = Div(f, seven)
      slot = Cast<to = 7>(s)
      y = Mul(x, x) }"""
    path = graph(text, seven=np.float32(7))
    feed = {"at": np.arange(6993, 7007), "x": np.ones(14, np.float32)}
    right = run(path, **feed)["slot"]
    emulated(path, tmp_path / "rounded.onnx", precision="fp16")
    assert not np.array_equal(run(tmp_path / "rounded.onnx", **feed)["slot"], right)
    found = keep_in_fp32(path, lambda: iter([feed]), "fp16")
    assert "integer" in found.reasons[name_of(path, "Div")]
    assert name_of(path, "Mul") not in found.nodes
    emulated(path, tmp_path / "rounded.onnx", precision="fp16", keep=found.nodes)
    assert np.array_equal(run(tmp_path / "rounded.onnx", **feed)["slot"], right)


def test_an_output_beyond_fp16_is_refused_by_name(graph):
    path = graph("g (float[n, 8] x) => (float[n, 8] y) { y = Mul(x, big) }", big=np.float32([60000]))
    feeds = lambda: iter([{"x": np.full((1, 8), 2, np.float32)}])  # noqa: E731
    with pytest.raises(PrecisionError) as caught:
        keep_in_fp32(path, feeds, "fp16", io="fp16")
    text = str(caught.value)
    for part in ("output 'y' is beyond what fp16 can hold", "Mul", "65504", "120000", "io: fp32"):
        assert part in text
    assert keep_in_fp32(path, feeds, "fp16").nodes  # with fp32 outputs it can be had
    with pytest.raises(PrecisionError, match="input 'x'"):
        keep_in_fp32(path, lambda: iter([{"x": np.full((1, 8), 1e5, np.float32)}]), "fp16", io="fp16")


def test_without_a_request_there_is_nothing_to_measure(graph):
    path = graph(MLP, **WEIGHTS)
    with pytest.raises(CalibrationError, match="no request to measure fp16 with"):
        keep_in_fp32(path, lambda: iter([]), "fp16")


def test_what_emulates_bf16_rounds_as_bf16_does(graph, tmp_path):
    path = graph(MLP, **WEIGHTS)
    emulated(path, tmp_path / "e.onnx", precision="bf16")
    bf16 = lambda a: a.astype(ml_dtypes.bfloat16).astype(np.float32)  # noqa: E731
    w, v, b = (bf16(WEIGHTS[name]) for name in "wvb")
    right = bf16(bf16(np.maximum(bf16(bf16(X) @ w), 0)) @ v + b)
    got = run(tmp_path / "e.onnx", x=X)["y"]
    assert got.dtype == np.float32
    assert np.array_equal(got, bf16(got))
    assert np.allclose(got, right, rtol=2**-7)
    assert not np.allclose(got, run(path, x=X)["y"], rtol=1e-5)
    emulated(path, tmp_path / "kept.onnx", precision="bf16", keep=[n.name for n in onnx.load(path).graph.node])
    assert np.array_equal(run(tmp_path / "kept.onnx", x=X)["y"], run(path, x=X)["y"])


def test_bf16_reaches_as_far_as_fp32_so_that_nothing_is_kept_for_range(graph):
    path = graph(OVERFLOW, thousand=np.float32([1000]), axes=np.array([1]), w=WEIGHTS["w"][:, :8])
    assert keep_in_fp32(path, lambda: iter([{"x": X}]), "bf16").nodes == ()


def test_weights_outside_of_the_file_stay_outside(graph, half, monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_graph, "EXTERNAL_DATA_ABOVE_BYTES", 100)
    path = graph(MLP, **WEIGHTS)
    right = run(path, x=X)["y"]
    assert (tmp_path / "prepared.onnx.data").is_file()
    model, runner, _ = half(path)
    assert (tmp_path / "fp16.onnx.data").is_file()
    assert set(types_of(model).values()) == {TensorProto.FLOAT16}
    assert close(runner({"x": X})["y"], right)
    assert keep_in_fp32(path, lambda: iter([{"x": X}]), "fp16").nodes == ()


def test_rounding_keeps_what_is_finite_finite_and_an_epsilon_above_zero():
    assert half_array([1e9, -3e38, np.inf, 65519.0], "fp16").tolist() == [65504, -65504, np.inf, 65504]
    assert half_array(np.float32(1e-12), "fp16") > 0
    assert half_array(np.float32([-1e-12]), "fp16")[0] < 0
    assert half_array([1e-12, 1.0], "fp16").tolist() == [0, 1]
    assert np.isfinite(half_array([np.finfo(np.float32).max], "bf16").astype(np.float32)).all()
