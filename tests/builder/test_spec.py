"""What a user may ask for. What a wrong spec gets is in test_bad_input.py."""

import subprocess
import sys
import textwrap

import pytest

from builder.spec import read_spec
from builder.spec.files import files_of, is_variable

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


def test_config_is_checked_without_grpc_and_by_the_class_that_the_client_has(write):
    path = write(_model("config: {metric_tags: {a: b}}"))
    code = (
        "import sys\nfrom builder.spec import read_spec\nfrom builder.triton_fields import model_config_class\n"
        f"read_spec({str(path)!r})\nassert 'grpc' not in sys.modules\nours = model_config_class()\n"
        "from tritonclient.grpc import InferenceServerClient, model_config_pb2, service_pb2\n"
        "assert model_config_pb2.ModelConfig is ours is model_config_class()\n"
        "service_pb2.ModelConfigResponse(config=ours(name='m'))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
