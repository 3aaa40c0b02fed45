"""A load that never stops, while new versions of its model are published and one is rolled back: what does it notice?

    python benchmarks/update_under_load.py             # about six minutes on two idle cores
    python benchmarks/update_under_load.py --quick     # two versions each, about three
    python benchmarks/update_under_load.py --json figures.json

perf_analyzer sends requests at a fixed rate, over HTTP and over gRPC at the same time. Meanwhile a spec is built again
and again with other weights, each time through all stages on the same cores, and the server is brought to the result:

- ``explicit``: ``build-repo --reload``, and ``build-repo --rollback --reload`` at the end;
- ``poll``: ``build-repo`` and ``build-repo --rollback``, to a server that follows the repository;
- ``unload first``: the new version replaces the old one by unload and load, as other tools do. It shows that lost
  requests are seen here when there are any: perf_analyzer gives up at the first.

Printed are requests, failures, and latency: without updates, while a version is built and verified beside the server,
and while the server is brought to it. Every request between the first and the last window edge of perf_analyzer counts,
and those that the server itself counted as failed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # instead of this folder, in which `import serving` would find serving.py

from builder.api import build_all, load_spec  # noqa: E402
from builder.live.updating import reload_published, rollback_on  # noqa: E402
from builder.options import Options  # noqa: E402
from builder.repository.managing import rollback  # noqa: E402
from perf.binary import Binary, find_binary  # noqa: E402
from perf.environment import load_1min, machine_facts  # noqa: E402
from perf.parse import strip_tensors  # noqa: E402
from serving import Client, Server  # noqa: E402
from serving.errors import TritonRepoError  # noqa: E402

NAME, INPUTS, WIDTH, DEPTH, OUTPUTS = "mlp", 16, 1024, 3, 10  # few inputs: perf_analyzer exports them as text
SPEC = f"""
models:
  {NAME}:
    source: {{onnx: model.onnx}}
    inputs: {{x: "float32[batch, {INPUTS}]"}}
    outputs: {{y: "float32[batch, {OUTPUTS}]"}}
    batch: {{max: 8}}
