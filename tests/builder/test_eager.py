"""The module behind a published version: its spec found again, and what is said where it is not."""

import hashlib

import pytest

from builder import load_spec
from builder.eager import model_of, spec_of
from builder.errors import SourceError

TEXT = """
repository: repository
models:
  line:
    source: {python: model.py:load}
    inputs: {x: "float32[batch, 4]"}
    outputs: {y: "float32[batch, 2]"}
"""


def manifest(text=TEXT, **more):
    part = {"file": "models.yaml", "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return {"model": "line", "variant": "onnx-fp32", "spec": part, **more}


def test_the_spec_is_found_by_name_and_content(tmp_path):
    for place, text in (("a", "models: {}\n"), ("b/c", TEXT), (".hidden", TEXT), ("d/e/f/g", TEXT)):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "models.yaml").write_text(text)
    assert spec_of(manifest(), [tmp_path / "nowhere", tmp_path], "m") == tmp_path / "b/c/models.yaml"


def test_a_spec_that_changed_or_is_gone_is_said(tmp_path):
    with pytest.raises(SourceError) as caught:
        spec_of(manifest(), [tmp_path], "repository/line/1/manifest.json")
    assert caught.value.got == "no file of this name" and "--spec FILE" in caught.value.fix
    (tmp_path / "models.yaml").write_text(TEXT + "# another word\n")
    with pytest.raises(SourceError) as caught:
        spec_of(manifest(), [tmp_path], "repository/line/1/manifest.json")
    assert caught.value.got == f"changed since: {tmp_path}/models.yaml"
    assert caught.value.where == "repository/line/1/manifest.json"


def test_a_variant_is_its_model(tmp_path):
    (tmp_path / "models.yaml").write_text(TEXT)
    (tmp_path / "model.py").write_text("def load(): ...\n")
    spec = load_spec(tmp_path / "models.yaml")
    assert model_of(manifest(), spec) == "line"
    assert model_of(manifest(model="line_onnx_int8", variant="onnx-int8"), spec) == "line"
    with pytest.raises(SourceError, match="no such torch model any more") as caught:
        model_of(manifest(model="curve_onnx_int8", variant="onnx-int8"), spec)
    assert caught.value.expected == "curve_onnx_int8 or curve" and caught.value.got == "line"
