"""What is asked of a model to verify it: batches of 1, an odd size and the largest, at natural and extreme sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from builder.errors import SourceError
from builder.numerics import Array
from builder.reference import Runner
from builder.samples import Samples
from builder.tensors import Interface
from builder.verify.steady import check_steady

_MAX_CASE_BYTES = 256 * 1024 * 1024
"""Of one request and its answer; where the largest batch takes more, a smaller one is asked."""
_MAX_BYTES = 1024 * 1024 * 1024
"""Of all cases together."""


@dataclass(frozen=True)
class Case:
    """One request with its right answer.

    Attributes:
        name: ``batch 3, seq 128``.
        batch: batch size; 1 where the model does not batch.
        inputs: full request tensors.
        expected: the reference's answers.
        sequence: the id of the sequence that it is, begun and ended by this one request; 0 for none.
    """

    name: str
    batch: int
    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]
    sequence: int | str = 0


def as_asked(cases: Sequence[Case], interface: Interface) -> list[Case]:
    """The cases for an artifact that takes or gives half precision: the same, in its own types."""
    types = {tensor.name: tensor.dtype.numpy for tensor in (*interface.inputs, *interface.outputs)}

    def own(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        with np.errstate(over="ignore"):  # what is beyond half precision is Inf there as well
            return {n: a.astype(types[n]) if a.dtype.kind == "f" and types.get(n) else a for n, a in arrays.items()}

    if not any(tensor.dtype.name == "float16" for tensor in (*interface.inputs, *interface.outputs)):
        return list(cases)
    return [replace(case, inputs=own(case.inputs), expected=own(case.expected)) for case in cases]


def cases_of(samples: Samples, interface: Interface, max_batch: int, reference: Runner) -> list[Case]:
    """The cases of one model, answered by the reference.

    Args:
        samples: what the requests are made of.
        interface: the model's tensors.
        max_batch: largest batch; 0 where the model does not batch.
        reference: the original module.

    Raises:
        SourceError: the reference itself answers with NaN or Inf, differently each time, or not each sample by itself.
    """
    check_steady(samples, interface, max_batch, reference)
    cases: list[Case] = []
    asked: set[tuple[tuple[int, ...], ...]] = set()
    held_bytes = 0
    for number, sizes in enumerate(_size_sets(samples, interface)):
        one_bytes = 0  # a request of one sample with its answer; known when it was asked
        for wanted in batch_sizes(max_batch):
            room_bytes = min(_MAX_CASE_BYTES, _MAX_BYTES - held_bytes)
            batch = max(1, min(wanted, room_bytes // one_bytes)) if one_bytes else wanted
            inputs = samples.batch(batch, sizes, start=len(cases))
            shapes = tuple(array.shape for array in inputs.values())
            if shapes in asked or (number > 0 and _bytes(inputs) > room_bytes):
                continue
            asked.add(shapes)
            expected = reference(inputs)
            name = ", ".join([f"batch {batch}", *(f"{dim} {size}" for dim, size in sizes.items())])
            _check_finite(expected, name)
            cases.append(Case(name, batch, inputs, expected))
            case_bytes = _bytes(inputs) + _bytes(expected)
            one_bytes = one_bytes or case_bytes
            held_bytes += case_bytes
    return cases


def _bytes(arrays: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())


def single_cases(samples: Samples, count: int, reference: Runner, *, alike: bool = False) -> list[Case]:
    """``count`` requests of one sample each, gone through in a circle; equal ones are answered once.

    As many different ones as stay below 256 MiB with their answers, but at least one.

    Args:
        samples: what the requests are made of.
        count: how many.
        reference: the original module.
        alike: all of the first sample's sizes, so that the server can put them into one batch.
    """
    sizes = samples.sizes() if alike else None
    answered: list[Case] = []
    held_bytes = 0
    for index in range(min(count, len(samples.rows))):
        inputs = samples.batch(1, sizes, start=index)
        answered.append(Case(f"sample {index}", 1, inputs, reference(inputs)))
        held_bytes += _bytes(inputs) + _bytes(answered[-1].expected)
        if held_bytes * (index + 2) > _MAX_CASE_BYTES * (index + 1):  # the next one would be too much
            break
    return [answered[index % len(answered)] for index in range(count)]


def batch_sizes(max_batch: int) -> list[int]:
    """1, an odd size in between, and the largest."""
    if max_batch <= 1:
        return [1]
    middle = max_batch // 2
    odd = middle if middle % 2 else middle + 1
    return sorted({1, min(max(odd, 3), max_batch), max_batch})


def _size_sets(samples: Samples, interface: Interface) -> list[dict[str, int]]:
    """The natural sizes of a sample, then each ranged dimension at either end."""
    natural = samples.sizes()
    sets = [natural]
    for name, dim in interface.named_dims().items():
        if dim.low is not None and dim.high is not None:
            sets += [{**natural, name: end} for end in (dim.low, dim.high)]
    return [dict(pairs) for pairs in dict.fromkeys(tuple(sizes.items()) for sizes in sets)]


def _check_finite(outputs: Mapping[str, Any], case: str) -> None:
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
            count = int(np.count_nonzero(~np.isfinite(array)))
            raise SourceError(
                f"the module itself answers NaN or Inf in output {name!r}",
                where=case,
                expected="finite numbers",
                got=f"{count} of {array.size} elements are not",
                fix="give real samples (`samples`), or mend the module: a division by zero, a log of zero, an overflow",
            )
