"""What a joint search found: typed, and written as one versioned JSON document. Times are microseconds or seconds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA: Literal["triton-repo/tune-joint"] = "triton-repo/tune-joint"
Ends = tuple[float, float]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelFigures(_Data):
    """One model (or the ensemble) under a plan; medians over the rounds, with 95% intervals.

    Attributes:
        latency_us: at ``percentile``.
        within_limit: ``yes`` where the whole interval keeps the limit and the model keeps up with its rate, ``no``
            where the median does not, ``unsure``.
    """

    model: str
    inferences_per_s: float
    inferences_interval: Ends | None = None
    percentile: float
    latency_us: float
    latency_interval_us: Ends | None = None
    limit: str | None = None
    within_limit: Literal["yes", "no", "unsure"]
    requests: int


class PlanRow(_Data):
    """One plan under one load.

    Attributes:
        settings: the knobs, by member.
        limited: with Triton's rate limiter.
        title: what differs from the plan as it is, in words.
        gain: how many times as good as the plan as it is, with its interval.
        error: why it could not be measured.
    """

    settings: dict[str, dict[str, Any]]
    limited: bool = False
    title: str
    load: str
    rounds: int
    cores: int
    memory_bytes: int
    models: tuple[ModelFigures, ...] = ()
    gain: float | None = None
    gain_interval: Ends | None = None
    doubts: tuple[str, ...] = ()
    error: dict[str, Any] | None = None


class Change(_Data):
    """What changed for one member, and what it did.

    Attributes:
        name: of the member; ``rate limiter`` for that.
        before, after: in words.
        factor: how many times as good the chosen plan is as the same one with this member as it was.
        interval: of the factor, where both were measured; None where it is predicted.
    """

    name: str
    before: str
    after: str
    factor: float | None = None
    interval: Ends | None = None


class Carried(_Data):
    """By what factor all rates could be multiplied within the limits, as it is predicted; and the rates then."""

    factor: float
    rates_per_s: dict[str, float]


class JointResult(_Data):
    """A joint search that is over.

    Attributes:
        models: that were asked for; one is an ensemble, whose steps are ``members`` then.
        status: ``found``: a plan that is surely better than what is there; ``default``: none is, and what is there
            keeps the limits; ``none``: nothing surely keeps them, ``nearest`` comes closest.
        bottleneck: where nothing keeps the limits, the model that is furthest beyond its own in the nearest plan.
        fields: by member, for its entry in ``models.yaml``.
        server_arguments: that the server needs for the plan.
    """

    schema_name: Literal["triton-repo/tune-joint"] = Field(default=SCHEMA, alias="schema")
    schema_version: Literal[1] = 1
    models: tuple[str, ...]
    members: tuple[str, ...]
    goal: str
    limits: dict[str, str]
    load: str
    status: Literal["found", "default", "none"]
    reason: str
    decided: bool
    default: PlanRow
    chosen: PlanRow | None = None
    nearest: PlanRow | None = None
    bottleneck: str | None = None
    changes: tuple[Change, ...] = ()
    rows: tuple[PlanRow, ...] = ()
    fields: dict[str, dict[str, Any]] = {}
    server_arguments: tuple[str, ...] = ()
    carried: Carried | None = None
    predicted: int
    measurements: int
    seconds: float
    notes: tuple[str, ...] = ()
    machine: dict[str, Any] = {}
    doubts: tuple[str, ...] = ()

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
