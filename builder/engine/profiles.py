"""Optimization profiles: the smallest, usual and largest shape of every input, out of what the spec says anyway.

A free dimension of an engine has bounds, so each one needs a source: the batch has ``batch.max``, a named dimension its
range, and what is written under ``engine.profiles`` goes before both, but must agree with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from builder.engine.options import Profile, Shape
from builder.errors import EngineError
from builder.findings import did_you_mean
from builder.tensors import BATCH, Dim, Interface, TensorSpec

BOUNDS = ("min", "opt", "max")
Explicit = Mapping[str, Mapping[str, Sequence[int]]]
"""A profile as the spec writes it: ``{image: {min: [...], opt: [...], max: [...]}}``; inputs may be left out."""


def profiles_of(
    interface: Interface,
    *,
    max_batch: int,
    preferred: Sequence[int] = (),
    explicit: Sequence[Explicit] = (),
    typical: Mapping[str, int] | None = None,
    where: str = "engine.profiles",
) -> tuple[Profile, ...]:
    """The profiles of an engine.

    Args:
        interface: what the model takes.
        max_batch: Triton's ``max_batch_size``; 0 without batching.
        preferred: the batcher's preferred sizes; the largest is what the engine is tuned for.
        explicit: as written in the spec; by default one profile is made of the rest.
        typical: usual sizes of named dimensions, as the samples have them; by default the upper end of the range.
        where: the place of ``explicit``.

    Raises:
        EngineError: a dimension has no bounds, or a profile contradicts the rest of the spec.
    """
    interface = _with_ranges(interface)
    usual = {BATCH: max(preferred, default=max_batch), **(typical or {})}
    made = []
    for index, written in enumerate(explicit or ({},)):
        place = f"{where}[{index}]" if explicit else "inputs"
        _check_names(interface, written, place)
        made.append(
            {
                tensor.name: _written(tensor, written[tensor.name], place)
                if tensor.name in written
                else _derived(tensor, max_batch, usual, place)
                for tensor in interface.inputs
            }
        )
        _check_same_names(interface, made[-1], place)
    if interface.batches and max_batch:
        _check_batch(interface, made, max_batch, where)
    return tuple(made)


def _with_ranges(interface: Interface) -> Interface:
    """The same, every named dimension with the range that it was given anywhere."""
    ranged = interface.named_dims()
    inputs = tuple(
        replace(tensor, dims=tuple(ranged.get(str(dim.name), dim) for dim in tensor.dims))
        for tensor in interface.inputs
    )
    return Interface(inputs, interface.outputs)


def _derived(tensor: TensorSpec, max_batch: int, usual: Mapping[str, int], place: str) -> tuple[Shape, Shape, Shape]:
    bounds = [_bounds(dim, tensor, max_batch, usual, place) for dim in tensor.dims]
    low, opt, high = (tuple(bound[index] for bound in bounds) for index in range(3))
    return low, opt, high


def _bounds(dim: Dim, tensor: TensorSpec, max_batch: int, usual: Mapping[str, int], place: str) -> tuple[int, int, int]:
    if dim.size is not None:
        return dim.size, dim.size, dim.size
    low, high = (1, max_batch) if dim.name == BATCH else (dim.low or 0, dim.high or 0)
    if high < 1:
        fix = "give `batch.max`" if dim.name == BATCH else f"give it a range in the spec: `{dim.name}: 1..512`"
        raise EngineError(
            f"dimension `{dim.name}` of input `{tensor.name}` has no upper bound, and an engine needs one",
            where=f"{place}.{tensor.name}",
            expected=f"a range for `{dim.name}`, or a profile that names `{tensor.name}`",
            got=str(tensor),
            fix=f"{fix}, or write engine.profiles: [{{{tensor.name}: {{min: [...], opt: [...], max: [...]}}}}]",
        )
    low = max(low, 1)
    return low, min(max(usual.get(str(dim.name), high), low), high), high


def _written(tensor: TensorSpec, given: Mapping[str, Sequence[int]], place: str) -> tuple[Shape, Shape, Shape]:
    where = f"{place}.{tensor.name}"
    if set(given) != set(BOUNDS):
        raise _contradiction("a profile has three shapes", where, "min, opt and max", ", ".join(given) or "none")
    low, opt, high = (tuple(int(size) for size in given[bound]) for bound in BOUNDS)
    for bound, shape in zip(BOUNDS, (low, opt, high), strict=True):
        _check_shape(tensor, shape, f"{where}.{bound}")
    for index, (least, usual, most) in enumerate(zip(low, opt, high, strict=True)):
        if not least <= usual <= most:
            dim = tensor.dims[index].name or f"{index}"
            got = f"dimension {dim}: min {least}, opt {usual}, max {most}"
            raise _contradiction(f"the profile of `{tensor.name}` is out of order", where, "min <= opt <= max", got)
    return low, opt, high


def _check_shape(tensor: TensorSpec, shape: Shape, where: str) -> None:
    if len(shape) != len(tensor.dims):
        what = f"the profile of `{tensor.name}` has the wrong number of dimensions"
        raise _contradiction(what, where, f"{len(tensor.dims)} of them: {tensor}", f"{len(shape)}: {list(shape)}")
    for size, dim in zip(shape, tensor.dims, strict=True):
        if size < 1:
            raise _contradiction(
                f"the profile of `{tensor.name}` has a size below 1", where, "1 or more", str(list(shape))
            )
        if dim.size is not None and size != dim.size:
            what = f"the profile of `{tensor.name}` changes a fixed dimension"
            raise _contradiction(what, where, f"{dim.size} in {tensor}", f"{size} in {list(shape)}")
        if dim.low is not None and dim.high is not None and not dim.low <= size <= dim.high:
            what = f"the profile of `{tensor.name}` leaves the range of `{dim.name}`"
            raise _contradiction(what, where, f"{dim.low} to {dim.high}", f"{size} in {list(shape)}")


def _check_names(interface: Interface, written: Explicit, place: str) -> None:
    names = [tensor.name for tensor in interface.inputs]
    for name in written:
        if name not in names:
            raise EngineError(
                f"the profile names an input that the model does not have: `{name}`",
                where=f"{place}.{name}",
                expected=f"one of {', '.join(names)}",
                got=name,
                fix=did_you_mean(name, names) or "take it out of the profile",
            )


def _check_same_names(interface: Interface, profile: Profile, place: str) -> None:
    """The same name is the same size in every input, in each of the three shapes."""
    for index, bound in enumerate(BOUNDS):
        seen: dict[str, tuple[str, int]] = {}
        for tensor in interface.inputs:
            for size, dim in zip(profile[tensor.name][index], tensor.dims, strict=True):
                if dim.name is None:
                    continue
                other, before = seen.setdefault(dim.name, (tensor.name, size))
                if before != size:
                    what = f"`{dim.name}` has two sizes in the same profile"
                    got = f"{bound}: {before} in `{other}`, {size} in `{tensor.name}`"
                    raise _contradiction(what, place, f"one size of `{dim.name}` in every input", got)


def _check_batch(interface: Interface, made: Sequence[Profile], max_batch: int, where: str) -> None:
    """Triton refuses a model whose engine takes no batch of ``max_batch_size``, or none of 1."""
    for tensor in interface.inputs:
        largest = max(profile[tensor.name][2][0] for profile in made)
        smallest = min(profile[tensor.name][0][0] for profile in made)
        if largest < max_batch:
            raise EngineError(
                f"the profile of `{tensor.name}` is smaller than `max_batch_size`",
                where=f"{where}: {tensor.name}.max[0]",
                expected=f"a largest batch of {max_batch} or more in one of the profiles",
                got=f"a largest batch of {largest}",
                fix=f"write {max_batch} as the first number of `max`, or `batch: {{max: {largest}}}`",
            )
        if smallest > 1:
            raise EngineError(
                f"no profile of `{tensor.name}` takes a batch of 1, and a single request is one",
                where=f"{where}: {tensor.name}.min[0]",
                expected="1 as the first number of `min` in one of the profiles",
                got=str(smallest),
                fix="write 1 there",
            )


def _contradiction(what: str, where: str, expected: str, got: str) -> EngineError:
    fix = "mend the profile, or the shapes under `inputs` and `batch` that it contradicts"
    return EngineError(what, where=where, expected=expected, got=got, fix=fix)
