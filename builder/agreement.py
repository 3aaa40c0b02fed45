"""How close a candidate's answers are to fp32's over many samples, and whether that is close enough.

:mod:`builder.numerics` holds one answer against another, element by element: right for the same arithmetic in another
order. Where the arithmetic itself is coarser (fp16, int8) every element is off, and what counts is whether the answers
still say the same: their direction, their largest class, their order among each other.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from builder.errors import AccuracyError
from builder.numerics import Array
from builder.reference import Runner
from builder.scores import PAIRWISE_SAMPLES, Tally, misshapen, names_for

DROP = "accuracy drop"
"""The score that the user's own metric gives; the only one where less is better."""


KEYS = {
    "cosine": "cosine",
    "top1": "top1",
    "top1 in top5": "top1_in_top5",
    "spearman": "spearman",
    "recall@10": "recall_at_10",
}
"""Score: the key of the spec's ``agreement`` that is a limit of it."""

LARGEST_BATCH = 16
_NO_MARGIN = -1e6
_MOST_REQUEST_BYTES = 1 << 25


@dataclass(frozen=True)
class Limit:
    """The least that is asked of a precision where the user asks nothing.

    Attributes:
        cosine: mean over the samples, of every floating point output.
        equal: share of equal elements, of every other output.
        reason: why these numbers.
    """

    cosine: float
    equal: float
    reason: str

    def as_limits(self, reference: Sequence[Mapping[str, Array]]) -> dict[str, float]:
        """By score, those that can be measured on answers like these."""
        kinds = {array.dtype.kind == "f" for array in reference[0].values()} if reference else set()
        return {
            **({"cosine": self.cosine} if True in kinds else {}),
            **({"equal": self.equal} if False in kinds else {}),
        }


DEFAULTS: dict[str, Limit] = {
    "fp32": Limit(0.99999, 1.0, "the same arithmetic in another order"),
    "fp16": Limit(
        0.9999, 0.999, "eleven bits: rounding alone leaves 0.999999 (MiniLM); what falls below has overflowed somewhere"
    ),
    "bf16": Limit(0.999, 0.99, "eight bits with fp32's range: nothing overflows, each product is off by up to 1/256"),
    "int8": Limit(
        0.99,
        0.98,
        "below it the nearest neighbours of embeddings and the top class of logits change visibly: MiniLM at "
        "0.95 kept 80% of the nearest neighbours, at 0.992 86%",
    ),
    "int8-weights": Limit(0.99, 0.98, "as int8: the activations stay in float, so it is reached more easily"),
    "int4-weights": Limit(0.98, 0.95, "sixteen steps a weight: an error of 1 part in 30 of a block's largest weight"),
}
"""Precision: what is asked of it where the spec has neither a metric nor limits of its own."""


@dataclass(frozen=True)
class Verdict:
    """What a judge says of a candidate.

    Attributes:
        scores: by name; all that were measured, the worst output's where there are several.
        limits: those that count, by the same names.
        failed: a sentence for each limit that is not held.
        margin: the distance to the nearest limit, as a share of what that limit allows: 1 is as good as fp32, below 0
            is outside.
    """

    scores: Mapping[str, float]
    limits: Mapping[str, float]
    failed: tuple[str, ...]
    margin: float

    @property
    def ok(self) -> bool:
        """Within every limit."""
        return not self.failed

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return {
            "scores": dict(self.scores),
            "limits": dict(self.limits),
            "failed": list(self.failed),
            "margin": self.margin,
        }


class Judge(Protocol):
    """Says how good a candidate is; may take seconds."""

    @property
    def digest(self) -> str:
        """sha256 of all that its verdict depends on, the candidate apart."""

    def __call__(self, runner: Runner) -> Verdict:
        """Ask the candidate, and judge its answers."""


