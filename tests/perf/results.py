"""Results made by hand, whose figures are known; what the tests of history, comparison, gates and reports share."""

from datetime import datetime, timedelta, timezone

from perf.result import (
    BenchResult,
    Doubt,
    Histogram,
    Latency,
    ModelRun,
    Point,
    Round,
    ServerSide,
    Tool,
    Usage,
    Window,
)

START = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)


def latency(p50_us=1000.0, p99_us=2000.0, **more):
    values = {"requests": 2000, "mean_us": p50_us * 1.1, "p90_us": p50_us * 1.4, "p95_us": p50_us * 1.6}
    return Latency(p50_us=p50_us, p99_us=p99_us, **(values | more))


def side(model, **more):
    values = {"requests": 2000, "failures": 0, "inferences": 4000, "executions": 1000, "mean_batch": 4.0}
    values |= {"queue_us": 120.0, "compute_input_us": 10.0, "compute_infer_us": 200.0, "compute_output_us": 30.0}
    return ServerSide(model=model, version="1", **(values | more))


def point(model="digits", concurrency=4, rates=(100.0,), p50_us=1000.0, p99_us=2000.0, rounds=True, **more):
    """A point whose rounds (or windows) have these rates; each one's latencies follow its rate inversely."""
    middle = sorted(rates)[len(rates) // 2]
    parts = {}
    if rounds:
        parts["rounds"] = tuple(
            Round(
                number=number,
                inferences_per_s=value,
                requests=1000,
                p50_us=p50_us * middle / value,
                p99_us=p99_us * middle / value,
            )
            for number, value in enumerate(rates)
        )
    else:
        parts["windows"] = tuple(
            Window(duration_s=1.0, requests=1000, inferences_per_s=value, mean_us=p50_us * middle / value)
            for value in rates
        )
    values = {
        "version": "1",
        "batch_size": 1,
        "inferences_per_s": middle,
        "duration_s": 3.0,
        "latency": latency(p50_us, p99_us),
        "server": side(model),
        "command": ("perf_analyzer", "-m", model, "--concurrency-range", str(concurrency)),
    }
    return Point(model=model, concurrency=concurrency, **(values | parts | more))


MACHINE = {
    "hostname": "here",
    "cpu": "A CPU",
    "cores": 2,
    "cores_usable": 2,
    "memory_bytes": 24 * 2**30,
    "kernel": "6.1",
    "architecture": "x86_64",
    "libc": "glibc 2.36",
    "gpus": [],
}


def result(*points, number=0, machine=(), workload=(), about=(), config=(), **more):
    """A result whose models are those of the points; ``number`` makes runs follow one another."""
    names = dict.fromkeys(each.model for each in points)
    models = tuple(
        ModelRun(
            model=name,
            version="1",
            inputs="8 golden requests of version 1",
            points=tuple(each for each in points if each.model == name),
            about=dict(about).get(name, {}),
            config=dict(config).get(name, {}),
        )
        for name in names
    )
    values = {
        "id": f"{number:04x}" * 8,
        "revision": None,
        "started_at": START + timedelta(hours=number),
        "duration_s": 9.5,
        "tool": Tool(path="/pa", version="2.50.0", origin="tritonclient 2.50.0"),
        "server": {"kind": "embedded", "url": "http://h:1", "version": "2.51.0", "runtime": "Triton 2.51.0"},
        "machine": MACHINE | dict(machine),
        "workload": {"protocol": "http", "batch_size": 1, "shared_memory": "none", "seconds": 6.0} | dict(workload),
        "models": models,
    }
    return BenchResult(**(values | more))


def histogram(*counts, width_us=100.0):
    return Histogram(edges_us=tuple(width_us * edge for edge in range(len(counts) + 1)), counts=counts)


__all__ = ["Doubt", "Usage", "histogram", "latency", "point", "result", "side"]
