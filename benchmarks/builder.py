"""What `build-repo` takes: memory for a model above 2 GB, and time for a spec of many models.

    python benchmarks/builder.py big                # one model of 2.2 GB; about 3 minutes, 8 GB of disk, 6 GB of memory
    python benchmarks/builder.py many 10 50 200     # specs of so many small models; about 10 minutes

`build-repo` runs as a process of its own on a spec that is made for it in an empty folder. Its time is from its start
to its exit; its memory is the sum over it and all that it started, the server included (`benchmarks/memory.py` says
what is counted). What is printed was measured in that run: keep other work off the machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
if sys.path[0] == str(HERE):  # in which `import builder` would find this very file
    sys.path[0] = str(HERE.parent)

from benchmarks.memory import Peak, Sampler, Usage  # noqa: E402
from builder.host import host_facts, tool_versions  # noqa: E402

MIB = 1 << 20
SMALL = {"inputs": {"x": "float32[batch, 8]"}, "outputs": {"y": "float32[batch, 4]"}}
WIDE = '''
import torch


class Wide(torch.nn.Module):
    """A stack of square layers, as wide as it takes."""

    def __init__(self, width, layers):
        super().__init__()
        self.enter = torch.nn.Linear(8, width)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(layers))
        self.leave = torch.nn.Linear(width, 4)

    def forward(self, x):
        y = self.enter(x)
        for layer in self.layers:
            y = y + torch.relu(layer(y))
        return self.leave(y)


def build(width, layers):
    torch.manual_seed(0)
    return Wide(width, layers)
'''
SMALL_MODEL = '''
import torch


def build(width, layers):
    """A few layers of this width; their weights come from the checkpoint."""
    steps = [torch.nn.Linear(8, width)]
    for _ in range(layers):
        steps += [torch.nn.ReLU(), torch.nn.Linear(width, width)]
    return torch.nn.Sequential(*steps, torch.nn.ReLU(), torch.nn.Linear(width, 4))
'''


@dataclass(frozen=True)
class Run:
    """One run of `build-repo`.

    Attributes:
        seconds: from start to exit.
        processor_s: of all processors, used by it and all that it started; other work on the machine is not in it.
        models: its own report, a row for each model.
        peak: the most memory of all, bytes.
        stages: where one model was built, by stage: when it ended, the most memory, and who held it then. A stage's
            time is that of its end since the one before; starting up is in the first.
    """

    seconds: float
    processor_s: float
    models: list[dict[str, Any]]
    peak: Peak
    stages: dict[str, tuple[float, Peak, dict[str, Usage]]] = field(default_factory=dict)

    def count(self, status: str) -> int:
        """How many models ended so."""
        return sum(model["status"] == status for model in self.models)


def build_repo(folder: Path, *arguments: str, model: str = "") -> Run:
    """Run `build-repo` on the spec in a folder and watch its memory.

    Args:
        folder: where ``models.yaml`` is.
        arguments: further ones.
        model: keep peaks apart by the stages of this one.
    """
    command = [sys.executable, "-m", "builder.cli", "--format", "json", "-v", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    started, used_s = time.perf_counter(), processor_s()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    ended: list[tuple[str, float]] = []  # the stages that are over, and when
    said: list[str] = []

    def listen() -> None:
        for line in process.stderr or ():
            said.append(line)
            words = line.split()
            if model and words[:1] == [f"{model}:"] and words[2:3] != ["..."]:
                ended.append((words[1], time.perf_counter() - started))

    listener = threading.Thread(target=listen)
    with Sampler(process.pid, lambda: str(len(ended))) as sampler:
        listener.start()
        output = process.stdout.read()
        listener.join()
        status = process.wait()
    seconds, used_s = time.perf_counter() - started, processor_s() - used_s
    if status != 0:
        sys.exit(f"error: build-repo ended with status {status}\n{''.join(said)}{output}")
    stages = {}
    for number, (name, end) in enumerate([*ended, ("the end", seconds)]):
        stages[name] = (end, sampler.peaks.get(str(number), Peak()), sampler.holders.get(str(number), {}))
    return Run(seconds, used_s, json.loads(output)["models"], sampler.peak, stages if model else {})


def processor_s() -> float:
    """Processor time of all children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_spec(folder: Path, models: dict[str, Any], code: str) -> None:
    """A spec and the code beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(code)
    spec = {"repository": "model_repository", "models": models}
    (folder / "models.yaml").write_text(json.dumps(spec, indent=1))  # which is YAML, too


# --- one big model ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Big:
    """A model above 2 GB, built, and built again with nothing changed."""

    source: str
    size_bytes: int
    run: Run
    noop: Run

    @property
    def ratio(self) -> float:
        """Peak memory over the model's size."""
        return self.run.peak.total / self.size_bytes


