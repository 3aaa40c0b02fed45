"""``bench-repo``: arguments -> a workload -> a measurement -> a report and an exit status."""

from __future__ import annotations

import os
import shutil
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from perf.errors import WorkloadError
from perf.measure import measure_workload
from perf.report import to_csv, to_json, to_markdown, to_text
from perf.workload import load_workload
from serving.errors import Problem
from serving.terminal import (
    Progress,
    QuietOption,
    VerboseOption,
    VersionOption,
    configure_logging,
    create_app,
    epilog,
    run,
)

EXAMPLES = (
    "bench-repo   # every model in ./model_repository at concurrency 1, 4 and 16",
    "bench-repo --repository model_repository --model digits --concurrency 1,8,32 --protocol grpc",
    "bench-repo --url 127.0.0.1:8000 --model digits --seconds 20 --output results",
    "bench-repo --model digits --rate 50,200 --distribution poisson   # latency under a load that does not wait",
    "bench-repo --model digits_onnx_fp32 --model digits_onnx_int8 --concurrency 8 --precision 5 --budget 120",
    "bench-repo --model bert --shape input_ids:128 --shape attention_mask:128",
    "bench-repo workload.yaml --format json > result.json",
)


class Format(str, Enum):
    """What stdout gets."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"


app = create_app("bench-repo", help="Measure how fast a served model repository is, with perf_analyzer.")


@app.command(epilog=epilog(EXAMPLES))
def bench_repo(
    workload: Annotated[Path | None, typer.Argument(metavar="WORKLOAD", help="YAML file; flags win over it.")] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Repository to serve and measure (default: ./model_repository).")
    ] = None,
    url: Annotated[str | None, typer.Option(help="A running server: HOST:PORT, http[s]://... or grpc[s]://...")] = None,
    ca_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates to trust with https:// and grpcs://.")
    ] = None,
    metrics_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Its metrics (default: port 8002, if something is there).")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this model; may be given again.")] = None,
    concurrency: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Requests under way at once (default: 1,4,16).")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="R,R,...", help="Requests begun each second, answered or not.")
    ] = None,
    distribution: Annotated[
        str | None, typer.Option(metavar="constant|poisson", help="How they are spaced (default: constant).")
    ] = None,
    intervals: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Microseconds from one request to the next, one a line.")
    ] = None,
    batch_size: Annotated[str | None, typer.Option(metavar="N", help="Samples in each request (default: 1).")] = None,
    protocol: Annotated[str | None, typer.Option(metavar="http|grpc", help="(default: http)")] = None,
    shared_memory: Annotated[
        str | None, typer.Option(metavar="none|system|cuda", help="How tensors travel (default: none).")
    ] = None,
    seconds: Annotated[
        str | None, typer.Option(metavar="S", help="How long each point is measured in a round (default: 6).")
    ] = None,
    rounds: Annotated[
        str | None, typer.Option(metavar="N", help="Each model in turn, so often (default: 3; 1 for one model).")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="More rounds, until throughput and p99 are known so well.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="S", help="After so many seconds no more rounds for that (default: 300).")
    ] = None,
    sequence_length: Annotated[
        str | None, typer.Option(metavar="N", help="Requests in each sequence of a stateful model.")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:N,N", help="Sizes of an input without the batch dimension; may be given again."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep results and raw files, a folder a run.")
    ] = None,
    format: Annotated[Format, typer.Option(help="What to write to stdout.")] = Format.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
    version: VersionOption = False,
) -> int:
    """Measure throughput, latency percentiles, queue, compute and mean batch of each model at each load.

    Exit status: 0 all was measured, 1 something was not, 2 unusable arguments.
    """
    configure_logging(verbose, quiet=quiet)
    flags = {
        "repository": repository,
        "url": url,
        "ca_file": ca_file,
        "metrics_url": metrics_url,
        "models": model or None,
        "concurrency": _numbers(concurrency),
        "rate": _numbers(rate),
        "distribution": distribution,
        "intervals": intervals,
        "batch_size": batch_size,
        "protocol": protocol,
        "shared_memory": shared_memory,
        "seconds": seconds,
        "rounds": rounds,
        "precision": precision,
        "budget": budget,
        "sequence_length": sequence_length,
        "shapes": _shapes(shape),
    }
    result = measure_workload(
        load_workload(workload, flags), output=output, reporter=Progress(quiet=quiet, verbose=bool(verbose))
    )
    if format is Format.TEXT:
        size = shutil.get_terminal_size()
        colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        typer.echo(to_text(result, colours=colours, width=size.columns), nl=False)
    else:
        writers = {Format.JSON: to_json, Format.CSV: to_csv, Format.MARKDOWN: to_markdown}
        typer.echo(writers[format](result), nl=False)
    return 0 if result.ok else 1


def _numbers(text: str | None) -> list[str] | None:
    """``1,4,16``; whether these are numbers is the workload's to say, with all else that is wrong."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _shapes(values: list[str] | None) -> dict[str, list[str]] | None:
    """``NAME:N,N``, several; the last colon counts, as names may hold one."""
    if not values:
        return None
    shapes = {}
    for value in values:
        name, colon, sizes = value.rpartition(":")
        if not colon or not name:
            example = "NAME:N,N, for instance input_ids:128"
            raise WorkloadError([Problem("not a shape", where="--shape", expected=example, got=value)])
        shapes[name] = [size.strip() for size in sizes.split(",") if size.strip()]
    return shapes


def main() -> None:
    """Entry point of ``bench-repo``."""
    sys.exit(run(app))
