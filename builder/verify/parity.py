"""Second rung: the artifact, in ONNX Runtime in this process, gives PyTorch's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from builder.errors import ParityError
from builder.numerics import TOLERANCES, Difference, compare, worst
from builder.reference import Runner
from builder.verify.cases import Case


@dataclass(frozen=True)
class Parity:
    """How far an artifact's answers are from the reference's, over all cases.

    Attributes:
        cases: what was asked.
        outputs: per output, the worst over all cases.
    """

    cases: tuple[str, ...]
    outputs: tuple[Difference, ...]

    @property
    def worst(self) -> Difference:
        """The output nearest to its limit."""
        return worst(list(self.outputs))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return {"cases": list(self.cases), "outputs": [difference.as_dict() for difference in self.outputs]}


def check_parity(runner: Runner, cases: Sequence[Case], precision: str, *, what: str, where: str = "") -> Parity:
    """Ask every case and compare every output.

    Args:
        runner: answers requests; the artifact.
        cases: requests with the reference's answers.
        precision: row of the tolerance table.
        what: the artifact, for the message.
        where: where it runs, for the message.

    Raises:
        ParityError: an output is out of tolerance, or the artifact cannot run a case.
    """
    per_output: dict[str, list[Difference]] = {}
    for case in cases:
        try:
            got = runner(case.inputs)
        except ValueError as exc:
            raise ParityError(
                f"{what} cannot run {case.name}",
                where=where,
                expected=shapes(case.inputs),
                got=str(exc),
                fix="narrow the range of that dimension in the spec, or mend what fixes it in forward()",
            ) from exc
        require(compare(case.expected, got, precision), case, precision, what=what, where=where, into=per_output)
    return Parity(tuple(case.name for case in cases), summary(per_output))


def require(
    differences: list[Difference],
    case: Case,
    precision: str,
    *,
    what: str,
    where: str,
    into: dict[str, list[Difference]],
) -> None:
    """Keep the differences of one case, and refuse those out of tolerance.

    Raises:
        ParityError: naming the output, the case, how far, and what was allowed.
    """
    bad = worst(differences)
    if not bad.ok:
        tolerance = TOLERANCES[precision]
        raise ParityError(
            f"{what}: output {bad.output!r} is not what PyTorch answers ({case.name})",
            where=f"{where}, asked with {shapes(case.inputs)}".lstrip(", "),
            expected=f"within {tolerance.relative:g} of the value + {tolerance.absolute:g} of the output's scale "
            f"({precision}: {tolerance.reason})",
            got=f"{bad.problem}; max abs {bad.max_abs:.3g}, max rel {bad.max_rel:.3g}, cosine {bad.cosine:.6f}",
            fix="look for randomness, training-mode layers or data-dependent branches in forward()"
            if precision == "fp32"
            else "take its recipe out of `precision.recipes` to search again, or name what has to stay in float in "
            "`precision.keep`",
        )
    for difference in differences:
        into.setdefault(difference.output, []).append(difference)


def summary(per_output: dict[str, list[Difference]]) -> tuple[Difference, ...]:
    """Per output: the largest differences and the smallest cosine that were seen."""
    return tuple(
        Difference(
            name,
            all(d.ok for d in seen),
            max_abs=max(d.max_abs for d in seen),
            max_rel=max(d.max_rel for d in seen),
            cosine=min(d.cosine for d in seen),
            excess=max(d.excess for d in seen),
        )
        for name, seen in per_output.items()
    )


def shapes(arrays: Any) -> str:
    """``image float32[3, 1, 8, 8], ...``."""
    return ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in arrays.items())
