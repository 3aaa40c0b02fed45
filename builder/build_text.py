"""What ``build-repo`` says of a plan and of a build, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from builder.outcome import ModelResult
    from builder.planning import Step

_NAMES_SHOWN = 5


def plan_text(steps: Sequence[Step]) -> str:
    """Every step, and why it has to run."""
    lines = []
    model, width = None, 0
    for step in steps:
        if step.model != model:
            model = step.model
            width = max(10, *(len(each.stage) for each in steps if each.model == model))
            lines.append(f"{model}")
        lines.append(f"  {step.stage:<{width}} {step.status:<7} {step.what}")
        lines += [f"  {'':<{width + 8}} because {reason}" for reason in step.why]
    return "\n".join(lines)


def results_table(results: Sequence[ModelResult]) -> Table:
    """What became of each model, a row each."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    headings = ["model", "status", "version", "size", "max abs error", "cosine", "accuracy", "mean batch", "seconds"]
    if all(result.variant == "onnx-fp32" for result in results):
        headings.remove("cosine")  # it is 1 for all of them
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("model", "status") else "right", no_wrap=True)
    for result in results:
        row = _row(result)
        table.add_row(*(row[heading] for heading in headings))
    return table


def names(models: Sequence[str]) -> str:
    """``a, b, c``, or the first and how many more."""
    if len(models) > _NAMES_SHOWN:
        return f"{', '.join(models[:_NAMES_SHOWN])} and {len(models) - _NAMES_SHOWN} more"
    return ", ".join(models)


def _row(result: ModelResult) -> dict[str, str]:
    """One model by heading; nothing where there is nothing to say."""
    row = dict.fromkeys(("version", "max abs error", "cosine", "accuracy", "mean batch"), "")
    row |= {"model": result.model, "status": result.status, "size": "", "seconds": f"{result.seconds:.1f}"}
    if result.status == "failed":
        return row | {"status": f"failed at {result.stage}"}
    if result.status == "left out":
        return row | {"seconds": ""}
    row["size"] = f"{result.size_bytes / 1e6:.2f} MB"
    if result.version is None:  # an engine beside the repository: nothing here ran it
        return row
    accuracy = "" if result.accuracy is None else f"{result.accuracy:.4g}"
    if result.accuracy is not None and result.accuracy != (before := result.accuracy_reference or 0.0):
        accuracy += f" ({result.accuracy - before:+.2g})"
    return row | {
        "version": str(result.version),
        "max abs error": f"{result.max_abs:.2g}",
        "cosine": f"{result.scores.get('cosine', result.cosine):.6f}",
        "accuracy": accuracy,
        "mean batch": f"{result.mean_batch:.1f}",
    }
