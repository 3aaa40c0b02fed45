"""What a bad model gets: a module that is none, does not fit the spec or cannot be verified; files that are broken.

Each row is the user's code, where it stops, and what the message says: what is wrong, where, and what to do about it.
"""

import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from builder.config import decide, render
from builder.errors import AccuracyError, ExportError, InterfaceError, ParityError, SampleError, SourceError, SpecError
from builder.export import onnx_from_file
from builder.reference import OnnxRunner, reference_runner
from builder.usercode import user_code
from builder.verify import cases_of, check_parity, measure
from serving.errors import TritonRepoError

HEAD = "import numpy as np\nimport torch\nfrom torch import nn\n"
MODULE = """
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.drop = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)
    def forward(self, x):
        {forward}

def load():
    return M()
"""
X = {"x": "float32[batch, 8]"}
Y = {"y": "float32[batch, 8]"}


def _forward(*lines):
    return MODULE.format(forward="\n        ".join(lines))


@pytest.fixture
def model(stages, tmp_path):
    """``model(code, ...)``: a spec whose source is ``m.py:load`` with this code."""

    def make(code, **keys):
        (tmp_path / "m.py").write_text(HEAD + code)
        defaults = {"source": {"python": "m.py:load"}, "inputs": X, "outputs": Y}
        return stages(**{key: value for key, value in {**defaults, **keys}.items() if value is not None})

    return make


def _asked(made):
    """Everything up to the reference's answers."""
    with user_code(made.spec.folder):
        loaded = made.load()
        samples = made.samples(loaded)
        runner = reference_runner(loaded, made.spec.folder)
        batch = made.model.batch.max if loaded.interface.batches else 0
        return loaded, samples, runner, cases_of(samples, loaded.interface, batch, runner)


def _error(function, *args):
    with pytest.raises(TritonRepoError) as caught:
        function(*args)
    return caught.value


def _line(made, text):
    lines = (made.folder / "m.py").read_text().splitlines()
    return f"{made.folder}/m.py:{1 + next(number for number, line in enumerate(lines) if text in line)}"


