"""A result under Model Analyzer's column names, so that what reads its ``metrics-model-inference.csv`` reads ours.

Its units: milliseconds, MB (10^6 bytes), percent, watts. Points that were not measured are left out, as there.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from perf.result import BenchResult, ModelRun, Point

FILE = "metrics-model-inference.csv"

_FIRST = ("Model", "Batch")
_LOADS = {"Concurrency": "concurrency", "Request Rate": "rate_per_s"}
_CONFIGURATION = ("Model Config Path", "Instance Group", "Max Batch Size", "Satisfies Constraints")
_THROUGHPUT = "Throughput (infer/sec)"
_LATENCIES = {
    "Avg Latency (ms)": "mean_us",
    "p90 Latency (ms)": "p90_us",
    "p95 Latency (ms)": "p95_us",
    "p99 Latency (ms)": "p99_us",
}
_SERVER = {
    "Server Queue time (ms)": "queue_us",
    "Server Compute Input time (ms)": "compute_input_us",
    "Server Compute Infer time (ms)": "compute_infer_us",
    "Server Compute Output time (ms)": "compute_output_us",
}
_USAGE = {
    "RAM Usage (MB)": ("memory_bytes", 1e6),
    "GPU Memory Usage (MB)": ("gpu_memory_bytes", 1e6),
    "GPU Utilization (%)": ("gpu_percent", 1.0),
    "GPU Power Usage (W)": ("gpu_power_w", 1.0),
}


def to_model_analyzer_csv(result: BenchResult) -> str:
    """One row per measured point of a served model: Model Analyzer knows no baselines.

    ``Model Config Path`` is the name of the variant; every row ``Satisfies Constraints``, for nothing was searched
    under any. A column of a load or of the machine is there when a point has it.
    """
    runs = [run for run in result.models if run.baseline is None]
    points = [point for run in runs for point in run.points if point.ok]
    loads = [name for name, field in _LOADS.items() if any(getattr(point, field) is not None for point in points)]
    usage = [
        name
        for name, (field, _) in _USAGE.items()
        if any(point.usage is not None and getattr(point.usage, field) is not None for point in points)
    ]
    columns = [*_FIRST, *(loads or ["Concurrency"]), *_CONFIGURATION, _THROUGHPUT, *_LATENCIES, *_SERVER, *usage]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for run in runs:
        for point in run.points:
            if point.ok:
                writer.writerow(_row(run, point, bool(result.machine.get("gpus"))))
    return stream.getvalue()


def _row(run: ModelRun, point: Point, has_gpu: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "Model": run.model,
        "Batch": point.batch_size,
        "Model Config Path": run.about.get("variant") or run.model,
        "Instance Group": instance_groups(run.config, has_gpu),
        "Max Batch Size": run.config.get("max_batch_size", ""),
        "Satisfies Constraints": "Yes",
        _THROUGHPUT: _rounded(point.inferences_per_s),
    }
    row |= {name: getattr(point, field) for name, field in _LOADS.items()}
    row |= {name: _rounded(getattr(point.latency, field, None), 1000) for name, field in _LATENCIES.items()}
    row |= {name: _rounded(getattr(point.server, field, None), 1000) for name, field in _SERVER.items()}
    row |= {name: _rounded(getattr(point.usage, field, None), unit) for name, (field, unit) in _USAGE.items()}
    return row


def instance_groups(config: dict[str, Any], has_gpu: bool) -> str:
    """``2:CPU``, ``1:GPU + 1:CPU``: instances by kind; of a kind that is not said, as Triton chooses."""
    counts: dict[str, int] = {}
    for group in config.get("instance_group") or [{}]:
        kind = str(group.get("kind", "KIND_AUTO")).removeprefix("KIND_")
        kind = ("GPU" if has_gpu else "CPU") if kind == "AUTO" else kind
        counts[kind] = counts.get(kind, 0) + int(group.get("count") or 1)
    return " + ".join(f"{count}:{kind}" for kind, count in counts.items())


def _rounded(value: float | None, unit: float = 1.0) -> float | str:
    return "" if value is None else round(value / unit, 3)