def big(folder: Path, gigabytes: float, layers: int) -> Iterator[Big]:
    """Build it from a module; then take what was exported as an existing ONNX file."""
    width = int((gigabytes * 1e9 / 4 / layers) ** 0.5) // 8 * 8
    made = {"source": {"python": "model.py:build", "args": {"width": width, "layers": layers}}, **SMALL}
    write_spec(folder / "module", {"wide": {**made, "batch": {"max": 8}}}, WIDE)
    yield _big(folder / "module", "a torch module", "wide")
    shutil.rmtree(folder / "module/.build")
    exported = next((folder / "module/model_repository/wide").glob("[0-9]*/model.onnx"))
    write_spec(folder / "file", {"wide": {"source": {"onnx": str(exported)}, "batch": {"max": 8}}}, "")
    yield _big(folder / "file", "an existing ONNX file", "wide")


def _big(folder: Path, source: str, model: str) -> Big:
    run, noop = build_repo(folder, model=model), build_repo(folder)
    expect(run, built=1)
    expect(noop, built=0)
    files = next((folder / "model_repository" / model).glob("[0-9]*/model.onnx")).parent.glob("model.onnx*")
    return Big(source, sum(file.stat().st_size for file in files), run, noop)


def show_big(result: Big) -> None:
    """By stage: the peak with and without mapped files, in GB and in model sizes, and who held it."""
    size, run = result.size_bytes, result.run
    took = (
        f"{run.seconds:.0f} s ({run.processor_s:.0f} s of processor), with nothing changed {result.noop.seconds:.1f} s"
    )
    print(f"\n{size / 1e9:.2f} GB from {result.source}: {took}")
    print(
        "  stage       seconds   peak, GB   / model   anonymous, GB   / model   held by (anonymous + mapped files, GB)"
    )
    before = 0.0
    rows = [*run.stages.items(), ("all of it", (run.seconds, run.peak, {}))]
    for name, (end, peak, holders) in rows:
        seconds, before = (run.seconds if name == "all of it" else end - before), end
        largest = sorted(holders.items(), key=lambda item: -item[1].total)[:3]
        held = ", ".join(f"{who} {u.anonymous / 1e9:.2f} + {u.file_backed / 1e9:.2f}" for who, u in largest)
        print(
            f"  {name:10s}  {seconds:7.1f}  {peak.total / 1e9:9.2f}  {peak.total / size:8.2f}"
            f"  {peak.anonymous / 1e9:14.2f}  {peak.anonymous / size:8.2f}   {held}"
        )
    print(f"  peak / model size: {result.ratio:.2f}   (limit: 2.5)")


# --- many small models ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Many:
    """A spec of so many models: the runs of `build-repo` on it."""

    count: int
    full: Run
    noop: list[Run]
    one_changed: Run

    @property
    def noop_s(self) -> float:
        """Median."""
        return statistics.median(run.seconds for run in self.noop)


def write_weights(folder: Path, index: int, seed: int) -> None:
    """The checkpoint of one model, without torch."""
    from safetensors.numpy import save_file

    width, layers = sizes(index)
    random = np.random.default_rng(seed)
    widths = [8, *[width] * (layers + 1), 4]
    state = {}
    for step, (before, after) in enumerate(itertools.pairwise(widths)):
        scale = np.float32(before**-0.5)
        state[f"{2 * step}.weight"] = random.standard_normal((after, before), dtype=np.float32) * scale
        state[f"{2 * step}.bias"] = random.standard_normal(after, dtype=np.float32) * scale
    save_file(state, folder / weights_of(index))


def sizes(index: int) -> tuple[int, int]:
    """Width and inner layers: no two models alike."""
    return 8 + index, 1 + index % 3


def weights_of(index: int) -> str:
    """Name of a checkpoint."""
    return f"model_{index:03d}.safetensors"