# (code, error, what, the line that is named (its text), what else)
NO_MODULE = [
    ("def load(): pass", SourceError, "returned no torch.nn.Module", "", "end the function with `return module`"),
    ("def load(): return nn.ReLU", SourceError, "returned no torch.nn.Module", "", "return an instance: ReLU(...)"),
    ("def load(): return nn.ReLU().state_dict()", SourceError, "returned no torch.nn.Module", "", "load_state_dict"),
    ("def load(): return nn.ReLU(), 1", SourceError, "returned no torch.nn.Module", "", "builtins.tuple"),
    ("async def load(): return nn.ReLU()", SourceError, "returned no torch.nn.Module", "", "`def`, not `async def`"),
    ("def load():\n    raise OSError('no weights')", SourceError, "source m.py:load raised", "no weights", "OSError"),
    ("def load():\n    import sys; sys.exit(3)", SourceError, "source m.py:load raised", "exit(3)", "SystemExit: 3"),
    ("import sys\nsys.exit(3)", SourceError, "importing m.py raised", "exit(3)", "would end the whole build"),
    ("def load(): return load()", SourceError, "source m.py:load raised", "def load", "RecursionError"),
    ("def load(name): pass", SourceError, "does not take what it is called with", "def load", "'name'"),
    ("def load():\nreturn 1", SourceError, "importing m.py raised", "return 1", "IndentationError"),
    ("import nowhere_to_be_found", SourceError, "which is not installed", "import nowhere", "pip install nowhere"),
    ("from torch import nowhere\n", SourceError, "importing m.py raised", "import nowhere", "ImportError"),
    ("load = 3", SourceError, "has no callable 'load'", "", "def load(...)"),
    (
        "def load(): return nn.Linear(8, 8, device='meta')",
        SourceError, "returned a module without weights", "", "on meta: weight",
    ),
    (
        "class M(nn.Module):\n    def eval(self):\n        raise RuntimeError('never')\ndef load(): return M()",
        SourceError, "cannot be put into inference mode", "never", "RuntimeError: never",
    ),
    (
        "class M(nn.Module):\n    def forward(self, x, other): return x\ndef load(): return M()",
        SourceError, "forward() does not take the inputs of the spec", "def forward", "forward(x, other)",
    ),
]  # fmt: skip
# (forward, error, what, the line that is named, what else)
FORWARD = [
    (["return x.view(9, 9)"], SourceError, "raised when it was called with x float32[2, 8]", "view(9, 9)", "invalid"),
    (["return self.forward(x)"], SourceError, "raised when it was called", "self.forward", "RecursionError"),
    (["raise SystemExit(1)"], SourceError, "raised when it was called", "SystemExit(1)", "would end the whole build"),
    (["return None"], InterfaceError, "output 'y' is no tensor", "", "NoneType"),
    (["return 1.0"], InterfaceError, "output 'y' is no tensor", "", "return tensors"),
    (["return x, x"], InterfaceError, "gives 2 outputs, the spec has 1", "", "name every output"),
    (["return {'z': x}"], InterfaceError, "have no 'y'", "", "z"),
    (["return {'y': {'z': x}}"], InterfaceError, "output 'y' is no tensor", "", "dict"),
    (["return x.double()"], InterfaceError, "another dtype than the spec", "", "write float64 in `outputs`"),
    (["return x.bfloat16()"], InterfaceError, "another dtype than the spec", "", "no client can take bfloat16"),
    (["return torch.fft.fft(x)"], InterfaceError, "another dtype", "", "no client can take complex64"),
    (["return x.to_sparse()"], InterfaceError, "is no plain tensor", "", "x.to_dense()"),
    (["return x[:, :4]"], InterfaceError, "another shape than the spec", "", "float32[2, 4]"),
    (["return x[..., None]"], InterfaceError, "another shape than the spec", "", "float32[2, 8, 1]"),
    (["return x.sum(0, keepdim=True)"], InterfaceError, "does not follow its batch dimension", "", "[1, 8]"),
    (["return torch.zeros(3, 8)"], InterfaceError, "does not follow its batch dimension", "", "keep dimension 0"),
    (["return x.view(2, -1)[:, :8]"], InterfaceError, "does not follow its batch dimension", "", "at batch=1"),
    (["return x / 0"], SourceError, "answers NaN or Inf in output 'y'", "", "batch 1"),
    (["return torch.log(x)"], SourceError, "answers NaN or Inf in output 'y'", "", "a log of zero"),
    # left in training mode, or otherwise not the same twice
    (
        ["return nn.functional.dropout(x, 0.5, training=True)"],
        SourceError,
        "differently each time",
        "",
        "training=True",
    ),
    (["return x + torch.rand_like(x)"], SourceError, "differently each time", "", "random numbers"),
    (
        ["self.n = getattr(self, 'n', 0) + 1", "return x + self.n"],
        SourceError,
        "differently each time",
        "",
        "max abs 1",
    ),
    (["self.norm.running_mean += 1", "return self.norm(x)"], SourceError, "differently each time", "", "asked twice"),
    (["self.train()", "return self.drop(x)"], SourceError, "differently each time", "", "the module itself, layer"),
    (["self.train()", "return self.norm(x)"], SourceError, "raised when it was called", "self.norm(x)", "norm, drop"),
    # the samples of a batch are mixed
    (["return x - x.mean(0)"], SourceError, "depends on what else is in its batch", "", "batch: {max: 0}"),
    (["return torch.softmax(x, 0)"], SourceError, "depends on what else is in its batch", "", "softmax"),
    (["return x * len(x)"], SourceError, "depends on what else is in its batch", "", "different clients"),
    (["return x * x.sum().item()"], SourceError, "depends on what else is in its batch", "", "one batch"),
]


@pytest.mark.parametrize(("code", "kind", "what", "line", "says"), NO_MODULE)
def test_a_callable_that_gives_no_module(model, code, kind, what, line, says):
    made = model(code)
    error = _error(made.load)
    assert isinstance(error, kind)
    assert what in error.what
    assert says in str(error)
    assert error.fix
    if line:
        assert error.where.startswith(_line(made, line))


@pytest.mark.parametrize(("forward", "kind", "what", "line", "says"), FORWARD)
def test_a_module_that_does_not_do_what_the_spec_says(model, forward, kind, what, line, says):
    made = model(_forward(*forward))
    error = _error(_asked, made)
    assert isinstance(error, kind)
    assert what in error.what
    assert says in str(error)
    assert error.fix
    if line:
        assert error.where.startswith(_line(made, line))


