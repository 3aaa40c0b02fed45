"""How fast a served repository is, measured with perf_analyzer.

``from perf import bench`` is all most need; a :class:`Workload` and :func:`measure_workload` do the same in two steps.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perf.errors import WorkloadError
    from perf.measure import bench, measure_workload
    from perf.report import read_result
    from perf.result import BenchResult, Point
    from perf.workload import Workload, load_workload

__all__ = [
    "BenchResult",
    "Point",
    "Workload",
    "WorkloadError",
    "bench",
    "load_workload",
    "measure_workload",
    "read_result",
]

_HOMES = {
    "BenchResult": "perf.result",
    "Point": "perf.result",
    "Workload": "perf.workload",
    "WorkloadError": "perf.errors",
    "bench": "perf.measure",
    "load_workload": "perf.workload",
    "measure_workload": "perf.measure",
    "read_result": "perf.report",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import perf`` costs nothing."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'perf' has no attribute {name!r}")
