"""Why an export failed: the operator, the line of the user's code, and both exporters' reasons."""

from __future__ import annotations

import re
from pathlib import Path

from builder.errors import ExportError, describe, user_line
from builder.loaded import TorchModule
from builder.quiet import quiet
from builder.reference import adapter, torch_arguments
from builder.samples import Samples
from serving.errors import TritonRepoError

EXAMPLE_BATCH = 2
"""What a module is traced with: a batch of one would be taken for a constant."""


def export_error(
    failures: list[tuple[str, BaseException]], loaded: TorchModule, samples: Samples, folder: Path
) -> ExportError:
    """Why every exporter failed, in the words of the first, with the line of the user's code."""
    name, first = failures[0]
    others = "".join(f"\n{other}: {in_short(exc)}" for other, exc in failures[1:])
    if isinstance(first, TritonRepoError):  # it was exported, but does not keep its promise
        return ExportError(
            first.what, where=first.where, expected=first.expected, got=first.got + others, fix=first.fix
        )
    operator = re.search(r"OpOverload\(op='([\w.]+)'", _whole_text(first))
    what = f"operator {operator[1]} cannot be exported to ONNX" if operator else "the module cannot be exported to ONNX"
    return ExportError(
        what,
        where=(_line_of_operator(operator[1], loaded, samples, folder) if operator else "")
        or _line_in_chain(first, folder),
        expected="a module that torch.onnx.export takes, made of operators that ONNX has",
        got=f"{name}: {in_short(first)}{others}",
        fix="write that line with other operators, or do that step outside the model",
    )


def _line_of_operator(operator: str, loaded: TorchModule, samples: Samples, folder: Path) -> str:
    """The user's line behind an operator that ONNX has not: the exporter names the operator, the graph its origin."""
    import torch

    example = torch_arguments(loaded.interface, samples.batch(EXAMPLE_BATCH))
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(adapter(loaded), example).run_decompositions()
    except Exception:  # it is only asked for a hint; the error itself is already at hand
        return ""
    last = operator.rpartition(".")[2]  # prims.bessel_j0 was aten.special_bessel_j0 in the user's code
    lines = {str(node.target): _quoted_line(node.meta.get("stack_trace") or "", folder) for node in program.graph.nodes}
    exact = [line for target, line in lines.items() if line and target.startswith(operator)]
    alike = [line for target, line in lines.items() if line and last in target]
    return next(iter(exact + alike), "")


def _chain(exc: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    probe: BaseException | None = exc
    while probe is not None and probe not in chain:
        chain.append(probe)
        probe = probe.__cause__ or probe.__context__
    return chain


def _whole_text(exc: BaseException) -> str:
    return "\n".join(str(link) for link in _chain(exc))


def _quoted_line(text: str, folder: Path) -> str:
    """The last ``File "...", line N`` of the user's own in a text."""
    quoted = re.findall(r'File "([^"]+)", line (\d+)', text)
    own = [(file, line) for file, line in quoted if Path(file).is_relative_to(folder) and "site-packages" not in file]
    return f"{own[-1][0]}:{own[-1][1]}" if own else ""


def _line_in_chain(exc: BaseException, folder: Path) -> str:
    """The user's line in what dynamo quotes, or in the tracebacks of a chain of exceptions."""
    for link in reversed(_chain(exc)):
        line = _quoted_line(str(link), folder) or user_line(link, folder)
        if line.startswith(f"{folder}/") and "site-packages" not in line:
            return line
    return ""


def in_short(exc: BaseException) -> str:
    """The deepest cause in a line or two, without colours, stack dumps and empty lines."""
    if isinstance(exc, TritonRepoError):
        return f"{exc.what}: {exc.got}"
    text = re.sub(r"\x1b\[[0-9;]*m", "", describe(_chain(exc)[-1], limit=4000))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:3])[:400]
