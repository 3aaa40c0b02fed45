"""How many machines like this one a request rate needs, from the measured curve: with what is not known about it.

The rate that one machine carries is found by playing Poisson loads against the chosen configuration until its
percentile breaks the limit. The simulation is at the level of what was measured, and as unsure as that: the interval of
the measured throughput is carried over.
"""

from __future__ import annotations

import math

from perf.intervals import Interval
from perf.tune.predict import Predictor, Trial
from perf.tune.request import Limit
from perf.tune.result import Capacity
from perf.tune.simulate import Arrivals
from perf.tune.space import Settings

REQUESTS = 4000
STEPS = 12
UTMOST_SHARE = 0.85
"""Without a latency limit: of what the machine gives at most, as a queue grows without bound near that."""


def sustained(predictor: Predictor, settings: Settings, limit: Limit | None, most_per_s: float) -> tuple[float, float]:
    """The highest Poisson rate within the limit, and the share of time that an instance is busy then.

    Args:
        most_per_s: throughput that was measured or predicted with many requests under way.
    """

    def play(rate: float) -> tuple[float, float]:
        trial = Trial(settings, Arrivals(rate_per_s=rate))
        found = predictor.play(trial, requests=REQUESTS)
        return found.percentile_us(predictor.percentile), found.busy

    if limit is None:
        rate = UTMOST_SHARE * most_per_s
        return rate, play(rate)[1]
    low, high = 0.0, most_per_s
    for _ in range(STEPS):
        middle = (low + high) / 2
        if play(middle)[0] <= limit.us:
            low = middle
        else:
            high = middle
    return low, play(low)[1] if low else 0.0


def capacity_for(
    rate_per_s: float, predictor: Predictor, settings: Settings, limit: Limit | None, measured: Interval
) -> Capacity | None:
    """Machines for a rate; None where not even the slowest load keeps the limit.

    Args:
        measured: throughput of the configuration in the search, with its interval.
    """
    middle, busy = sustained(predictor, settings, limit, measured.value)
    if middle <= 0:
        return None
    low, high = middle * measured.low / measured.value, middle * min(measured.high / measured.value, 10.0)
    return Capacity(
        rate_per_s=rate_per_s,
        sustained_per_s=middle,
        sustained_interval=(low, high),
        machines=math.ceil(rate_per_s / middle),
        machines_interval=(math.ceil(rate_per_s / high), math.ceil(rate_per_s / low) if low > 0 else None),
        busy=busy,
    )