def many(folder: Path, count: int, arguments: Sequence[str] = ()) -> Many:
    """Build all, build again with nothing changed, change the weights of one and build again.

    Raises:
        SystemExit: other models were built than should have been.
    """
    models = {}
    for index in range(count):
        width, layers = sizes(index)
        source = {"checkpoint": weights_of(index), "factory": "model.py:build"}
        models[f"model_{index:03d}"] = {"source": {**source, "args": {"width": width, "layers": layers}}, **SMALL}
    write_spec(folder, models, SMALL_MODEL)
    for index in range(count):
        write_weights(folder, index, seed=index)
    full = build_repo(folder, *arguments)
    expect(full, built=count)
    noop = [build_repo(folder, *arguments) for _ in range(3)]
    for run in noop:
        expect(run, built=0)
    write_weights(folder, count // 2, seed=count)
    changed = build_repo(folder, *arguments)
    expect(changed, built=1)
    (row,) = (row for row in changed.models if row["status"] == "built")
    if row["model"] != f"model_{count // 2:03d}":
        sys.exit(f"error: {row['model']} was built, though the weights of another model were changed")
    return Many(count, full, noop, changed)


def expect(run: Run, *, built: int) -> None:
    """So many were built, and the rest was up to date; anything else is no benchmark."""
    if (run.count("built"), run.count("up to date")) != (built, len(run.models) - built):
        statuses = {status: run.count(status) for status in ("built", "up to date", "failed")}
        sys.exit(f"error: {built} of {len(run.models)} models should have been built: {statuses}")


def show_many(results: Sequence[Many]) -> None:
    """One row for each spec, and the growth between the two largest."""
    print(
        "\nspecs of small models (8 inputs, 4 outputs, 3 to 5 layers, a checkpoint each), s of wall time (of processor)"
    )
    print(
        "  models   build all     each   nothing changed, median of 3       one changed   peak memory, GB (anonymous)"
    )
    for r in results:
        peak, processor = r.full.peak, statistics.median(run.processor_s for run in r.noop)
        everything = f"{r.full.seconds:.0f} ({r.full.processor_s:.0f})"
        runs = f"{r.noop_s:.2f} ({processor:.2f}): " + ", ".join(f"{run.seconds:.2f}" for run in r.noop)
        one = f"{r.one_changed.seconds:.1f} ({r.one_changed.processor_s:.1f})"
        print(
            f"  {r.count:6d}   {everything:9s}  {r.full.seconds / r.count:7.2f}   {runs:31s}   {one:11s}"
            f"   {peak.total / 1e9:.2f} ({peak.anonymous / 1e9:.2f})"
        )
    if len(results) > 1:
        small, large = results[-2:]
        print(
            f"  from {small.count} to {large.count} models ({large.count / small.count:.1f} times): build all "
            f"{large.full.seconds / small.full.seconds:.1f} times (processor "
            f"{large.full.processor_s / small.full.processor_s:.1f}), nothing changed "
            f"{large.noop_s / small.noop_s:.1f} times, peak memory "
            f"{large.full.peak.total / small.full.peak.total:.2f} times"
        )


# --- the command ------------------------------------------------------------------------------------------------


@contextmanager
def workplace(chosen: Path | None, need_bytes: int) -> Iterator[Path]:
    """An empty folder with enough room, removed afterwards."""
    base = Path(tempfile.mkdtemp(prefix="bench-builder-", dir=chosen))
    try:
        free = shutil.disk_usage(base).free
        if free < need_bytes:
            sys.exit(f"error: {base} has {free / 1e9:.1f} GB free, this needs {need_bytes / 1e9:.1f} (see --folder)")
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def machine() -> dict[str, Any]:
    """What the figures were measured on, and what else was running."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        **host_facts(),
        **tool_versions("torch", "onnxruntime"),
        "memory_gb": round(memory / 1e9, 1),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    """Arguments, measurements, tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to work (default: the folder for temporary files)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("big", help="one model above 2 GB")
    one.add_argument("--gigabytes", type=float, default=2.2, help="size of its weights (default: 2.2)")
    one.add_argument("--layers", type=int, default=16, help="how many layers they are in (default: 16)")
    several = commands.add_parser("many", help="specs of many small models")
    several.add_argument("counts", type=int, nargs="*", default=[10, 50, 200], help="default: 10 50 200")
    several.add_argument("--jobs", type=int, help="passed on to build-repo")
    chosen = parser.parse_args()
    facts = machine()
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    data: dict[str, Any] = {"machine": facts}
    if chosen.command == "big":
        with workplace(chosen.folder, int(chosen.gigabytes * 3.6e9)) as folder:
            data["big"] = []
            for result in big(folder, chosen.gigabytes, chosen.layers):
                show_big(result)
                data["big"].append({**asdict(result), "ratio": result.ratio})
    else:
        arguments = ["--jobs", str(chosen.jobs)] if chosen.jobs else []
        with workplace(chosen.folder, 50 * MIB + MIB * sum(chosen.counts)) as folder:
            results = [many(folder / str(count), count, arguments) for count in chosen.counts]
        show_many(results)
        data["many"] = [asdict(result) for result in results]
    if chosen.json:
        chosen.json.write_text(json.dumps(data, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
