"""``overrides.yaml``: what a search found, in the keys of ``models.yaml``, with the evidence beside it.

    models:
      digits:
        instances: {count: 2}
        batch: {preferred: [], max_queue_delay_microseconds: 0}
    evidence:
      digits: {...}

``build-repo`` applies ``models`` over the ``models.yaml`` that lies beside it; ``evidence`` is for people. A file that
is there keeps its other models.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from perf.tune.errors import TuneError
from perf.tune.result import Knob, Row, TuneResult

NAME = "overrides.yaml"
_HEAD = """\
# Written by tune-repo. build-repo applies `models` over the models.yaml beside this file; `evidence` is for you.
# Take a model's entry (or the file) away to go back to what models.yaml says.
"""


def read_overrides(path: Path) -> dict[str, Any]:
    """What a file holds; empty where there is none.

    Raises:
        TuneError: it is there, and is not one of these files: it is not written over.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise TuneError(
            "the overrides cannot be read",
            where=str(path),
            expected="a text file that you may read, or none",
            got=str(exc) if isinstance(exc, UnicodeDecodeError) else exc.strerror or str(exc),
            fix="name another file with --output, or move this one away",
        ) from exc
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise TuneError(
            "not valid YAML", where=where, got=str(getattr(exc, "problem", exc)), fix="mend or move it"
        ) from exc
    parts = [(data or {}).get(key, {}) if isinstance(data or {}, dict) else None for key in ("models", "evidence")]
    if not all(isinstance(part, dict) for part in parts):
        raise TuneError(
            "this file was not written by tune-repo",
            where=str(path),
            expected="`models` and `evidence`, each a mapping by model",
            fix="name another file with --output",
        )
    return data or {}


def write_overrides(path: Path, result: TuneResult, *, made: datetime | None = None) -> None:
    """Put a search's outcome into the file, in place of what it said of this model.

    Where the default was the best, the model has no fields: ``models.yaml`` is right as it is.

    Raises:
        TuneError: it cannot be written, or is another file.
    """
    evidence = evidence_of(result, made or datetime.now(timezone.utc))
    put_overrides(path, {result.model: (result.fields, evidence)})


def put_overrides(path: Path, entries: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
    """Put fields and evidence of each of these models into the file, in place of what it said of them.

    Raises:
        TuneError: it cannot be written, or is another file.
    """
    data = read_overrides(path)
    models, evidence = dict(data.get("models", {})), dict(data.get("evidence", {}))
    for model, (fields, known) in entries.items():
        models.pop(model, None)
        if fields:
            models[model] = dict(fields)
        evidence[model] = dict(known)
    body = yaml.safe_dump(
        {"models": models, "evidence": evidence},
        sort_keys=False,
        default_flow_style=None,
        width=110,
        allow_unicode=True,
    )
    _replace(path, _HEAD + body)


def evidence_of(result: TuneResult, made: datetime) -> dict[str, Any]:
    """What the fields rest on, as plain data."""
    found: dict[str, Any] = {
        "made": made.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "goal": result.goal,
        "limit": result.limit,
        "load": result.load,
        "reason": result.reason,
        "decided": result.decided,
        "measurements": result.measurements,
        "predicted": result.predicted,
        "machine": {key: result.machine[key] for key in ("cpu", "cores_usable") if key in result.machine},
    }
    for name, row in (("default", result.default), ("tuned", result.chosen)):
        if row is not None and (name == "default" or result.status == "found"):
            found[name] = _row(row, result.percentile)
    if result.knobs:
        found["knobs"] = {knob.name: _knob(knob) for knob in result.knobs}
    return {key: value for key, value in found.items() if value not in (None, {})}


def _row(row: Row, percentile: float) -> dict[str, Any]:
    def ends(pair: tuple[float, float] | None) -> list[float] | None:
        return [round(end, 1) for end in pair] if pair is not None else None

    found = {
        "what": f"{row.title}, at {row.load}",
        "inferences_per_s": round(row.inferences_per_s or 0.0, 1),
        "inferences_interval": ends(row.inferences_interval),
        f"p{percentile:g}_us": round(row.latency_us or 0.0, 1),
        f"p{percentile:g}_interval_us": ends(row.latency_interval_us),
        "rounds": row.rounds,
        "requests": row.requests,
        "gain": [round(end, 3) for end in row.gain_interval] if row.gain_interval else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _knob(knob: Knob) -> dict[str, Any]:
    before, after = (list(value) if isinstance(value, tuple) else value for value in (knob.before, knob.after))
    found: dict[str, Any] = {"before": before, "after": after}
    if knob.factor is not None:
        found["factor"] = round(knob.factor, 3)
        found["known"] = [round(end, 3) for end in knob.interval] if knob.interval else "predicted"
    return found


def _replace(path: Path, text: str) -> None:
    """Whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise TuneError(
            "the overrides cannot be written",
            where=str(path),
            expected="room for them, in a folder that you may write to",
            got=exc.strerror or str(exc),
            fix="make room, or name another place with --output FILE; --resume then needs no new measurements",
        ) from exc
