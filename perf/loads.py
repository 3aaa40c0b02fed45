"""What names a load: the same in tables, in the history, in comparisons and in gates."""

from __future__ import annotations

from typing import NamedTuple

from perf.result import Point


class LoadKey(NamedTuple):
    """A load as far as two points must share it to be compared."""

    concurrency: int | None
    rate_per_s: float | None
    distribution: str | None
    batch_size: int

    def __str__(self) -> str:
        if self.rate_per_s is not None:
            text = f"rate {self.rate_per_s:g}/s" + (f" {self.distribution}" if self.distribution else "")
        else:
            text = f"concurrency {self.concurrency}" if self.concurrency is not None else self.distribution or "load"
        return text + (f", batch {self.batch_size}" if self.batch_size > 1 else "")

    @property
    def order(self) -> tuple[bool, float, int, str]:
        """Concurrencies first, then rates, each rising."""
        rated = self.rate_per_s is not None
        return (rated, self.rate_per_s or self.concurrency or 0, self.batch_size, self.distribution or "")


def load_of(point: Point) -> LoadKey:
    """The load that a point was measured under."""
    return LoadKey(point.concurrency, point.rate_per_s, point.distribution, point.batch_size)
