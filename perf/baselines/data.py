"""Baselines in a result: what was measured beside a served model, what could not be, and how they compare."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


BaselineKind = Literal["onnxruntime", "pytorch", "fastapi"]


class Baseline(_Data):
    """What was measured beside a served model, without this server.

    Attributes:
        of: the served model that it is held against.
        instances: requests that it works on at once: as many as the served model has instances.
        facts: what ran: versions, threads, providers.
        notes: in what it differs from the served model, other than by the server.
    """

    kind: BaselineKind
    of: str
    instances: int
    facts: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class LeftOut(_Data):
    """A baseline that there cannot be for a model, with the reason."""

    model: str
    kind: BaselineKind
    reason: dict[str, Any]


class BaselineRatio(_Data):
    """How many times a served model's figure is that of a baseline, at one load.

    Attributes:
        metric: ``inferences_per_s``, ``p50_us`` or ``p99_us``.
        low, high: its 95% interval from paired rounds; None after a single round.
    """

    model: str
    kind: BaselineKind
    load: str
    metric: str
    ratio: float
    low: float | None = None
    high: float | None = None
