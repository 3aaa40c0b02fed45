"""``tune-repo``: arguments -> a search -> ``overrides.yaml``, a report and an exit status."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from perf.tune.errors import TuneError, TuneUsageError
from perf.tune.joint.request import JointRequest, of_ensemble, of_models, one_limit, one_rate
from perf.tune.joint.result import JointResult
from perf.tune.joint.running import tune_jointly
from perf.tune.joint.stage import find_ensemble
from perf.tune.joint.text import to_text as joint_text
from perf.tune.joint.writing import write_joint
from perf.tune.overrides import NAME, read_overrides, write_overrides
from perf.tune.request import Goal, TuneRequest
from perf.tune.result import TuneResult
from perf.tune.running import tune
from perf.tune.text import to_text
from perf.workload import DEFAULT_REPOSITORY
from serving.errors import Problem
from serving.terminal import (
    FormatOption,
    OutputFormat,
    Progress,
    QuietOption,
    VerboseOption,
    VersionOption,
    configure_logging,
    create_app,
    emit,
    epilog,
    run,
)

EXAMPLES = (
    "tune-repo digits   # the most inferences/s at 16 requests under way, in 5 minutes",
    "tune-repo digits --latency-limit p99=20ms --minutes 10   # the most under a limit, at the load that suits",
    "tune-repo digits --goal latency --concurrency 1",
    "tune-repo digits --latency-limit p99=20ms --capacity 5000   # and how many machines 5000 requests/s need",
    "tune-repo digits minilm --rate digits=200 --rate minilm=20 --latency-limit p99=50ms   # two models on one machine",
)

app = create_app("tune-repo", help="Find the configuration that serves a model best on this machine.")


@app.command(epilog=epilog(EXAMPLES))
def tune_repo(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="A model of the repository, or an ensemble; several share the machine."
        ),
    ],
    repository: Annotated[
        Path | None, typer.Option(help="Repository that holds it (default: ./model_repository).")
    ] = None,
    latency_limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[MODEL:]pN=TIME",
            help="Latency that must be kept, such as p99=20ms; of several models that of one, MODEL:p99=20ms.",
        ),
    ] = None,
    goal: Annotated[
        str | None,
        typer.Option(
            metavar="throughput|latency|cost",
            help="What is best (default: throughput; with --rate latency). cost: inferences/s for each core.",
        ),
    ] = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[MODEL=]R",
            help="Load: R requests begun each second at random times, answered or not; of several models MODEL=R.",
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(metavar="N", help="Load: N requests under way at once (default: 16; with a limit the best N)."),
    ] = None,
    minutes: Annotated[float, typer.Option(metavar="M", help="How long to search at most.")] = 5.0,
    capacity: Annotated[
        float | None, typer.Option(metavar="R", help="Also say how many machines like this one R requests/s need.")
    ] = None,
    rate_limiter: Annotated[
        bool,
        typer.Option("--rate-limiter", help="Several models or an ensemble: also try Triton's rate limiter."),
    ] = False,
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="What was found, for build-repo; put it beside models.yaml.")
    ] = Path(NAME),
    journal: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where measurements are kept (default: .tune/MODEL.jsonl beside the output)."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what an interrupted search has measured.")
    ] = False,
    format: FormatOption = OutputFormat.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
    version: VersionOption = False,
) -> int:
    """Search variants, instances, batching, queue delay and threads of a model; write what is best for build-repo.

    Exit status: 0 found (or the model is right as it is), 1 no configuration keeps the limit, 2 unusable arguments.
    """
    configure_logging(verbose, quiet=quiet)
    folder = repository or DEFAULT_REPOSITORY
    progress = Progress(quiet=quiet, verbose=bool(verbose))
    if len(models) > 1:
        _refuse_single(concurrency, capacity)
        joint = of_models(
            folder,
            models,
            rates=rate or (),
            limits=latency_limit or (),
            goal=cast("Goal | None", goal),
            minutes=minutes,
            rate_limiter=rate_limiter,
        )
        return _jointly(joint, output, journal, resume, progress, format)
    model = models[0]
    if capacity is not None and not capacity > 0:
        got, fix = f"{capacity:g}", "such as --capacity 5000"
        raise TuneUsageError([Problem("not a rate", "--capacity", "requests per second, above 0", got, fix)])
    request = TuneRequest(
        repository=folder,
        model=model,
        limit=one_limit(model, latency_limit or ()),
        goal=cast(Goal, goal or ("latency" if rate else "throughput")),
        rate_per_s=one_rate(model, rate or ()),
        concurrency=concurrency,
        minutes=minutes,
    )
    if find_ensemble(folder, model):
        _refuse_single(None, capacity)
        return _jointly(of_ensemble(request, rate_limiter=rate_limiter), output, journal, resume, progress, format)
    if rate_limiter:
        what = "the rate limiter shares a machine out between models"
        fix = "leave --rate-limiter out, or name several models"
        raise TuneUsageError([Problem(what, "--rate-limiter", "several models, or an ensemble", model, fix)])
    read_overrides(output)  # before minutes are spent: can it be written to?
    result = tune(
        request,
        journal=journal or output.parent / ".tune" / f"{model}.jsonl",
        resume=resume,
        capacity_rate=capacity,
        reporter=progress,
    )
    text = to_text(result, width=shutil.get_terminal_size().columns)
    return _ended(result, text, output, partial(write_overrides, output, result), format)


def _refuse_single(concurrency: int | None, capacity: float | None) -> None:
    """What goes with one model alone."""
    problems = []
    if concurrency is not None:
        what, fix = "several models are tuned at a rate each", "--rate MODEL=R for each"
        problems.append(Problem(what, "--concurrency", "a rate for each", str(concurrency), fix))
    if capacity is not None:
        fix = "leave it out: for several models the report says what multiple of their rates this machine carries"
        what, got = "the machines needed are told for one plain model", f"{capacity:g}"
        problems.append(Problem(what, "--capacity", "one model that is no ensemble", got, fix))
    if problems:
        raise TuneUsageError(problems)


def _jointly(
    request: JointRequest, output: Path, journal: Path | None, resume: bool, progress: Progress, format: OutputFormat
) -> int:
    """Several models, or the steps of an ensemble."""
    read_overrides(output)
    kept = journal or output.parent / ".tune" / f"{request.name}.jsonl"
    result = tune_jointly(request, journal=kept, resume=resume, reporter=progress)
    return _ended(result, joint_text(result), output, partial(write_joint, output, result), format)


def _ended(
    result: TuneResult | JointResult, text: str, output: Path, write: Callable[[], None], format: OutputFormat
) -> int:
    """Write what was found, if anything was, and say it; returns the exit status."""
    written = result.status != "none"
    data = result.model_dump(mode="json", by_alias=True)
    try:
        if written:
            write()
    except TuneError:  # minutes were spent on it: it is said all the same
        emit(data, text, output=format)
        raise
    if written:
        applies = "; build-repo applies it from beside models.yaml" if result.fields else " (nothing to change)"
        text += f"written: {output}{applies}"
    emit(data, text, output=format)
    return 0 if written else 1


def main() -> None:
    """Entry point of ``tune-repo``."""
    sys.exit(run(app))
