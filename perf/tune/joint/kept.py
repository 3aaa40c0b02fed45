"""Plans and their rounds in the journal of a search, for ``--resume``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from perf.tune.curve import Curve
from perf.tune.joint.judge import Seen
from perf.tune.joint.plan import JointTrial, Plan
from perf.tune.joint.predict import CurveKey
from perf.tune.journal import Journal
from perf.tune.judge import Measured
from perf.tune.simulate import Arrivals
from perf.tune.space import Settings


def keep_curve(journal: Journal, member: str, curve: Curve) -> None:
    """Keep the times of a member's executions."""
    journal.other({"member": member, "timed": curve.as_dict()})


def keep_round(journal: Journal, trial: JointTrial, number: int, seen: Seen) -> None:
    """Keep a measurement."""
    plan = {"parts": [[name, asdict(each)] for name, each in trial.plan.parts], "limited": trial.plan.limited}
    models = {name: asdict(each) for name, each in seen.models.items()}
    loads = [asdict(load) for load in trial.loads]
    found = {"models": models, "compute_us": dict(seen.compute_us)}
    journal.other({"plan": plan, "loads": loads, "number": number, "seen": found})


def curves_of(journal: Journal) -> dict[CurveKey, Curve]:
    """The curves it holds."""
    found = {}
    for entry in journal.others:
        if "timed" in entry:
            curve = Curve.from_dict(entry["timed"])
            found[str(entry["member"]), curve.variant, curve.threads] = curve
    return found


def rounds_of(journal: Journal) -> list[tuple[JointTrial, int, Seen]]:
    """The measurements it holds, in their order."""
    return [_round(entry) for entry in journal.others if "plan" in entry]


def _round(entry: Mapping[str, Any]) -> tuple[JointTrial, int, Seen]:
    parts = tuple(
        (str(name), Settings(**{**each, "preferred": tuple(each["preferred"])}))
        for name, each in entry["plan"]["parts"]
    )
    loads = tuple(Arrivals(**load) for load in entry["loads"])
    models = {
        name: Measured(**{**each, "doubts": tuple(each.get("doubts", ()))})
        for name, each in entry["seen"]["models"].items()
    }
    trial = JointTrial(Plan(parts, bool(entry["plan"]["limited"])), loads)
    return trial, int(entry["number"]), Seen(models, entry["seen"]["compute_us"])
