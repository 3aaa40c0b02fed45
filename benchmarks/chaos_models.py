"""What `make chaos` builds: models so small that their answers tell which weights, labels and version gave them.

Every model answers ``factor * x``. The factor is new in each round and so is the label that belongs to it; a version's
right answer is read from the files that were published with it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from builder.golden import read_golden
from tests.builder.processes import scale_onnx

X = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
ONNX, TORCH, FRESH = ("alpha", "beta"), ("gamma",), "fresh"
_TORCH = """
import torch

class Scale(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.full((4,), float(factor)))

    def forward(self, x):
        return x * self.factor

def load(factor):
    return Scale(factor)
"""


@dataclass(frozen=True)
class Right:
    """What a version must answer."""

    factor: float
    label: str


class Models:
    """The user's folder: sources that change from round to round, and specs over one repository.

    Args:
        folder: empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.factors: set[float] = set()
        (folder / "scale.py").write_text(_TORCH)

    @property
    def build_dir(self) -> Path:
        """The builds' own folder."""
        return self.folder / ".build"

    def change(self, number: int) -> None:
        """Give every model new weights and labels."""
        for place, name in enumerate((*ONNX, *TORCH, FRESH)):
            factor = float(10 * number + place)
            self.factors.add(factor)
            if name not in TORCH:
                scale_onnx(self.folder / f"{name}.onnx", factor)
            (self.folder / f"{name}.txt").write_text("\n".join(f"{name} of {factor:g}" for _ in range(4)) + "\n")
        self._write("onnx.yaml", {name: {"source": {"onnx": f"{name}.onnx"}} for name in ONNX})
        self._write("fresh.yaml", {name: {"source": {"onnx": f"{name}.onnx"}} for name in (ONNX[0], FRESH)})
        source = {"source": {"python": "scale.py:load", "args": {"factor": 10 * number + len(ONNX)}}}
        self._write("torch.yaml", {name: source | {"inputs": {"x": "float32[batch, 4]"}} for name in TORCH})

    def _write(self, file: str, models: dict[str, dict[str, object]]) -> None:
        common = {"outputs": {"y": "float32[batch, 4]"}, "batch": {"max": 4}}
        whole = {name: {**common, **model, "labels": {"y": f"{name}.txt"}} for name, model in models.items()}
        (self.folder / file).write_text(json.dumps({"repository": "repository", "models": whole}))  # JSON is YAML

    def names(self, spec: str) -> tuple[str, ...]:
        """The models of a spec."""
        return {"onnx.yaml": ONNX, "torch.yaml": TORCH, "fresh.yaml": (ONNX[0], FRESH)}[spec]

    def forget_fresh(self) -> None:
        """Take the model out of the repository that is to be new in the next build: as a whole, as it came."""
        gone = self.folder / "gone"
        if (self.repository / FRESH).exists():
            (self.repository / FRESH).rename(gone)
            shutil.rmtree(gone)

    def right(self, name: str, version: int) -> Right:
        """What was published: ValueError or OSError where that is not whole, or of no round."""
        folder = self.repository / name / str(version)
        case = read_golden(folder / "golden.npz")[0]
        ratios = np.unique(np.round(case.expected["y"] / case.inputs["x"], 2))
        labels = set((folder / f"{name}.txt").read_text().split("\n")) - {""}
        if len(ratios) != 1 or float(ratios[0]) not in self.factors or len(labels) != 1:
            raise ValueError(f"{name}/{version} holds factors {ratios} and labels {labels}")
        return Right(float(ratios[0]), labels.pop())
