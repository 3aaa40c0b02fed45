"""All valid repositories that cases are made from."""

from __future__ import annotations

from benchmarks.differential.case import Case
from benchmarks.differential.seeds_ensemble import ensemble_seeds
from benchmarks.differential.seeds_onnx import onnx_seeds
from benchmarks.differential.seeds_python import python_seeds


def seeds() -> list[Case]:
    """Each loads in the embedded server as it is."""
    return [*onnx_seeds(), *python_seeds(), *ensemble_seeds()]
