"""How much of ONNX Runtime's speed the embedded server leaves, and where the time of one tiny request goes.

    python benchmarks/serving.py             # under six minutes
    python benchmarks/serving.py --quick     # a look

MiniLM and EfficientNet: samples per second of the server against those of ONNX Runtime alone in this process, each at
its best batch, with as many sessions as cores and one thread each; rounds alternate, and the figure is the ratio of
medians. The digits model: what one request costs over HTTP and gRPC, and what of it is whose. Every ONNX file comes
from ``model_repository/`` (``make demo`` builds it); requests are random numbers of fixed shapes. What is printed was
measured in that run: keep other work off the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import psutil

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # instead of this folder, in which `import serving` would find this very file

from perf import Point, bench  # noqa: E402
from serving import Client, Server, find_runtime  # noqa: E402

CORES = len(os.sched_getaffinity(0))
CONFIG = """backend: "onnxruntime"
max_batch_size: 64
{scheduler}
instance_group [ {{ count: {instances} kind: KIND_CPU }} ]
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
{tensors}"""
NUMPY = {"tensor(float)": ("TYPE_FP32", np.float32), "tensor(int64)": ("TYPE_INT64", np.int64)}


@dataclass(frozen=True)
class Subject:
    """One model: the dimensions of its inputs without the batch, the batches to try, and how the server batches."""

    name: str
    dims: dict[str, tuple[int, ...]]
    batches: tuple[int, ...]
    scheduler: str = ""


LARGE = (
    Subject("minilm", {"input_ids": (64,), "attention_mask": (64,)}, (1, 4, 8, 16)),
    Subject("efficientnet", {"image": (3, 224, 224)}, (1, 2, 4, 8)),
)
TINY = Subject("digits", {"image": (1, 8, 8)}, (1, 32), "dynamic_batching { }")


@dataclass
class Budget:
    """How long and how often to measure."""

    rounds: int
    seconds: float
    trial_seconds: float


@dataclass
class Comparison:
    """Samples per second of one model, round by round."""

    model: str
    raw_batch: int
    server_batch: int
    raw: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Server over raw, medians."""
        return statistics.median(self.server) / statistics.median(self.raw)


# --- ONNX Runtime alone -----------------------------------------------------------------------------------------


class Raw:
    """ONNX Runtime in this process: one session with one thread for each worker, all on the same cores."""

    def __init__(self, subject: Subject, model: Path, workers: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.sessions = [ort.InferenceSession(str(model), options) for _ in range(workers)]
        self.subject = subject

    def feed(self, batch: int) -> dict[str, np.ndarray[Any, Any]]:
        """Random floats and zeros for integers, as perf_analyzer's requests are here."""
        random = np.random.default_rng(0)
        feed = {}
        for node in self.sessions[0].get_inputs():
            shape = (batch, *self.subject.dims[node.name])
            kind = NUMPY[node.type][1]
            feed[node.name] = (random.random(shape) if kind is np.float32 else np.zeros(shape)).astype(kind)
        return feed

    def throughput(self, batch: int, seconds: float) -> float:
        """Samples per second of all workers together."""
        feed, counts = self.feed(batch), [0] * len(self.sessions)
        end = time.perf_counter() + seconds

        def work(index: int) -> None:
            while time.perf_counter() < end:
                self.sessions[index].run(None, feed)
                counts[index] += batch

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(self.sessions))]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.perf_counter() - started)


# --- the server -------------------------------------------------------------------------------------------------


def newest(repository: Path, model: str) -> Path:
    """The ONNX file of a model's newest version."""
    versions = list((repository / model).glob("[0-9]*/model.onnx"))
    if not versions:
        sys.exit(f"error: no {model} in {repository}: build the examples first (make demo)")
    return max(versions, key=lambda path: int(path.parent.name))


def add_model(folder: Path, subject: Subject, model: Path, instances: int) -> None:
    """The same ONNX file, with the benchmark's own configuration."""
    version = folder / subject.name / "1"
    version.mkdir(parents=True)
    for path in model.parent.glob("model.onnx*"):
        (version / path.name).symlink_to(path.resolve())
    session = ort.InferenceSession(str(model))
    inputs = [(node.name, NUMPY[node.type][0], subject.dims[node.name]) for node in session.get_inputs()]
    outputs = [(node.name, NUMPY[node.type][0], node.shape[1:]) for node in session.get_outputs()]
    tensors = "".join(
        f"{role} [ "
        + ", ".join(f'{{ name: "{name}" data_type: {kind} dims: {list(dims)} }}' for name, kind, dims in values)
        + " ]\n"
        for role, values in (("input", inputs), ("output", outputs))
    )
    (version.parent / "config.pbtxt").write_text(
        CONFIG.format(scheduler=subject.scheduler, instances=instances, tensors=tensors)
    )


