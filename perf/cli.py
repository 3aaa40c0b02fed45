"""``bench-repo``: arguments -> a workload -> a measurement -> a report and an exit status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from perf.cli_report import RESULTS_PANEL, Format, HtmlOption, check_place, show, write_page
from perf.cli_results import GateOption, HistoryOption, add_commands, expected, keep, prepared, say
from perf.errors import WorkloadError
from perf.history import DEFAULT_HISTORY
from perf.measure import measure_workload
from perf.result import BenchResult
from perf.workload import load_workload
from serving.default_command import DefaultCommandGroup
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

_LOAD, _TIME, _RESULTS = "Load", "How long", RESULTS_PANEL

EXAMPLES = (
    "bench-repo   # every model in ./model_repository at concurrency 1, 4 and 16",
    "bench-repo --repository model_repository --model digits --concurrency 1,8,32 --protocol grpc",
    "bench-repo --url 127.0.0.1:8000 --model digits --seconds 20 --output results",
    "bench-repo --model digits --rate 50,200 --distribution poisson   # latency under a load that does not wait",
    "bench-repo --model digits_onnx_fp32 --model digits_onnx_int8 --concurrency 8 --precision 5 --budget 120",
    "bench-repo --model bert --shape input_ids:128 --shape attention_mask:128",
    "bench-repo workload.yaml --format json > result.json",
    "bench-repo --model digits --html report.html   # a page with curves, the front, where the time goes",
    "bench-repo --model digits_onnx_fp32 --model digits_onnx_int8 --concurrency 8 --difference 5",
    "bench-repo --model digits --gate gate.yaml   # exit status 1 where a limit does not hold",
    "bench-repo --model digits --baseline   # beside raw onnxruntime, eager PyTorch and FastAPI",
    "bench-repo history digits   # its figures over time",
)


class _Group(DefaultCommandGroup):
    """``--baseline`` alone is all of them: an option with a value that may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """With the value that was left out."""
        return super().parse_args(ctx, _spelled_out(args))


def _spelled_out(args: list[str]) -> list[str]:
    """``--baseline`` with nothing, another flag or a workload behind it is ``--baseline all``."""
    found = []
    for number, arg in enumerate(args):
        found.append(arg)
        behind = args[number + 1] if number + 1 < len(args) else "-"
        if arg == "--baseline" and (behind.startswith("-") or Path(behind).suffix in (".yaml", ".yml")):
            found.append("all")
    return found


app = create_app(
    "bench-repo",
    help="Measure how fast a served model repository is, with perf_analyzer.",
    examples=EXAMPLES,
    cls=_Group,
)


@app.command("measure", epilog=epilog(EXAMPLES))
def bench_repo(
    workload: Annotated[
        Path | None, typer.Argument(metavar="WORKLOAD", help="YAML file that says it all; flags win over it.")
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Repository to serve and measure (default: ./model_repository).")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Measure a running server: HOST:PORT, http(s)://... or grpc(s)://..."),
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates to trust with https:// and grpcs://.")
    ] = None,
    metrics_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Triton's metrics there (default: its port 8002, if it answers).")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this model; may be given again.")
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            rich_help_panel=_LOAD,
            help="Load: N requests under way at once, a point for each N (default: 1,4,16).",
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            metavar="R,R,...",
            rich_help_panel=_LOAD,
            help="Load: R requests begun each second, answered or not, a point for each R.",
        ),
    ] = None,
    distribution: Annotated[
        str | None,
        typer.Option(
            metavar="constant|poisson",
            rich_help_panel=_LOAD,
            help="How the requests of --rate are spaced (default: constant).",
        ),
    ] = None,
    intervals: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", rich_help_panel=_LOAD, help="Load: microseconds from one request to the next, one a line."
        ),
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option(metavar="N", rich_help_panel=_LOAD, help="Samples in each request (default: 1).")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(metavar="http|grpc", rich_help_panel=_LOAD, help="How to ask the server (default: http)."),
    ] = None,
    shared_memory: Annotated[
        str | None,
        typer.Option(metavar="none|system|cuda", rich_help_panel=_LOAD, help="How tensors travel (default: none)."),
    ] = None,
    seconds: Annotated[
        str | None,
        typer.Option(
            metavar="S",
            rich_help_panel=_TIME,
            help="How long each model is measured at each load, in each round (default: 6; 2 for several models).",
        ),
    ] = None,
    rounds: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            rich_help_panel=_TIME,
            help="So often, the models in turn (default: 10; 1 for one model without --baseline).",
        ),
    ] = None,
    difference: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            rich_help_panel=_TIME,
            help="More rounds, until a difference of PERCENT between models would be found.",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            rich_help_panel=_TIME,
            help="More rounds, until throughput and p99 are known to +-PERCENT.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="S",
            rich_help_panel=_TIME,
            help="Seconds after which --difference and --precision begin no further round (default: 300).",
        ),
    ] = None,
    sequence_length: Annotated[
        str | None,
        typer.Option(metavar="N", rich_help_panel=_LOAD, help="Requests in each sequence of a stateful model."),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:N,N",
            rich_help_panel=_LOAD,
            help="Sizes of an input without the batch dimension; may be given again.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="[onnxruntime,pytorch,fastapi]", help="Measure these beside each model (all, where none is named)."
        ),
    ] = None,
    spec: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The models.yaml of the eager module, if it is not found.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", rich_help_panel=_RESULTS, help="Keep results and raw files, in DIR/<time>/."),
    ] = None,
    html: HtmlOption = None,
    gate: GateOption = None,
    history: HistoryOption = DEFAULT_HISTORY,
    no_history: Annotated[
        bool, typer.Option("--no-history", rich_help_panel=_RESULTS, help="Do not keep this run in the history.")
    ] = False,
    format: Annotated[Format, typer.Option(rich_help_panel=_RESULTS, help="What to write to stdout.")] = Format.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
    version: VersionOption = False,
) -> int:
    """Measure throughput, latency, queue, compute and mean batch of each model at each load (the default command).

    Exit status: 0 all was measured, 1 something was not, or a gate failed, 2 unusable arguments.
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
        "difference": difference,
        "precision": precision,
        "budget": budget,
        "sequence_length": sequence_length,
        "shapes": _shapes(shape),
        "baselines": _numbers(baseline),
        "spec": spec,
    }
    asked = load_workload(workload, flags)
    check_place(html)
    wanted = expected(gate, history)
    kept = prepared(None if no_history else history)

    def done(result: BenchResult) -> None:
        keep(result, kept)
        show(result, format)
        write_page(result, html)

    reporter = Progress(quiet=quiet, verbose=bool(verbose))
    result = measure_workload(asked, output=output, reporter=reporter, cut_short=done)
    done(result)
    outcome = wanted.judge(result) if wanted is not None else None
    if outcome is not None:
        say(outcome, markdown=format is Format.MARKDOWN, aside=format not in (Format.TEXT, Format.MARKDOWN))
    return 0 if result.ok and (outcome is None or outcome.passed) else 1


add_commands(app)


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
            fix = "the input's name, a colon, and its sizes without the batch dimension"
            raise WorkloadError([Problem("not a shape", where="--shape", expected=example, got=value, fix=fix)])
        shapes[name] = [size.strip() for size in sizes.split(",") if size.strip()]
    return shapes


def main() -> None:
    """Entry point of ``bench-repo``."""
    sys.exit(run(app))
