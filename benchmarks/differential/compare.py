"""Two verdicts on each case, counted: how many refusals were foreseen, how many errors were false, where they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.differential.case import Case
from benchmarks.differential.offline import Opinion
from benchmarks.differential.real import Verdict
from builder.rules.disagreements import DISAGREEMENTS, Disagreement

RECALL, FALSE_ERRORS = 0.98, 0.01  # the goals
# The server's words for what our backend in the embedded server does not do and NVIDIA's does, and the reverse.
EMBEDDED = {
    "is not available behind the embedded server's": "our ONNX Runtime backend lacks it, NVIDIA's has it",
    "are not available behind the embedded server's": "our ONNX Runtime backend lacks it, NVIDIA's has it",
    "libtritonrepoagent_checksum.so": "the embedded server lacks the agent checksum, which NVIDIA's image has",
}
_OF_PYTHON = "our ONNX Runtime backend is a python one, and reads the python backend's parameters"


@dataclass(frozen=True)
class Pair:
    """One case with both verdicts."""

    case: Case
    server: Verdict
    offline: Opinion

    @property
    def apart(self) -> str:
        """Why this case is not part of the goals; empty where it is."""
        if self.case.apart:
            return self.case.apart
        said = self.server.reason
        if ("canonical path" in said or "FORCE_CPU_ONLY" in said) and self.case.files.get(
            f"{self.server.model}/1/model.py"
        ) is None:
            return _OF_PYTHON
        return next((why for words, why in EMBEDDED.items() if words in said), "")

    @property
    def differs(self) -> bool:
        """True where one refuses what the other takes."""
        return self.server.loads != self.offline.loads

    @property
    def known(self) -> Disagreement | None:
        """The explanation that fits, where they differ."""
        rules = {rule for rule, _ in self.offline.errors}
        return next((known for known in DISAGREEMENTS if known.fits(self.server.reason, rules)), None)


@dataclass(frozen=True)
class Count:
    """What was counted over some cases.

    Attributes:
        cases: how many.
        refused: by the server.
        foreseen: of those, by `check-repo` as well.
        false: refused by `check-repo` alone.
    """

    cases: int
    refused: int
    foreseen: int
    false: int

    @property
    def recall(self) -> float:
        """Share of the server's refusals that were foreseen; 1 where there were none."""
        return self.foreseen / self.refused if self.refused else 1.0

    @property
    def false_errors(self) -> float:
        """Share of what the server loads that `check-repo` calls wrong; 0 where nothing loads."""
        loaded = self.cases - self.refused
        return self.false / loaded if loaded else 0.0

    @property
    def holds(self) -> bool:
        """True where both goals are met."""
        return self.recall >= RECALL and self.false_errors <= FALSE_ERRORS


def paired(cases: Iterable[Case], verdicts: Mapping[str, Verdict], opinions: Mapping[str, Opinion]) -> list[Pair]:
    """The cases with both verdicts, in their order."""
    return [Pair(case, verdicts[case.key], opinions[case.key]) for case in cases]


def counted(pairs: Iterable[Pair]) -> Count:
    """All of them, counted."""
    every = list(pairs)
    refused = [pair for pair in every if not pair.server.loads]
    return Count(
        len(every),
        len(refused),
        sum(not pair.offline.loads for pair in refused),
        sum(pair.server.loads and not pair.offline.loads for pair in every),
    )


def compared(pairs: Iterable[Pair]) -> list[Pair]:
    """Those that are part of the goals."""
    return [pair for pair in pairs if not pair.apart]


def by_kind(pairs: Iterable[Pair]) -> dict[str, Count]:
    """Counted for each kind of mutation."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.case.kind, []).append(pair)
    return {kind: counted(group) for kind, group in groups.items()}


def differing(pairs: Iterable[Pair]) -> list[Pair]:
    """Those of the goals where one refuses what the other takes."""
    return [pair for pair in compared(pairs) if pair.differs]


def unexplained(pairs: Iterable[Pair]) -> list[Pair]:
    """Differences for which no rule's page has an explanation."""
    return [pair for pair in differing(pairs) if pair.known is None]


def table(pairs: Sequence[Pair]) -> list[str]:
    """The whole comparison as Markdown."""
    goal = compared(pairs)
    total = counted(goal)
    late = [pair for pair in goal if pair.offline.later and pair.server.loads and pair.offline.loads]
    of_rules = ", ".join(sorted({rule for pair in late for rule in pair.offline.later})) or "none"
    lines = [
        f"{len(pairs)} cases of {len({pair.case.kind for pair in pairs})} kinds from "
        f"{len({pair.case.seed for pair in pairs})} repositories; {len(goal)} are compared.",
        "",
        f"- The server refuses {total.refused} of them, `check-repo` foresees {total.foreseen}: "
        f"**recall {total.recall:.4f}** (goal: at least {RECALL}).",
        f"- The server loads {total.cases - total.refused} of them, `check-repo` sees errors in {total.false}: "
        f"**false errors {total.false_errors:.4f}** (goal: at most {FALSE_ERRORS}).",
        f"- {len(late)} that load have an error in `check-repo` that only a request meets ({of_rules}): not counted as "
        "false.",
        f"- The server itself died of {sum(pair.server.died for pair in pairs)}; `check-repo` broke on "
        f"{sum(bool(pair.offline.broken) for pair in pairs)}.",
        "",
        "## By kind",
        "",
        "| mutation | cases | refused | foreseen | recall | false errors |",
        "|---|---|---|---|---|---|",
    ]
    for kind, count in by_kind(goal).items():
        recall = f"{count.recall:.3f}" if count.refused else ""
        lines.append(
            f"| {kind} | {count.cases} | {count.refused} | {count.foreseen} | {recall} | {count.false or ''} |"
        )
    return lines + _differences(pairs) + _apart(pairs)


def _differences(pairs: Sequence[Pair]) -> list[str]:
    lines = ["", "## Where they differ", ""]
    found = differing(pairs)
    if not found:
        return [*lines, "Nowhere."]
    lines += ["| mutation | repository | the server | `check-repo` | explanation |", "|---|---|---|---|---|"]
    for pair in found:
        said = "; ".join(f"{rule}: {message}" for rule, message in pair.offline.errors[:2]) or "no error"
        known = pair.known
        why = f"[{known.rule}]: {known.why}" if known else "**none**"
        cells = (pair.case.kind, pair.case.seed, pair.server.reason or "loads", said, why)
        lines.append("| " + " | ".join(_cell(text) for text in cells) + " |")
    return lines


def _apart(pairs: Sequence[Pair]) -> list[str]:
    lines = [
        "",
        "## Apart from the goals",
        "",
        "| why | cases | refused | foreseen | false errors |",
        "|---|---|---|---|---|",
    ]
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.apart:
            groups.setdefault(pair.apart, []).append(pair)
    for why, group in sorted(groups.items()):
        count = counted(group)
        lines.append(f"| {why} | {count.cases} | {count.refused} | {count.foreseen} | {count.false or ''} |")
    return lines


def _cell(text: str, longest: int = 240) -> str:
    flat = " ".join(text.replace("|", "/").split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "\u2026"
