"""Several variants of one model, whole: made, judged, served by a real Triton, published, or refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from builder import Options, build, load_spec, plan
from builder.engine.device import has_gpu
from builder.errors import SpecError
from builder.precision.recipe import read_recipe
from builder.repository.engines import engines_dir
from builder.variants import VARIANTS
from serving import Client, Server
from serving.progress import SILENT

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("test_variants")]

MAKE = """
from pathlib import Path
import numpy as np
import onnx
from onnx import helper, numpy_helper

HERE = Path(__file__).parent
RNG = np.random.default_rng(1)
W1, W2 = (RNG.normal(0, 0.2, shape).astype(np.float32) for shape in ((32, 64), (64, 10)))

def path():
    tensors = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", k]) for n, k in (("x", 32), ("y", 10))]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="up"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "w2"], ["y"], name="down"),
    ]
    weights = [numpy_helper.from_array(W1, "w1"), numpy_helper.from_array(W2, "w2")]
    graph = helper.make_graph(nodes, "mlp", tensors[:1], tensors[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, HERE / "made.onnx")
    return HERE / "made.onnx"

def rows(seed, count):
    return np.random.default_rng(seed).normal(0, 1, (count, 32)).astype(np.float32)

def samples():
    return [{"x": row} for row in rows(2, 64)]

def accuracy(predict):
    x = rows(3, 200)
    right = (np.maximum(x @ W1, 0) @ W2).argmax(axis=1)
    return float((predict({"x": x})["y"].argmax(axis=1) == right).mean())
"""
EVERY = ["onnx-fp32", "onnx-fp16", "onnx-int8", "tensorrt-rtx-fp16", "tensorrt-fp16"]
OWN = ["m_onnx_fp32", "m_onnx_fp16", "m_onnx_int8"]


def _spec(**model):
    plain = {
        "source": {"onnx": {"python": "make.py:path"}},
        "samples": {"python": "make.py:samples"},
        "batch": {"max": 8},
    }
    return json.dumps({"repository": "models", "models": {"m": plain | model}})


class Project:
    """A spec's folder with one model."""

    def __init__(self, folder):
        self.folder = folder
        self.repository = folder / "models"

    def spec(self, **model):
        (self.folder / "models.yaml").write_text(_spec(**model))
        return load_spec(self.folder / "models.yaml")

    def build(self, model, **options):
        report = build(self.spec(**model), options=Options(**options), reporter=SILENT)
        return {result.model: result for result in report.models}

    def manifest(self, name, version=1):
        return json.loads((self.repository / name / str(version) / "manifest.json").read_text())

    def graph(self, name, version=1):
        return onnx.load(self.repository / name / str(version) / "model.onnx")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A project with every variant that can be built here, built once."""
    project = Project(tmp_path_factory.mktemp("variants") / "base")
    project.folder.mkdir()
    (project.folder / "make.py").write_text(MAKE)
    project.results = project.build(
        {"variants": EVERY, "serve": "onnx-int8", "agreement": {"cosine": 0.99}}, recipes_dir=project.folder / "recipes"
    )
    return project


@pytest.fixture
def project(base, tmp_path):
    shutil.copytree(base.folder, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")


BUILT = {"variants": EVERY, "serve": "onnx-int8", "agreement": {"cosine": 0.99}}


def test_each_variant_is_published_by_itself_and_the_served_one_under_the_plain_name(base):
    results = base.results
    assert {name: result.status for name, result in results.items()} == {
        **dict.fromkeys([*OWN, "m"], "built"),
        "m_tensorrt_rtx_fp16": "built",
        "m_tensorrt_fp16": "left out",
    }, [str(result.error) for result in results.values() if result.error]
    assert [results[name].variant for name in (*OWN, "m")] == [*EVERY[:3], "onnx-int8"]
    assert sorted(path.name for path in base.repository.iterdir() if path.is_dir()) == sorted([*OWN, "m"])
    same = [(base.repository / name / "1" / "model.onnx").read_bytes() for name in ("m", "m_onnx_int8")]
    assert same[0] == same[1]
    assert base.manifest("m")["variant"] == "onnx-int8" and base.manifest("m_onnx_fp16")["precision"] == "fp16"


def test_the_files_are_what_they_are_called(base):
    types = {name: {tensor.data_type for tensor in base.graph(name).graph.initializer} for name in OWN}
    assert onnx.TensorProto.FLOAT16 in types["m_onnx_fp16"] and onnx.TensorProto.FLOAT not in types["m_onnx_fp16"]
    assert types["m_onnx_int8"] & {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    sizes = {name: base.results[name].size_bytes for name in OWN}
    assert sizes["m_onnx_int8"] < sizes["m_onnx_fp32"] and sizes["m_onnx_fp16"] < sizes["m_onnx_fp32"]


def test_the_manifest_says_how_and_how_well(base):
    manifest = base.manifest("m_onnx_int8")
    assert manifest["recipe"]["precision"] == "int8" and manifest["search"]["complete"]
    agreement = manifest["verification"]["agreement"]
    assert agreement["scores"]["cosine"] >= 0.99 and agreement["limits"] == {"cosine": 0.99} and not agreement["failed"]
    assert manifest["accuracy_drop_allowed"] == []
    assert base.manifest("m_onnx_fp32")["verification"]["agreement"] is None


def test_an_engine_without_a_backend_lies_beside_the_repository(base):
    folder = engines_dir(base.repository) / "m_tensorrt_rtx_fp16"
    facts = json.loads((folder / "engine.json").read_text())
    assert (folder / "model.plan").stat().st_size == facts["size_bytes"] > 0
    assert facts["engine"]["library"] == "TensorRT-RTX" and facts["engine"]["layers"]["float16"]
    assert facts["engine"]["profiles"] == [{"x": {"min": [1, 32], "opt": [8, 32], "max": [8, 32]}}]
    (note,) = base.results["m_tensorrt_rtx_fp16"].notes
    assert "no GPU has run it" in note


@pytest.mark.skipif(has_gpu(), reason="there is a GPU, and the variant is built")
def test_what_this_machine_cannot_build_is_said_with_what_would(base, project):
    error = base.results["m_tensorrt_fp16"].error
    assert "cannot be built on this machine" in error.what and "no NVIDIA GPU" in error.got
    assert "build-repo" in error.fix and "--in-container" in error.fix
    required = project.build(BUILT | {"required": ["tensorrt-fp16"]})
    assert required["m_tensorrt_fp16"].status == "failed" and required["m"].status == "up to date"
    shown = [step for step in plan(project.spec(**BUILT)).steps if step.stage == "tensorrt-fp16"]
    assert [step.status for step in shown] == ["left out"]


def test_every_variant_answers_through_a_server(base):
    x = np.random.default_rng(9).normal(0, 1, (8, 32)).astype(np.float32)
    with Server(base.repository) as server, Client(server.http_url) as client:
        answers = {name: client.infer(name, {"x": x})["y"] for name in (*OWN, "m")}
    exact = answers["m_onnx_fp32"]
    assert np.array_equal(answers["m"], answers["m_onnx_int8"])
    for name, least in (("m_onnx_fp16", 0.0), ("m_onnx_int8", 0.0)):
        error = np.abs(answers[name] - exact).max() / np.abs(exact).max()
        assert least < error < 0.05, name


def test_nothing_changed_and_nothing_is_done(project):
    results = project.build(BUILT)
    steps = {name: result.cached for name, result in results.items() if result.version}
    assert {result.status for result in results.values()} == {"up to date", "left out"}
    assert all("precision" in steps[name] for name in ("m", "m_onnx_int8", "m_onnx_fp16"))
    assert all(step.status == "cached" for step in plan(project.spec(**BUILT)).steps if step.stage != "tensorrt-fp16")


def test_a_recipe_is_replayed_without_a_search(project):
    recipe = project.folder / "recipes" / "m.onnx-int8.yaml"
    assert read_recipe(recipe).precision == "int8"
    shutil.rmtree(project.folder / ".build")
    shutil.rmtree(project.repository)
    before = (Path(str(recipe)).read_text(), project.folder)
    results = project.build(
        {"variants": ["onnx-int8"], "precision": {"recipes": {"onnx-int8": "recipes/m.onnx-int8.yaml"}}}
    )
    assert before[0] == recipe.read_text()
    assert results["m"].status == "built" and list(results) == ["m"]
    manifest = project.manifest("m")
    assert manifest["search"] == {"replayed": "recipes/m.onnx-int8.yaml"}
    assert manifest["recipe"] == read_recipe(recipe).as_dict()


def test_a_replayed_recipe_makes_the_same_file(base, project):
    wanted = (base.repository / "m_onnx_int8/1/model.onnx").read_bytes()
    shutil.rmtree(project.folder / ".build")
    shutil.rmtree(project.repository)
    recipes = {"precision": {"recipes": {"onnx-int8": "recipes/m.onnx-int8.yaml"}}}
    project.build({"variants": ["onnx-int8"]} | recipes)
    assert (
        (project.repository / "m/2/model.onnx").read_bytes() == wanted
        if (project.repository / "m/2").exists()
        else (project.repository / "m/1/model.onnx").read_bytes() == wanted
    )


def test_a_recipe_for_another_precision_is_refused(project):
    recipes = {"precision": {"recipes": {"onnx-fp16": "recipes/m.onnx-int8.yaml"}}}
    error = project.build({"variants": ["onnx-fp32", "onnx-fp16"]} | recipes)["m_onnx_fp16"].error
    assert "the recipe is not for onnx-fp16" in str(error) and "precision: int8" in str(error)


STRICT = {"variants": ["onnx-fp32", "onnx-int8"], "serve": "onnx-int8", "agreement": {"cosine": 1.0}}


def test_what_is_out_of_its_budget_is_not_published_unless_it_is_allowed(project):
    before = (project.repository / "m" / "config.pbtxt").read_bytes()
    refused = project.build(STRICT, search_minutes=0.2)
    assert refused["m_onnx_fp32"].status == "up to date"
    assert (refused["m_onnx_int8"].status, refused["m_onnx_int8"].stage) == ("failed", "precision")
    message = str(refused["m_onnx_int8"].error)
    assert "cosine" in message and "is below 1" in message and "--allow-accuracy-drop" in message
    assert "onnx-int8, which is to be served, is not there" in refused["m"].error.what
    assert (project.repository / "m" / "config.pbtxt").read_bytes() == before

    allowed = project.build(STRICT, search_minutes=0.2, allow_accuracy_drop=True)
    assert allowed["m"].status in ("built", "up to date") and allowed["m_onnx_int8"].status in ("built", "up to date")
    assert any("--allow-accuracy-drop: cosine" in note for note in allowed["m"].notes)
    newest = max(int(path.name) for path in (project.repository / "m").iterdir() if path.is_dir())
    (said,) = project.manifest("m", newest)["accuracy_drop_allowed"]
    assert "cosine" in said and "is below 1" in said

    again = project.build(STRICT, search_minutes=0.2)
    assert again["m_onnx_int8"].status == "failed"


def test_the_users_metric_is_part_of_the_gate(project):
    shutil.rmtree(project.repository)  # or the version that is there is the same, with the manifest it has
    evaluate = {"python": "make.py:accuracy", "max_drop": 0.05}
    results = project.build({"variants": ["onnx-fp32", "onnx-int8"], "evaluate": evaluate})
    assert results["m_onnx_int8"].accuracy_reference == 1.0
    assert 0.95 <= results["m_onnx_int8"].accuracy <= 1.0
    verification = project.manifest("m_onnx_int8")["verification"]
    assert verification["accuracy"]["max_drop"] == 0.05
    assert verification["agreement"]["limits"] == {"accuracy drop": 0.05}


def test_half_precision_at_the_border_is_what_is_sent(project):
    results = project.build({"variants": ["onnx-fp16"], "precision": {"io": "fp16"}})
    assert results["m"].status == "built", results["m"].error
    newest = max(int(path.name) for path in (project.repository / "m").iterdir() if path.is_dir())
    assert project.manifest("m", newest)["inputs"] == {"x": "float16[batch, 32]"}
    assert "TYPE_FP16" in (project.repository / "m" / "config.pbtxt").read_text()


@pytest.mark.big
def test_the_fastest_is_measured_and_the_manifest_says_why(project):
    model = {"variants": ["onnx-fp32", "onnx-fp16"], "serve": "fastest", "load": {"concurrency": 2}}
    results = project.build(model)
    assert results["m"].status == "built", results["m"].error
    newest = max(int(path.name) for path in (project.repository / "m").iterdir() if path.is_dir())
    choice = project.manifest("m", newest)["choice"]
    assert choice["variant"] == results["m"].variant in model["variants"]
    assert {row["variant"] for row in choice["rows"]} == set(model["variants"])
    assert all(row["throughput_per_s"] > 0 and row["p99_us"] > 0 and row["rounds"] >= 3 for row in choice["rows"])
    assert choice["reason"] in results["m"].choice and "inferences/s" in results["m"].choice
    assert project.build(model)["m"].status == "up to date"  # what was measured is kept


REFUSED = [
    ({"variants": ["onnx-int8"], "samples": None}, "needs real samples"),
    ({"variants": ["tensorrt-rtx-fp16"]}, "none of the variants can be served"),
    ({"variants": ["onnx-fp32", "tensorrt-rtx-fp16"], "serve": "tensorrt-rtx-fp16"}, "cannot be served"),
    ({"required": ["onnx-fp16"]}, "required: 'onnx-fp16' is none of the variants"),
    ({"precision": {"recipes": {"onnx-int8": "make.py"}}}, "a recipe for 'onnx-int8', which is none of the variants"),
    ({"engine": {"workspace": "much"}}, "'much' is no size"),
    ({"engine": {"profiles": [{"x": {"min": [4], "opt": [2], "max": [8]}}]}}, "does not rise from min over opt to max"),
    ({"variants": ["onnx-int9"]}, "unknown variant 'onnx-int9'"),
]


@pytest.mark.parametrize(("model", "what"), REFUSED)
def test_what_contradicts_itself_is_refused_in_the_spec(project, model, what):
    with pytest.raises(SpecError) as caught:
        project.spec(**model)
    (problem,) = caught.value.problems
    assert what in problem.what and "models.yaml:1" in problem.where and problem.fix + problem.expected


def test_a_name_that_a_variant_takes_is_refused(project):
    data = json.loads(_spec(variants=["onnx-fp32", "onnx-fp16"]))
    data["models"]["m_onnx_fp16"] = json.loads(_spec())["models"]["m"]
    (project.folder / "models.yaml").write_text(json.dumps(data))
    with pytest.raises(SpecError, match="'s own variant onnx-fp16"):
        load_spec(project.folder / "models.yaml")


def test_every_variant_has_a_name_that_tells_what_it_is():
    for name, variant in VARIANTS.items():
        assert name == variant.name
        assert name in ("python", "ensemble", "fused") or name.endswith(variant.precision)
        assert (variant.format == "plan") == name.startswith("tensorrt")


def test_a_replayed_recipe_that_does_not_hold_is_not_published_under_any_name(project):
    before = (project.repository / "m" / "config.pbtxt").read_bytes()
    recipes = {"recipes": {"onnx-int8": "recipes/m.onnx-int8.yaml"}}
    results = project.build({"variants": ["onnx-int8"], "precision": recipes, "agreement": {"cosine": 1.0}})
    assert (results["m"].status, results["m"].stage) == ("failed", "accuracy")
    message = str(results["m"].error)
    assert "does not hold its accuracy: cosine" in message and "--allow-accuracy-drop" in message
    assert (project.repository / "m" / "config.pbtxt").read_bytes() == before


ENGINES = [
    ({"gpu": ["sm99"]}, "sm99"),
    ({"gpu": ["h100"]}, "tensorrt-rtx engines cannot be built ahead of time for h100"),
    ({"profiles": [{"z": {"min": [1, 32], "opt": [1, 32], "max": [8, 32]}}]}, "z"),
    ({"profiles": [{"x": {"min": [1, 32], "opt": [2, 32], "max": [4, 32]}}]}, "batch"),
]


@pytest.mark.parametrize(("engine", "what"), ENGINES)
def test_an_engine_that_cannot_be_is_refused_before_anything_is_searched(project, engine, what):
    tensors = {"inputs": {"x": "float32[batch, 32]"}, "outputs": {"y": "float32[batch, 10]"}}
    source = {"source": {"python": "make.py:module"}}
    with pytest.raises(SpecError) as caught:
        project.spec(**source, **tensors, variants=["onnx-fp32", "tensorrt-rtx-fp16"], engine=engine)
    (problem,) = caught.value.problems
    assert what in problem.what + problem.got + problem.expected and ".engine." in problem.where
