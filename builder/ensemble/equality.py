"""Whether a fused graph answers as its steps do one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from builder.ensemble.fuse import Part
from builder.errors import ParityError
from builder.numerics import Array, Difference, compare, worst
from builder.reference import OnnxRunner, Runner


def compare_fused(
    parts: Sequence[Part], fused: Path, requests: Sequence[Mapping[str, Array]], *, precision: str = "fp32"
) -> list[Difference]:
    """The worst difference of each output, over all requests, in ONNX Runtime on this machine.

    Args:
        parts: the steps as they are, in order.
        fused: the file that was made of them.
        requests: inputs by the names of the ensemble's tensors.
        precision: row of :data:`builder.numerics.TOLERANCES`.
    """
    found: dict[str, list[Difference]] = {}
    with ExitStack() as stack:
        runners = [stack.enter_context(OnnxRunner(part.path)) for part in parts]
        whole = stack.enter_context(OnnxRunner(fused))
        for request in requests:
            got = whole(request)
            pool = in_turn(parts, runners, request)
            for difference in compare({name: pool[name] for name in got}, got, precision):
                found.setdefault(difference.output, []).append(difference)
    return [worst(differences) for differences in found.values()]


def in_turn(parts: Sequence[Part], runners: Sequence[Runner], request: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of the ensemble that the steps take or give, asked one after another."""
    pool = dict(request)
    for part, runner in zip(parts, runners, strict=True):
        answer = runner({name: pool[tensor] for name, tensor in part.inputs.items()})
        pool |= {tensor: answer[name] for name, tensor in part.outputs.items()}
    return pool


def check_fused(
    parts: Sequence[Part], fused: Path, requests: Sequence[Mapping[str, Array]], *, precision: str = "fp32"
) -> list[Difference]:
    """As :func:`compare_fused`, and nothing may differ.

    Raises:
        ParityError: an output is outside the tolerance, or there is no request to compare by.
    """
    differences = compare_fused(parts, fused, requests, precision=precision)
    names = ", ".join(part.name for part in parts)
    bad = [difference for difference in differences if not difference.ok]
    if not differences or bad:
        first = worst(bad) if bad else None
        raise ParityError(
            f"steps {names} answer otherwise as one graph" if bad else f"steps {names} were not compared",
            where=str(fused),
            expected="the answers of the steps one after another" if bad else "one request or more",
            got=f"{first.output}: {first.problem}" if first else "no request",
            fix="do not fuse these steps: `fuse: false`" if bad else "give samples",
        )
    return differences
