"""What a comparison is: typed, and written as one versioned JSON document."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from perf.result import _Data

Verdict = Literal["faster", "slower", "no difference found", "cannot tell"]
DIFFERENT: tuple[Verdict, ...] = ("faster", "slower")


class Estimate(_Data):
    """One figure of both sides.

    Attributes:
        metric: ``inferences_per_s``, or microseconds: ``p50_us``, ``p99_us``, ``mean_us``.
        ratio: the second by the first, with its interval, 99% for all rows together; None where there is none.
        basis: what the interval rests on: ``paired rounds``, ``rounds``, ``windows``, ``runs``.
    """

    metric: str
    first: float | None
    second: float | None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    basis: str = ""
    verdict: Verdict
    why: str = ""


class Pair(_Data):
    """A model (or two variants) under one load.

    Attributes:
        verdict: of the second against the first: by throughput or the median latency, and by latency where the load
            was a rate.
        decided_by: that metric.
    """

    first_model: str
    second_model: str
    load: str
    concurrency: int | None
    rate_per_s: float | None
    batch_size: int
    verdict: Verdict
    decided_by: str
    why: str = ""
    estimates: tuple[Estimate, ...] = ()

    def estimate(self, metric: str) -> Estimate | None:
        """One figure, None where neither side has it."""
        return next((each for each in self.estimates if each.metric == metric), None)

    @property
    def name(self) -> str:
        """The model, or both."""
        return (
            self.first_model if self.first_model == self.second_model else f"{self.first_model} -> {self.second_model}"
        )


class Comparison(_Data):
    """All of it; also what ``--format json`` gives.

    Attributes:
        first, second: what was compared, in words.
        confidence_percent: of each interval: 99, and more where there are several pairs.
        unlike: in what they are not alike, where that was forced.
        caveats: what the intervals do not know.
        unmatched: what only one side has.
    """

    schema_name: Literal["triton-repo/compare"] = Field(default="triton-repo/compare", alias="schema")
    schema_version: Literal[1] = 1
    first: str
    second: str
    pairs: tuple[Pair, ...]
    confidence_percent: float = 99.0
    unlike: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()
