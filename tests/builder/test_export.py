"""The exporters on real modules: names, dimensions, dtypes, determinism, and what cannot be exported."""

import numpy as np
import onnx
import pytest

from builder.errors import ExportError, InterfaceError, SourceError
from builder.graphs.onnx_tensors import interface_of_onnx
from builder.reference import OnnxRunner, reference_runner

GOOD = {
    "inputs": {"ids": "int64[batch, seq: 1..64]", "mask": "int64[batch, seq]"},
    "outputs": {"embedding": "float32[batch, 4]", "tokens": "float32[batch, seq, 8]"},
    "samples": {"python": "modules.py:id_samples"},
}
X = {"inputs": {"x": "float32[batch, 8]"}}


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_names_and_dimensions_are_those_of_the_spec(stages, exporter):
    artifact, loaded, samples = stages("Good", **GOOD, export={"exporter": exporter}).export()
    found = interface_of_onnx(artifact.path)
    assert [str(tensor) for tensor in found.inputs] == ["int64[batch, seq]", "int64[batch, seq]"]
    assert {tensor.name: str(tensor) for tensor in found.outputs} == {
        "embedding": "float32[batch, 4]",
        "tokens": "float32[batch, seq, 8]",
    }
    runner, reference = OnnxRunner(artifact.path), reference_runner(loaded, artifact.path.parent)
    for batch, seq in ((1, 1), (3, 64), (8, 7)):
        inputs = samples.batch(batch, {"seq": seq})
        got, expected = runner(inputs), reference(inputs)
        for name in expected:
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-4, atol=1e-5)


def test_the_same_module_gives_the_same_bytes(stages):
    first = stages("Good", **GOOD).export()[0].sha256
    assert stages("Good", **GOOD).export()[0].sha256 == first


def test_no_path_of_this_machine_is_left_in_the_file(stages):
    artifact, _, _ = stages("Good", **GOOD).export()
    content = artifact.path.read_bytes()
    assert str(artifact.path.parent).encode() not in content
    assert b"site-packages" not in content


def test_a_module_is_exported_in_inference_mode(stages):
    outputs = {"a": "float32[batch, 4]", "b": "float32[batch, 4]"}
    artifact, _, samples = stages("Halves", **X, outputs=outputs).export()
    runner = OnnxRunner(artifact.path)
    first, again = runner(samples.batch(3)), runner(samples.batch(3))
    np.testing.assert_array_equal(first["a"], again["a"])


def test_an_input_given_back_twice_becomes_two_outputs(stages):
    outputs = {"a": "float32[batch, 8]", "b": "float32[batch, 8]"}
    artifact, _, samples = stages("Echo", **X, outputs=outputs).export()
    got = OnnxRunner(artifact.path)(samples.batch(2))
    np.testing.assert_array_equal(got["a"], samples.batch(2)["x"])
    np.testing.assert_array_equal(got["b"], samples.batch(2)["x"])


def test_integers_and_booleans_keep_their_types(stages):
    keys = {"inputs": {"x": "int32[batch, 3]"}, "outputs": {"twice": "int64[batch, 3]", "positive": "bool[batch, 3]"}}
    artifact, _, samples = stages("Integers", **keys).export()
    got = OnnxRunner(artifact.path)(samples.batch(2))
    assert (got["twice"].dtype, got["positive"].dtype) == (np.int64, np.bool_)


def test_the_opset_is_the_one_asked_for(stages):
    artifact, _, _ = stages(
        "Echo", **X, outputs={"a": "float32[batch, 8]", "b": "float32[batch, 8]"}, export={"opset": 18}
    ).export()
    assert onnx.load(artifact.path).opset_import[0].version == 18


def test_dynamo_failing_falls_back_to_torchscript_and_says_why(stages):
    artifact, _, _ = stages("DataDependent", **X, outputs={"y": "float32[batch, 8]"}).export()
    assert "torchscript" in artifact.notes[0]
    assert artifact.notes[1].startswith("fallback: dynamo failed: ")
    assert len(artifact.notes[1]) > 40


