"""The models of ``benchmarks/fidelity.py``: one that takes a known time, one that stalls, one without work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.trust_models import write_repository

SERVICE_S = 0.004
STALL_EVERY, STALL_S = 200, 0.4

TIMES = "times.txt"
"""Beside a model: when each execution began and ended, nanoseconds, a line each."""

_PYTHON = """
import time
from pathlib import Path

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.count = 0
        self.times = open({times!r}, "w", buffering=1)

    def execute(self, requests):
        answers = []
        for request in requests:
            began_ns = time.monotonic_ns()
            value = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            self.count += 1
            {work}
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", value * 2)]))
            self.times.write(f"{{began_ns}} {{time.monotonic_ns()}}\\n")
        return answers
"""

_CONFIG = """backend: "python"
max_batch_size: {batch}
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
{extra}
"""

_NAP = f"time.sleep({SERVICE_S})"
_STALL = f"time.sleep({STALL_S} if self.count % {STALL_EVERY} == 0 else {SERVICE_S})"


def repository_of(folder: Path) -> Path:
    """``light`` (batches), ``network`` (20 layers of compute), ``nap`` (:data:`SERVICE_S` each), ``stall``."""
    write_repository(folder, {"network": 20})
    for name, work, batch, extra in (
        ("light", "pass", 16, "dynamic_batching { }"),
        ("nap", _NAP, 0, ""),
        ("stall", _STALL, 0, ""),
    ):
        place = folder / name / "1"
        place.mkdir(parents=True)
        (place.parent / "config.pbtxt").write_text(_CONFIG.format(batch=batch, extra=extra))
        (place / "model.py").write_text(_PYTHON.format(work=work, times=str(place.parent / TIMES)))
    return folder


def times_of(repository: Path, model: str) -> NDArray[np.float64]:
    """When each execution of a model began and ended so far, microseconds, float64 [executions, 2]."""
    text = (repository / model / TIMES).read_text()
    lines = text[: text.rfind("\n") + 1].splitlines()
    return np.array([line.split() for line in lines], dtype=np.int64) / 1000.0
