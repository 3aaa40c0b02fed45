"""Engines of several machines in one version, and engines beside the repository."""

import json

import pytest

from builder.artifact import Artifact, sha256_of
from builder.config import fields_of
from builder.engine_stage import Shelved, collected
from builder.errors import EngineError
from builder.repository.engines import bundle_of, engines_dir, has_engine, put_engine
from builder.spec import ModelSpec
from builder.tensors import Interface, parse_tensor
from builder.variants import VARIANTS

INTERFACE = Interface((parse_tensor("x", "float32[batch, 2]"),), (parse_tensor("y", "float32[batch, 2]"),))


class Machine:
    """Where engines are built: what it makes carries its name."""

    def __init__(self, root, name, *gpus):
        self.folder, self.shelf, self.name, self.gpus = root / name, root / "shelf", name, gpus

    def build(self, *wanted, what="w"):
        return collected(wanted, self.gpus, self.shelf, what, self._make, self.folder)

    def _make(self, capabilities, to):
        (capability,) = capabilities
        to.write_text(f"for {capability} by {self.name}")
        return Shelved(to, {"gpu": capability}, (f"by {self.name}",))


def test_each_machine_adds_its_engine_to_the_version(tmp_path):
    first, second = Machine(tmp_path, "first", "8.6"), Machine(tmp_path, "second", "8.9")
    found, absent = first.build("8.6", "8.9")
    assert (list(found), absent) == (["8.6"], ["8.9"])
    found, absent = second.build("8.6", "8.9")
    assert (list(found), absent) == (["8.6", "8.9"], [])
    files = {each.path.name: each.path.read_text() for each in found.values()}
    assert files == {"model_sm86.plan": "for 8.6 by first", "model_sm89.plan": "for 8.9 by second"}
    assert found["8.6"].notes == ("by first",) and found["8.6"].facts == {"gpu": "8.6"}


def test_an_engine_of_something_else_or_a_damaged_one_is_not_taken(tmp_path):
    Machine(tmp_path, "first", "8.6").build("8.6")
    second = Machine(tmp_path, "second", "8.9")
    assert second.build("8.6", "8.9", what="other weights")[1] == ["8.6"]
    (kept,) = tmp_path.glob("shelf/w-model_sm86.plan")
    kept.write_text("cut sho")
    assert second.build("8.6", "8.9")[1] == ["8.6"]
    assert not (tmp_path / "second" / "model_sm86.plan").exists()


def test_no_engine_at_all_is_refused(tmp_path):
    with pytest.raises(EngineError) as caught:
        Machine(tmp_path, "first", "8.6").build("9.0")
    message = str(caught.value)
    assert "no engine for any of the GPUs" in message and "9.0" in message and "here: 8.6" in message
    assert "on a machine with one of them" in message


def _artifact(folder, *names):
    for name in names:
        (folder / name).write_text(f"engine {name}")
    hashes = {name: sha256_of(folder / name) for name in names}
    size = sum((folder / name).stat().st_size for name in names)
    return Artifact(folder / names[0], "plan", "fp16", INTERFACE, hashes, size, {}, ("a note",))


def test_a_version_with_several_engines_is_wired_by_compute_capability(tmp_path):
    artifact = _artifact(tmp_path, "model_sm86.plan", "model_sm120.plan")
    model = ModelSpec.model_validate({"source": {"onnx": "m.onnx"}, "variants": ["tensorrt-fp16"]})
    fields = fields_of(VARIANTS["tensorrt-fp16"], model, artifact)
    assert fields == {"cc_model_filenames": {"12.0": "model_sm120.plan", "8.6": "model_sm86.plan"}}


def test_the_instances_of_the_spec_stay_where_an_accelerator_decides_their_kind(tmp_path):
    artifact = _artifact(tmp_path, "model.onnx")
    spec = {"source": {"onnx": "m.onnx"}, "variants": ["onnx-tensorrt-fp16"], "instances": {"count": 3, "gpus": [1]}}
    fields = fields_of(VARIANTS["onnx-tensorrt-fp16"], ModelSpec.model_validate(spec), artifact)
    assert fields["instance_group"] == [{"count": 3, "gpus": [1], "kind": "KIND_GPU"}]
    (accelerator,) = fields["optimization"]["execution_accelerators"]["gpu_execution_accelerator"]
    assert accelerator["name"] == "tensorrt" and accelerator["parameters"]["trt_engine_cache_enable"] == "1"


def test_an_engine_beside_the_repository_is_replaced_as_a_whole(tmp_path):
    repository, made = tmp_path / "models", {"engine": {"library": "L"}, "interface": {"inputs": {}, "outputs": {}}}
    for content in ("first", "second"):
        (tmp_path / content).mkdir()
        artifact = _artifact(tmp_path / content, "model.plan" if content == "first" else "other.plan")
        assert not has_engine(repository, "m_rtx", artifact.sha256)
        folder = put_engine(bundle_of(artifact, "m_rtx", made), repository)
        assert has_engine(repository, "m_rtx", artifact.sha256)
    assert folder == engines_dir(repository) / "m_rtx" == tmp_path / "models_engines" / "m_rtx"
    assert sorted(path.name for path in folder.iterdir()) == ["engine.json", "other.plan"]
    assert json.loads((folder / "engine.json").read_text())["notes"] == ["a note"]
    assert [path.name for path in folder.parent.iterdir()] == ["m_rtx"]
    (folder / "other.plan").write_text("")
    assert not has_engine(repository, "m_rtx", artifact.sha256)
