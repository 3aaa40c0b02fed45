"""What each precision brings on an NVIDIA GPU: served by Triton, against PyTorch in this process, in one run.

    python benchmarks/gpu.py                          # on a machine with a GPU: writes benchmarks/gpu.md
    python benchmarks/gpu.py --device cpu --short     # anywhere: proves this script, writes nothing

EfficientNet-Lite0 and MiniLM with their weights, ResNet-50 with random ones, as fp32, fp16, bf16 and int8 (Q/DQ,
symmetric, calibrated on the requests) through ONNX Runtime's CUDA provider in Triton; against them eager PyTorch and
``torch.compile``, in fp32 and under autocast. All are measured in rounds, in turn: Triton's models by perf_analyzer
with as many requests in flight as two batches, PyTorch at that batch. Figures are medians with 95% intervals; the
cosine is against fp32 in PyTorch. The recipes are plain ones: what int8 may cost in accuracy is build-repo's business.

It needs torch with CUDA and a Triton whose ONNX Runtime has the CUDA provider: NVIDIA's container, or the embedded
server with ``onnxruntime-gpu`` in its environment (``serve-repo doctor`` shows where that is).
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # instead of this folder, in which `import serving` would find serving.py

from builder.config import ModelConfig, render  # noqa: E402
from builder.config.accelerators import accelerator_fields  # noqa: E402
from builder.precision.apply import apply  # noqa: E402
from builder.precision.prepare import prepared  # noqa: E402
from builder.precision.recipe import Recipe  # noqa: E402
from perf.interleaved import Rounds, measure_interleaved, subject_of  # noqa: E402
from perf.intervals import Interval, median_with_interval  # noqa: E402
from perf.target import Target  # noqa: E402
from serving import Client, Server, find_runtime  # noqa: E402
from serving.progress import Progress  # noqa: E402

REPORT = ROOT / "benchmarks/gpu.md"
SEQUENCE = 64
RECIPES = {
    "fp16": Recipe("fp16", "cast"),
    "bf16": Recipe("bf16", "cast"),
    "int8": Recipe("int8", "static", options={"activation": "s8", "symmetric": True}),
}
AUTOCAST = {"fp32": None, "fp16": "float16", "bf16": "bfloat16"}
Request = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """One model: its module, how a batch of requests looks, and the name of its output."""

    name: str
    load: Callable[[], Any]
    request: Callable[[int], Request]
    output: str
    dims: tuple[int, ...]


def _example(name: str) -> Any:
    import importlib.util

    spec = importlib.util.spec_from_file_location(f"{name}_model", ROOT / f"examples/{name}/model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


def _resnet50() -> Any:
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    class Logits(torch.nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, image: Any) -> Any:
            return self.inner(pixel_values=image).logits

    torch.manual_seed(0)
    return Logits(ResNetForImageClassification(ResNetConfig(num_labels=1000))).eval()


def _images(batch: int) -> Request:
    return {"image": np.random.default_rng(batch).standard_normal((batch, 3, 224, 224)).astype(np.float32)}


def _tokens(batch: int) -> Request:
    ids = np.random.default_rng(batch).integers(1000, 20000, (batch, SEQUENCE))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


MODELS = {
    "efficientnet": Model("efficientnet", lambda: _example("efficientnet"), _images, "logits", (1000,)),
    "resnet50": Model("resnet50", _resnet50, _images, "logits", (1000,)),
    "minilm": Model("minilm", lambda: _example("minilm"), _tokens, "embedding", (384,)),
}


@dataclass
class Row:
    """One way to run one model."""

    model: str
    how: str
    rates: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)
    size_bytes: int | None = None
    cosine: float | None = None
    error: str = ""

    @property
    def interval(self) -> Interval | None:
        """Median and interval of the samples per second."""
        return median_with_interval(self.rates) if self.rates else None


# --- files ------------------------------------------------------------------------------------------------------


def export(model: Model, module: Any, to: Path) -> None:
    """The fp32 graph, its batch free, made ready for recipes."""
    import torch

    example = {name: torch.from_numpy(array) for name, array in model.request(2).items()}
    shapes = tuple({0: torch.export.Dim("batch", min=1, max=1024)} for _ in example)
    raw = to.with_name("raw.onnx")
    with contextlib.redirect_stdout(sys.stderr):  # the exporter tells its progress
        torch.onnx.export(
            module,
            tuple(example.values()),
            raw,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(example),
            output_names=[model.output],
            opset_version=20,
            external_data=False,
        )
    prepared(raw, to)


def write_model(repository: Path, name: str, model: Model, device: str, batch: int, precision: str) -> Path:
    """A folder for a Triton model, its file still to be written."""
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    kinds = {"float32": "TYPE_FP32", "int64": "TYPE_INT64"}
    tree: dict[str, Any] = {
        "name": name,
        "backend": "onnxruntime",
        "max_batch_size": batch,
        "input": [
            {"name": key, "data_type": kinds[array.dtype.name], "dims": list(array.shape[1:])}
            for key, array in model.request(1).items()
        ],
        "output": [{"name": model.output, "data_type": "TYPE_FP32", "dims": list(model.dims)}],
        "dynamic_batching": {},
    }
    cpu = {"instance_group": [{"count": 1, "kind": "KIND_CPU"}]}
    tree |= accelerator_fields("cuda", precision) if device == "cuda" else cpu
    (folder.parent / "config.pbtxt").write_text(render(ModelConfig(tree)))
    return folder / "model.onnx"


# --- PyTorch in this process ------------------------------------------------------------------------------------


class InProcess:
    """A module run again and again in this process, eager or compiled, in one precision."""

    def __init__(self, module: Any, model: Model, device: str, batch: int, precision: str, compiled: bool) -> None:
        import torch

        self.torch, self.device, self.batch = torch, device, batch
        self.inputs = {name: torch.from_numpy(array).to(device) for name, array in model.request(batch).items()}
        self.run = torch.compile(module) if compiled else module
        kind = AUTOCAST[precision]
        self.autocast = (
            torch.autocast(device, dtype=getattr(torch, kind)) if kind is not None else contextlib.nullcontext()
        )

    def once(self) -> Any:
        """One batch; the answer, whole and on the host, as a server gives it."""
        with self.torch.inference_mode(), self.autocast:
            return self.run(*self.inputs.values()).float().cpu().numpy()

    def rate(self, seconds: float) -> float:
        """Samples per second."""
        count, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds or not count:
            self.once()
            count += self.batch
        return count / passed if passed else 0.0


def contenders(
    model: Model, module: Any, device: str, batch: int, precisions: tuple[str, ...]
) -> Iterator[tuple[Row, InProcess | None]]:
    """Eager and compiled PyTorch in each precision it has; one that does not run has its reason."""
    expected = None
    for compiled in (False, True):
        for precision in (p for p in AUTOCAST if p in precisions):
            row = Row(model.name, f"{'torch.compile' if compiled else 'PyTorch eager'}, {precision}")
            try:
                runner = InProcess(module, model, device, batch, precision, compiled)
                answer = runner.once()  # compiled now, not while it is measured
            except Exception as error:  # whatever a compiler raises: it is what the row says
                row.error = f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
                yield row, None
                continue
            expected = answer if expected is None else expected
            row.cosine = cosine(expected, answer)
            yield row, runner


def cosine(expected: Any, got: Any) -> float:
    """Mean over the batch."""
    a, b = expected.reshape(len(expected), -1).astype(np.float64), got.reshape(len(got), -1).astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean((a * b).sum(axis=1) / np.maximum(norms, 1e-30)))


# --- one model --------------------------------------------------------------------------------------------------


def measure(model: Model, args: argparse.Namespace, folder: Path, progress: Progress) -> list[Row]:
    """Every way to run one model, in rounds."""
    with progress.step(f"{model.name}: export"):
        module = model.load()
        source = folder / "prepared.onnx"
        export(model, module, source)
    module = module.to(args.device)
    inside = list(contenders(model, module, args.device, args.batch, args.precisions))
    served: dict[str, Row] = {}
    repository = folder / "repository"
    for precision in args.precisions:
        row = Row(model.name, f"Triton, {precision}")
        served[f"{model.name}_{precision}"] = row
        file = write_model(repository, f"{model.name}_{precision}", model, args.device, args.batch, precision)
        with progress.step(f"{model.name}: {precision}"):
            if precision == "fp32":
                file.write_bytes(source.read_bytes())
            else:
                apply(RECIPES[precision], source, file, feeds=lambda: iter([model.request(size) for size in (2, 4)]))
        row.size_bytes = file.stat().st_size
    with (
        Server(repository, model_control_mode="explicit", reporter=progress) as server,
        Client(f"http://{server.http_url}", timeout_s=600) as client,
    ):
        expected = next((runner.once() for _, runner in inside if runner is not None), None)
        live = [name for name, row in served.items() if load(client, name, row, model, args.batch, expected)]
        target = Target(client, server.http_url, {"url": server.http_url})
        requests = [model.request(1), *({k: v[i : i + 1] for k, v in model.request(8).items()} for i in range(8))]
        subjects = [subject_of(target, name, requests, "random") for name in live]
        done = 0

        def next_round(rounds: Rounds) -> list[str]:
            nonlocal done
            done += 1
            for row, runner in inside:
                if runner is not None:
                    row.rates.append(runner.rate(args.seconds))
            return live if done < args.rounds else []

        rounds = measure_interleaved(
            target,
            subjects,
            concurrency=2 * args.batch,
            seconds=args.seconds,
            folder=folder / "raw",
            still_wanted=next_round,
            reporter=progress,
        )
    for name in live:
        row = served[name]
        row.rates = list(rounds.rates(name).values())
        row.p99_us = [point.latency.p99_us for point in rounds.measured(name).values() if point.latency is not None]
        row.error = str((rounds.error(name) or {}).get("what", ""))
    return [*served.values(), *(row for row, _ in inside)]


def load(client: Client, name: str, row: Row, model: Model, batch: int, expected: Any) -> bool:
    """Load a model and compare one batch; one that the server refuses has the reason in its row."""
    from serving.errors import TritonRepoError

    try:
        client.load(name)
        got = client.infer(name, model.request(batch))[model.output]
    except TritonRepoError as error:
        row.error = (error.got or error.what).splitlines()[0][:200]
        return False
    row.cosine = cosine(expected, got) if expected is not None else None
    return True


# --- the report -------------------------------------------------------------------------------------------------


def table(rows: list[Row]) -> str:
    """Markdown; the ratio is against eager fp32 of the same model."""
    lines = ["| model | how | samples/s | 95% interval | x eager fp32 | p99 ms | cosine | MB |", "|---" * 8 + "|"]
    base = {row.model: row.interval.value for row in rows if row.how == "PyTorch eager, fp32" and row.interval}
    for row in rows:
        interval = row.interval
        if interval is None:
            lines.append(f"| {row.model} | {row.how} | not run: {row.error or 'no figures'} | | | | | |")
            continue
        ratio = f"{interval.value / base[row.model]:.2f}" if row.model in base else ""
        p99 = f"{np.median(row.p99_us) / 1000:.1f}" if row.p99_us else ""
        size = f"{row.size_bytes / 1e6:.1f}" if row.size_bytes else ""
        near = f"{row.cosine:.6f}" if row.cosine is not None else ""
        spread = f"{interval.low:,.0f} to {interval.high:,.0f}"
        lines.append(
            f"| {row.model} | {row.how} | {interval.value:,.0f} | {spread} | {ratio} | {p99} | {near} | {size} |"
        )
    return "\n".join(lines)


def facts(args: argparse.Namespace) -> Mapping[str, str]:
    """What it ran on."""
    import torch

    device = torch.cuda.get_device_name() if args.device == "cuda" else platform.machine()
    return {
        "device": device,
        "torch": torch.__version__,
        "server": find_runtime().describe(),
        "batch": str(args.batch),
        "rounds": f"{args.rounds} of {args.seconds:g} s",
        "date": date.today().isoformat(),
    }


def require_gpu() -> None:
    """End with what is missing, where there is no GPU that PyTorch can use."""
    if not Path("/dev/nvidiactl").exists():
        sys.exit(
            "no NVIDIA GPU on this machine (/dev/nvidiactl is not there): run this where there is one;\n"
            "--device cpu --short proves the script here, and writes no figures"
        )
    import torch

    if not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} cannot use the GPU: install a build with CUDA (pip install torch)")


def main() -> None:
    """Measure, print, and with a GPU write the page."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=list(MODELS))
    parser.add_argument("--precisions", nargs="+", choices=["fp32", *RECIPES], default=["fp32", *RECIPES])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument(
        "--short", action="store_true", help="one model in fp32 and int8, three short rounds, batches of 2"
    )
    parser.add_argument("-v", "--verbose", action="store_true")
    args = parser.parse_args()
    if args.device == "cuda":
        require_gpu()
    if args.short:
        args.models, args.batch, args.rounds, args.seconds = args.models[:1], 2, 3, 1.0
        args.precisions = ["fp32", "int8"]
    args.precisions = tuple(args.precisions)
    rows: list[Row] = []
    for name in args.models:
        with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
            rows += measure(MODELS[name], args, Path(folder), Progress(verbose=args.verbose))
    about = "\n".join(f"- {key}: {value}" for key, value in facts(args).items())
    text = f"{about}\n\n{table(rows)}\n"
    print(text)
    if args.device == "cuda":
        head = REPORT.read_text(encoding="utf-8").partition("## Figures")[0]
        REPORT.write_text(f"{head}## Figures\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
