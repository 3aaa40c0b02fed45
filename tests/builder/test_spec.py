"""What a user may ask for. What a wrong spec gets is in test_bad_input.py."""

import textwrap

import pytest

from builder.spec import read_spec
from builder.spec_files import files_of, is_variable

GOOD = """
repository: out
models:
  digits:
    source: {python: "model.py:load"}
    inputs: {image: "float32[batch, 1, 8, 8]"}
    outputs: {logits: "float32[batch, 10]"}
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "model.py").write_text("def load(): ...\n")

    def writer(text):
        path = tmp_path / "models.yaml"
        path.write_text(textwrap.dedent(text))
        return path

    return writer


def _model(line):
    return GOOD + f"    {line}\n"


def test_defaults(write, tmp_path):
    spec, _ = read_spec(write(GOOD))
    model = spec.models["digits"]
    assert spec.repository == tmp_path / "out"
    assert model.source.kind == "python"
    assert model.batch.max == 8
    assert model.served == "onnx-fp32"
    assert model.declared.batches


def test_an_onnx_source_may_come_from_a_callable(write):
    spec, _ = read_spec(write("models: {m: {source: {onnx: {python: 'model.py:load'}}}}"))
    assert list(spec.models["m"].source.references()) == [("onnx", "model.py:load")]


def test_depends_are_globs_anywhere_and_variables(write, tmp_path):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    wanted = [tmp_path / "data" / "a.csv", tmp_path / "data" / "deep" / "b.csv"]
    for file in wanted:
        file.write_text("")
    spec, _ = read_spec(write(_model(f"depends: ['data/**/*.csv', {tmp_path}/data, ../, data, $HOME, $NOT_SET]")))
    entries = spec.models["digits"].depends
    assert [is_variable(entry) for entry in entries] == [False] * 4 + [True] * 2
    assert files_of(entries[0], tmp_path) == files_of(entries[1], tmp_path) == files_of(entries[3], tmp_path) == wanted
