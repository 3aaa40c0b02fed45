"""Every kind of source, loaded for real; and what each says when it cannot be."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from builder.errors import InterfaceError, SourceError
from builder.loaded import OnnxFile
from builder.reference import reference_runner
from tests.builder import modules

X = {"inputs": {"x": "float32[batch, 8]"}}
HALVES = {**X, "outputs": {"a": "float32[batch, 4]", "b": "float32[batch, 4]"}}


def _answers(made, x):
    loaded = made.load()
    return reference_runner(loaded, made.folder)({"x": x})


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)


@pytest.fixture
def expected(x):
    module = modules.make("Halves").eval()
    with torch.no_grad():
        return module(torch.from_numpy(x))[0].numpy()


def test_a_python_callable(stages, x, expected):
    np.testing.assert_allclose(_answers(stages("Halves", **HALVES), x)["a"], expected, rtol=1e-6)


def test_an_importable_module(stages, x, expected):
    source = {"python": "tests.builder.modules:make", "args": {"name": "Halves"}}
    np.testing.assert_allclose(_answers(stages(source=source, **HALVES), x)["a"], expected, rtol=1e-6)


def test_an_exported_program(stages, tmp_path, x, expected):
    batch = torch.export.Dim("batch")
    module = modules.make("Halves").eval()
    program = torch.export.export(module, (torch.zeros(2, 8),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "model.pt2")
    made = stages(source={"exported": "model.pt2"}, **HALVES)
    np.testing.assert_allclose(_answers(made, x)["a"], expected, rtol=1e-6)
    artifact, _, _ = made.export()
    assert "dynamo" in artifact.notes[0]


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_checkpoint_and_its_factory(stages, tmp_path, x, expected, suffix):
    state = modules.make("Halves").state_dict()
    if suffix == "safetensors":
        from safetensors.torch import save_file

        save_file(state, tmp_path / "weights.safetensors")
    else:
        torch.save(state, tmp_path / "weights.pt")
    source = {"checkpoint": f"weights.{suffix}", "factory": "modules.py:make", "args": {"name": "Halves", "seed": 9}}
    np.testing.assert_allclose(_answers(stages(source=source, **HALVES), x)["a"], expected, rtol=1e-6)


def test_a_full_pickle_is_refused_unless_it_is_allowed(stages, tmp_path, x, expected):
    torch.save(modules.make("Halves"), tmp_path / "weights.pt")
    source = {"checkpoint": "weights.pt", "factory": "modules.py:make", "args": {"name": "Halves", "seed": 9}}
    with pytest.raises(SourceError, match="full pickle") as caught:
        stages(source=source, **HALVES).load()
    assert "allow_pickle: true" in caught.value.fix
    allowed = stages(source={**source, "allow_pickle": True}, **HALVES)
    np.testing.assert_allclose(_answers(allowed, x)["a"], expected, rtol=1e-6)


def test_a_checkpoint_of_another_module_names_the_parameters(stages, tmp_path):
    torch.save({"other.weight": torch.zeros(1)}, tmp_path / "weights.pt")
    source = {"checkpoint": "weights.pt", "factory": "modules.py:make", "args": {"name": "Halves"}}
    with pytest.raises(SourceError, match="does not fit") as caught:
        stages(source=source, **HALVES).load()
    assert "not in the module: other.weight" in caught.value.got


def test_a_hugging_face_folder(stages, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    bert = transformers.BertModel(config).eval()
    bert.save_pretrained(tmp_path / "bert")
    ids = np.arange(12, dtype=np.int64).reshape(2, 6)
    with torch.no_grad():
        expected = bert(input_ids=torch.from_numpy(ids), attention_mask=torch.ones(2, 6, dtype=torch.int64))
    made = stages(
        source={"huggingface": "bert"},
        inputs={"input_ids": "int64[batch, seq: 1..32]", "attention_mask": "int64[batch, seq]"},
        outputs={"last_hidden_state": "float32[batch, seq, 16]"},
    )
    loaded = made.load()
    got = reference_runner(loaded, made.folder)({"input_ids": ids, "attention_mask": np.ones((2, 6), np.int64)})
    np.testing.assert_allclose(got["last_hidden_state"], expected.last_hidden_state.numpy(), rtol=1e-5, atol=1e-6)


@pytest.fixture
def relu(tmp_path):
    shape = ["N", 3]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["in put"], ["y"])],
        "g",
        [helper.make_tensor_value_info("in put", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "relu.onnx")
    return tmp_path / "relu.onnx"


def test_an_existing_onnx_brings_its_own_tensors(stages, relu):
    loaded = stages(source={"onnx": "relu.onnx"}).load()
    assert isinstance(loaded, OnnxFile)
    assert [str(tensor) for tensor in loaded.interface.inputs] == ["float32[batch, 3]"]
    assert loaded.interface.batches


def test_an_existing_onnx_that_differs_from_the_spec_is_refused(stages, relu):
    with pytest.raises(InterfaceError, match="differs from the spec") as caught:
        stages(source={"onnx": "relu.onnx"}, inputs={"in put": "float32[batch, 4]"}).load()
    assert "float32[batch, 3]" in caught.value.got


def test_a_truncated_onnx_is_refused(stages, relu):
    relu.write_bytes(relu.read_bytes()[:20])
    with pytest.raises(SourceError, match="no usable ONNX"):
        stages(source={"onnx": "relu.onnx"}).load()


def test_an_onnx_that_may_not_be_read_is_refused(stages, relu, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builder.sources.onnx_file.external_files", refuse)
    with pytest.raises(SourceError, match="the file cannot be read") as caught:
        stages(source={"onnx": "relu.onnx"}).load()
    assert "Permission denied" in caught.value.got
    assert "permissions" in caught.value.fix


@pytest.mark.parametrize(
    ("source", "message", "part"),
    [
        ({"python": "modules.py:raises"}, "source modules.py:raises raised", "KeyError: 'weights.pt'"),
        ({"python": "modules.py:not_a_module"}, "returned no torch.nn.Module", "builtins.dict"),
        ({"python": "modules.py:nothing"}, "has no callable 'nothing'", "make"),
        (
            {"python": "modules.py:make", "args": {"nam": "Halves"}},
            "does not take what it is called with",
            "(name, seed=0)",
        ),
        ({"python": "no_such_package.models:make"}, "needs the package no_such_package", "ModuleNotFoundError"),
        ({"exported": "modules.py"}, "is no torch.export program", "torch.export.save"),
        ({"huggingface": "."}, "cannot be loaded from this folder", "config.json"),
        ({"huggingface": ".", "class": "AutoMobile"}, "has no class 'AutoMobile'", "AutoModel"),
    ],
)
def test_a_source_that_gives_no_module_says_why(stages, source, message, part):
    with pytest.raises(SourceError) as caught:
        stages(source=source, **HALVES).load()
    text = str(caught.value)
    assert message in text
    assert part in text
    assert caught.value.fix


def test_code_that_raises_is_named_with_its_line(stages):
    with pytest.raises(SourceError) as caught:
        stages(source={"python": "modules.py:raises"}, **HALVES).load()
    assert "modules.py:" in caught.value.where
    assert "in raises" in caught.value.where


def test_a_syntax_error_is_named_with_its_line(stages, tmp_path):
    (tmp_path / "broken.py").write_text("def load(:\n")
    with pytest.raises(SourceError, match=r"importing broken\.py raised") as caught:
        stages(source={"python": "broken.py:load"}, **HALVES).load()
    assert caught.value.where.endswith("broken.py:1")


GRAPHS = """
import numpy as np
from onnx import TensorProto, helper
from onnxscript import FLOAT, opset18 as op, script

@script(default_opset=op)
def softmax(x: FLOAT["batch", 3]) -> FLOAT["batch", 3]:
    return op.Softmax(x, axis=-1)

def function():
    return softmax

def proto():
    node = helper.make_node("Softmax", ["x"], ["y"], axis=-1)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy")
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=opset, ir_version=9)
"""


@pytest.mark.parametrize("name", ["function", "proto"])
def test_a_graph_that_was_made_in_memory_is_a_source(stages, tmp_path, name):
    (tmp_path / "graphs.py").write_text(GRAPHS)
    made = stages(source={"onnx": {"python": f"graphs.py:{name}"}})
    first, again = made.load(), made.load()
    assert str(first.interface.inputs[0]) == "float32[batch, 3]"
    assert first.path == again.path
    assert first.path.is_relative_to(made.spec.repository.parent / ".build")
    assert [path.name for path in first.path.parent.iterdir()] == [first.path.name]
    x = np.array([[1, 2, 3]], np.float32)
    (answer,) = reference_runner(first, tmp_path)({"x": x}).values()
    assert np.allclose(answer, np.exp(x) / np.exp(x).sum())
