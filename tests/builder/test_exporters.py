"""What an export leaves behind in its process: nothing of the module, and a registry for the next one."""

import gc
import weakref

import numpy as np
import pytest

from builder.export.exporters import EXPORTERS, warm_up
from builder.reference import OnnxRunner

HALVES = {
    "inputs": {"x": "float32[batch, 8]"},
    "outputs": {"a": "float32[batch, 4]", "b": "float32[batch, 4]"},
}
GOOD = {
    "inputs": {"ids": "int64[batch, seq: 1..64]", "mask": "int64[batch, seq]"},
    "outputs": {"embedding": "float32[batch, 4]", "tokens": "float32[batch, seq, 8]"},
    "samples": {"python": "modules.py:id_samples"},
}


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize(("module", "keys"), [("Halves", HALVES), ("Good", GOOD)])
def test_the_weights_are_given_back_after_export(stages, exporter, module, keys):
    made = stages(module, **keys)
    loaded = made.load()
    storages = [weakref.ref(parameter) for parameter in loaded.module.parameters()]
    EXPORTERS[exporter](loaded, made.samples(loaded), 20, made.folder / "model.onnx")
    del loaded
    gc.collect()
    assert [storage for storage in storages if storage() is not None] == []


def test_the_registry_of_operators_is_built_once_for_each_opset(stages):
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    warm_up(20)
    kept = ONNXRegistry.__dict__["from_torchlib"].__func__
    before = kept.cache_info()
    made = stages("Halves", **HALVES)
    loaded = made.load()
    for opset in (20, 20):
        EXPORTERS["dynamo"](loaded, made.samples(loaded), opset, made.folder / "model.onnx")
    after = kept.cache_info()
    assert (after.hits - before.hits, after.misses - before.misses) == (2, 0)
    assert ONNXRegistry.__dict__["from_torchlib"].__func__ is kept


def test_torchscript_leaves_no_files_of_its_own(stages, monkeypatch):
    monkeypatch.setattr("builder.graphs.onnx_graph.EXTERNAL_DATA_ABOVE_BYTES", 100)
    made = stages("Halves", **HALVES)
    loaded = made.load()
    folder = made.folder / "version"
    folder.mkdir()
    EXPORTERS["torchscript"](loaded, made.samples(loaded), 20, folder / "model.onnx")
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "model.onnx.data"]


def test_a_lean_session_gives_the_same_answers(stages, monkeypatch):
    monkeypatch.setattr("builder.graphs.onnx_graph.EXTERNAL_DATA_ABOVE_BYTES", 100)
    artifact, _, samples = stages("Good", **GOOD).export()
    inputs = samples.batch(3)
    with OnnxRunner(artifact.path) as usual, OnnxRunner(artifact.path, lean=True) as lean:
        for name, expected in usual(inputs).items():
            np.testing.assert_allclose(lean(inputs)[name], expected, rtol=1e-5, atol=1e-6)