@contextmanager
def served(subject: Subject, model: Path, instances: int, **server: Any) -> Iterator[Server]:
    """One model in a server of its own."""
    with tempfile.TemporaryDirectory() as folder:
        add_model(Path(folder), subject, model, instances)
        with Server(folder, **server) as running:
            yield running


def measure(server: Server, subject: Subject, protocol: str, concurrency: int, batch: int, seconds: float) -> Point:
    """One point with perf_analyzer; tensors of more than 64 KiB go through system shared memory."""
    sizes = [4 * batch * int(np.prod(dims)) for dims in subject.dims.values()]
    address = server.grpc_url if protocol == "grpc" else server.http_url
    for window in (seconds, 4 * seconds, 16 * seconds):  # a longer one where no answer came in time
        result = bench(
            url=f"{protocol}://{address}",
            models=[subject.name],
            concurrency=[concurrency],
            batch_size=batch,
            seconds=window,
            shared_memory="system" if max(sizes) > 1 << 16 else "none",
        )
        if result.points and result.points[0].ok:
            return result.points[0]
    sys.exit(f"error: {subject.name} could not be measured: {result.model_dump_json()}")


# --- large models -----------------------------------------------------------------------------------------------


def compare(subject: Subject, model: Path, budget: Budget) -> Comparison:
    """Each at the batch that is best for it, then in turns."""
    raw = Raw(subject, model, CORES)
    with served(subject, model, CORES) as server:

        def throughput(batch: int, seconds: float) -> float:
            return measure(server, subject, "grpc", 2 * CORES, batch, seconds).inferences_per_s or 0.0

        raw_best = max(subject.batches, key=lambda batch: raw.throughput(batch, budget.trial_seconds))
        server_best = max(subject.batches, key=lambda batch: throughput(batch, budget.trial_seconds))
        result = Comparison(subject.name, raw_best, server_best)
        for _ in range(budget.rounds):
            result.raw.append(raw.throughput(raw_best, budget.seconds))
            result.server.append(throughput(server_best, budget.seconds))
    return result


def spread(values: Sequence[float]) -> str:
    """Median, and the smallest and largest."""
    return f"{statistics.median(values):8.1f}  ({min(values):.1f} to {max(values):.1f})"


def show_comparison(result: Comparison) -> None:
    """Two lines and the ratio."""
    print(f"\n{result.model}, samples/s, {CORES} sessions with one thread each, {len(result.raw)} rounds")
    print(f"  onnxruntime alone  batch {result.raw_batch:2d}  {spread(result.raw)}")
    print(f"  embedded server    batch {result.server_batch:2d}  {spread(result.server)}")
    print(f"  ratio of medians   {result.ratio:.2f}   (aim: 0.90)")


# --- the tiny model ---------------------------------------------------------------------------------------------


@dataclass
class Cost:
    """Microseconds of one request (means; ``p50_us`` is the client's median), and processor time by process."""

    protocol: str
    concurrency: int
    requests_per_s: float
    mean_batch: float
    p50_us: float
    mean_us: float
    outside_us: float
    queue_us: float
    input_us: float
    infer_us: float
    output_us: float
    server_cpu_us: float
    stub_cpu_us: float
    client_cpu_us: float


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def request_cost(server: Server, subject: Subject, protocol: str, concurrency: int, seconds: float) -> Cost:
    """What a request costs at this concurrency, and where: from the client, from Triton, from the kernel."""
    triton = psutil.Process(server.pid)
    stubs = triton.children()

    def used() -> tuple[float, float, float]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return cpu_seconds(triton), sum(map(cpu_seconds, stubs)), children.ru_utime + children.ru_stime

    before, answered = used(), statistics_of(server, subject.name)
    point = measure(server, subject, protocol, concurrency, 1, seconds)
    after, requests = used(), statistics_of(server, subject.name) - answered
    assert point.latency is not None and point.server is not None
    cpu = [(end - start) * 1e6 / requests for start, end in zip(before, after, strict=True)]
    side = point.server
    inside = [side.queue_us or 0, side.compute_input_us or 0, side.compute_infer_us or 0, side.compute_output_us or 0]
    mean_us = point.latency.mean_us
    return Cost(
        protocol,
        concurrency,
        point.inferences_per_s or 0.0,
        side.mean_batch or 0.0,
        point.latency.p50_us,
        mean_us,
        mean_us - sum(inside),
        *inside,
        *cpu,
    )


def statistics_of(server: Server, model: str) -> int:
    """Requests answered so far."""
    with Client(f"grpc://{server.grpc_url}") as client:
        return int(client.statistics(model)[0]["inference_stats"]["success"]["count"])


def medians(costs: Sequence[Cost]) -> Cost:
    """Field by field over the rounds."""
    first = costs[0]
    numbers = {
        name: statistics.median(getattr(cost, name) for cost in costs)
        for name, value in asdict(first).items()
        if isinstance(value, float)
    }
    return replace(first, **numbers)


@dataclass
class StubTimes:
    """Microseconds of Python in the stub for one execution, by the number of requests in it."""

    requests: int
    executions: int
    execute_us: float
    run_us: float


