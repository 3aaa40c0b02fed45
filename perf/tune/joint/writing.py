"""A joint result into ``overrides.yaml``: an entry for each member, each with the evidence for all of them."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from perf.tune.joint.result import JointResult, PlanRow
from perf.tune.overrides import put_overrides


def write_joint(path: Path, result: JointResult, *, made: datetime | None = None) -> None:
    """Put a joint search's outcome into the file, in place of what it said of its members.

    Raises:
        TuneError: it cannot be written, or is another file.
    """
    moment = made or datetime.now(timezone.utc)
    put_overrides(
        path,
        {name: (result.fields.get(name, {}), evidence_of(result, name, moment)) for name in result.members},
    )


def evidence_of(result: JointResult, member: str, made: datetime) -> dict[str, Any]:
    """What the fields of one member rest on, as plain data."""
    found: dict[str, Any] = {
        "made": made.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "together_with": [name for name in (*result.models, *result.members) if name != member],
        "goal": result.goal,
        "limits": result.limits,
        "load": result.load,
        "reason": result.reason,
        "decided": result.decided,
        "measurements": result.measurements,
        "predicted": result.predicted,
        "machine": {key: result.machine[key] for key in ("cpu", "cores_usable") if key in result.machine},
        "default": _row(result.default),
    }
    found["together_with"] = list(dict.fromkeys(found["together_with"]))
    if result.status == "found" and result.chosen is not None:
        found["tuned"] = _row(result.chosen)
    for change in result.changes:
        if change.name == member and change.factor is not None:
            known = [round(end, 3) for end in change.interval] if change.interval else "predicted"
            what = {"before": change.before, "after": change.after}
            found["change"] = what | {"factor": round(change.factor, 3), "known": known}
    if result.server_arguments:
        found["server_arguments"] = list(result.server_arguments)
    return {key: value for key, value in found.items() if value not in (None, {}, [])}


def _row(row: PlanRow) -> dict[str, Any]:
    found: dict[str, Any] = {"what": row.title, "rounds": row.rounds}
    for each in row.models:
        name = f"p{each.percentile:g}"
        figures: dict[str, Any] = {
            "inferences_per_s": round(each.inferences_per_s, 1),
            f"{name}_us": round(each.latency_us, 1),
            "requests": each.requests,
        }
        if each.latency_interval_us is not None:
            figures[f"{name}_interval_us"] = [round(end, 1) for end in each.latency_interval_us]
        found[each.model] = figures
    if row.gain_interval is not None:
        found["gain"] = [round(end, 3) for end in row.gain_interval]
    return found