def test_a_module_that_keeps_itself_in_training_mode_is_named_with_its_parts(model):
    code = _forward("return self.drop(x)").replace(
        "    def forward", "    def train(self, mode=True):\n        return super().train(True)\n    def forward"
    )
    error = _error(_asked, model(code))
    assert "differently each time" in error.what
    assert error.fix == "these are in training mode, though eval() was called: the module itself, layer, norm, drop"


def test_what_looks_odd_and_is_right_passes(model):
    """In place on its input, mixed within a sample, a buffer of its own as output, mixed where nothing is batched."""
    for forward in (["x += 1", "return x"], ["return x - x.mean(1, keepdim=True)"], ["return torch.softmax(x, 1)"]):
        *_, cases = _asked(model(_forward(*forward)))
        assert [case.batch for case in cases] == [1, 5, 8]
    own = ["self.buffer = getattr(self, 'buffer', torch.zeros(1, 8))", "self.buffer[:] = x[:1]", "return self.buffer"]
    fixed = {"inputs": {"x": "float32[1, 8]"}, "outputs": {"y": "float32[1, 8]"}}
    _, samples, runner, _ = _asked(model(_forward(*own), **fixed))
    first = runner(samples.batch(1, start=0))["y"]
    runner(samples.batch(1, start=1))
    np.testing.assert_array_equal(first, samples.batch(1, start=0)["x"])
    _asked(model(_forward("return x - x.mean(0)"), batch={"max": 0}))


def test_text_is_no_input_of_a_torch_module(model):
    with pytest.raises(SpecError, match="'x' is text, and torch has no tensors of text"):
        model(_forward("return x"), inputs={"x": "string[batch, 8]"})


def test_a_batch_that_is_baked_in_by_a_loop_is_found_at_export(model):
    made = model(_forward("return torch.stack([row * 2 for row in x])"))
    error = _error(made.export)
    assert isinstance(error, ExportError)
    assert error.what == "dimension 'batch' of 'y' is baked in as 2"
    assert "torchscript: the ONNX file cannot run at batch 1" in error.got


def test_an_operator_that_onnx_has_not_is_named_with_the_line_though_it_was_taken_apart(model):
    made = model(_forward("y = x * 2", "return torch.special.bessel_j0(y)"))
    error = _error(made.export)
    assert error.what == "operator prims.bessel_j0 cannot be exported to ONNX"
    assert error.where == _line(made, "bessel_j0")


def test_parity_out_of_tolerance_says_which_output_how_far_and_at_which_shape(model, tmp_path):
    *_, cases = _asked(model(_forward("return x * 2.01")))
    onnx.save(_onnx([helper.make_node("Add", ["x", "x"], ["y"])]), tmp_path / "other.onnx")
    runner = OnnxRunner(tmp_path / "other.onnx")
    with pytest.raises(ParityError) as caught:
        check_parity(runner, cases[1:], "fp32", what="m (onnx-fp32)", where="ONNX Runtime")
    error = caught.value
    assert error.what == "m (onnx-fp32): output 'y' is not what PyTorch answers (batch 5)"
    assert error.where == "ONNX Runtime, asked with x float32[5, 8]"
    assert "times what is allowed; max abs 0.0" in error.got
    assert error.expected.startswith("within 0.001 of the value")
    with pytest.raises(ParityError, match="m cannot run batch 5") as caught:
        bad = helper.make_node("Reshape", ["x", "shape"], ["y"])
        onnx.save(_onnx([bad], [numpy_helper.from_array(np.array([1, 8]), "shape")]), tmp_path / "other.onnx")
        check_parity(OnnxRunner(tmp_path / "other.onnx"), cases[1:], "fp32", what="m")
    assert "onnxruntime_src" not in caught.value.got
    assert "Input shape:{5,8}" in caught.value.got


