"""A spec made of one model, and the stages up to an artifact, for tests of single rooms."""

import secrets
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from builder import sources
from builder.api import load_spec
from builder.config import ModelConfig
from builder.export import onnx_from_torch
from builder.repository.publish import Staged
from builder.samples import load_samples
from builder.usercode import user_code

HERE = Path(__file__).parent


@dataclass
class Stages:
    """One model of a spec, stage by stage."""

    spec: object
    model: object
    folder: Path

    def load(self):
        with user_code(self.spec.folder):
            return sources.load(self.spec, self.model)

    def samples(self, loaded):
        with user_code(self.spec.folder):
            return load_samples(self.spec, self.model, loaded.interface)

    def export(self):
        with user_code(self.spec.folder):
            loaded = sources.load(self.spec, self.model)
            samples = load_samples(self.spec, self.model, loaded.interface)
            to = self.folder / "model.onnx"
            artifact = onnx_from_torch(
                loaded, samples, options=self.model.export, release=None, folder=self.spec.folder, to=to
            )
        return artifact, loaded, samples


@pytest.fixture
def stages(tmp_path):
    """``stages(source=..., inputs=..., outputs=..., ...)`` -> :class:`Stages` over a spec in a folder of its own."""
    (tmp_path / "modules.py").write_text((HERE / "modules.py").read_text())

    def make(module=None, /, **keys):
        if module is not None:
            keys["source"] = {"python": "modules.py:make", "args": {"name": module}}
        path = tmp_path / "models.yaml"
        path.write_text(yaml.safe_dump({"models": {"m": keys}}, sort_keys=False))
        spec = load_spec(path)
        return Stages(spec, spec.models["m"], tmp_path)

    return make


@pytest.fixture
def staged(tmp_path):
    """``staged(content="onnx", name="m", batch=8, policy=None, on=None)``: a version ready to be published."""

    def make(content="onnx", *, name="m", batch=8, policy=None, files=None, on=None, **manifest):
        return staged_version(on or tmp_path, content, name=name, batch=batch, policy=policy, files=files, **manifest)

    return make


def staged_version(
    root, content="onnx", *, name="m", batch=8, policy=None, files=None, tree=None, hosts=None, **manifest
):
    """What a build hands over, without a build; in ``root/.build/staging``."""
    folder = root / ".build" / "staging" / f"{name}-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    for file, data in (files or {"model.onnx": content, "golden.npz": "golden", "labels.txt": "north\neast"}).items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(data)
    output = {"name": "y", "data_type": "TYPE_FP32", "dims": [2], "label_filename": "labels.txt"}
    tree = tree or {
        "name": name,
        "backend": "onnxruntime",
        "max_batch_size": batch,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [2]}],
        "output": [output],
    }
    config = ModelConfig(
        tree | ({"version_policy": policy} if policy else {}),
        {},
        {"labels.txt": root / "labels.txt"},
        hosts=hosts or {},
    )
    known = {
        "model": name, "variant": "onnx-fp32", "format": "onnx", "precision": "fp32",
        "created": "2026-11-21T00:00:00+00:00", "size_bytes": len(content), "inputs": {}, "outputs": {}, "notes": [],
        "spec": {"file": "models.yaml", "sha256": "0" * 64, "model": {}},
        "provenance": {"git": None, "tools": {"torch": "2.13.0"}, "host": {}}, "samples": None,
        "verification": {"parity": None, "accuracy": None, "agreement": None, "serve": None}, "seconds": {},
        "recipe": None, "search": None, "engine": None, "choice": None, "accuracy_drop_allowed": [],
    }  # fmt: skip
    return Staged(name, folder, config, (f"{name}: written by build-repo",), known | manifest)


@pytest.fixture
def staged_tree(tmp_path):
    """``staged_tree(tree, files, name="m")``: a version of any configuration and files, ready to be published."""

    def make(tree, files, name="m"):
        return staged_version(tmp_path, name=name, files=files, tree=tree)

    return make


@pytest.fixture
def staged_anywhere():
    """``staged_anywhere(root, content, name="m", batch=8)``: the same below a folder of one's choice."""
    return staged_version
