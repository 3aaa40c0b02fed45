"""A deterministic list of cases: every kind of mutation on every repository it applies to, in turn."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from benchmarks.differential.case import Case
from benchmarks.differential.mutate_config import CONFIG
from benchmarks.differential.mutate_ensemble import ENSEMBLE
from benchmarks.differential.mutate_files import FILES
from benchmarks.differential.mutate_harmless import HARMLESS
from benchmarks.differential.mutate_scheduling import SCHEDULING
from benchmarks.differential.mutate_text import TEXT
from benchmarks.differential.seeds import seeds

Mutation = Callable[[Case, random.Random], Case | None]
MUTATIONS: dict[str, Mutation] = {**TEXT, **CONFIG, **SCHEDULING, **FILES, **ENSEMBLE, **HARMLESS}
# Kinds whose verdicts need not agree, and why: they are loaded, counted and shown, and not part of the goals.
APART = {
    "Python raises": "only running the code tells",
}
SEED = 2026


def cases(count: int, *, seed: int = SEED) -> list[Case]:
    """The first ``count`` of the list, unchanged repositories first; all different.

    Args:
        count: how many.
        seed: another one gives another list.
    """
    roots = seeds()
    found = {case.key: case for case in roots}
    turn = 0
    dry = 0
    while len(found) < count and dry < 20:
        dry += 1
        for kind, mutation in MUTATIONS.items():
            rng = random.Random(f"{seed} {kind} {turn}")
            for root in rng.sample(roots, len(roots)):
                case = _mutated(root, kind, mutation, rng)
                if case is not None and case.key not in found:
                    found[case.key] = case
                    dry = 0
                    break
        turn += 1
    return list(found.values())[:count]


def _mutated(root: Case, kind: str, mutation: Mutation, rng: random.Random) -> Case | None:
    case = mutation(root, rng)
    if case is None:
        return None
    return replace(case, kind=kind, apart=APART.get(kind, ""))
