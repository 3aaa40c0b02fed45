"""What goes wrong with precision in a hostile user's hands: each is refused with its reason, or does no harm."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from builder import Options, build, load_spec
from builder.agreement import AgreementJudge
from builder.errors import AccuracyError, CalibrationError, PrecisionError, RecipeError, SampleError
from builder.judging import Judging
from builder.precision.apply import apply
from builder.precision.calibration import Calibration
from builder.precision.prepare import prepared
from builder.precision.recipe import Recipe, read_recipe
from builder.precision.scratch import digest_of, scratch
from builder.reference import OnnxRunner
from builder.samples import load_samples
from builder.tensors import Interface, parse_tensor
from serving.progress import SILENT

pytestmark = pytest.mark.xdist_group("test_bad_precision")

MAKE = """
from pathlib import Path
import numpy as np
import onnx
from onnx import helper, numpy_helper

HERE = Path(__file__).parent

def path():
    rng = np.random.default_rng(3)
    tensors = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s)
               for n, s in (("x", ["n", 3, 8, 8]), ("y", ["n", 5]))]
    weights = [numpy_helper.from_array(rng.normal(0, 0.3, s).astype(np.float32), n)
               for n, s in (("a", (8, 3, 3, 3)), ("b", (5, 8, 8, 8)))]
    nodes = [helper.make_node("Conv", ["x", "a"], ["c"], name="first", pads=[1, 1, 1, 1]),
             helper.make_node("Relu", ["c"], ["d"]),
             helper.make_node("Conv", ["d", "b"], ["e"], name="second"),
             helper.make_node("Flatten", ["e"], ["y"])]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), HERE / "made.onnx")
    return HERE / "made.onnx"

def rows(seed, count, factor=1.0):
    rng = np.random.default_rng(seed)
    return (factor * rng.normal(0, 1, (count, 3, 8, 8))).astype(np.float32)

def samples():
    return [{"x": row} for row in rows(2, 40)]

def scaled(factor):
    yield from ({"x": row} for row in rows(7, 20, factor))

def none():
    return iter(())

def fails():
    yield {"x": rows(1, 1)[0]}
    raise RuntimeError("the disk is gone")
"""


class Project:
    """A spec's folder with one model of two convolutions."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "make.py").write_text(MAKE)

    def spec(self, **model):
        plain = {
            "source": {"onnx": {"python": "make.py:path"}},
            "samples": {"python": "make.py:samples"},
            "batch": {"max": 4},
            "variants": ["onnx-int8"],
        }
        text = json.dumps({"repository": "models", "models": {"m": plain | model}})
        (self.folder / "models.yaml").write_text(text)
        return load_spec(self.folder / "models.yaml")

    def build(self, **model):
        return build(self.spec(**model), options=Options(search_minutes=1), reporter=SILENT).models[0]


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def _calibrated(function, **args):
    return {"calibration": {"python": f"make.py:{function}", "args": args}}


INTERFACE = Interface((parse_tensor("x", "float32[batch, 3, 8, 8]"),), (parse_tensor("y", "float32[batch, 5]"),))


@pytest.fixture
def calibrating(project):
    """What a calibration callable is taken for, without a build."""

    def judging(function, **args):
        spec = project.spec(precision=_calibrated(function, **args))
        model = spec.models["m"]
        return Judging(spec, model, load_samples(spec, model, INTERFACE), project.folder / "none.onnx", None)

    return judging


@pytest.mark.parametrize("factor", [1e6, 255.0, 0.0, 1e-3])
def test_calibration_of_another_scale_is_refused(calibrating, factor):
    with pytest.raises(CalibrationError, match=r"calibration make\.py:scaled is of another scale") as caught:
        list(calibrating("scaled", factor=factor).feeds())
    error = caught.value
    assert error.where == "input 'x'" and error.expected == "a mean magnitude like that of `samples`, 0.792"
    assert "a scaling is forgotten" in error.fix


@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
def test_calibration_with_a_longer_tail_is_taken(calibrating, factor):
    assert len(list(calibrating("scaled", factor=factor).feeds())) == 20


def test_calibration_that_fails_on_its_way_names_the_line(calibrating):
    with pytest.raises(SampleError, match=r"calibration make\.py:fails raised") as caught:
        list(calibrating("fails").feeds())
    assert caught.value.got == "RuntimeError: the disk is gone" and "make.py:" in caught.value.where


@pytest.mark.server
@pytest.mark.big
def test_calibration_that_was_mended_is_searched_anew(project):
    none = project.build(precision=_calibrated("none"))
    assert "calibration make.py:none gave no sample" in str(none.error)
    useless = project.build(precision=_calibrated("scaled", factor=0.04))
    assert "int8 does not hold its accuracy: cosine" in str(useless.error)
    searched = project.folder / ".build" / "cache" / "search" / "m" / "onnx-int8"
    assert list(searched.glob("*.json")) and not list(searched.rglob("*.onnx"))
    mended = project.build(precision=_calibrated("scaled", factor=1.0))
    assert mended.status == "built", mended.error


def _judge(limits, answers):
    return AgreementJudge([{"x": np.float32([[1]])}] * len(answers), answers, limits)


@pytest.mark.parametrize(
    ("limits", "shape", "texts"),
    [
        ({"recall@10": 0.9}, (1, 4), ("5 samples to judge by", "give more samples, or leave `recall_at_10` out")),
        ({"top1": 0.9}, (1, 4, 4), ("y float32[1, 4, 4]", "an output of one dimension", "leave `top1` out")),
        ({"top1 in top5": 0.9}, (1, 1), ("two elements or more", "leave `top1_in_top5` out")),
    ],
)
def test_a_limit_that_cannot_be_measured_says_what_it_needs_and_its_key(limits, shape, texts):
    with pytest.raises(AccuracyError, match="cannot be measured") as caught:
        _judge(limits, [{"y": np.ones(shape, np.float32)}] * 5)
    assert all(text in str(caught.value) for text in texts), caught.value


