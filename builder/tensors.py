"""What a tensor is called, holds and measures: the notation of ``inputs`` and ``outputs``.

``float32[batch, 3, seq: 1..512]``: an element type of :mod:`serving.dtypes`, then dimensions. A dimension is a number,
``batch``, a name, or a name with an inclusive range. The same name means the same size wherever it appears.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from builder.findings import Finding, nearest, refuse
from serving.dtypes import BY_NAME, DTYPES, DType

BATCH = "batch"
MAX_RANK = 32
"""Dimensions of an array in numpy 1.26, which the server's runtime has."""
MAX_TENSOR_BYTES = 2**31 - 1
"""A protobuf message, and with it a gRPC request, ends there."""
_MAX_DIM = 2**31 - 1
_MAX_TEXT = 10_000
_EXAMPLE = "float32[batch, 3, 224, 224]"
_TENSOR = re.compile(r"\s*(?P<dtype>[A-Za-z_]\w*)\s*\[(?P<dims>.*)\]\s*\Z", re.DOTALL | re.ASCII)
_NAME = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)
_SIZE = re.compile(r"[0-9]+\Z")
_RANGED = re.compile(r"(?P<name>[A-Za-z_]\w*)\s*:\s*(?P<low>[0-9]+)\s*\.\.\s*(?P<high>[0-9]+)\Z", re.ASCII)
_OTHER_SPELLINGS = {
    "f16": "float16", "half": "float16", "f32": "float32", "float": "float32", "single": "float32", "f64": "float64",
    "double": "float64", "bf16": "bfloat16", "i8": "int8", "char": "int8", "i16": "int16", "short": "int16",
    "i32": "int32", "int": "int64", "integer": "int64", "i64": "int64", "long": "int64", "u8": "uint8", "byte": "uint8",
    "u16": "uint16", "u32": "uint32", "u64": "uint64", "boolean": "bool", "str": "string", "text": "string",
    "object": "string",
}  # fmt: skip


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
        Findings: a ``ValueError`` with what was expected.
    """
    match = _TENSOR.match(text) if len(text) <= _MAX_TEXT else None
    if match is None:
        close = nearest_dtype(text.partition("[")[0])
        fix = f"{close}[batch, ...], in quotes" if close else "in quotes: YAML gives [ and : a meaning"
        raise refuse(f"{text[:80]!r} is no tensor", expected=f"TYPE[DIM, ...], for example {_EXAMPLE}", fix=fix)
    if match["dtype"] not in BY_NAME:
        close = nearest_dtype(match["dtype"])
        fix = f"did you mean {close}?" if close else ""
        raise refuse(f"unknown element type {match['dtype']!r}", expected=f"one of {', '.join(BY_NAME)}", fix=fix)
    dims_text = match["dims"].strip()
    parts = dims_text.split(",") if dims_text else []
    dims = tuple(parse_dim(part.strip(), text) for part in parts)
    if len(dims) > MAX_RANK:
        raise refuse(f"{len(dims)} dimensions in {text[:80]!r}", expected=f"at most {MAX_RANK}, as numpy in the server")
    for index, dim in enumerate(dims):
        if dim.name == BATCH and (index != 0 or dim.low is not None):
            what = f"in {text!r}: `{BATCH}` is the first dimension and has no range"
            raise refuse(what, expected=f"[{BATCH}, ...]; batch.max bounds it")
    return TensorSpec(name, BY_NAME[match["dtype"]], dims)


def parse_dim(part: str, text: str) -> Dim:
    """One dimension of ``text``.

    Raises:
        Findings: a ``ValueError`` with what was expected.
    """
    if _NAME.match(part):
        return Dim(name=part)
    fixed, ranged = _SIZE.match(part), _RANGED.match(part)
    if fixed is None and ranged is None:
        what = f"dimension {part[:60]!r} in {text[:80]!r}"
        fix = f"a free size is a name: write {BATCH}, seq or another" if part in ("-1", "?", "*", "None", "") else ""
        raise refuse(what, expected="a number, a name, or `name: LOW..HIGH`", fix=fix)
    sizes = [int(size) if len(size) < 12 else _MAX_DIM + 1 for size in re.findall(r"(?<![A-Za-z_0-9])[0-9]+", part)]
    if max(sizes) > _MAX_DIM:
        raise refuse(f"dimension {part[:60]!r} in {text[:80]!r} is too large", expected=f"at most {_MAX_DIM}")
    if fixed is not None:
        if sizes[0] == 0:
            raise refuse(f"dimension 0 in {text!r}", expected="a fixed dimension is at least 1")
        return Dim(size=sizes[0])
    assert ranged is not None
    low, high = sizes
    if not 1 <= low <= high:
        expected = "the lower end is at least 1 and at most the upper end"
        raise refuse(f"range {low}..{high} in {text!r}", expected=expected)
    return Dim(name=ranged["name"], low=low, high=high)


def nearest_dtype(text: str) -> str | None:
    """Our spelling of an element type that was written in another one: Triton's, ONNX's, C's, or misspelt."""
    plain = text.strip().lower().removeprefix("torch.").removeprefix("np.").removeprefix("type_")
    if plain in BY_NAME:
        return plain
    for dtype in DTYPES:
        if plain in (dtype.onnx.lower(), dtype.triton.lower(), (dtype.tensorrt or "").lower()):
            return dtype.name
    return _OTHER_SPELLINGS.get(plain) or nearest(plain, BY_NAME, cutoff=0.7)