"""
MODES = ("explicit", "poll", "unload first")
PROTOCOLS = ("http", "grpc")
NS_PER_S = 1_000_000_000
LEAD_S, TAIL_S = 12.0, 5.0
WINDOWS = 3  # what perf_analyzer takes at least; its figures are over these three together


@dataclass
class Phase:
    """What was done from when to when, nanoseconds since the epoch."""

    what: str
    start_ns: int
    end_ns: int


@dataclass
class Latency:
    """Milliseconds, of the requests that were under way in one kind of phase."""

    requests: int
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass
class Outcome:
    """One protocol in one mode.

    Attributes:
        failures: requests without an answer; and what perf_analyzer says when it gives up at the first.
    """

    mode: str
    protocol: str
    requests: int = 0
    failures: int = 0
    gave_up: str = ""
    latency: dict[str, Latency] = field(default_factory=dict)


@dataclass
class Scene:
    """A project, its server, and what is done to it while the load runs."""

    mode: str
    folder: Path
    server: Server
    phases: list[Phase] = field(default_factory=list)

    @property
    def repository(self) -> Path:
        """The model repository of both."""
        return self.server.repositories[0]

    @contextlib.contextmanager
    def phase(self, what: str) -> Iterator[None]:
        """Remember when something was done."""
        start_ns = time.time_ns()
        try:
            yield
        finally:
            self.phases.append(Phase(what, start_ns, time.time_ns()))

    def publish(self, version: int) -> None:
        """Build other weights, and bring the server to them."""
        write_model(self.folder / "model.onnx", seed=version)
        with self.phase("build"):
            reports = build_all([load_spec(self.folder / "models.yaml")], options=Options(activate=self.mode == "poll"))
            (result,) = reports[0].models
            if result.status != "built" or result.version != version:
                raise SystemExit(f"version {version} was not built: {result}")
        with self.phase("update"):
            if self.mode == "explicit":
                report = reload_published(reports, f"grpc://{self.server.grpc_url}")
                if not report.ok:
                    raise SystemExit("\n".join(report.errors()))
            elif self.mode == "poll":
                self.await_version(version)
            else:
                self.replace(version)

    def roll_back(self, version: int) -> None:
        """To an older version."""
        with self.phase("update"):
            if self.mode == "explicit":
                rollback_on(f"grpc://{self.server.grpc_url}", self.repository, NAME, version)
            elif self.mode == "poll":
                rollback(self.repository, NAME, version)
                self.await_version(version)
            else:
                self.replace(version)

    def replace(self, version: int) -> None:
        """The old version away, then the new one there."""
        rollback(self.repository, NAME, version)
        with Client(f"grpc://{self.server.grpc_url}") as client:
            client.unload(NAME)
            client.load(NAME)

    def await_version(self, version: int) -> None:
        """Until the server serves it, and it alone."""
        with Client(f"grpc://{self.server.grpc_url}") as client:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                rows = [row for row in client.index() if row["name"] == NAME and row["state"] in ("READY", "UNLOADING")]
                if [(row["version"], row["state"]) for row in rows] == [(str(version), "READY")]:
                    return
                time.sleep(0.05)
        raise SystemExit(f"version {version} is not served after 120 s: {rows}")


def write_model(path: Path, *, seed: int) -> None:
    """An MLP of 13 MB whose weights depend on the seed."""
    random = np.random.default_rng(seed)
    sizes = [INPUTS] + [WIDTH] * (DEPTH + 1) + [OUTPUTS]
    nodes, weights, at = [], [], "x"
    for layer, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        array = random.standard_normal((rows, columns), dtype=np.float32) / np.float32(rows) ** 0.5
        weights.append(numpy_helper.from_array(array, f"w{layer}"))
        last = layer == len(sizes) - 2
        nodes.append(helper.make_node("MatMul", [at, f"w{layer}"], ["y" if last else f"m{layer}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"r{layer}"]))
        at = f"r{layer}"
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", INPUTS), ("y", OUTPUTS))
    ]
    graph = helper.make_graph(nodes, "mlp", tensors[:1], tensors[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


# -- the load ---------------------------------------------------------------------------------------------------------


class Load:
    """perf_analyzer over one protocol, for a known time."""

    def __init__(
        self, binary: Binary, server: Server, protocol: str, folder: Path, *, rate: int, seconds: float
    ) -> None:
        self.protocol = protocol
        self.folder = folder
        folder.mkdir()
        url = server.http_url if protocol == "http" else server.grpc_url
        command = [str(binary.path), "-m", NAME, "-u", url, "-i", protocol, "--service-kind", "triton", "-v"]
        command += ["--request-rate-range", str(rate), "--measurement-mode", "time_windows"]
        command += ["--measurement-interval", str(round(seconds / WINDOWS * 1000)), "--max-trials", str(WINDOWS)]
        command += ["--stability-percentage", "1000000", "--profile-export-file", "raw.json", "-f", "out.csv"]
        self._out = (folder / "stdout.txt").open("wb")
        self._err = (folder / "stderr.txt").open("wb")
        self._process = subprocess.Popen(
            command, cwd=folder, env=binary.environment(), stdout=self._out, stderr=self._err, start_new_session=True
        )

    def wait(self, timeout_s: float) -> str:
        """Empty when it measured to the end, else what it said."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = -1
        finally:
            self.end()
        if status == 0 and (self.folder / "raw.json").is_file():
            return ""
        said = [line for name in ("stderr.txt", "stdout.txt") for line in (self.folder / name).read_text().splitlines()]
        reasons = [line for line in said if line.startswith("Thread")] or [line for line in said if "rror" in line]
        return (reasons or [f"perf_analyzer ended with status {status}"])[0].strip()

    def end(self) -> None:
        """Whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()
        self._out.close()
        self._err.close()

    def requests(self) -> tuple[NDArray[np.int64], NDArray[np.int64], int, tuple[int, int]]:
        """Start and end of each answered request, how many had no answer, and from when to when was measured."""
        strip_tensors(self.folder / "raw.json", self.folder / "profile.json")
        (experiment,) = json.loads((self.folder / "profile.json").read_text())["experiments"]
        rows = [(row["timestamp"], row["response_timestamps"]) for row in experiment["requests"]]
        answered = [(start, ends[-1]) for start, ends in rows if ends]
        edges = experiment["window_boundaries"]
        starts, ends = np.array(answered, dtype=np.int64).T
        return starts, ends, len(rows) - len(answered), (edges[0], edges[-1])


def latencies(starts: NDArray[np.int64], ends: NDArray[np.int64], phases: Sequence[Phase]) -> dict[str, Latency]:
    """By what was done while a request was under way; an update counts before a build."""
    kind = np.full(len(starts), "quiet", dtype="<U6")
    for what in ("build", "update"):
        for phase in phases:
            if phase.what == what:
                kind[(ends >= phase.start_ns) & (starts <= phase.end_ns)] = what
    found = {}
    for what in ("quiet", "build", "update"):
        chosen = (ends - starts)[kind == what] / 1e6
        if chosen.size:
            p50, p99 = np.percentile(chosen, [50, 99])
            found[what] = Latency(int(chosen.size), float(p50), float(p99), float(chosen.max()))
    return found


# -- a run ------------------------------------------------------------------------------------------------------------


def run(mode: str, versions: int, rate: int, say: Callable[[str], None]) -> list[Outcome]:
    """One mode from the first build to the rollback."""
    with tempfile.TemporaryDirectory(prefix="update-bench-") as name:
        folder = Path(name)
        (folder / "models.yaml").write_text(SPEC)
        write_model(folder / "model.onnx", seed=1)
        began = time.monotonic()
        build_all([load_spec(folder / "models.yaml")])
        one_s = time.monotonic() - began
        control = "poll" if mode == "poll" else "explicit"
        load = [] if mode == "poll" else [NAME]
        with Server(folder / "model_repository", model_control_mode=control, load=load) as server:
            scene = Scene(mode, folder, server)
            seconds = LEAD_S + TAIL_S + versions * (2.5 * one_s + 15) + 15
            say(f"{mode}: {seconds:.0f} s of load, {rate} requests/s over each protocol")
            binary = find_binary()
            loads = [Load(binary, server, p, folder / p, rate=rate, seconds=seconds) for p in PROTOCOLS]
            try:
                time.sleep(LEAD_S)
                for version in range(2, versions + 2):
                    scene.publish(version)
                    say(f"{mode}: version {version} serves")
                scene.roll_back(versions)
                say(f"{mode}: rolled back to version {versions}")
                ended_ns = time.time_ns()
                reasons = [load.wait(seconds * 2 + 120) for load in loads]
            finally:
                for each in loads:
                    each.end()
            refused = failed_at_the_server(server)
        return [outcome(scene, load, reason, ended_ns, refused) for load, reason in zip(loads, reasons, strict=True)]


def outcome(scene: Scene, load: Load, reason: str, ended_ns: int, refused: int) -> Outcome:
    """What one protocol's load saw."""
    result = Outcome(scene.mode, load.protocol, gave_up=reason, failures=1 if reason else 0)
    if not reason:
        starts, ends, unanswered, (first_ns, last_ns) = load.requests()
        if not first_ns < min(phase.start_ns for phase in scene.phases) <= ended_ns < last_ns:
            raise SystemExit(f"{scene.mode}: the updates lasted longer than the load; run it on an idle machine")
        result.requests, result.failures = len(starts) + unanswered, unanswered + refused
        result.latency = latencies(starts, ends, scene.phases)
    return result


