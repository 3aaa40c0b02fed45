"""Real inputs: the user's samples, checked against the spec, and batches made of them.

One sample is ``{input name: array}`` without the batch dimension. Where a spec has no samples, seeded random ones stand
in; they find wrong graphs, but say nothing about accuracy, and the manifest says that they were used.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import SampleError, describe, user_code_error
from builder.spec import Callable, ModelSpec, Spec
from builder.tensors import BATCH, Dim, Interface, TensorSpec
from builder.usercode import call

Array = NDArray[Any]
Sample = dict[str, Array]
MAX_SAMPLES = 4096
RANDOM_SAMPLES = 16
_RANDOM_SIZE = 16
_FEWEST_TO_SPLIT = 32


@dataclass(frozen=True)
class Samples:
    """Checked samples.

    Attributes:
        rows: one per sample; arrays without the batch dimension.
        interface: the tensors they fit.
        origin: where they are from (``data.py:samples``; ``random, seed 0``).
    """

    rows: tuple[Sample, ...]
    interface: Interface
    origin: str

    @property
    def are_real(self) -> bool:
        """False for random stand-ins."""
        return not self.origin.startswith("random")

    def digest(self) -> str:
        """sha256 of all that they hold."""
        whole = hashlib.sha256(self.origin.encode())
        for row in self.rows:
            for name, array in row.items():
                content = array.tobytes() if array.dtype.kind != "O" else repr(array.tolist()).encode()
                whole.update(f"{name} {array.dtype} {array.shape} ".encode() + content)
        return whole.hexdigest()

    def sizes(self, row: int = 0) -> dict[str, int]:
        """Size of every named dimension but ``batch`` in one sample."""
        return _sizes_of(self.rows[row % len(self.rows)], self.interface)

    def split(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Indices of the samples for calibration, and of those held out: disjoint halves, drawn with a seed.

        Where there are too few to be split, both are all of them.
        """
        count = len(self.rows)
        if count < _FEWEST_TO_SPLIT:
            return tuple(range(count)), tuple(range(count))
        order = [int(index) for index in np.random.default_rng(0).permutation(count)]
        return tuple(sorted(order[: count // 2])), tuple(sorted(order[count // 2 :]))

    def batch(self, size: int, sizes: Mapping[str, int] | None = None, *, start: int = 0) -> Sample:
        """``size`` samples put together, each cut or repeated along named dimensions to ``sizes``.

        Args:
            size: how many; the samples are gone through in a circle. Ignored where the model does not batch.
            sizes: size of the named dimensions; those of sample ``start`` where left out.
            start: index of the first.

        Returns:
            Full request tensors: with a leading dimension of ``size`` where the tensor is batched.
        """
        wanted = {**self.sizes(start), **(sizes or {})}
        rows = [self.rows[(start + k) % len(self.rows)] for k in range(size)]
        result: Sample = {}
        for tensor in self.interface.inputs:
            if tensor.is_batched:
                parts = [_fitted(row[tensor.name], tensor.dims[1:], wanted) for row in rows]
                result[tensor.name] = np.stack(parts) if parts else _empty(tensor, wanted)
            else:
                result[tensor.name] = np.ascontiguousarray(_fitted(rows[0][tensor.name], tensor.dims, wanted))
        return result


def _empty(tensor: TensorSpec, sizes: Mapping[str, int]) -> Array:
    return np.zeros(tensor.shape({**sizes, BATCH: 0}), dtype=tensor.dtype.numpy)


def _fitted(array: Array, dims: tuple[Dim, ...], sizes: Mapping[str, int]) -> Array:
    for axis, dim in enumerate(dims):
        if dim.name is not None and array.shape[axis] != sizes[dim.name]:
            array = np.take(array, np.arange(sizes[dim.name]) % array.shape[axis], axis=axis)
    return array


def _row_dims(tensor: TensorSpec) -> tuple[Dim, ...]:
    return tensor.dims[1:] if tensor.is_batched else tensor.dims


def _sizes_of(row: Sample, interface: Interface) -> dict[str, int]:
    found: dict[str, int] = {}
    for tensor in interface.inputs:
        for axis, dim in enumerate(_row_dims(tensor)):
            if dim.name is not None:
                found.setdefault(dim.name, row[tensor.name].shape[axis])
    return found


def load_samples(spec: Spec, model: ModelSpec, interface: Interface) -> Samples:
    """The user's samples, or random ones where the spec has none.

    Raises:
        SampleError: the callable raised, gave none, or gave arrays that do not fit ``interface``.
    """
    if model.samples is None:
        return random_samples(interface)
    reference = model.samples.python
    rows = tuple(row for _, row in zip(range(MAX_SAMPLES), rows_of(model.samples, spec, interface), strict=False))
    if not rows:
        raise SampleError(
            f"samples {reference} gave no sample",
            expected="at least one {input name: array}",
            got="none",
            fix="return real inputs; leave `samples` out to use random ones",
        )
    return Samples(rows, interface, reference)


def rows_of(given: Callable, spec: Spec, interface: Interface, *, what: str = "samples") -> Iterator[Sample]:
    """The samples that a callable of the user's gives, one by one: it may give more than fit into memory.

    Args:
        given: the callable.
        spec: whose it is.
        interface: what each has to fit.
        what: what they are for, for the message.

    Raises:
        SampleError: it raised, or gave something else.
    """
    reference = given.python
    rows = call(reference, given.args, spec.folder, what=what, kind=SampleError)
    can_be_gone_through = hasattr(rows, "__iter__") or hasattr(rows, "__getitem__")
    if isinstance(rows, (Mapping, str)) or not can_be_gone_through:
        raise SampleError(
            f"{what} {reference} gave no list",
            expected="a list (or generator) of {input name: array}",
            got=type(rows).__qualname__,
            fix="return [sample, ...], one mapping for each sample",
        )
    numbers = itertools.count()
    iterator: Iterator[Any] | None = None
    while True:
        try:
            iterator = iter(rows) if iterator is None else iterator
            row = next(iterator)
        except StopIteration:
            return
        except (Exception, SystemExit) as exc:
            message = f"{what} {reference} raised while they were gone through"
            raise user_code_error(SampleError, message, exc, folder=spec.folder) from exc
        yield _checked(row, next(numbers), reference, interface)


def stacked(rows: Sequence[Sample], interface: Interface) -> Sample:
    """Samples as one request: with a leading dimension where the tensor is batched."""
    return {
        tensor.name: np.stack([row[tensor.name] for row in rows]) if tensor.is_batched else rows[0][tensor.name]
        for tensor in interface.inputs
    }


def _checked(row: Any, index: int, reference: str, interface: Interface) -> Sample:
    where = f"{reference}, sample {index}"
    names = [tensor.name for tensor in interface.inputs]
    if not isinstance(row, Mapping):
        fix = f"[{{{names[0]!r}: row}} for row in rows]" if len(names) == 1 else "{input name: array}, with every input"
        raise SampleError(
            "the sample is no mapping",
            where=where,
            expected=f"{{{', '.join(f'{name!r}: array' for name in names)}}}",
            got=type(row).__qualname__,
            fix=fix,
        )
    if set(row) != set(names):
        raise SampleError(
            "the sample has the wrong names",
            where=where,
            expected=", ".join(names),
            got=", ".join(map(str, row)) or "none",
            fix=_name_fix([str(name) for name in row], names),
        )
    result: Sample = {}
    sizes: dict[str, int] = {}
    for tensor in interface.inputs:
        array = _as_array(row[tensor.name], tensor, where)
        dims = _row_dims(tensor)
        problem = _misfit(array, tensor, dims, sizes)
        if problem:
            expected = f"{tensor.dtype.name}[{', '.join(map(str, dims))}]"
            note = " (one sample, without the batch dimension)" if tensor.is_batched else ""
            raise SampleError(
                f"the sample does not fit input {tensor.name!r}: {problem}",
                where=where,
                expected=expected + note,
                got=f"{array.dtype}{list(array.shape)}",
                fix=_sample_fix(array, tensor, dims),
            )
        result[tensor.name] = array
    return result


def _name_fix(given: list[str], wanted: list[str]) -> str:
    absent = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    if absent and extra:
        return f"call {extra[0]!r} {absent[0]!r}, here or in `inputs`"
    return f"add {absent[0]!r}" if absent else f"leave out {extra[0]!r}: only the inputs of the spec are sent"


def _as_array(value: Any, tensor: TensorSpec, where: str) -> Array:
    """A value as an array; a torch tensor without its history and on the CPU."""
    try:
        return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except Exception as exc:  # rows of different lengths, bfloat16, or whatever __array__ of the user's raises
        raise SampleError(
            f"the sample's {tensor.name!r} is no array",
            where=where,
            expected=f"an array of {tensor.dtype.name}",
            got=f"{type(value).__qualname__}: {describe(exc)}",
            fix=f"numpy.asarray(value, dtype={tensor.dtype.numpy!r}) has to work",
        ) from exc


def _misfit(array: Array, tensor: TensorSpec, dims: tuple[Dim, ...], sizes: dict[str, int]) -> str:
    kind_ok = array.dtype.kind in "OSU" if tensor.dtype.numpy == "object" else array.dtype == tensor.dtype.numpy
    if not kind_ok:
        return "wrong dtype"
    if array.ndim != len(dims):
        return "wrong number of dimensions"
    for size, dim in zip(array.shape, dims, strict=True):
        if dim.size is not None and size != dim.size:
            return f"size {size} where the spec has {dim.size}"
        if size == 0:
            return "it is empty"
        if dim.name is not None:
            if sizes.setdefault(dim.name, size) != size:
                return f"{dim.name!r} is {size} here and {sizes[dim.name]} elsewhere in the sample"
            if dim.low is not None and dim.high is not None and not dim.low <= size <= dim.high:
                return f"{dim.name!r} is {size}, outside {dim.low}..{dim.high}"
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        return "it holds NaN or Inf"
    if array.dtype.kind == "O" and not all(isinstance(item, (str, bytes)) for item in array.reshape(-1)):
        return "it holds something else than text"
    return ""


def _sample_fix(array: Array, tensor: TensorSpec, dims: tuple[Dim, ...]) -> str:
    if tensor.is_batched and array.ndim == len(dims) + 1:
        return "return single samples: a list of rows, not batches"
    if array.dtype != tensor.dtype.numpy and array.dtype.kind not in "OSU":
        return f"array.astype({tensor.dtype.numpy!r})"
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        return "leave such samples out, or put real numbers in: no answer to NaN can be compared"
    return "mend the callable, or the shape in the spec"


def random_samples(interface: Interface, *, count: int = RANDOM_SAMPLES, seed: int = 0) -> Samples:
    """Seeded stand-ins: standard normal floats, 0 or 1 for whole numbers (safe as token ids and masks), short strings.

    Named dimensions get the middle of their range, or 16 where they have none.
    """
    rng = np.random.default_rng(seed)
    sizes = {name: _middle(dim) for name, dim in interface.named_dims().items()}
    rows = []
    for _ in range(count):
        row: Sample = {}
        for tensor in interface.inputs:
            shape = TensorSpec(tensor.name, tensor.dtype, _row_dims(tensor)).shape(sizes)
            if tensor.dtype.numpy == "object":
                row[tensor.name] = np.full(shape, b"text", dtype=object)
            elif tensor.dtype.is_float:
                row[tensor.name] = rng.standard_normal(shape).astype(tensor.dtype.numpy)
            else:
                row[tensor.name] = rng.integers(0, 2, shape).astype(tensor.dtype.numpy)
        rows.append(row)
    return Samples(tuple(rows), interface, f"random, seed {seed}")


def _middle(dim: Dim) -> int:
    return _RANDOM_SIZE if dim.low is None or dim.high is None else (dim.low + dim.high) // 2
