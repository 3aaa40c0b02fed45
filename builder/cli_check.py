"""``check-repo``: arguments, calls, exit status."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from builder.findings import did_you_mean
from serving.errors import MissingDependencyError, UsageError
from serving.terminal import OutputFormat, QuietOption, VersionOption, create_app, emit, epilog, report, run

EXAMPLES = [
    "check-repo                               # model_repository in this folder",
    "check-repo models_a models_b             # repositories that one server serves together",
    "check-repo models --server 24.10         # also what that release's libraries refuse",
    "check-repo models --server 24.10-cpu     # the same, on a server without GPUs; or: embedded",
    "check-repo models --config-only          # the config.pbtxt files alone",
    "check-repo models --format json          # for programs; github: annotations of a workflow",
    "check-repo models --ignore no-warmup     # without one rule; may be given several times",
    "check-repo --explain preferred-batch-size",
]


class Format(str, Enum):
    """How the findings are written to stdout."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


app = create_app("check-repo", help="Judge any Triton model repository, without a server.")


@app.command(epilog=epilog(EXAMPLES))
def check_repo(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR]...", help="Repositories. [default: model_repository]", show_default=False),
    ] = None,
    output: Annotated[
        Format,
        typer.Option("--format", help="text for people, json for programs, github for a workflow's annotations."),
    ] = Format.TEXT,
    config_only: Annotated[
        bool,
        typer.Option("--config-only", help="Judge the config.pbtxt files alone, as if each model's files were there."),
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(
            "--server", metavar="RELEASE", help="The Triton that is to serve them: 24.10, 24.10-cpu, embedded."
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="RULE", help="Leave this rule out; several times.")
    ] = None,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="RULE", help="Say what a rule is about, with examples, and exit.")
    ] = None,
    quiet: QuietOption = False,
    version: VersionOption = False,
) -> int:
    """Find what the server would refuse at load in DIR, and what it would serve worse than it could.

    Nothing of the repository is run. Exit status: 0 clean or only warnings, 1 errors, 2 unusable arguments.
    """
    from builder.check.judging import all_rules, check_repositories
    from builder.check.output import as_annotations, as_data, as_text, explanation
    from builder.check.target import server_of

    rules = {rule.id: rule for rule in all_rules()}
    if explain is not None:
        _known([explain], rules, "--explain")
        rule = rules[explain]
        if output is Format.JSON:
            emit({"rule": vars(rule)}, output=OutputFormat.JSON)
        else:
            emit(None, explanation(rule, _style))
        return 0
    _known(ignore or (), rules, "--ignore")
    target = server_of(server)
    places = folders or [Path("model_repository")]
    _folders(places)
    try:
        judged = check_repositories(places, config_only=config_only, server=target, ignore=ignore or ())
    except MissingDependencyError as error:
        report(error)
        return 2
    found = [one for one in judged.found if not quiet or one.severity == "error"]
    if output is Format.JSON:
        emit(as_data(judged.found), output=OutputFormat.JSON)
    elif output is Format.GITHUB:
        emit(None, as_annotations(found))
    else:
        emit(None, as_text(found, judged.models, _style))
    return 1 if any(one.severity == "error" for one in judged.found) else 0


def _style(text: str, how: str) -> str:
    """Colour; typer takes it away again where stdout is no terminal."""
    return typer.style(text, bold=True) if how == "bold" else typer.style(text, fg=how)


def _known(ids: Iterable[str], rules: Iterable[str], option: str) -> None:
    for each in ids:
        if each not in rules:
            fix = did_you_mean(each, rules) or "see docs/reference/rules.md"
            raise UsageError(f"no such rule: {each}", where=option, expected="a rule's id", got=each, fix=fix)


def _folders(places: Iterable[Path]) -> None:
    for place in places:
        if not place.is_dir():
            got = "a file" if place.exists() else "nothing"
            expected = "a folder that holds a folder per model"
            fix = "name the repository: check-repo DIR"
            raise UsageError("no such repository", where=str(place), expected=expected, got=got, fix=fix)


def main() -> None:
    """Entry point of ``check-repo``."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