class AgreementJudge:
    """Holds a candidate's answers against fp32's, and the user's metric against its value on fp32.

    Samples of one shape go together in batches: dynamic int8 takes its scale from the whole batch, as it will when it
    is served.

    Args:
        requests: one a sample, full tensors; dimension 0 is the batch where ``batch`` is above 1.
        reference: fp32's answers, in the same order.
        limits: by score, the least that every output has to reach; for :data:`DROP` the most the metric may lose.
        metric: the user's own, higher is better.
        metric_reference: its value on fp32.
        batch: how many samples at most go into one request; 1 for a model that does not batch.

    Raises:
        AccuracyError: there is no sample, or a limit on a score that these samples cannot give.
    """

    def __init__(
        self,
        requests: Sequence[Mapping[str, Array]],
        reference: Sequence[Mapping[str, Array]],
        limits: Mapping[str, float],
        metric: Callable[[Runner], float] | None = None,
        *,
        metric_reference: float = 0.0,
        batch: int = LARGEST_BATCH,
    ) -> None:
        self._requests, self._reference = requests, reference
        self._metric, self._metric_reference, self._batch = metric, metric_reference, max(1, batch)
        self.limits = dict(limits)
        absent = sorted(set(limits) - self._measurable())
        if not requests or absent:
            raise _unmeasurable(absent, self._reference)

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of the samples, fp32's answers and the limits; a metric counts with its value on fp32."""
        whole = hashlib.sha256(repr((sorted(self.limits.items()), self._batch)).encode())
        whole.update(repr((self._metric is not None, self._metric_reference)).encode())
        for row in (*self._requests, *self._reference):
            for name, array in row.items():
                content = array.tobytes() if array.dtype.kind != "O" else repr(array.tolist()).encode()
                whole.update(f"{name} {array.dtype} {array.shape} ".encode() + content)
        return whole.hexdigest()

    def quick(self, count: int) -> AgreementJudge:
        """One that asks ``count`` samples, spread over all, and not the metric; its limits are those it can measure."""
        step = max(1.0, len(self._requests) / max(1, count))
        chosen = [int(k * step) for k in range(min(count, len(self._requests)))]
        requests, reference = [self._requests[k] for k in chosen], [self._reference[k] for k in chosen]
        judge = AgreementJudge(requests, reference, {}, batch=self._batch)
        measurable = judge._measurable()
        kept = {name: limit for name, limit in self.limits.items() if name in measurable}
        judge.limits = kept or DEFAULTS["int8"].as_limits(reference)  # a metric alone: something to rank by
        return judge

    def __call__(self, runner: Runner) -> Verdict:
        """Ask it every sample, and the metric if there is one.

        Raises:
            AccuracyError: an output is missing, or has another shape than fp32's.
        """
        tallies = {name: Tally(name) for name in self._reference[0]}
        for chosen, request in self._batches():
            answers = runner(request)
            for name, tally in tallies.items():
                for place, index in enumerate(chosen):
                    expected = self._row(self._reference[index][name], 0)
                    got = answers.get(name)
                    if got is None or (self._batch > 1 and got.shape[:1] != (len(chosen),)):
                        raise misshapen(name, expected, got)
                    tally.add(index, expected, self._row(got, place))
        by_output = {name: tally.scores() for name, tally in tallies.items()}
        scores = _worst_of(by_output)
        if self._metric is not None:
            scores[DROP] = self._metric_reference - self._metric(runner)
        return _verdict(scores, by_output, self.limits)

    def _row(self, array: Array, place: int) -> Array:
        row: Array = array[place] if self._batch > 1 else array
        return row[0] if self._batch == 1 and row.ndim > 1 and row.shape[0] == 1 else row

    def _batches(self) -> Iterator[tuple[list[int], dict[str, Array]]]:
        groups: dict[Any, list[int]] = {}
        for index, request in enumerate(self._requests):
            key = tuple((name, array.dtype.str, array.shape[1:]) for name, array in request.items())
            groups.setdefault(key if self._batch > 1 else index, []).append(index)
        for members in groups.values():
            size = sum(array.nbytes for array in self._requests[members[0]].values())
            together = max(1, min(self._batch, _MOST_REQUEST_BYTES // max(1, size)))
            for start in range(0, len(members), together):
                chosen = members[start : start + together]
                first = self._requests[chosen[0]]
                if len(chosen) == 1:
                    yield chosen, dict(first)
                else:
                    yield chosen, {n: np.concatenate([self._requests[k][n] for k in chosen]) for n in first}

    def _measurable(self) -> set[str]:
        found = {DROP} if self._metric is not None else set()
        if self._requests:
            for name, array in self._reference[0].items():
                rows = [self._row(row[name], 0) for row in self._reference]
                found |= names_for(array.dtype, rows)
        return found


def _worst_of(by_output: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    names = list(dict.fromkeys(name for found in by_output.values() for name in found))
    return {name: min(found[name] for found in by_output.values() if name in found) for name in names}


def _verdict(
    scores: Mapping[str, float], by_output: Mapping[str, Mapping[str, float]], limits: Mapping[str, float]
) -> Verdict:
    failed, margins = [], [1.0]
    for name, limit in limits.items():
        score = scores.get(name, math.nan)
        if name == DROP:
            margins.append(_margin((limit - score) / max(limit, 1e-6)))
            if not score <= limit:
                failed.append(f"{DROP} {score:.6g} is above {limit:.9g}")
            continue
        margins.append(_margin((score - limit) / max(1.0 - limit, 1e-6)))
        if not score >= limit:
            outputs = [output for output, found in by_output.items() if found.get(name) == score]
            of = f" of {outputs[0]}" if len(by_output) > 1 and outputs else ""
            failed.append(f"{name}{of} {score:.6g} is below {limit:.9g}")
    return Verdict(dict(scores), dict(limits), tuple(failed), min(margins))


def _margin(value: float) -> float:
    return value if math.isfinite(value) else _NO_MARGIN


def _unmeasurable(absent: Sequence[str], reference: Sequence[Mapping[str, Array]]) -> AccuracyError:
    if not absent:
        return AccuracyError("there is no sample to judge by", expected="at least one", got="none", fix="add `samples`")
    name = absent[0]
    needs = {
        "spearman": f"{PAIRWISE_SAMPLES} samples or more, and an output of one dimension and one size",
        "recall@10": f"{PAIRWISE_SAMPLES} samples or more, and an output of one dimension and one size",
        "top1": "an output of one dimension with two elements or more",
        "top1 in top5": "an output of one dimension with two elements or more",
        "cosine": "a floating point output",
        "cosine min": "a floating point output",
        "equal": "an output that is not floating point",
        DROP: "a metric: `evaluate`",
    }
    outputs = ", ".join(f"{output} {array.dtype}{list(array.shape)}" for output, array in reference[0].items())
    more = "give more samples, or " if name in ("spearman", "recall@10") and len(reference) < PAIRWISE_SAMPLES else ""
    return AccuracyError(
        f"{name!r} cannot be measured",
        expected=needs.get(name, f"one of {', '.join(needs)}"),
        got=f"{len(reference)} samples to judge by, which are answered with {outputs}",
        fix=f"{more}leave `{KEYS.get(name, name)}` out of `agreement`",
    )