def stub_times(subject: Subject, model: Path, seconds: float) -> list[StubTimes]:
    """A second server whose backend takes the time of ``execute`` and of ONNX Runtime's own run within it."""
    runtime = find_runtime()
    if runtime.backend_dir is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        backends, times = Path(folder, "backends"), Path(folder, "times.json")
        shutil.copytree(runtime.backend_dir, backends)
        ours = backends / "onnxruntime"
        (ours / "model.py").rename(ours / "untimed_model.py")
        (ours / "model.py").write_text((HERE / "timed_backend.py").read_text().replace("TIMES_JSON", str(times)))
        with served(subject, model, 1, runtime=replace(runtime, backend_dir=backends)) as server:
            measure(server, subject, "http", 1, 1, seconds)
            measure(server, subject, "grpc", 32, 1, seconds)
        entries = [StubTimes(**entry) for entry in json.loads(times.read_text())]
    return sorted(entries, key=lambda entry: entry.requests)


def tiny(subject: Subject, model: Path, budget: Budget) -> tuple[list[Cost], list[StubTimes], dict[int, float]]:
    """Rounds over protocols and concurrencies; the stub's times; what ONNX Runtime alone takes for one sample."""
    points = [("http", 1), ("grpc", 1), ("http", 32), ("grpc", 32)]
    rounds: dict[tuple[str, int], list[Cost]] = {point: [] for point in points}
    with served(subject, model, 1) as server:
        for _ in range(budget.rounds):
            for protocol, concurrency in points:
                cost = request_cost(server, subject, protocol, concurrency, budget.seconds)
                rounds[protocol, concurrency].append(cost)
    raw = Raw(subject, model, 1)
    alone = {batch: 1e6 / raw.throughput(batch, budget.trial_seconds) for batch in subject.batches}
    return [medians(costs) for costs in rounds.values()], stub_times(subject, model, budget.trial_seconds), alone


def show_tiny(costs: Sequence[Cost], stub: Sequence[StubTimes], alone: dict[int, float], rounds: int) -> None:
    """Where one request's time goes."""
    print(f"\n{TINY.name}, one sample a request, one instance with one thread, medians of {rounds} rounds")
    print("  wall time of a request, us (Triton's statistics; `client, wire` is the rest of the client's mean)")
    print("  protocol  in flight  requests/s  batch    p50   mean  client, wire  queue  input  infer  output")
    for c in costs:
        print(
            f"  {c.protocol:8s}  {c.concurrency:9d}  {c.requests_per_s:10.0f}  {c.mean_batch:5.1f}  {c.p50_us:5.0f}"
            f"  {c.mean_us:5.0f}  {c.outside_us:12.0f}  {c.queue_us:5.0f}  {c.input_us:5.0f}  {c.infer_us:5.0f}"
            f"  {c.output_us:6.0f}"
        )
    print("  processor time of a request, us")
    print("  protocol  in flight  client  server  stub")
    for c in costs:
        print(
            f"  {c.protocol:8s}  {c.concurrency:9d}  {c.client_cpu_us:6.0f}  {c.server_cpu_us:6.0f}"
            f"  {c.stub_cpu_us:4.0f}"
        )
    for entry in stub:
        share = f"{entry.execute_us - entry.run_us:.0f} us is the backend's own"
        print(
            f"  stub: execute() with {entry.requests:2d} requests takes {entry.execute_us:.0f} us, of which {share}"
            f"  ({entry.executions} executions)"
        )
    for batch, us in alone.items():
        print(f"  onnxruntime alone, batch {batch:2d}: {us:.1f} us a sample")


def main() -> int:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=HERE.parent / "model_repository", help="built examples")
    parser.add_argument("--models", nargs="*", default=["minilm", "efficientnet", "digits"], help="which of the three")
    parser.add_argument("--quick", action="store_true", help="two short rounds of each")
    parser.add_argument("--json", type=Path, help="write all figures here")
    args = parser.parse_args()
    budget = Budget(2, 1.5, 0.8) if args.quick else Budget(5, 3.0, 1.5)
    print(f"{CORES} cores, load average {os.getloadavg()[0]:.1f}, onnxruntime {ort.__version__}")
    print(find_runtime().describe())
    figures: dict[str, Any] = {"cores": CORES, "load_average": os.getloadavg()[0], "budget": asdict(budget)}
    for subject in LARGE:
        if subject.name in args.models:
            result = compare(subject, newest(args.repository, subject.name), budget)
            show_comparison(result)
            figures[subject.name] = {**asdict(result), "ratio": result.ratio}
    if TINY.name in args.models:
        costs, stub, alone = tiny(TINY, newest(args.repository, TINY.name), budget)
        show_tiny(costs, stub, alone, budget.rounds)
        figures[TINY.name] = {"costs": [*map(asdict, costs)], "stub": [*map(asdict, stub)], "alone_us": alone}
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
