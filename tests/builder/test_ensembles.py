"""Ensembles, whole: steps built, wired, judged together, served by a real Triton, published; and again with a step."""

import json
import shutil

import numpy as np
import pytest

from builder import build, load_spec, plan
from serving import Client, Server

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("test_ensembles")]

WORDS = '''
import numpy as np

TEXTS = ["the quick brown fox", "a dog", "hello there how are you today", "one", "the sun shines all day long"] * 8


class Words:
    """Words to numbers; rows are filled with 0, which weighs nothing."""

    def __init__(self, modulus=50):
        self.modulus = modulus

    def execute(self, text):
        rows = [[1 + sum(word) % self.modulus for word in row[0].split()] for row in text]
        longest = max(len(row) for row in rows)
        ids = np.array([row + [0] * (longest - len(row)) for row in rows], np.int64)
        return {"ids": ids}


def samples():
    return [{"text": np.array([text.encode()], dtype=object)} for text in TEXTS]


def accuracy(predict):
    texts = np.array([[text.encode()] for text in TEXTS[:8]], dtype=object)
    return float(-np.abs(np.linalg.norm(predict({"text": texts})["unit"], axis=1) - 1).max())
'''
GRAPHS = """
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def save(name, nodes, taken, given, weights):
    held = [numpy_helper.from_array(value, key) for key, value in weights.items()]
    graph = helper.make_graph(nodes, name, [taken], [given], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, HERE / f"{name}.onnx")
    return HERE / f"{name}.onnx"


def encoder():
    rng = np.random.default_rng(0)
    weights = {
        "table": (rng.normal(0, 1, (51, 16)) * (np.arange(51) > 0)[:, None]).astype(np.float32),
        "w": rng.normal(0, 0.3, (16, 32)).astype(np.float32),
        "axes": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "axes"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["sum", "w"], ["vector"], name="up"),
    ]
    taken = helper.make_tensor_value_info("ids", INT64, ["batch", "seq"])
    return save("encoder", nodes, taken, helper.make_tensor_value_info("vector", FLOAT, ["batch", 32]), weights)


def ids():
    rows = np.random.default_rng(1).integers(0, 50, (64, 6))
    return [{"ids": row} for row in rows]


def normalise():
    node = helper.make_node("LpNormalization", ["vector"], ["unit"], axis=1, p=2)
    taken = helper.make_tensor_value_info("vector", FLOAT, ["batch", 32])
    return save("normalise", [node], taken, helper.make_tensor_value_info("unit", FLOAT, ["batch", 32]), {})
"""
MODELS = {
    "words": {
        "source": {"python_model": "words.py:Words"},
        "inputs": {"text": "string[batch, 1]"},
        "outputs": {"ids": "int64[batch, seq: 1..64]"},
        "samples": {"python": "words.py:samples"},
    },
    "encoder": {
        "source": {"onnx": {"python": "graphs.py:encoder"}},
        "inputs": {"ids": "int64[batch, seq: 1..64]"},
        "outputs": {"vector": "float32[batch, 32]"},
        "variants": ["onnx-fp32", "onnx-int8"],
        "samples": {"python": "graphs.py:ids"},
    },
    "normalise": {"source": {"onnx": {"python": "graphs.py:normalise"}}},
}


def embed(*steps, **more):
    return {
        "ensemble": {"steps": list(steps or ("words", "encoder", "normalise"))},
        "samples": {"python": "words.py:samples"},
        "evaluate": {"python": "words.py:accuracy", "max_drop": 0.001},
        **more,
    }


PART = {
    "ensemble": {"steps": ["encoder", "normalise"], "fuse": True},
    "samples": {"python": "graphs.py:ids"},
    "batch": {"max": 4, "preferred": [2]},
}


