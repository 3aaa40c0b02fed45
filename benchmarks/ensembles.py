"""Where a request's time goes in the ensembles of the examples, and what one graph in place of several steps wins.

    python benchmarks/ensembles.py           # about 6 minutes on two cores
    python benchmarks/ensembles.py --write   # and benchmarks/ensembles.md is made of it

The ensembles are built anew in a folder of their own: of EfficientNet once as the example has it, with three ONNX steps
fused into one, and once with all steps apart. Both are measured in turns on one embedded server by perf_analyzer; the
steps' times are the server's own statistics over the same windows. Keep other work off the machine.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)

from builder import Options, build, load_spec  # noqa: E402
from builder.choice import StepTime  # noqa: E402
from builder.choose import steps_of  # noqa: E402
from builder.host import cpu_model  # noqa: E402
from builder.numerics import Array  # noqa: E402
from perf.interleaved import Rounds, measure_interleaved, subject_of  # noqa: E402
from perf.intervals import Interval, median_with_interval, ratio_of_pairs  # noqa: E402
from perf.target import Target  # noqa: E402
from serving import Client, Server  # noqa: E402
from serving.progress import Progress  # noqa: E402

ROUNDS = 9
SECONDS = 3.0


@dataclass(frozen=True)
class Case:
    """An example, and the models that are compared: the first with the others.

    Attributes:
        models: name on the server: what it is.
        concurrency: requests under way at once, one table for each.
        extra: entries that are put into the example's spec.
    """

    example: str
    models: Mapping[str, str]
    concurrency: tuple[int, ...]
    extra: Mapping[str, Any]


APART = {
    "efficientnet_apart": {
        "ensemble": {
            "steps": [f"efficientnet{step}" for step in ("_decode", "_prepare", "", "_top", "_names")],
        },
        "inputs": {"jpeg": "string[batch, 1]"},
        "outputs": {"labels": "string[batch, 5]", "scores": "float32[batch, 5]"},
        "samples": {"python": "data.py:files"},
    }
}
CASES = (
    Case(
        "efficientnet",
        {"efficientnet_jpeg": "prepare, model and top fused", "efficientnet_apart": "every step a model of its own"},
        (1, 8),
        APART,
    ),
    Case("minilm", {"minilm_text": "tokenizer -> encoder: one ONNX step, so nothing to fuse"}, (1, 16), {}),
)


def project_of(case: Case, folder: Path) -> Path:
    """An example in a folder of its own, in fp32 alone, with what is compared beside it."""
    place = folder / case.example
    shutil.copytree(HERE.parent / "examples" / case.example, place, ignore=shutil.ignore_patterns("__pycache__"))
    spec = yaml.safe_load((place / "models.yaml").read_text(encoding="utf-8"))
    spec["models"][case.example]["variants"] = ["onnx-fp32"]
    for key in ("precision", "serve", "agreement"):
        spec["models"][case.example].pop(key, None)
    spec["models"] |= case.extra
    spec["repository"] = "repository"
    (place / "models.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    return place


def built(case: Case, folder: Path) -> Path:
    """The repository.

    Raises:
        SystemExit: a model failed.
    """
    report = build(load_spec(project_of(case, folder) / "models.yaml"), reporter=Progress(), options=Options(jobs=1))
    failed = [str(result.error) for result in report.models if result.error is not None]
    if failed:
        raise SystemExit("\n".join(failed))
    return report.repository


def golden(repository: Path, model: str) -> list[dict[str, Array]]:
    """The requests that the build kept with a model."""
    from builder.golden import read_golden

    (version,) = (entry for entry in (repository / model).iterdir() if entry.name.isdecimal())
    return [dict(case.inputs) for case in read_golden(version / "golden.npz")]


def measured(case: Case, repository: Path, folder: Path) -> Iterator[tuple[int, Rounds]]:
    """Every concurrency, with its rounds."""
    with Server(repository) as server, Client(f"http://{server.http_url}") as client:
        target = Target(client, server.http_url, {"kind": "embedded", "url": server.http_url})
        requests = golden(repository, next(iter(case.models)))
        subjects = [subject_of(target, model, requests, "golden requests") for model in case.models]
        for concurrency in case.concurrency:
            yield (
                concurrency,
                measure_interleaved(
                    target,
                    subjects,
                    concurrency=concurrency,
                    seconds=SECONDS,
                    folder=folder / f"{case.example}-{concurrency}",
                    still_wanted=lambda rounds: _wanted(rounds, case.models),
                    reporter=Progress(),
                ),
            )


def _wanted(rounds: Rounds, models: Mapping[str, str]) -> list[str]:
    errors = [rounds.error(model) for model in models if rounds.error(model)]
    if errors:
        raise SystemExit(str(errors))
    return list(models) if any(len(rounds.measured(model)) < ROUNDS for model in models) else []


def tables(case: Case, concurrency: int, rounds: Rounds) -> Iterator[str]:
    """What was measured at one concurrency: whole ensembles, then their steps."""
    models = list(case.models)
    yield f"## {case.example}, {concurrency} request{'s' if concurrency > 1 else ''} at once"
    yield ""
    yield "| ensemble | inferences/s | 95% interval | p50 ms | p99 ms | first / this |"
    yield "|---|---|---|---|---|---|"
    for model in models:
        interval = median_with_interval(list(rounds.rates(model).values()))
        points = [point.latency for point in rounds.measured(model).values() if point.latency is not None]
        p50, p99 = (_median([each.p50_us for each in points]), _median([each.p99_us for each in points]))
        ratio = _spell(ratio_of_pairs(*rounds.paired_rates(models[0], model))) if model != models[0] else ""
        yield (
            f"| {model}: {case.models[model]} | {interval.value:,.1f} | {interval.low:,.1f} to {interval.high:,.1f} "
            f"| {p50 / 1000:.2f} | {p99 / 1000:.2f} | {ratio} |"
        )
    yield ""
    yield "| ensemble | step | queue ms | compute ms | copy ms | mean batch |"
    yield "|---|---|---|---|---|---|"
    for model in models:
        for step in steps_of(list(rounds.measured(model).values())):
            yield f"| {model} | {_step(step)} |"
    yield ""


def _step(step: StepTime) -> str:
    times = (step.queue_us, step.compute_us, step.copy_us)
    return " | ".join([step.model, *(f"{time_us / 1000:.2f}" for time_us in times), f"{step.mean_batch:.1f}"])


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _spell(ratio: Interval) -> str:
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


def page(parts: Sequence[str]) -> Iterator[str]:
    """The whole page."""
    yield "# The ensembles of the examples, step by step"
    yield ""
    yield f"Made by `python benchmarks/ensembles.py --write` on {date.today()}, on {cpu_model()}: the embedded server,"
    yield f"fp32, {ROUNDS} rounds of {SECONDS:g} s in turns. Queue: waiting for an instance, and for a batch to fill."
    yield "Compute: in the backend. Copy: tensors moved in and out. Means per request, medians over the rounds. Steps"
    yield "wait side by side and batch for themselves: their times do not add up to a request's latency under load."
    yield ""
    yield from parts


def main() -> int:
    """Arguments to exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", nargs="+", choices=[case.example for case in CASES])
    parser.add_argument("--write", action="store_true", help="write benchmarks/ensembles.md")
    args = parser.parse_args()
    parts: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ensembles-") as folder:
        for case in CASES:
            if case.example in (args.examples or [case.example]):
                repository = built(case, Path(folder))
                for concurrency, rounds in measured(case, repository, Path(folder)):
                    parts += tables(case, concurrency, rounds)
    text = "\n".join(page(parts)).rstrip() + "\n"
    print(text)
    if args.write:
        (HERE / "ensembles.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
