"""What a tensor is called, holds and measures: the notation of ``inputs`` and ``outputs``.

``float32[batch, 3, seq: 1..512]``: an element type of :mod:`serving.dtypes`, then dimensions. A dimension is a number,
``batch``, a name, or a name with an inclusive range. The same name means the same size wherever it appears.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from serving.dtypes import BY_NAME, DType

BATCH = "batch"
_TENSOR = re.compile(r"^\s*(?P<dtype>[A-Za-z_]\w*)\s*\[(?P<dims>.*)\]\s*$", re.DOTALL)
_NAME = re.compile(r"^[A-Za-z_]\w*$")
_RANGED = re.compile(r"^(?P<name>[A-Za-z_]\w*)\s*:\s*(?P<low>\d+)\s*\.\.\s*(?P<high>\d+)$")


@dataclass(frozen=True)
class Dim:
    """One dimension: a fixed ``size``, or a ``name`` with an optional inclusive range.

    Attributes:
        name: None for a fixed dimension.
        size: None for a named one.
        low, high: the range of a named one; None where it is open.
    """

    name: str | None = None
    size: int | None = None
    low: int | None = None
    high: int | None = None

    def __str__(self) -> str:
        if self.name is None:
            return str(self.size)
        return self.name if self.low is None else f"{self.name}: {self.low}..{self.high}"


@dataclass(frozen=True)
class TensorSpec:
    """A named tensor: element type and dimensions, the batch dimension included."""

    name: str
    dtype: DType
    dims: tuple[Dim, ...]

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.dims))}]"

    @property
    def is_batched(self) -> bool:
        """True when the first dimension is ``batch``."""
        return bool(self.dims) and self.dims[0].name == BATCH

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The concrete shape at these sizes of the named dimensions.

        Raises:
            KeyError: a named dimension has no size.
        """
        return tuple(dim.size if dim.size is not None else sizes[str(dim.name)] for dim in self.dims)

    def config_dims(self, *, batching: bool) -> list[int]:
        """``dims`` as ``config.pbtxt`` wants them: without the batch dimension, -1 where the size is free."""
        dims = self.dims[1:] if batching else self.dims
        return [dim.size if dim.size is not None else -1 for dim in dims]


@dataclass(frozen=True)
class Interface:
    """Everything a model takes and gives, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def batches(self) -> bool:
        """True when every input and output begins with ``batch``."""
        tensors = self.inputs + self.outputs
        return bool(tensors) and all(tensor.is_batched for tensor in tensors)

    def named_dims(self) -> dict[str, Dim]:
        """Every named input dimension but ``batch``, with its range where one was given anywhere."""
        found: dict[str, Dim] = {}
        for dim in (dim for tensor in self.inputs for dim in tensor.dims):
            if dim.name not in (None, BATCH) and (dim.name not in found or dim.low is not None):
                found[str(dim.name)] = dim
        return found


def parse_tensor(name: str, text: str) -> TensorSpec:
    """``float32[batch, 10]`` -> :class:`TensorSpec`.

    Raises:
        ValueError: with a message that says what was expected.
    """
    match = _TENSOR.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no tensor: write TYPE[DIM, ...], for example float32[batch, 3, 224, 224]")
    if match["dtype"] not in BY_NAME:
        raise ValueError(f"unknown element type {match['dtype']!r}: one of {', '.join(BY_NAME)}")
    dims_text = match["dims"].strip()
    parts = dims_text.split(",") if dims_text else []
    dims = tuple(parse_dim(part.strip(), text) for part in parts)
    for index, dim in enumerate(dims):
        if dim.name == BATCH and (index != 0 or dim.low is not None):
            raise ValueError(f"in {text!r}: `batch` is the first dimension and has no range (batch.max bounds it)")
    return TensorSpec(name, BY_NAME[match["dtype"]], dims)


def parse_dim(part: str, text: str) -> Dim:
    """One dimension of ``text``.

    Raises:
        ValueError: with a message that says what was expected.
    """
    if part.isdigit():
        if int(part) == 0:
            raise ValueError(f"dimension 0 in {text!r}: a fixed dimension is at least 1")
        return Dim(size=int(part))
    if _NAME.match(part):
        return Dim(name=part)
    ranged = _RANGED.match(part)
    if ranged is None:
        raise ValueError(f"dimension {part!r} in {text!r}: write a number, a name, or `name: LOW..HIGH`")
    low, high = int(ranged["low"]), int(ranged["high"])
    if not 1 <= low <= high:
        raise ValueError(f"range {low}..{high} in {text!r}: the lower end is at least 1 and at most the upper end")
    return Dim(name=ranged["name"], low=low, high=high)


def conflicting_ranges(tensors: Iterable[TensorSpec]) -> list[str]:
    """One sentence for every name that was given two different ranges."""
    seen: dict[str, Dim] = {}
    sentences = []
    for tensor in tensors:
        for dim in tensor.dims:
            if dim.name is None or dim.low is None:
                continue
            first = seen.setdefault(dim.name, dim)
            if first != dim:
                sentences.append(
                    f"dimension {dim.name!r} has two ranges: {first.low}..{first.high} and {dim.low}..{dim.high}"
                )
    return sentences
