"""What ``bench-repo compare A B`` is told, found: a file, a run of the history, a git revision, one of their models."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from perf.commits import commit_of
from perf.history import History
from perf.history_text import ID_LENGTH, short_revision
from perf.machines import differences
from perf.report import RESULT, read_result
from perf.result import BenchResult
from serving.errors import UsageError

SHORTEST = 4
"""Digits of a run's id or of a commit that are enough to ask for it."""
_FORM = f"a {RESULT} of bench-repo, of the form that this release reads"
_AGAIN = "name another run, or measure again: bench-repo --output DIR writes one"
_DIGITS = re.compile(r"[0-9a-f]+\+?")


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        text: as it was asked for.
        results: at least one, the newest first; several where a revision was measured several times on alike machines.
        model: the only one that is meant, None for all.
    """

    text: str
    results: tuple[BenchResult, ...]
    model: str | None = None

    @property
    def newest(self) -> BenchResult:
        """The newest of its runs."""
        return self.results[0]

    @property
    def result(self) -> BenchResult:
        """The newest of its runs, with the models that are meant."""
        models = tuple(run for run in self.newest.models if self.model in (None, run.model))
        return self.newest.model_copy(update={"models": models})

    def __str__(self) -> str:
        run = self.newest
        which = f"run {run.id[:ID_LENGTH]}" if len(self.results) == 1 else f"{len(self.results)} runs"
        parts = [which, f"{run.started_at:%Y-%m-%d %H:%M} UTC"]
        if run.revision:
            parts.append(f"revision {short_revision(run.revision)}")
        return f"{self.text} ({', '.join(parts)})"


def find_side(text: str, history: History) -> Side:
    """What a reference means.

    Args:
        text: ``result.json`` or its folder; a run's id or its beginning; whatever git takes for a commit; each with
            ``:MODEL`` behind it for one model of it.

    Raises:
        UsageError: it means nothing, or several things.
    """
    if not text.partition(":")[0]:
        raise UsageError(
            "no run is named",
            where=repr(text),
            expected="result.json or its folder, a run's id, or a git revision; with :MODEL behind it for one model",
            got="no name" if not text else "a model without a run",
            fix="bench-repo history MODEL lists the runs of a model",
        )
    base, colon, model = text.rpartition(":")
    if not colon or Path(text).exists():
        base, model = text, ""
    results = _file(Path(base)) if Path(base).exists() else _kept(base, history)
    side = Side(text, tuple(results), model or None)
    if model and not any(model == run.model for run in side.newest.models):
        names = ", ".join(run.model for run in side.newest.models)
        close = difflib.get_close_matches(model, names.split(", "), n=1) or names.split(", ")
        raise UsageError("this run has no such model", where=text, expected=names, got=model, fix=f"{base}:{close[0]}")
    return side


def _file(path: Path) -> list[BenchResult]:
    file = path / RESULT if path.is_dir() else path
    if not file.is_file():
        runs = sorted(each.parent for each in path.glob(f"*/{RESULT}"))
        got = f"{len(runs)} runs" if runs else "no run"
        fix = f"name one of them: {runs[-1]}" if runs else "bench-repo --output DIR makes a folder for each run"
        raise UsageError("not the folder of a run", where=str(path), expected=f"{RESULT} in it", got=got, fix=fix)
    try:
        return [read_result(file)]
    except (OSError, UnicodeDecodeError) as exc:
        got = str(exc) if isinstance(exc, UnicodeDecodeError) else exc.strerror or str(exc)
        fix = f"give read permission, or name another: chmod u+r {file}" if isinstance(exc, PermissionError) else _AGAIN
        raise UsageError("this file cannot be read", where=str(file), expected=_FORM, got=got, fix=fix) from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        got = f"{place}: {first['msg']}" if place else str(first["msg"])
        raise UsageError("not a result of bench-repo", where=str(file), expected=_FORM, got=got, fix=_AGAIN) from exc


def _kept(text: str, history: History) -> list[BenchResult]:
    if ("/" in text and commit_of(text) is None) or text.endswith(".json"):
        raise UsageError(
            "no such file",
            where=text,
            expected=f"{RESULT}, or the folder that holds it",
            got="nothing of this name",
            fix="bench-repo --output DIR keeps results in DIR/<time>; without a file name a run's id or a git revision",
        )
    digits = bool(_DIGITS.fullmatch(text)) and len(text) >= SHORTEST
    runs = history.by_id(text) if digits else []
    commit = commit_of(text.removesuffix("+"))
    revision = (commit + "+" * text.endswith("+")) if commit else (text if digits else "")
    revised = history.by_revision(revision) if revision else []
    commits = dict.fromkeys(str(run.revision) for run in revised)
    if len(runs) + len(commits) > 1:
        means = [f"run {run.id}" for run in runs] + [f"revision {name}" for name in commits]
        raise UsageError("this means several runs", where=text, got="\n".join(means[:8]), fix="give more digits")
    if runs or revised:
        return runs or _alike(revised)
    changed = history.by_revision(f"{revision}+") if revision and not revision.endswith("+") else []
    if changed:
        fix = f"commit, and measure again; or say that you mean it: {text}+"
        got = f"{len(changed)} of it with uncommitted changes"
        raise UsageError("no run of this revision", where=text, expected="a run without changes", got=got, fix=fix)
    raise UsageError(
        "no run of this revision" if commit else "no such run",
        where=f"{text} in {history.path}",
        expected="result.json or its folder, a run's id, or a git revision that was measured",
        got=f"commit {commit}, which was never measured" if commit else "",
        fix="bench-repo history MODEL lists the runs of a model",
    )


def _alike(results: Sequence[BenchResult]) -> list[BenchResult]:
    """The newest one, and the older ones that were measured as it was; interrupted ones only for want of others."""
    results = [each for each in results if each.interrupted is None] or results[:1]
    newest = results[0]
    return [each for each in results if not differences(newest, each) and not unlike_loads(newest, each)]


def unlike_loads(first: BenchResult, second: BenchResult) -> list[str]:
    """In what the requests of two runs were not alike, apart from the loads of their points."""
    found = []
    for key in ("protocol", "shared_memory", "sequence_length"):
        one, other = first.workload.get(key), second.workload.get(key)
        if one != other:
            found.append(f"{key.replace('_', ' ')}: {one} and {other}")
    return found
