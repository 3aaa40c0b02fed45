"""What was tried, as data: how accurate, how large, how fast; and those that nothing else beats in all three."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from builder.precision.recipe import Recipe


@dataclass(frozen=True)
class Candidate:
    """One recipe, and what came of it.

    Attributes:
        recipe: how it is made.
        scores: what the judge measured.
        ok: within the limits.
        margin: distance to the nearest limit, see :class:`builder.agreement.Verdict`.
        size_bytes: of the file, with its external data.
        latency_us: median time of a request; None where it was not measured.
        latency_ratio: fp32's time over its own, measured in turns: 2.0 is twice as fast; None where not measured.
        noise: by how much of itself ``latency_ratio`` may be off.
    """

    recipe: Recipe
    scores: Mapping[str, float]
    ok: bool
    margin: float
    size_bytes: int
    latency_us: float | None = None
    latency_ratio: float | None = None
    noise: float = field(default=0.0)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return {
            "recipe": self.recipe.as_dict(),
            "scores": dict(self.scores),
            "ok": self.ok,
            "margin": self.margin,
            "size_bytes": self.size_bytes,
            "latency_us": self.latency_us,
            "latency_ratio": self.latency_ratio,
            "noise": self.noise,
        }


def frontier(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Those that no other is better than in one thing and as good as in the others; the most accurate first.

    Where some were timed, only those can be: what was not timed cannot be said to be fast.
    """
    known = {candidate.recipe.digest: candidate for candidate in candidates}
    timed = [candidate for candidate in known.values() if candidate.latency_ratio is not None]
    pool = timed or list(known.values())
    best = [one for one in pool if not any(_dominates(other, one) for other in pool)]
    return tuple(sorted(best, key=lambda one: (-one.margin, one.size_bytes, one.recipe.digest)))


def fastest(candidates: Sequence[Candidate]) -> Candidate:
    """The fastest of those that were timed; a difference inside the noise goes to the more accurate."""
    timed = [one for one in candidates if one.latency_ratio is not None]
    if not timed:
        return min(candidates, key=lambda one: (len(one.recipe.keep), -one.margin, one.recipe.digest))
    best = max(timed, key=lambda one: _ratio(one))
    level = [one for one in timed if _ratio(one) >= _ratio(best) * (1 - max(best.noise, one.noise))]
    return max(level, key=lambda one: (one.margin, _ratio(one), one.recipe.digest))


def table(candidates: Iterable[Candidate]) -> str:
    """As text: a line for each, names of scores above."""
    rows = list(candidates)
    names = list(dict.fromkeys(name for one in rows for name in one.scores))
    lines = [["recipe", "in float", "MB", "speed", *names, "within"]]
    for one in rows:
        speed = "-" if one.latency_ratio is None else f"{one.latency_ratio:.2f}x"
        values = [f"{one.scores[name]:.4f}" if name in one.scores else "-" for name in names]
        size = f"{one.size_bytes / 1e6:.1f}"
        lines.append([_told(one.recipe), str(len(one.recipe.keep)), size, speed, *values, "yes" if one.ok else "no"])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _told(recipe: Recipe) -> str:
    options = [f"{key}={value}" for key, value in sorted(recipe.options.items()) if value not in (None, False)]
    return " ".join([recipe.method, *options])


def _ratio(one: Candidate) -> float:
    return one.latency_ratio or 0.0


def _dominates(other: Candidate, one: Candidate) -> bool:
    mine = (one.margin, -one.size_bytes, _ratio(one))
    theirs = (other.margin, -other.size_bytes, _ratio(other))
    return theirs != mine and all(a >= b for a, b in zip(theirs, mine, strict=True))
