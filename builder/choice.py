"""What was measured of each variant, and which one is to be served: plain data, for the manifest and for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Entrant:
    """A variant that passed verification.

    Attributes:
        variant: its name in the spec.
        model: its name on the server.
        score: how accurate it is; higher is better. Only the order counts.
        size_bytes: of its files.
    """

    variant: str
    model: str
    score: float
    size_bytes: int


@dataclass(frozen=True)
class StepTime:
    """Where the time of a request went in one model, by the server's own statistics (means, medians over rounds).

    Attributes:
        model: its name on the server.
        queue_us: waiting for an instance, and for the batch to fill.
        compute_us: in the backend.
        copy_us: input and output, moved and put together.
        mean_batch: samples to one execution.
    """

    model: str
    queue_us: float
    compute_us: float
    copy_us: float
    mean_batch: float


@dataclass(frozen=True)
class Row:
    """What was seen of one variant.

    Attributes:
        throughput_per_s: inferences per second, the median of its rounds; None where it was not measured.
        interval: the 95% interval of that median.
        p99_us: the median of the rounds' 99th percentiles, as the client saw them.
        accuracy: its score: how near it is to fp32, which is 1.
        within_limit: None without a limit, or without a measurement.
        rounds: in how many it was; one that is clearly slower is not measured further.
        behind: how many times as fast as this one the chosen one is, with its interval, where both were measured.
        error: why it could not be measured.
        doubts: codes of perf's doubts about its figures.
        steps: of an ensemble, each of its models; of anything else the model alone.
    """

    variant: str
    throughput_per_s: float | None
    interval: tuple[float, float] | None
    p99_us: float | None
    accuracy: float
    size_bytes: int
    within_limit: bool | None
    rounds: int = 0
    behind: tuple[float, float, float] | None = None
    error: str = ""
    doubts: tuple[str, ...] = ()
    steps: tuple[StepTime, ...] = ()


@dataclass(frozen=True)
class Choice:
    """The variant that is to be served, and why.

    Attributes:
        reason: one sentence with the figures that decided.
        concurrency: requests that were under way at once; 0 where nothing had to be measured.
        seconds: how long it took, loading included.
    """

    variant: str
    reason: str
    rows: tuple[Row, ...]
    concurrency: int = 0
    latency_limit_us: int | None = None
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Choice:
        """What :meth:`as_dict` gave, read back from a file."""
        rows = tuple(
            Row(
                **{
                    **row,
                    **{key: _pair(row[key]) for key in _PAIRS},
                    "steps": tuple(StepTime(**step) for step in row.get("steps", ())),
                }
            )
            for row in data["rows"]
        )
        return cls(**{**data, "rows": rows})


_PAIRS = ("interval", "behind", "doubts")


def _pair(value: Any) -> Any:
    return value if value is None else tuple(value)
