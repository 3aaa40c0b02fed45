"""What a user may ask for, and every message that a wrong spec gets."""

import textwrap

import pytest

from builder.errors import SpecError
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


@pytest.mark.parametrize(
    ("line", "message", "detail"),
    [
        ("bacth: {max: 4}", "unknown key `bacth`", "did you mean `batch`?"),
        ("batch: {max: many}", "`max` is of the wrong type", "a whole number"),
        ("batch: {max: 4, preferred: [8]}", "preferred batch size 8 is outside 1..4", "batch"),
        ("batch: {max: -1}", "greater than or equal to 0", "batch.max"),
        ("variants: [onnx-fp23]", "unknown variant 'onnx-fp23'", "variants[0]"),
        ("variants: []", "at least 1 item", "variants"),
        ("variants: [onnx-fp32, onnx-fp32]", "listed twice", "variants"),
        ("samples: {python: data.py}", "names no callable", "samples.python"),
        ("samples: {python: 'nothing.py:f'}", "nothing.py is not there", "samples.python"),
        ("labels: {logits: labels.txt}", "labels.txt is not there", "labels.logits"),
        ("labels: {other: labels.txt}", "none of the outputs", "digits"),
        ("instances: {count: 0}", "greater than or equal to 1", "instances.count"),
        ("instances: {kind: GPU}", "KIND_GPU", "instances.kind"),
        ("export: {opset: 99}", "less than or equal to 23", "export.opset"),
        ("depends: [vocab.txt]", "'vocab.txt' matches no file", "depends[0]"),
        ("depends: [model.py, 'data/**']", "'data/**' matches no file", "depends[1]"),
        ("depends: [modell.py]", "matches no file", "did you mean model.py?"),
        ("depends: ['$']", "names no environment variable", "depends[0]"),
        ("depends: [$HOME/x]", "names no environment variable", "./$HOME/x"),
        ("depends: ['']", "an empty entry", "depends[0]"),
        ("depends: model.py", "of the wrong type", "a list"),
        ("evaluate: {python: 'model.py:load', max_drop: -1}", "greater than or equal to 0", "max_drop"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(write, line, message, detail):
    with pytest.raises(SpecError) as caught:
        read_spec(write(_model(line)))
    text = str(caught.value)
    assert message in text
    assert detail in text
    assert "models.yaml:" in text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace('"float32[batch, 10]"', '"float32[10]"'), "begins with `batch` and 'logits' does not"),
        (GOOD.replace("logits:", "image:"), "is an input and an output"),
        (GOOD.replace("digits:", "../evil:"), "is no model name"),
        (GOOD.replace("digits:", "a/b:"), "is no model name"),
        (GOOD.replace("digits:", f"{'x' * 300}:"), "is no model name"),
        (GOOD.replace('{python: "model.py:load"}', "{}"), "exactly one of"),
        (GOOD.replace('{python: "model.py:load"}', "{checkpoint: model.py}"), "`checkpoint` and `factory` belong"),
        (GOOD.replace('    outputs: {logits: "float32[batch, 10]"}\n', ""), "`outputs` is missing"),
        (GOOD.replace("float32[batch, 10]", "bfloat16[batch, 10]"), "bfloat16"),
        ("models: {}\n", "at least 1 item"),
        ("", "empty or no mapping"),
        ("- 1\n", "empty or no mapping"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(write, text, message):
    with pytest.raises(SpecError) as caught:
        read_spec(write(text))
    assert message in str(caught.value)


def test_all_problems_come_at_once_in_the_order_of_the_file(write):
    text = _model("bacth: {max: 4}").replace("float32[batch, 10]", "float31[batch, 10]")
    with pytest.raises(SpecError) as caught:
        read_spec(write(text))
    whats = [problem.what for problem in caught.value.problems]
    assert len(whats) == 2
    assert "float31" in whats[0]
    assert "bacth" in whats[1]
    assert str(caught.value).startswith("2 problems in the spec")


def test_a_missing_file_names_the_one_that_is_there(write):
    with pytest.raises(SpecError, match=r"did you mean model\.py\?"):
        read_spec(write(GOOD.replace("model.py:load", "modell.py:load")))


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
