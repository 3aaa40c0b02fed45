"""Whether the original can be verified at all: it answers a request the same way twice, and each sample by itself.

A module that is left in training mode (dropout, batch norm), draws random numbers or counts its calls does not do the
first; one that mixes the samples of a batch (a softmax or a mean over dimension 0, batch norm in training mode) not the
second, and the server puts the requests of strangers into one batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from builder.errors import SourceError
from builder.numerics import Array, Difference, compare, worst
from builder.reference import Runner, TorchRunner
from builder.samples import Samples
from builder.tensors import Interface

_TOGETHER = 2
_EXCESS = 10.0
"""How many times the fp32 tolerance a sample's answer may move with its batch: sizes take different kernels, whose sums
differ in the last digits; what is meant here moves it by per cents, not by ten-thousandths."""


def check_steady(samples: Samples, interface: Interface, max_batch: int, reference: Runner) -> None:
    """Ask the original for one batch twice, and for its samples one at a time.

    Args:
        samples: what the requests are made of.
        interface: the model's tensors.
        max_batch: largest batch; 0 where the server does not batch.
        reference: the original.

    Raises:
        SourceError: the answers differ; saying which output, how far, and what may be the reason.
    """
    size = min(max_batch, _TOGETHER) or 1
    inputs = samples.batch(size, samples.sizes())
    first, again = reference(inputs), reference(inputs)
    difference = worst(compare(first, again, "fp32"))
    if not difference.ok:
        raise SourceError(
            f"the module answers the same request differently each time: output {difference.output!r}",
            where=f"batch {size}, asked twice",
            expected="the same answer twice",
            got=_how_far(difference),
            fix=_reason(reference),
        )
    if size > 1:
        _check_each_by_itself(samples, interface, first, size, reference)


def _check_each_by_itself(
    samples: Samples, interface: Interface, together: Mapping[str, Array], size: int, reference: Runner
) -> None:
    alone = [reference(samples.batch(1, samples.sizes(), start=index)) for index in range(size)]
    floats = [tensor.name for tensor in interface.outputs if tensor.dtype.is_float and tensor.is_batched]
    for name in floats:
        difference = _against(name, together[name], [answer[name] for answer in alone])
        if not difference.ok and not 0 < difference.excess <= _EXCESS:  # 0: another shape
            raise SourceError(
                f"the answer to a sample depends on what else is in its batch: output {name!r}",
                where=f"a batch of {size}, and its samples one at a time",
                expected="the same answers: the server puts requests of different clients into one batch",
                got=_how_far(difference),
                fix="keep dimension 0 out of every sum, mean, softmax, normalisation and branch in forward(); "
                "or turn the server's batching off: batch: {max: 0}",
            )


def _against(name: str, together: Array, alone: list[Array]) -> Difference:
    shapes = {array.shape[1:] for array in alone} | {together.shape[1:]}
    if len(shapes) > 1:
        return Difference(name, False, f"shapes {', '.join(str(list(shape)) for shape in sorted(shapes))}")
    return compare({name: together}, {name: np.concatenate(alone)}, "fp32")[0]


def _how_far(difference: Difference) -> str:
    return f"{difference.problem}; max abs {difference.max_abs:.3g}, cosine {difference.cosine:.6f}"


def _reason(reference: Runner) -> str:
    modes = reference.training_modules() if isinstance(reference, TorchRunner) else []
    if modes:
        return f"these are in training mode, though eval() was called: {', '.join(modes[:5])}"
    return (
        "look for dropout(..., training=True), random numbers, or something that forward() keeps from call to call; "
        "seed or remove it"
    )