def failed_at_the_server(server: Server) -> int:
    """Requests for the model that the server counted as failed, of all versions."""
    text = urllib.request.urlopen(server.metrics_url, timeout=10).read().decode()
    rows = re.findall(r'^nv_inference_request_failure\{.*?model="(.*?)".*?\} (\d+)', text, re.M)
    return sum(int(count) for model, count in rows if model == NAME)


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown."""
    lines = [
        "| server | protocol | requests | failed | no update | a build at work | the update itself |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in outcomes:
        failed = "gave up at the first" if each.gave_up else str(each.failures)
        cells = [each.mode, each.protocol, str(each.requests or ""), failed]
        for what in ("quiet", "build", "update"):
            one = each.latency.get(what)
            cells.append(f"{one.p50_ms:.1f} / {one.p99_ms:.1f} / {one.max_ms:.0f} ({one.requests})" if one else "")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\n{each.mode}, {each.protocol}: {each.gave_up}" for each in outcomes if each.gave_up]
    return "\n".join(lines)


def main() -> int:
    """Run every mode; exit status 1 if a request was lost where none may be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two versions instead of five")
    parser.add_argument("--mode", choices=MODES, action="append", help="only this one; repeatable")
    parser.add_argument("--rate", type=int, default=100, help="requests per second over each protocol (100)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    versions = 2 if arguments.quick else 5
    before = load_1min()
    lock = threading.Lock()

    def say(line: str) -> None:
        with lock:
            print(line, file=sys.stderr, flush=True)

    try:
        outcomes = [
            each
            for mode in arguments.mode or MODES
            for each in run(mode, 1 if mode == "unload first" else versions, arguments.rate, say)
        ]
    except TritonRepoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    machine: dict[str, Any] = machine_facts()
    print(
        f"{machine['cpu']}, {machine['cores_usable']} cores, load average {before:.1f} before, {load_1min():.1f} after"
    )
    print(f"{versions} versions published and one rolled back under {arguments.rate} requests/s over each protocol\n")
    print(table(outcomes))
    print("\nLatency in ms: p50 / p99 / max (requests)")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "outcomes": [asdict(o) for o in outcomes]}, indent=2))
    counted = [each for each in outcomes if each.mode != "unload first"]
    lost = sum(each.failures for each in counted)
    if counted:
        print(f"\nexplicit and poll mode: {lost} of {sum(each.requests for each in counted)} requests lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
