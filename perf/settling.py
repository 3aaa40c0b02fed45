"""How long and how often, where nobody says it; and how well the models are told apart so far (``--difference``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from perf.deciding import confidence_of, deciding, figure
from perf.intervals import ratio_of_pairs
from perf.result import Point
from perf.workload import ALONE_S, Workload

TOGETHER_S = 20.0
"""How long each of several models is measured, in all rounds."""

FEWEST_ROUNDS, MANY_ROUNDS = 3, 10
"""Of several models. Ten tell three rows of a comparison apart with 99% (:func:`perf.quantiles.signed_rank_cut`)."""

SHORT_S = 0.5
"""A round, where as many are measured as it takes: a machine is noisy at every scale of time, so that twice as many
pairs tell more than pairs of twice the length (``benchmarks/trust.md``)."""

SHORT_REQUESTS = 100
"""At a rate a round is long enough for so many: its 99th percentile is what decides."""


def settled(workload: Workload, models: int) -> Workload:
    """The workload with ``seconds`` and ``rounds`` filled in where they were not given.

    Args:
        models: that will be measured. One alone is measured once; several in turn, as often as fits into
            :data:`TOGETHER_S`; where a difference is wanted, in short rounds.
    """
    if workload.difference is not None:
        seconds = workload.seconds or max([SHORT_S, *(SHORT_REQUESTS / rate for rate in workload.rate)])
        rounds = workload.rounds or MANY_ROUNDS
    elif models < 2 or workload.rounds is not None:
        seconds, rounds = workload.seconds or ALONE_S, workload.rounds or 1
    else:
        seconds = workload.seconds or max([TOGETHER_S / MANY_ROUNDS, *(2 / rate for rate in workload.rate)])
        rounds = min(MANY_ROUNDS, max(FEWEST_ROUNDS, round(TOGETHER_S / seconds)))
    return workload.model_copy(update={"seconds": seconds, "rounds": rounds})


def ratio_widths(rounds: Mapping[tuple[str, str], Sequence[tuple[int, Point]]]) -> dict[tuple[str, str], float]:
    """Half the width of the interval of each ratio to the first model, percent; infinite where there is none.

    The same ratio, at the same confidence, that ``bench-repo compare`` will judge.

    Args:
        rounds: by model and load, (number, point) of each round; the first model's come first.
    """
    first = next((model for model, _ in rounds), None)
    others = [key for key in rounds if key[0] != first and (first, key[1]) in rounds]
    found = {}
    for model, level in others:
        assert first is not None
        found[model, level] = _width(rounds[model, level], rounds[first, level], confidence_of(len(others)))
    return found


def _width(of_second: Sequence[tuple[int, Point]], of_first: Sequence[tuple[int, Point]], confidence: float) -> float:
    """Of the figure that is known best: it is enough that one of them tells a difference."""
    a, b = dict(of_first), dict(of_second)
    both = sorted({*a} & {*b})
    if len(both) < 2:
        return math.inf
    widths = []
    for metric, *_ in deciding(concurrency=a[both[0]].concurrency):
        first, second = ([value for n in both if (value := figure(side[n], metric))] for side in (a, b))
        if len(first) == len(second) == len(both):
            interval = ratio_of_pairs(second, first, confidence)
            widths.append((math.sqrt(interval.high / interval.low) - 1) * 100)
    return min(widths, default=math.inf)
