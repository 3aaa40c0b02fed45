"""The models of ``benchmarks/fidelity.py``: one that takes a known time, one that stalls, one without work."""

from __future__ import annotations

from pathlib import Path

from benchmarks.trust_models import write_repository

SERVICE_S = 0.004
STALL_EVERY, STALL_S = 200, 0.4

_PYTHON = """
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    count = 0

    def execute(self, requests):
        answers = []
        for request in requests:
            value = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            {work}
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", value * 2)]))
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
_STALL = f"""self.count += 1
            time.sleep({STALL_S} if self.count % {STALL_EVERY} == 0 else {SERVICE_S})"""


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
        (place / "model.py").write_text(_PYTHON.format(work=work))
    return folder