def contradictions(inputs: Interface, *, max_batch: int, batch_given: bool) -> list[Finding]:
    """What the tensors of one model say against each other, or against batching; paths begin at the model.

    Args:
        inputs: the declared tensors.
        max_batch: ``batch.max``.
        batch_given: whether the spec says ``batch`` at all.
    """
    roles = [("inputs", tensor) for tensor in inputs.inputs] + [("outputs", tensor) for tensor in inputs.outputs]
    batched = [tensor.name for _, tensor in roles if tensor.is_batched]
    batching = bool(batched) and len(batched) == len(roles) and max_batch > 0
    given = {tensor.name for tensor in inputs.inputs}
    found: list[Finding] = []
    for role, tensor in roles:
        found += [
            Finding(what, expected, fix=fix, path=(role, tensor.name))
            for what, expected, fix in troubles_of(tensor, batching)
        ]
        if role == "outputs" and tensor.name in given:
            what = f"{tensor.name!r} is an input and an output"
            found.append(Finding(what, "names of their own", fix="rename one of them", path=(role, tensor.name)))
        if batched and not tensor.is_batched and max_batch > 0:
            what = f"{batched[0]!r} begins with `{BATCH}` and {tensor.name!r} does not"
            fix = f"begin it with `{BATCH}`, or turn batching off: `batch: {{max: 0}}`"
            found.append(Finding(what, "with batching every tensor does", str(tensor), fix, (role, tensor.name)))
    if roles and not batched and max_batch > 0 and batch_given:
        what = f"`batch.max` is {max_batch}, but no tensor begins with `{BATCH}`"
        found.append(Finding(what, fix=f"begin every tensor with `{BATCH}`, or write `max: 0`", path=("batch",)))
    return found + _range_conflicts(roles)


def troubles_of(tensor: TensorSpec, batching: bool) -> list[tuple[str, str, str]]:
    """``(what, expected, fix)`` of what is wrong with one tensor on its own, where the server batches or does not."""
    troubles = []
    if tensor.dtype.numpy is None:
        fix = "take float32 at the border and cast inside the module"
        troubles.append((f"{tensor.name!r} is {tensor.dtype.name}, which clients have no arrays for", "", fix))
    if not tensor.config_dims(batching=batching):
        bare = f"{tensor.dtype.name}[{BATCH}, 1]" if batching else f"{tensor.dtype.name}[1]"
        what = f"{tensor.name!r} has no dimension" + (f" beside `{BATCH}`" if batching else "")
        fix = f"write {bare}, and take or give that shape in forward(): x[:, None], x[:, 0]"
        troubles.append((what, "at least one: Triton refuses a model whose `dims` are empty", fix))
    largest = tensor.dtype.size_bytes
    for dim in tensor.dims:
        largest *= dim.size or dim.high or 1
    if largest > MAX_TENSOR_BYTES:
        what = f"{tensor.name!r} is up to {largest / 1e9:.1f} GB for one sample"
        troubles.append((what, f"at most {MAX_TENSOR_BYTES} bytes: a request ends there", "make a dimension smaller"))
    return troubles


def _range_conflicts(roles: Iterable[tuple[str, TensorSpec]]) -> list[Finding]:
    """One finding for every name that was given a second range, at the place of that one."""
    seen: dict[str, Dim] = {}
    found = []
    for role, tensor in roles:
        for dim in tensor.dims:
            if dim.name is None or dim.low is None:
                continue
            first = seen.setdefault(dim.name, dim)
            if first != dim:
                what = f"dimension {dim.name!r} has two ranges: {first.low}..{first.high} and {dim.low}..{dim.high}"
                fix = "one name is one size: write the range once, or use two names"
                found.append(Finding(what, fix=fix, path=(role, tensor.name)))
    return found
