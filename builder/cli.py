"""``build-repo``: arguments, calls, exit status."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from builder.build_text import names, plan_text, results_table
from builder.cli_repository import Asked, answer, check, prune, pruned_data
from builder.repository_text import blocks, pruned_text
from serving.errors import TritonRepoError, UsageError
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
    parse_size,
    run,
    warn,
)

EXAMPLES = [
    "build-repo                              # models.yaml in this folder",
    "build-repo examples/digits/models.yaml  # another spec; several may be given",
    "build-repo --only digits                # one model of it",
    "build-repo --plan                       # what would be done and why, without doing it",
    "build-repo --search-minutes 3 --recipes recipes  # int8 and fp16: search less, keep what was found",
    "build-repo --in-container --dry-run     # the command that builds engines in the server's own image",
    "build-repo --force --jobs 1             # everything anew, one model at a time",
    "build-repo --keep 2                     # build, then remove versions older than the newest two",
    "build-repo --list                       # models, versions, which is served",
    "build-repo --rollback digits            # serve the version below; or: --rollback digits 3",
    "build-repo --diff digits 1 2            # what changed between two versions",
    "build-repo --reload grpc://localhost:8001  # bring a running server to what was built, while it answers",
    "build-repo --format json | jq .ok       # for programs",
]

_PANEL = "The repository, without building"
_VARIANTS = "Precision and engines"

app = create_app("build-repo", help="Build a verified Triton model repository from a models.yaml.")


@app.command(epilog=epilog(EXAMPLES))
def build_repo(
    specs: Annotated[list[Path] | None, typer.Argument(metavar="[SPEC]...", help="Default: models.yaml.")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="MODEL", help="Build only this model.")] = None,
    show_plan: Annotated[bool, typer.Option("--plan", help="Say what would be done and why, and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Run every step, whatever is in the cache.")] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Models at once; default: by processors and memory.")
    ] = None,
    clean: Annotated[bool, typer.Option("--clean", help="Empty .build/ (cache, staging), and stop.")] = False,
    cache_size: Annotated[
        str | None, typer.Option("--cache-size", metavar="SIZE", help="Largest size of the cache: 5GB, 500MB.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for another build of this repository, or say who it is.")
    ] = True,
    keep: Annotated[
        int | None, typer.Option("--keep", metavar="N", min=1, help="Then remove all but the newest N versions.")
    ] = None,
    sign: Annotated[
        Path | None, typer.Option("--sign", metavar="KEY", help="Sign every new version with this private key.")
    ] = None,
    search_minutes: Annotated[
        float,
        typer.Option(
            "--search-minutes", metavar="N", min=0.0, rich_help_panel=_VARIANTS, help="For each search, at most."
        ),
    ] = 10.0,
    recipes: Annotated[
        Path | None,
        typer.Option(
            "--recipes", metavar="DIR", rich_help_panel=_VARIANTS, help="Write the recipes there, to be replayed."
        ),
    ] = None,
    allow_accuracy_drop: Annotated[
        bool,
        typer.Option(
            "--allow-accuracy-drop",
            rich_help_panel=_VARIANTS,
            help="Publish variants that lose more than the spec allows; their manifests say so.",
        ),
    ] = False,
    in_container: Annotated[
        bool, typer.Option("--in-container", rich_help_panel=_VARIANTS, help="Build inside the server's image.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=_VARIANTS, help="With --in-container: only print it.")
    ] = False,
    reload: Annotated[
        str | None,
        typer.Option("--reload", metavar="URL", help="Then bring this running server to it (grpc://host:8001)."),
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", rich_help_panel=_PANEL, help="What the repository holds, and what is served.")
    ] = False,
    rollback: Annotated[
        str | None,
        typer.Option(
            "--rollback",
            metavar="MODEL [VERSION]",
            rich_help_panel=_PANEL,
            help="Serve an older version again: the one below, or VERSION.",
        ),
    ] = None,
    diff: Annotated[
        tuple[str, int, int] | None,
        typer.Option("--diff", metavar="MODEL A B", rich_help_panel=_PANEL, help="Two versions side by side."),
    ] = None,
    verify_hashes: Annotated[
        bool, typer.Option("--verify-hashes", rich_help_panel=_PANEL, help="Read every published file again.")
    ] = False,
    repository: Annotated[
        Path | None,
        typer.Option("--repository", metavar="DIR", rich_help_panel=_PANEL, help="Which; default: the spec's."),
    ] = None,
    output: FormatOption = OutputFormat.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
    version: VersionOption = False,
) -> int:
    """Build every model of SPEC: export to ONNX, write config.pbtxt, verify through a real Triton, publish.

    A model that fails does not stop the others. Exit status: 0 built or up to date, 1 a model failed (with --reload
    also: on the server, where the version before it serves on), 2 unusable spec or arguments.
    """
    configure_logging(verbose, quiet=quiet)
    asked = Asked(listing, rollback, diff, verify_hashes, keep, only or (), repository, specs or (), reload)
    check(asked, building=[name for name, given in {"--plan": show_plan, "--clean": clean}.items() if given])
    if asked.options:
        return answer(asked, output=output, quiet=quiet)
    if dry_run and not in_container:
        raise UsageError("--dry-run is for --in-container", fix="--plan says what a build here would do")

    from builder.api import build_all, check_names, load_spec
    from builder.incremental.cache import DEFAULT_LIMIT_BYTES
    from builder.options import Options
    from builder.planning import plan
    from builder.spec.overrides import overrides_path

    paths = {Path(path).resolve(): path for path in specs or [Path("models.yaml")]}  # each once
    loaded = [load_spec(path) for path in paths.values()]
    if clean:
        return _clean(loaded, output)
    if in_container:
        more = ["--force"] * force + ["--allow-accuracy-drop"] * allow_accuracy_drop
        more += ["--search-minutes", f"{search_minutes:g}"]
        return _in_container(loaded, only or (), more, dry_run=dry_run)
    if show_plan:
        check_names(loaded, only or ())
        plans = [plan(spec, only or (), force=force) for spec in loaded]
        steps = [step for each in plans for step in each.steps]
        emit({"steps": [step.as_dict() for step in steps]}, plan_text(steps), output=output)
        return 0
    progress = Progress(quiet=quiet, verbose=verbose > 0)
    for spec in loaded:
        if spec.overridden:
            progress.info(f"{overrides_path(spec.path)} applies to {', '.join(spec.overridden)}")
    size = DEFAULT_LIMIT_BYTES if cache_size is None else parse_size(cache_size, where="--cache-size")
    _before_a_long_build(sign, reload)
    options = Options(
        jobs=jobs,
        force=force,
        cache_size_bytes=size,
        wait=wait,
        sign_key=sign,
        activate=reload is None,
        search_minutes=search_minutes,
        allow_accuracy_drop=allow_accuracy_drop,
        recipes_dir=recipes,
    )
    reports = build_all(loaded, only=only or (), reporter=progress, options=options)
    update = None if reload is None else _reload(reports, reload, progress)
    pruned, ok = ([], True) if keep is None else _prune(reports, keep)
    ok = ok and (update is None or update.ok) and all(report.ok for report in reports)
    emit(_data(reports, update, ok=ok) | pruned_data(pruned), output=output)
    if not output.is_json:
        _print_reports(reports, quiet=quiet)
        _print_update(update, quiet=quiet)
        emit(None, blocks(map(pruned_text, pruned)))
    return 0 if ok else 1


def _before_a_long_build(sign: Path | None, reload: str | None) -> None:
    """What can be found out at once: whether the key can be used, and the server is there."""
    if sign is not None:
        from serving.signing_keys import check_private_key

        check_private_key(sign)
    if reload is not None:
        from builder.live.updating import check_server

        check_server(reload)


def _reload(reports: list[Any], url: str, progress: Progress) -> Any:
    from builder.live.updating import reload_published

    return reload_published(reports, url, reporter=progress)


def _print_update(update: Any, *, quiet: bool) -> None:
    if update is None:
        return
    from builder.live.updating import update_text

    emit(None, update_text(update))
    for each in update.models:
        if each.note and not quiet:
            warn(f"{each.model}: {each.note}")
    for error in update.errors():
        typer.echo(f"\n{error}", err=True)


def _prune(reports: list[Any], count: int) -> tuple[list[Any], bool]:
    """What was removed, and whether that went well: what was built is reported in any case."""
    pruned = []
    try:
        for report in reports:
            if report.repository.is_dir():
                pruned += prune([report.repository], count, [result.model for result in report.models])
    except TritonRepoError as error:
        warn(str(error))
        return pruned, False
    return pruned, True


def _clean(specs: list[Any], output: OutputFormat) -> int:
    from builder.api import clean

    freed = {str(folder): size for folder, size in clean(specs).items()}
    lines = [f"removed {folder}, {size / 1e6:.1f} MB" for folder, size in freed.items()]
    emit({"removed": freed}, "\n".join(lines) or "there is nothing to remove", output=output)
    return 0


def _data(reports: list[Any], update: Any, *, ok: bool) -> dict[str, Any]:
    models = [model for report in reports for model in report.as_dict()["models"]]
    repositories = sorted({str(report.repository) for report in reports})
    data = {"ok": ok, "repositories": repositories, "models": models}
    return data if update is None else data | {"reload": update.as_dict()}


def _print_reports(reports: list[Any], *, quiet: bool) -> None:
    from rich.console import Console

    results = [result for report in reports for result in report.models]
    # A row stays a row: a terminal that is too narrow wraps it, a pipe gets it whole.
    Console(highlight=False, width=200).print(results_table(results), crop=False)
    for result in results:
        if result.choice and not quiet:
            emit(None, f"\n{result.choice}")
    if not quiet:
        for note in dict.fromkeys(note for result in results for note in result.notes):
            warn(f"{names([result.model for result in results if note in result.notes])}: {note}")
    for result in results:
        if result.error is not None and result.status == "failed":
            typer.echo(f"\n{result.model} failed at {result.stage}: {result.error}", err=True)
        elif result.error is not None and not quiet:
            typer.echo(f"\n{result.model} is left out: {result.error}", err=True)


def _in_container(specs: list[Any], only: Sequence[str], arguments: Sequence[str], *, dry_run: bool) -> int:
    """Build inside the server's image, each spec in that of its own release."""
    from builder.engine import container_command, run_in_container
    from builder.releases import PINNED_RELEASE

    engine = "docker" if shutil.which("docker") or not shutil.which("podman") else "podman"
    for spec in specs:
        release, mounts = spec.server or PINNED_RELEASE, [spec.repository.parent]
        command = container_command(spec.path, release, only, engine=engine, mounts=mounts, arguments=arguments)
        if dry_run:
            emit(None, shlex.join(command))
        else:
            run_in_container(command)
    return 0


def main() -> None:
    """Entry point of ``build-repo``."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
