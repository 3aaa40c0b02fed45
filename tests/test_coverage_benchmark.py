"""The table of architectures: its specs are ones a user could write, and what failed is in it with its reason."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import yaml

from benchmarks import coverage
from benchmarks.coverage_models import ARCHITECTURES, SAMPLES, samples
from builder.api import load_spec
from builder.tensors import parse_tensor


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_spec_can_be_read_and_its_samples_fit(name, tmp_path):
    (tmp_path / "coverage_models.py").write_text("")
    (tmp_path / "models.yaml").write_text(yaml.safe_dump(coverage.spec_of(name, coverage.VARIANTS)))
    model = load_spec(tmp_path / "models.yaml").models[name]
    rows = samples(name)
    assert len(rows) == SAMPLES
    for tensor in (parse_tensor(key, text) for key, text in model.inputs.items()):
        array = rows[0][tensor.name]
        assert array.dtype == tensor.dtype.numpy
        assert array.ndim == len(tensor.dims) - 1
        assert np.array_equal(array, samples(name)[0][tensor.name])


def test_what_failed_is_in_the_table_with_its_reason(tmp_path):
    error = {"what": "int8 is out of budget", "got": "cosine 0.9\n  a | b"}
    failed = {"variant": "onnx-int8", "status": "failed", "stage": "precision", "error": error}
    rows = [
        coverage.Row("bert", "onnx-fp32", "built", 1000, 1.0, None, 1.0),
        coverage.row_of("bert", "onnx-int8", [failed], tmp_path),
        coverage.row_of("bert", "onnx-fp16", [], tmp_path),
    ]
    text = "\n".join(coverage.table(rows))
    assert "**failed** precision: int8 is out of budget; got cosine 0.9 a / b" in text
    assert "build-repo said nothing of it" in text
    assert coverage.summary(rows) == "onnx-fp32: 1 of 1; onnx-int8: 0 of 1; onnx-fp16: 0 of 1"


def test_the_table_is_put_between_its_marks(tmp_path):
    report = tmp_path / "coverage.md"
    report.write_text(f"above\n{coverage.BEGIN}\nold\n{coverage.END}\nbelow\n")
    for _ in range(2):
        coverage.write(["| new |"], report)
    assert report.read_text() == f"above\n{coverage.BEGIN}\n\n| new |\n\n{coverage.END}\nbelow\n"


def test_what_was_measured_before_is_read_back(tmp_path):
    row = coverage.Row("bert", "onnx-fp32", "built", 1000, 1.0, None, 1.0)
    (tmp_path / "rows.json").write_text(json.dumps({"rows": [asdict(row)]}))
    assert coverage.resumed(tmp_path / "rows.json") == {"bert": [row]}
    assert coverage.resumed(tmp_path / "absent.json") == {}


def test_a_recipe_is_told_in_a_few_words():
    recipe = {
        "method": "static",
        "options": {"smooth": 0.8, "reduce_range": True, "calibrator": "minmax"},
        "keep": ["a"],
    }
    assert coverage.told(recipe) == "static, smooth 0.8, calibrator minmax, reduce_range; 1 node in float"
    assert coverage.told({"method": "cast", "options": {"io": "fp32"}, "keep": []}) == "cast"
