"""A spec made of one model, and the stages up to an artifact, for tests of single rooms."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from builder import sources
from builder.api import load_spec
from builder.export import onnx_from_torch
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
