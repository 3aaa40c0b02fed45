"""What a search came to: the recipe with its evidence, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from builder.agreement import Verdict
from builder.errors import PrecisionError
from builder.precision.frontier import Candidate
from builder.precision.recipe import Recipe

_BLAMED = 5


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        recipe: the one chosen.
        verdict: of the judge on it.
        chosen: the same with its size and times.
        frontier: those judged that nothing else beats.
        complete: False where the time ran out before everything was tried.
        seconds: how long it took, this time.
        blamed: nodes by what they cost, the dearest first, as a share of what the whole model may lose.
    """

    recipe: Recipe
    verdict: Verdict
    chosen: Candidate
    frontier: tuple[Candidate, ...]
    complete: bool
    seconds: float
    blamed: tuple[tuple[str, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return {
            "recipe": self.recipe.as_dict(),
            "verdict": self.verdict.as_dict(),
            "chosen": self.chosen.as_dict(),
            "frontier": [one.as_dict() for one in self.frontier],
            "complete": self.complete,
            "seconds": round(self.seconds, 1),
            "blamed": [list(pair) for pair in self.blamed[:_BLAMED]],
        }


class OutOfBudgetError(PrecisionError):
    """Nothing that was tried holds the accuracy; ``best`` came nearest, and was written."""

    best: Found


def out_of_budget(found: Found, precision: str, minutes: float) -> OutOfBudgetError:
    """The error for a search whose best is outside the limits."""
    dearest = ", ".join(f"{name} ({cost:.3g})" for name, cost in found.blamed[:_BLAMED] if cost > 0)
    limits = ", ".join(f"{name} {limit:.9g}" for name, limit in found.verdict.limits.items())
    tried = f"the best of all that was tried: {found.recipe.method}, {len(found.recipe.keep)} nodes in float"
    more = (
        ""
        if found.complete
        else f"search longer than {minutes:g} minutes (--search-minutes; it goes on where it was), "
    )
    error = OutOfBudgetError(
        f"{precision} does not hold its accuracy: {'; '.join(found.verdict.failed)}",
        where=f"nodes that cost most, in shares of what may be lost: {dearest}" if dearest else "",
        expected=limits,
        got=tried,
        fix=f"{more}give more calibration samples, and more typical ones, name delicate nodes in `precision.keep`, "
        "take a wider limit (`agreement`, `evaluate.max_drop`) or a finer precision; --allow-accuracy-drop publishes "
        "it as it is",
    )
    error.best = found
    return error


def nothing_made(problems: Sequence[str], complete: bool) -> PrecisionError:
    """The error for a search that judged nothing at all."""
    if not complete and not problems:
        return PrecisionError(
            "the time for searching was spent before a single candidate was judged",
            expected="time for a few candidates",
            got="none",
            fix="give it more minutes: --search-minutes",
        )
    return PrecisionError(
        "no recipe could be made for this model",
        expected="at least one",
        got=problems[0] if problems else "nothing in the graph that could be changed",
        fix="mend what is said there, or leave this variant out" if problems else "leave this variant out",
    )