def test_a_batch_that_is_baked_in_is_found_before_serving(stages):
    with pytest.raises(ExportError, match="baked in as 2") as caught:
        stages("BakedBatch", **X, outputs={"y": "float32[batch, 4]"}).export()
    assert "use x.shape in forward()" in caught.value.fix


def test_a_file_that_the_checker_refuses_says_how_to_come_to_another(stages, monkeypatch):
    def refuse(*args, **options):
        raise onnx.checker.ValidationError("no such attribute")

    monkeypatch.setattr("onnx.checker.check_model", refuse)
    with pytest.raises(ExportError, match="the ONNX file is invalid") as caught:
        stages("Echo", **X, outputs={"a": "float32[batch, 8]", "b": "float32[batch, 8]"}).export()
    assert "onnx.checker" in caught.value.expected
    assert "no such attribute" in caught.value.got
    assert "write another exporter or opset in the spec" in caught.value.fix


def test_an_operator_that_onnx_has_not_is_named_with_the_users_line(stages, capfd):
    keys = {"inputs": {"x": "float32[batch, 4, 4]"}, "outputs": {"y": "float32[batch, 4]"}}
    made = stages("NoOperator", **keys)
    with pytest.raises(ExportError, match=r"operator aten\.linalg_eig") as caught:
        made.export()
    line = 1 + (made.folder / "modules.py").read_text().splitlines().index(
        "        return torch.linalg.eigvals(x).real"
    )
    assert caught.value.where == f"{made.folder}/modules.py:{line}"
    assert "dynamo: " in caught.value.got
    assert "torchscript: " in caught.value.got
    assert capfd.readouterr().out == ""  # the exporters' own dumps stay off the terminal


@pytest.mark.parametrize(
    ("module", "outputs", "error", "message"),
    [
        ("Raises", {"y": "float32[batch, 8]"}, SourceError, "the module raised when it was called with x float32"),
        ("Doubles", {"y": "float32[batch, 8]"}, InterfaceError, "another dtype than the spec"),
        ("Halves", {"a": "float32[batch, 4]"}, InterfaceError, "gives 2 outputs, the spec has 1"),
        ("Halves", {"a": "float32[batch, 4]", "b": "float32[batch, 5]"}, InterfaceError, "another shape"),
        ("IgnoresBatch", {"y": "float32[batch, 8]"}, InterfaceError, "does not follow its batch dimension"),
    ],
)
def test_outputs_that_differ_from_the_spec_are_refused_by_the_reference(stages, module, outputs, error, message):
    made = stages(module, **X, outputs=outputs)
    loaded = made.load()
    samples = made.samples(loaded)
    with pytest.raises(error, match=message):
        reference_runner(loaded, made.folder)(samples.batch(3))


def test_a_name_that_the_module_does_not_give_lists_those_it_does(stages):
    made = stages("Good", **{**GOOD, "outputs": {"pooled": "float32[batch, 4]"}})
    loaded = made.load()
    with pytest.raises(InterfaceError, match="have no 'pooled'") as caught:
        reference_runner(loaded, made.folder)(made.samples(loaded).batch(2))
    assert caught.value.got == "embedding, tokens, unused"


def test_weights_above_the_limit_go_to_external_data(stages, monkeypatch):
    monkeypatch.setattr("builder.graphs.onnx_graph.EXTERNAL_DATA_ABOVE_BYTES", 1000)
    artifact, loaded, samples = stages("Good", **GOOD).export()
    assert sorted(artifact.sha256) == ["model.onnx", "model.onnx.data"]
    assert artifact.path.stat().st_size < artifact.size_bytes
    got = OnnxRunner(artifact.path)(samples.batch(2))
    expected = reference_runner(loaded, artifact.path.parent)(samples.batch(2))
    np.testing.assert_allclose(got["embedding"], expected["embedding"], rtol=1e-4, atol=1e-5)
