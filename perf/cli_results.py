"""``bench-repo history``, ``compare`` and ``report``: what was measured before, read and judged."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from perf import compare_text, history_text
from perf.cli_report import RESULTS_PANEL, Format, HtmlOption, check_place, put_page, show, write_page
from perf.compare import compare
from perf.gate import GateOutcome, figures_of, gate_markdown, gate_text, judge
from perf.gate_file import Gate, GateError, load_gate
from perf.history import DEFAULT_HISTORY, History, HistoryError
from perf.references import Side, find_side
from perf.result import BenchResult
from serving.errors import Problem
from serving.terminal import QuietOption, VerboseOption, configure_logging, epilog, warn

HISTORY_EXAMPLES = (
    "bench-repo history   # which models were measured, and how often",
    "bench-repo history digits   # its figures over time, with revision and machine",
    "bench-repo history digits --runs 5 --format json",
)

REPORT_EXAMPLES = (
    "bench-repo report HEAD   # the newest run of this revision, as it was shown then",
    "bench-repo report results/20261121T090000Z --html report.html",
)

COMPARE_EXAMPLES = (
    "bench-repo compare main HEAD   # two git revisions that were measured here",
    "bench-repo compare results/20261120T090000Z results/20261121T090000Z   # two kept results",
    "bench-repo compare 3f2a:digits_onnx_fp32 3f2a:digits_onnx_int8   # two variants of one run",
    "bench-repo compare main HEAD --html comparison.html   # a page with every ratio, what else differs, the commands",
    "bench-repo compare main HEAD --gate gate.yaml   # exit status 1 if it became slower",
    "bench-repo compare old.json new.json --format markdown >> $GITHUB_STEP_SUMMARY",
)


class TableFormat(str, Enum):
    """What stdout gets."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


HistoryOption = Annotated[
    Path,
    typer.Option(
        "--history",
        metavar="FILE",
        envvar="BENCH_HISTORY",
        rich_help_panel=RESULTS_PANEL,
        help="The SQLite file that runs are kept in.",
    ),
]

GateOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", rich_help_panel=RESULTS_PANEL, help="YAML with limits; exit status 1 where one does not hold."
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add the commands to ``bench-repo``, after its own."""
    app.command("compare", epilog=epilog(COMPARE_EXAMPLES))(compare_command)
    app.command("report", epilog=epilog(REPORT_EXAMPLES))(report_command)
    app.command("history", epilog=epilog(HISTORY_EXAMPLES))(history_command)


def compare_command(
    first: Annotated[
        str, typer.Argument(metavar="A", help="What it was: result.json or its folder, a run's id, a git revision.")
    ],
    second: Annotated[
        str, typer.Argument(metavar="B", help="What it is now, named alike; A:MODEL B:MODEL compares two models.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Compare runs of unlike machines too, and say so.")] = False,
    allowance: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT", min=0, help="Widen intervals by this for two runs at different times (default: 5)."
        ),
    ] = None,
    html: HtmlOption = None,
    gate: GateOption = None,
    history: HistoryOption = DEFAULT_HISTORY,
    format: Annotated[TableFormat, typer.Option(help="What to write to stdout.")] = TableFormat.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
) -> int:
    """Say whether B is faster or slower than A at each load, how sure that is, or that it cannot be told.

    Exit status: 0 compared, 1 a gate failed, or no history here, 2 nothing to compare, or unlike machines.
    """
    configure_logging(verbose, quiet=quiet)
    check_place(html)
    rules = load_gate(gate) if gate is not None else None
    kept = History(history)
    a, b = find_side(first, kept), find_side(second, kept)
    figures = figures_of(rules) if rules is not None else 1
    compared = compare(a, b, force=force, allowance_percent=allowance, figures=figures)
    outcome = judge(rules, b.result, compared) if rules is not None else None
    if html is not None:
        from perf.html.comparison import comparison_html

        more = ["--force"] * force + ([] if allowance is None else ["--allowance", f"{allowance:g}"])
        command = shlex.join(["bench-repo", "compare", first, second, *more, "--html", str(html)])
        put_page(comparison_html(compared, a, b, command), html)
    if format is TableFormat.JSON:
        verdict = {"gate": outcome.model_dump(mode="json") | {"passed": outcome.passed}} if outcome is not None else {}
        typer.echo(json.dumps(compared.model_dump(mode="json", by_alias=True) | verdict))
    else:
        markdown = format is TableFormat.MARKDOWN
        typer.echo(compare_text.to_markdown(compared) if markdown else compare_text.to_text(compared))
        if outcome is not None:
            say(outcome, markdown=markdown, aside=False)
    return 0 if outcome is None or outcome.passed else 1


def report_command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="result.json or its folder, a run's id, a git revision.")],
    html: HtmlOption = None,
    history: HistoryOption = DEFAULT_HISTORY,
    format: Annotated[Format, typer.Option(help="What to write to stdout.")] = Format.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
) -> int:
    """Show a run that was measured before, in any form; RUN:MODEL shows one model of it.

    Exit status: 0 shown, 1 no history here, 2 no such run.
    """
    configure_logging(verbose, quiet=quiet)
    check_place(html)
    result = find_side(run, History(history)).result
    show(result, format)
    write_page(result, html)
    return 0


def history_command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Whose figures; without it the models are listed.")
    ] = None,
    runs: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the newest N runs.")] = None,
    history: HistoryOption = DEFAULT_HISTORY,
    format: Annotated[TableFormat, typer.Option(help="What to write to stdout.")] = TableFormat.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
) -> int:
    """Show a model's figures over time: each load, with its 95% intervals, revision and machine.

    Exit status: 0 shown, 1 no history here, 2 no such model.
    """
    configure_logging(verbose, quiet=quiet)
    kept = History(history)
    if model is None:
        counts, cut = kept.models(), kept.interrupted()
        if format is TableFormat.JSON:
            typer.echo(json.dumps({"models": counts, "interrupted": cut}))
        else:
            said = {name: f", {cut[name]} of them interrupted" if name in cut else "" for name in counts}
            lines = [f"{name}: {count} run{'s' * (count != 1)}{said[name]}" for name, count in counts.items()]
            typer.echo("\n".join(lines))
        return 0
    rows = kept.rows(model, runs=runs)
    if format is TableFormat.JSON:
        typer.echo(json.dumps({"model": model, "points": history_text.to_data(rows)}))
    elif format is TableFormat.MARKDOWN:
        typer.echo(history_text.to_markdown(rows))
    else:
        typer.echo(history_text.to_text(rows))
    return 0


@dataclass(frozen=True)
class Expected:
    """What a run that is about to be measured must hold.

    Attributes:
        baseline: found before the run, so that it cannot be the run itself.
    """

    gate: Gate
    baseline: Side | None

    def judge(self, result: BenchResult) -> GateOutcome:
        """Whether it does.

        Raises:
            UsageError: the baseline is of another machine, or has nothing in common with the run.
        """
        comparison = None
        if self.baseline is not None:
            comparison = compare(self.baseline, Side("this run", (result,)), figures=figures_of(self.gate))
        return judge(self.gate, result, comparison)


def expected(path: Path | None, history: Path) -> Expected | None:
    """The gate of a run that is about to be measured, with its baseline; None for none.

    Raises:
        GateError, UsageError, HistoryError: it cannot be used; before minutes are spent on measuring.
    """
    if path is None:
        return None
    gate = load_gate(path)
    rule = gate.regression
    if rule is None:
        return Expected(gate, None)
    if rule.against is None:
        what, wanted = "no baseline is named", "against: a result.json, a run's id or a git revision"
        fix = "add it to the rule, or judge a kept run: bench-repo gate, with A and B"
        raise GateError([Problem(what, f"{rule.where}, regression", wanted, "a regression without against", fix)])
    return Expected(gate, find_side(rule.against, History(history)))


def say(outcome: GateOutcome, *, markdown: bool, aside: bool) -> None:
    """Write what became of a gate.

    Args:
        aside: to stderr, where stdout is for a program.
    """
    typer.echo("\n" + (gate_markdown(outcome) if markdown else gate_text(outcome)), err=aside)


def prepared(path: Path | None) -> History | None:
    """The history of a run that is about to be measured, seen to be writable; None for none.

    Raises:
        HistoryError: it is not.
    """
    if path is None:
        return None
    history = History(path)
    history.prepare()
    return history


def keep(result: BenchResult, history: History | None) -> None:
    """Put a run into the history. A history that cannot be written is a warning: the run was paid for."""
    if history is None:
        return
    try:
        history.append(result)
    except HistoryError as error:
        warn(f"this run is not in the history {history.path}: {error.got}")