# (body of samples(), what, what else)
SAMPLES = [
    ("pass", "gave no list", "NoneType"),
    ("return 3", "gave no list", "return [sample, ...]"),
    ("return 'x'", "gave no list", "str"),
    ("return {'x': np.zeros(8, np.float32)}", "gave no list", "one mapping for each sample"),
    ("return []", "gave no sample", "leave `samples` out"),
    ("return np.zeros((3, 8), np.float32)", "the sample is no mapping", "[{'x': row} for row in rows]"),
    ("return [(1, 2)]", "the sample is no mapping", "tuple"),
    ("return [{}]", "has the wrong names", "add 'x'"),
    ("return [{'x': np.zeros(8, np.float32), 'z': 1}]", "has the wrong names", "leave out 'z'"),
    ("return [{'X': np.zeros(8, np.float32)}]", "has the wrong names", "call 'X' 'x'"),
    ("return [{'x': np.zeros(8)}]", "does not fit input 'x': wrong dtype", "array.astype('float32')"),
    ("return [{'x': np.zeros(8, '>f4')}]", "wrong dtype", ">f4"),
    ("return [{'x': [0.0] * 8}]", "wrong dtype", "float64[8]"),
    ("return [{'x': None}]", "wrong dtype", "object[]"),
    ("return [{'x': [[1], [1, 2]]}]", "the sample's 'x' is no array", "inhomogeneous"),
    ("return [{'x': torch.zeros(8).bfloat16()}]", "the sample's 'x' is no array", "BFloat16"),
    ("return [{'x': np.float32(1)}]", "wrong number of dimensions", "float32[]"),
    ("return [{'x': np.zeros((1, 8), np.float32)}]", "wrong number of dimensions", "return single samples"),
    ("return [{'x': np.zeros(9, np.float32)}]", "size 9 where the spec has 8", "float32[8] (one sample"),
    ("return [{'x': np.full(8, np.nan, np.float32)}]", "it holds NaN or Inf", "leave such samples out"),
    ("return [{'x': np.full(8, np.inf, np.float32)}]", "it holds NaN or Inf", "sample 0"),
    ("raise OSError('no disk')", "samples m.py:samples raised", "OSError: no disk"),
    ("raise SystemExit(1)", "samples m.py:samples raised", "would end the whole build"),
    ("yield {'x': np.zeros(8, np.float32)}\n    raise OSError('no disk')", "while they were gone through", "no disk"),
    ("return [{'x': np.zeros(8, np.float32)}, {'x': np.zeros(7, np.float32)}]", "size 7", "sample 1"),
]


@pytest.mark.parametrize(("body", "what", "says"), SAMPLES)
def test_samples_that_are_none(model, body, what, says):
    code = _forward("return x") + f"def samples():\n    {body}\n"
    made = model(code, samples={"python": "m.py:samples"})
    error = _error(made.samples, made.load())
    assert isinstance(error, SampleError)
    assert what in error.what
    assert says in str(error)
    assert error.fix


def test_samples_of_a_size_outside_its_range_or_empty(model):
    named = {"inputs": {"x": "float32[batch, n: 5..9]"}, "outputs": {"y": "float32[batch, n]"}}
    for size, what in ((3, "'n' is 3, outside 5..9"), (0, "it is empty")):
        code = _forward("return x") + f"def samples():\n    return [{{'x': np.zeros({size}, np.float32)}}]\n"
        made = model(code, samples={"python": "m.py:samples"}, **named)
        assert what in _error(made.samples, made.load()).what


def test_what_numpy_and_torch_give_is_taken_as_samples(model):
    rows = "torch.zeros(8, requires_grad=True), np.zeros(16, np.float32)[::2], np.zeros(8, np.float32)"
    code = _forward("return x") + f"def samples():\n    return ({{'x': row}} for row in [{rows}])\n"
    made = model(code, samples={"python": "m.py:samples"})
    assert len(_asked(made)[1].rows) == 3


METRICS = [
    ("pass", "gave no number", "end it with `return value`"),
    ("return 'good'", "gave no number", "return float(value)"),
    ("return float('nan')", "gave nan", "a finite number"),
    ("return float('-inf')", "gave -inf", "a finite number"),
    ("raise OSError('no labels')", "evaluate m.py:metric raised", "OSError: no labels"),
    ("raise SystemExit", "evaluate m.py:metric raised", "would end the whole build"),
    ("return predict({'x': np.zeros((2, 9), np.float32)})", "the module raised when it was called", "x float32[2, 9]"),
]


@pytest.mark.parametrize(("body", "what", "says"), METRICS)
def test_a_metric_that_is_none(model, body, what, says):
    code = _forward("return self.layer(x)") + f"def metric(predict):\n    {body}\n"
    made = model(code, evaluate={"python": "m.py:metric"})
    with user_code(made.spec.folder):
        runner = reference_runner(made.load(), made.spec.folder)
        error = _error(measure, made.spec, made.model, runner)
    assert isinstance(error, (AccuracyError, SourceError))
    assert what in error.what
    assert says in str(error)


