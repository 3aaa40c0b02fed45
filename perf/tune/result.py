"""What a search found: typed, and written as one versioned JSON document. Times are microseconds or seconds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA: Literal["triton-repo/tune"] = "triton-repo/tune"
Ends = tuple[float, float]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(_Data):
    """One configuration under one load.

    Attributes:
        settings: the knobs, by name.
        title: the same in words; ``load`` too.
        inferences_per_s, latency_us: medians over the rounds, with 95% intervals; ``latency_us`` is at the percentile
            of the search.
        within_limit: ``yes`` where the whole interval keeps the limit, ``no`` where the median does not, ``unsure``.
        gain: how many times as good as the default, with its interval.
        requests: that were measured, over all rounds.
        error: why it could not be measured.
    """

    settings: dict[str, Any]
    title: str
    load: str
    rounds: int
    requests: int = 0
    inferences_per_s: float | None = None
    inferences_interval: Ends | None = None
    latency_us: float | None = None
    latency_interval_us: Ends | None = None
    mean_batch: float | None = None
    within_limit: Literal["yes", "no", "unsure"] | None = None
    gain: float | None = None
    gain_interval: Ends | None = None
    doubts: tuple[str, ...] = ()
    error: dict[str, Any] | None = None


class Knob(_Data):
    """What one knob did.

    Attributes:
        before, after: its values.
        factor: how many times as good the chosen configuration is as the same one with this knob as it was.
        interval: of the factor, where both were measured; None where it is predicted.
    """

    name: str
    before: Any
    after: Any
    factor: float | None = None
    interval: Ends | None = None


class Capacity(_Data):
    """How many machines like this one a rate needs.

    Attributes:
        sustained_per_s: what one of them carries within the limit, as a Poisson process, with its interval.
        machines: from the middle of that; ``machines_interval`` from its ends.
        busy: share of the time that an instance executes at that rate.
    """

    rate_per_s: float
    sustained_per_s: float
    sustained_interval: Ends
    machines: int
    machines_interval: tuple[int, int | None]
    busy: float


class TuneResult(_Data):
    """A search that is over.

    Attributes:
        status: ``found``: a configuration that is surely better than the default; ``default``: none is, and the
            default keeps the limit; ``none``: nothing surely keeps the limit, ``nearest`` comes closest.
        reason: one sentence.
        decided: False where the time was up before the intervals told.
        rows: all that was measured, the best first.
        predicted: how many configurations and loads were simulated; ``measurements``: runs of perf_analyzer.
        fields: for ``models.yaml``'s entry of the model, as ``overrides.yaml`` has them.
    """

    schema_name: Literal["triton-repo/tune"] = Field(default=SCHEMA, alias="schema")
    schema_version: Literal[1] = 1
    model: str
    goal: str
    limit: str | None
    load: str
    percentile: float
    status: Literal["found", "default", "none"]
    reason: str
    decided: bool
    default: Row | None
    chosen: Row | None
    nearest: Row | None = None
    knobs: tuple[Knob, ...] = ()
    rows: tuple[Row, ...] = ()
    fields: dict[str, Any] = {}
    capacity: Capacity | None = None
    predicted: int
    measurements: int
    seconds: float
    notes: tuple[str, ...] = ()
    machine: dict[str, Any] = {}
    doubts: tuple[str, ...] = ()

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
