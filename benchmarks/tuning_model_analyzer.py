"""Model Analyzer's quick search on one model: run for real, in its own environment, against the embedded server.

It is used as its users do: local mode, quick search with its default bounds, a limit on p99, throughput as the goal. It
restarts the server for each configuration. What is set for this machine: no GPU, and time windows of a second (the
default counts requests, and perf_analyzer never calls a machine this noisy stable). Its protocol is its default, gRPC:
over HTTP perf_analyzer does not come to an end with the 128 requests at once that it begins with.
"""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from perf.binary import find_binary
from serving.options import Ports
from serving.ports import free_ports
from serving.runtime import find_runtime

PACKAGE = "triton-model-analyzer==1.58.0"
FLAGS = {"measurement-mode": "time_windows", "measurement-interval": 1000, "stability-percentage": 50, "max-trials": 4}
TIMEOUT_S = 2400


@dataclass(frozen=True)
class Found:
    """What it found.

    Attributes:
        config: of the best configuration that keeps the limit, as text of its ``config.pbtxt``; empty where none does.
        concurrency: at which it was best.
        inferences_per_s, p99_us: as it measured them, once.
        measurements: runs of perf_analyzer that gave figures.
        seconds: from its start to its end.
    """

    config: str
    concurrency: int
    inferences_per_s: float
    p99_us: float
    measurements: int
    seconds: float


def environment(folder: Path) -> Path:
    """Its program, installed into an environment of its own where it is not there yet."""
    program = folder / "bin/model-analyzer"
    if not program.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin/pip"), "install", "--quiet", PACKAGE], check=True)
    return program


def quick_search(program: Path, repository: Path, model: str, folder: Path, *, limit_ms: float, inputs: Path) -> Found:
    """Run the search and read its results.

    Args:
        program: of Model Analyzer.
        repository: with the model; it is not changed.
        folder: for its files.
        inputs: requests for perf_analyzer, so that it asks what is asked elsewhere.

    Raises:
        SystemExit: it failed; its own words are shown.
    """
    folder.mkdir(parents=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(_config(repository, model, folder, limit_ms, inputs), sort_keys=False))
    command = [str(program), "profile", "--config-file", str(path)]
    started_s = time.monotonic()
    with (folder / "log.txt").open("wb") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, timeout=TIMEOUT_S)
    seconds = time.monotonic() - started_s
    rows = _rows(folder / "export/results/metrics-model-inference.csv")
    if done.returncode != 0 or not rows:
        text = (folder / "log.txt").read_text(errors="replace")
        raise SystemExit(f"Model Analyzer failed on {model}:\n{text[-3000:]}")
    return _best(rows, folder, limit_ms, seconds)


def _best(rows: list[dict[str, str]], folder: Path, limit_ms: float, seconds: float) -> Found:
    within = [row for row in rows if float(row["p99 Latency (ms)"]) <= limit_ms]
    if not within:
        return Found("", 0, 0.0, 0.0, len(rows), seconds)
    best = max(within, key=lambda row: float(row["Throughput (infer/sec)"]))
    config = folder / "models" / best["Model Config Path"] / "config.pbtxt"
    return Found(
        config=config.read_text(encoding="utf-8"),
        concurrency=int(best["Concurrency"]),
        inferences_per_s=float(best["Throughput (infer/sec)"]),
        p99_us=float(best["p99 Latency (ms)"]) * 1000,
        measurements=len(rows),
        seconds=seconds,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _config(repository: Path, model: str, folder: Path, limit_ms: float, inputs: Path) -> Mapping[str, Any]:
    server, ports = _server(folder)
    return {
        "model_repository": str(repository),
        "checkpoint_directory": str(folder / "checkpoints"),
        "output_model_repository_path": str(folder / "models"),
        "override_output_model_repository": True,
        "export_path": str(folder / "export"),
        "triton_launch_mode": "local",
        "triton_server_path": str(server),
        "triton_http_endpoint": f"127.0.0.1:{ports.http_port}",
        "triton_grpc_endpoint": f"127.0.0.1:{ports.grpc_port}",
        "triton_metrics_url": f"http://127.0.0.1:{ports.metrics_port}/metrics",
        "perf_analyzer_path": str(_analyzer(folder)),
        "run_config_search_mode": "quick",
        "gpus": [],
        "inference_output_fields": [
            "model_name",
            "model_config_path",
            "concurrency",
            "perf_throughput",
            "perf_latency_p99",
        ],
        "profile_models": {
            model: {
                "cpu_only": True,
                "objectives": ["perf_throughput"],
                "constraints": {"perf_latency_p99": {"max": limit_ms}},
                "perf_analyzer_flags": {**FLAGS, "input-data": str(inputs)},
            }
        },
    }


def _server(folder: Path) -> tuple[Path, Ports]:
    """A program that starts the embedded server with what Model Analyzer adds, and its ports."""
    runtime = find_runtime()
    ports = Ports(*free_ports("127.0.0.1", 3))
    command = [str(runtime.tritonserver), f"--backend-directory={runtime.backend_dir}"]
    return _script(folder / "tritonserver", runtime.env, command), ports


def _analyzer(folder: Path) -> Path:
    binary = find_binary()
    return _script(folder / "perf_analyzer", binary.env, [str(binary.path)])


def _script(path: Path, env: Mapping[str, str], command: list[str]) -> Path:
    lines = [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
    path.write_text("\n".join(["#!/bin/sh", *lines, f'exec {shlex.join(command)} "$@"', ""]))
    path.chmod(0o755)
    return path