def test_a_metric_that_takes_no_predict(model):
    made = model(_forward("return x") + "def metric():\n    return 1.0\n", evaluate={"python": "m.py:metric"})
    with user_code(made.spec.folder):
        error = _error(measure, made.spec, made.model, lambda inputs: inputs)
    assert "does not take what it is called with" in error.what
    assert error.expected == "(predict)"


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def _zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "hello")


def _torchscript(path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(8, 8), torch.zeros(2, 8)), str(path))


def _program(path):
    torch.export.save(torch.export.export(torch.nn.Linear(8, 8), (torch.zeros(2, 8),)), path)


def _half(make):
    def write(path):
        make(path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    return write


def _state(path):
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(torch.nn.Linear(8, 8).state_dict(), path)
    else:
        torch.save(torch.nn.Linear(80, 80).state_dict(), path)


# (file, how it is made, what, what it looks like, fix)
WEIGHTS = [
    ("w.pt2", b"", "is no torch.export program", "an empty file", "export it again"),
    ("w.pt2", b"nonsense", "is no torch.export program", "a text file of 8 bytes", "export it again"),
    ("w.pt2", bytes(range(128, 256)), "is no torch.export program", "128 bytes of another kind", "export it again"),
    ("w.pt2", LFS, "is no torch.export program", "a pointer of Git LFS", "git lfs pull"),
    ("w.pt2", _zip, "is no torch.export program", "an archive of something else (readme)", "export it again"),
    ("w.pt2", _half(_program), "is no torch.export program", "cut short or damaged", "copy it again"),
    ("w.pt2", _torchscript, "is no torch.export program", "a TorchScript archive", "state_dict()"),
    ("w.pt2", _program, "dimension 'batch' of 'x' is fixed at 2", "[2, 8]", "torch.export.Dim.DYNAMIC"),
    ("w.safetensors", b"", "cannot be read", "an empty file", "copy it again"),
    ("w.safetensors", b"nonsense", "cannot be read", "a text file", "copy it again"),
    ("w.safetensors", LFS, "cannot be read", "a pointer of Git LFS", "git lfs pull"),
    ("w.safetensors", _half(_state), "cannot be read", "a .safetensors file of", "copy it again"),
    ("w.pt", b"", "cannot be read", "an empty file", "copy it again"),
    ("w.pt", b"nonsense", "cannot be read", "a text file", "copy it again"),
    ("w.pt", LFS, "cannot be read", "a pointer of Git LFS", "git lfs pull"),
    ("w.pt", _half(_state), "cannot be read", "cut short or damaged", "copy it again"),
    ("w.pt", _torchscript, "cannot be read", "a TorchScript archive", "state_dict()"),
    ("w.pt", lambda path: torch.save([torch.zeros(1)], path), "holds no state dict", "list", "state_dict()"),
    ("w.pt", lambda path: torch.save({"layer.weight": "x"}, path), "does not fit the module", "str", "arguments"),
    ("w.pt", _state, "does not fit the module", "not in the checkpoint: layer.weight", "saved from"),
]


@pytest.mark.filterwarnings("ignore:.torch.jit")
@pytest.mark.parametrize(("file", "content", "what", "looks", "fix"), WEIGHTS)
def test_weights_that_are_broken(model, tmp_path, capfd, file, content, what, looks, fix):
    content(tmp_path / file) if callable(content) else (tmp_path / file).write_bytes(content)
    source = {"exported": file} if file.endswith("pt2") else {"checkpoint": file, "factory": "m.py:load"}
    error = _error(model(_forward("return x"), source=source).load)
    assert isinstance(error, (SourceError, InterfaceError))
    assert what in error.what
    assert looks in error.got
    assert fix in error.fix
    assert error.where == str(tmp_path / file)
    shown = capfd.readouterr()
    assert shown.out + shown.err == ""  # no warnings and tracebacks of torch's


FLOAT = TensorProto.FLOAT


def _tensor(name, shape=("N", 3), kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def _onnx(nodes, weights=(), *, inputs=None, outputs=None, opset=17, ir=8, domains=()):
    width = ["N", 8] if inputs is None and outputs is None else None
    inputs = [_tensor("x", width or ("N", 3))] if inputs is None else inputs
    outputs = [_tensor("y", width or ("N", 3))] if outputs is None else outputs
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(domain, 1) for domain in domains]
    made = helper.make_model(graph, opset_imports=imports)
    made.ir_version = ir
    return made


def _node(kind="Relu", inputs=("x",), **keys):
    return helper.make_node(kind, list(inputs), ["y"], **keys)


RELU = _onnx([_node()]).SerializeToString()
# (the file, what, what else, fix)
ONNX = [
    (b"", "no usable ONNX model", "an empty file", "check_model"),
    (RELU[:20], "no usable ONNX model", "cut short (20 bytes)", "check_model"),
    (RELU[:-3], "no usable ONNX model", "cut short", "check_model"),
    (b"hello", "no usable ONNX model", "not an ONNX file", "check_model"),
    (LFS, "no usable ONNX model", "a pointer of Git LFS", "git lfs pull"),
    (_onnx([_node()], outputs=[]), "no usable ONNX model", "without outputs", "check_model"),
    (_onnx([_node(kind="SequenceConstruct")], outputs=[helper.make_tensor_sequence_value_info("y", FLOAT, None)]),
     "no usable ONNX model", "'y' is a sequence_type, not a tensor", "check_model"),
    (_onnx([_node("Identity")], inputs=[_tensor("x", kind=TensorProto.COMPLEX64)]),
     "no usable ONNX model", "COMPLEX64, which Triton has no type for", "check_model"),
    (_onnx([_node()], inputs=[_tensor("x", None)]), "no usable ONNX model", "says nothing of its shape", "check_model"),
    (_onnx([_node("Identity")], inputs=[_tensor("x", kind=TensorProto.BFLOAT16)]),
     "'x' is bfloat16, which clients have no arrays for", "bfloat16[batch, 3]", "float32"),
    (_onnx([_node("Constant", (), value=helper.make_tensor("v", FLOAT, [1], [1.0]))], inputs=[]),
     "the ONNX file has no inputs", "inputs: none", "leave the model out"),
    (_onnx([_node("ReduceMax", keepdims=0)], outputs=[_tensor("y", [])]), "'y' has no dimension", "y: float32[]", "1]"),
    (_onnx([_node("ReduceMax", axes=[1], keepdims=0)], outputs=[_tensor("y", ["N"])]),
     "'y' has no dimension beside `batch`", "y: float32[batch]", "float32[batch, 1]"),
    (_onnx([_node()], opset=99), "ONNX Runtime does not take the file", "Opset 99", "an opset that ONNX Runtime knows"),
    (_onnx([_node()], ir=99), "ONNX Runtime does not take the file", "IR version: 99", "convert it"),
    (_onnx([_node("Foo")]), "ONNX Runtime does not take the file", "No Op registered for Foo", "mend the model"),
    (_onnx([_node("Foo", domain="my.ops")], domains=["my.ops"]), "does not take the file", "my.ops:Foo", "mend"),
    (_onnx([_node("Add", ("x", "z")), helper.make_node("Relu", ["y"], ["z"])]), "does not take", "acyclic", "mend"),
    (_onnx([_node("Log")]), "answers NaN or Inf in output 'y'", "elements are not", "real samples"),
    (_onnx([_node("RandomNormalLike")]), "differently each time: output 'y'", "max abs", "random numbers"),
    (_onnx([_node("Softmax", axis=0)]), "depends on what else is in its batch", "max abs", "batch: {max: 0}"),
    (_onnx([_node("Reshape", ("x", "s"))], [numpy_helper.from_array(np.array([2, 8]), "s")]),
     "the ONNX file cannot run x float32[1, 8]", "Input shape:{1,8}", "sizes that the model has fixed"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "what", "says", "fix"), ONNX)
def test_an_onnx_file_that_is_broken(model, tmp_path, content, what, says, fix):
    data = content if isinstance(content, bytes) else content.SerializeToString()
    (tmp_path / "a.onnx").write_bytes(data)
    error = _error(_asked, model("", source={"onnx": "a.onnx"}, inputs=None, outputs=None))
    assert isinstance(error, (SourceError, InterfaceError))
    assert what in error.what
    assert says in error.got
    assert fix in error.fix
    assert "onnxruntime_src" not in str(error)


def test_an_onnx_file_whose_own_shapes_are_not_true(model, tmp_path):
    onnx.save(_onnx([_node()], outputs=[_tensor("y", ("N", 4))]), tmp_path / "a.onnx")
    made = model("", source={"onnx": "a.onnx"}, inputs=None, outputs=None)
    loaded, samples, _, _ = _asked(made)
    error = _error(lambda: onnx_from_file(loaded, samples, to=tmp_path / "model.onnx"))
    assert isinstance(error, ExportError)
    assert error.got == "y: float32[1, 3]"
    assert "make the file again with the sizes that it really has" in error.fix


def test_labels_and_weights_that_would_be_one_file(model, tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "w.bin").write_text("north")
    weights = numpy_helper.from_array(np.ones((3, 3), np.float32), "w")
    onnx.save(
        _onnx([_node("MatMul", ("x", "w"))], [weights], inputs=[_tensor("x")], outputs=[_tensor("y")]),
        tmp_path / "a.onnx", save_as_external_data=True, location="w.bin", size_threshold=0,
    )  # fmt: skip
    keys = {"source": {"onnx": "a.onnx"}, "inputs": None, "outputs": None}
    _asked(model("", **keys))
    error = _error(model("", **keys, labels={"y": "labels/w.bin"}).load)
    assert error.what == "the label file labels/w.bin and the weights of the ONNX file are both copied as w.bin"


@pytest.mark.parametrize(
    ("body", "got"),
    [("return 'none.onnx'", "'none.onnx', which is not there"), ("pass", "None"), ("return '.'", "'.', which is not")],
)
def test_a_callable_that_gives_no_onnx_file(model, body, got):
    source = {"onnx": {"python": "m.py:path"}}
    error = _error(model(f"def path():\n    {body}\n", source=source, inputs=None, outputs=None).load)
    assert error.what == "m.py:path returned no ONNX model"
    assert got in error.got


def test_what_cannot_become_a_model_is_told(model):
    body = (
        "class Function:\n    def to_model_proto(self):\n        raise ValueError('x has no type')\n"
        "def path():\n    return Function()\n"
    )
    source = {"onnx": {"python": "m.py:path"}}
    error = _error(model(body, source=source, inputs=None, outputs=None).load)
    assert error.what == "the function that m.py:path returned cannot become a model"
    assert error.got == "ValueError: x has no type"
    assert "write the types of its parameters" in error.fix


def test_a_file_of_another_encoding_or_with_nul_is_named(model, tmp_path):
    for content, says in ((b"x = '\xe9'\n", "utf-8"), (b"x = 1\0\n", "null bytes")):
        (tmp_path / "other.py").write_bytes(content)
        error = _error(model("", source={"python": "other.py:load"}).load)
        assert error.what == "importing other.py raised"
        assert str(tmp_path / "other.py") in error.where
        assert says in error.got


# Folders beside the spec that are called as a package is: (entries, importing line, what it says; empty: it works)
SHADOWS = [
    (["triton/"], "", ""),  # even an empty folder would be taken for the compiler that torch looks for
    (["triton/__init__.py", "torch/__init__.py", "onnx/__init__.py", "builder/__init__.py", "numpy.py"], "", ""),
    (["templates/__init__.py", "yaml.py", "types.py", "random.py"], "", ""),
    (["triton/__init__.py"], "import triton", "cannot import the 'triton' of its own folder: the name is taken"),
    (["onnx/__init__.py"], "from onnx import mine", "cannot import the 'onnx' of its own folder: the name is taken"),
    (["builder/__init__.py"], "from builder import mine", "the 'builder' of its own folder: the name is taken"),
    (["models/__init__.py", "data.py", "utils/"], "import models, data, utils", ""),
]


@pytest.mark.parametrize(("entries", "line", "what"), SHADOWS)
def test_folders_called_like_packages(model, tmp_path, entries, line, what):
    for entry in entries:
        path = tmp_path / entry
        (path if entry.endswith("/") else path.parent).mkdir(exist_ok=True)
        if not entry.endswith("/"):
            path.write_text("")
    made = model(f"{line}\n" + _forward("return self.layer(x)"))
    if what:
        error = _error(made.load)
        assert what in error.what
        assert error.fix.startswith(f"rename {tmp_path}/")
        return
    artifact, *_ = made.export()
    assert artifact.notes == ("exported by torch.onnx (dynamo), opset 23",)
    config = decide("m", made.model, artifact.interface, fmt="onnx", sizes={}, folder=tmp_path)
    with user_code(tmp_path):
        assert 'name: "m"' in render(config)