def test_a_limit_close_to_one_is_told_as_it_is():
    answers = [{"y": np.float32([[1.0, 2.0]])}]
    verdict = _judge({"cosine": 0.9999999}, answers)(lambda _: {"y": np.float32([[1.0, 2.1]])})
    assert verdict.failed and verdict.failed[0].endswith("is below 0.9999999")


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"precision: int8\nmethod: {static\nkeep: [\n", ("the recipe cannot be read", "recipe.yaml:3")),
        (bytes(range(256)), ("the recipe cannot be read", "no text in UTF-8")),
        (b"", ("the recipe is no mapping", "an empty file")),
        (b"precision: int8\nmethod: [static]\n", ("unknown method ['static']",)),
        (b"precision: [int8]\nmethod: static\n", ("'static' does not make ['int8']",)),
        (b"precision: int8\nmethod: static\noptions: 7\n", ("`options` is no mapping", "got:      7")),
        (b"!!python/object/apply:os.system [id]\n", ("the recipe cannot be read", "could not determine")),
    ],
)
def test_files_that_are_no_recipes(content, texts, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read_recipe(file)
    assert all(text in str(caught.value) for text in texts), caught.value


def _product(path, weight, operator="MatMul"):
    """One product with a weight, or an operator without one."""
    tensors = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 8]) for name in ("x", "y")]
    inputs = ["x", "w"] if operator == "MatMul" else ["x"]
    weights = [numpy_helper.from_array(weight, "w")] if operator == "MatMul" else []
    node = helper.make_node(operator, inputs, ["y"], "node")
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    prepared(path, path)
    return path


def _feeds(factor=1.0):
    rng = np.random.default_rng(0)
    rows = [{"x": (factor * rng.normal(0, 1, (1, 8))).astype(np.float32)} for _ in range(8)]
    return lambda: iter(rows)


def test_values_too_large_for_integers_are_said_and_not_called_nothing_to_do(tmp_path):
    model = _product(tmp_path / "m.onnx", np.eye(8, dtype=np.float32))
    with pytest.raises(PrecisionError, match="the inner values are too large to be quantized") as caught:
        apply(Recipe("int8", "static"), model, tmp_path / "to.onnx", feeds=_feeds(1e6))
    assert "tensor 'x'" in str(caught.value) and "within -65504 to 65504" in str(caught.value)


def test_nothing_to_do_does_not_name_a_folder_that_is_gone_and_says_who_kept_it(tmp_path):
    plain = _product(tmp_path / "plain.onnx", None, "Relu")
    product = _product(tmp_path / "product.onnx", np.eye(8, dtype=np.float32))
    for model, keep, fix in ((plain, (), "leave this variant out"), (product, ("node",), "keep fewer nodes in float")):
        with pytest.raises(PrecisionError, match="there is nothing in the graph") as caught:
            apply(Recipe("int8", "dynamic", keep), model, tmp_path / "to.onnx", feeds=None)
        assert str(tmp_path) not in str(caught.value) and fix in caught.value.fix


def test_a_smoothed_graph_of_another_model_is_never_taken(tmp_path):
    """A search that was killed leaves one; a model that was trained again has the same names, and other weights."""
    x = next(_feeds()())
    recipe = Recipe("int8", "dynamic", (), {"smooth": 0.5})
    weight = np.random.default_rng(1).normal(0, 1, (8, 8)).astype(np.float32)
    for sign in (1, -1):
        model = _product(tmp_path / "m.onnx", np.float32(sign) * weight)
        calibration = Calibration(model, _feeds(), tmp_path)
        apply(recipe, model, tmp_path / "to.onnx", feeds=None, calibration=calibration)
        with OnnxRunner(tmp_path / "to.onnx", threads=1) as runner:
            answer = runner(x)["y"]
        assert float(np.sum(answer * (x["x"] @ (sign * weight)))) > 1.0


def test_what_a_killed_search_left_is_removed_and_its_verdicts_are_kept(tmp_path):
    for name in ("candidate.onnx", "candidate.onnx.data", "timed-1.onnx", "verdict.json", "derived/old.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(OSError, match="full"), scratch(tmp_path) as derived:
        assert not list(derived.iterdir())
        (derived / "new.onnx").write_text("")
        raise OSError("full")
    assert [path.name for path in tmp_path.iterdir()] == ["verdict.json"]


def test_calibration_samples_are_part_of_what_a_verdict_is_of():
    assert digest_of(_feeds()) == digest_of(_feeds()) != digest_of(_feeds(1.001))
    text = [{"x": np.array([["a"]], dtype=object)}]
    assert digest_of(lambda: iter(text)) != digest_of(lambda: iter([]))


def test_one_input_that_never_changes_is_no_useless_sample(tmp_path):
    tensors = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", 8]) for n in ("x", "scale", "y")]
    nodes = [helper.make_node("Mul", ["x", "scale"], ["a"], "mul"), helper.make_node("MatMul", ["a", "w"], ["y"], "m")]
    weight = numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")
    graph = helper.make_graph(nodes, "g", tensors[:2], tensors[2:], [weight])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    prepared(path, path)
    rows = [{**row, "scale": np.ones((1, 8), np.float32)} for row in _feeds()()]
    apply(Recipe("int8", "static"), path, tmp_path / "to.onnx", feeds=lambda: iter(rows))
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(tmp_path / "to.onnx").graph.node}