class Project:
    """A spec's folder with steps and ensembles."""

    def __init__(self, folder):
        self.folder = folder
        self.repository = folder / "models"
        (folder / "words.py").write_text(WORDS)
        (folder / "graphs.py").write_text(GRAPHS)

    def spec(self, **ensembles):
        text = json.dumps({"repository": "models", "models": MODELS | ensembles})
        (self.folder / "models.yaml").write_text(text)
        return load_spec(self.folder / "models.yaml")

    def build(self, only=(), **ensembles):
        return {result.model: result for result in build(self.spec(**ensembles), only=only).models}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An ensemble with all its steps, and one of the encoder in int8."""
    project = Project(tmp_path_factory.mktemp("ensembles"))
    project.results = project.build(
        embed=embed(),
        small=embed("words", "encoder_onnx_int8", "normalise"),
        part=PART,
        nested=embed("words", "part"),
    )
    errors = {name: result.error for name, result in project.results.items() if result.error}
    assert not errors, [str(error) for error in errors.values()]
    return project


@pytest.fixture
def project(built, tmp_path):
    """A copy of its own of what was built."""
    shutil.copytree(built.folder, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")


def test_all_of_it_is_published(built):
    assert {name: result.status for name, result in built.results.items()} == dict.fromkeys(
        [
            *("words", "encoder_onnx_fp32", "encoder_onnx_int8", "encoder", "normalise"),
            *("embed", "small", "part", "nested"),
        ],
        "built",
    )
    assert sorted(path.name for path in (built.repository / "embed" / "1").iterdir()) == [
        *("config.pbtxt", "golden.npz", "manifest.json"),
    ]
    manifest = json.loads((built.repository / "small" / "1" / "manifest.json").read_text())
    assert manifest["format"] == "ensemble"
    assert manifest["precision"] == "int8"
    assert manifest["verification"]["agreement"]["scores"]["cosine"] > 0.99
    assert manifest["verification"]["serve"]["concurrent"] > 0


def test_it_answers_text_over_both_protocols(built):
    with Server(built.repository) as server:
        for url in (f"http://{server.http_url}", f"grpc://{server.grpc_url}"):
            with Client(url) as client:
                texts = np.array([[b"the quick brown fox"], [b"a dog"]], dtype=object)
                exact, close = (client.infer(name, {"text": texts})["unit"] for name in ("embed", "small"))
                np.testing.assert_allclose(np.linalg.norm(exact, axis=1), 1, rtol=1e-5)
                assert 0 < np.abs(exact - close).max() < 0.1


def test_steps_that_are_fused_are_one_onnx_model(built):
    import onnx

    folder = built.repository / "part"
    nodes = [node.op_type for node in onnx.load(folder / "1" / "model.onnx").graph.node]
    assert nodes == ["Gather", "ReduceSum", "MatMul", "LpNormalization"]
    config = (folder / "config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in config
    assert "max_batch_size: 4" in config
    assert "preferred_batch_size: [2]" in config
    manifest = json.loads((folder / "1" / "manifest.json").read_text())
    assert manifest["variant"] == "fused"
    assert manifest["notes"][0] == "one graph of encoder, normalise"
    config = (built.repository / "nested" / "config.pbtxt").read_text()
    assert 'model_name: "part"' in config
    assert "max_batch_size: 4" in config  # what its smallest step takes


def test_steps_that_cannot_be_one_graph(project):
    whole = {"ensemble": {"steps": ["words", "encoder"], "fuse": True}, "samples": {"python": "words.py:samples"}}
    error = project.build(whole=whole, only=["whole"])["whole"].error
    assert error.what == "the steps of the ensemble cannot be one graph"
    assert error.got == "words is no ONNX model, but python"
    assert "put the steps that can be one graph into an ensemble of their own, with `fuse: true`" in error.fix


@pytest.mark.big
def test_what_is_faster_is_served(project):
    auto = PART | {"ensemble": {"steps": ["encoder", "normalise"], "fuse": "auto"}}
    results = project.build(auto=auto, only=["auto"])
    assert {name: result.status for name, result in results.items() if name.startswith("auto")} == {
        "auto_ensemble": "built",
        "auto_fused": "built",
        "auto": "built",
    }
    assert results["auto"].variant == "fused"  # one request to one model: half the work around the arithmetic
    assert "inferences/s" in results["auto"].choice


def test_nothing_is_done_twice(project):
    results = project.build(embed=embed(), small=embed("words", "encoder_onnx_int8", "normalise"), part=PART)
    assert {result.status for result in results.values()} == {"up to date"}


def test_a_step_that_changes_lets_the_ensemble_be_verified_again(project):
    source = project.folder / "words.py"
    source.write_text(source.read_text().replace("modulus=50", "modulus=49"))
    planned = {step.model: step for step in plan(project.spec(embed=embed())).steps if step.stage == "source"}
    assert planned["embed"].why == ("words will be built",)
    results = project.build(embed=embed(), only=["embed"])
    assert {name: (result.status, result.version) for name, result in results.items()} == {
        "words": ("built", 2),
        "encoder_onnx_fp32": ("up to date", 1),
        "encoder_onnx_int8": ("up to date", 1),
        "encoder": ("up to date", 1),
        "normalise": ("up to date", 1),
        "embed": ("up to date", 1),  # its configuration is the same; that it still answers as its steps do was asked
    }
    assert "serve" not in results["embed"].cached


def test_an_ensemble_of_a_step_that_failed(project):
    source = project.folder / "words.py"
    source.write_text(source.read_text().replace('return {"ids": ids}', 'raise ValueError("no words today")'))
    results = project.build(embed=embed(), only=["embed"])
    assert results["words"].status == "failed"
    error = results["embed"].error
    assert results["embed"].status == "failed"
    assert error.what == "words, which it is made of, failed"
    assert error.fix == "mend them; the ensemble is built when they are"
    assert json.loads((project.repository / "embed" / "1" / "manifest.json").read_text())["version"] == 1


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (("words", "normalise"), "normalise.vector"),
        (("words", {"model": "encoder", "inputs": {"ids": "words.id"}}, "normalise"), "words.id"),
    ],
)
def test_wiring_that_is_not_clear(project, steps, says):
    declared = {"inputs": {"text": "string[batch, 1]"}, "outputs": {"unit": "float32[batch, 32]"}}
    results = project.build(wrong=embed(*steps, **declared), only=["wrong"])
    error = results["wrong"].error
    assert type(error).__name__ == "EnsembleError"
    assert error.where == "models.wrong.ensemble"
    assert says in f"{error.what} {error.got}"
    assert error.fix


def test_steps_that_lose_too_much_together(project):
    strict = embed("words", "encoder_onnx_int8", "normalise", agreement={"cosine": 0.9999999})
    results = project.build(strict=strict, only=["strict"])
    error = results["strict"].error
    assert type(error).__name__ == "AccuracyError"
    assert error.what.startswith("strict does not hold its accuracy: cosine 0.99")
    assert "name a more accurate variant in `steps`" in error.fix
    assert not (project.repository / "strict").exists()
