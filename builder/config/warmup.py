"""``model_warmup``: zeros, random bytes, or real samples that are written into the version folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from builder.config.files import plain
from builder.errors import ConfigError
from builder.spec import ModelSpec
from builder.tensors import Interface, TensorSpec

if TYPE_CHECKING:
    from builder.samples import Sample

FOLDER = "warmup"
_ONE_BYTE = {"zero": "zero_data", "random": "random_data"}


def model_warmup(
    model: ModelSpec,
    interface: Interface,
    seen: Mapping[str, Sequence[int]],
    *,
    sizes: Mapping[str, int],
    rows: Sequence[Sample],
    batching: bool,
) -> list[dict[str, Any]]:
    """The field, for what the spec asks of it.

    Args:
        model: whose ``warmup`` is not None.
        interface: the model's tensors.
        seen: ``dims`` that clients see, where they are others than the tensor's own.
        sizes: a real size for every named dimension.
        rows: the samples that :func:`sample_files` writes.
        batching: whether the server batches.

    Raises:
        ConfigError: a batch is larger than the server makes.
    """
    warmup = model.warmup
    assert warmup is not None
    limit = model.batch.max if batching else 1
    too_large = [size for size in warmup.batch_sizes if size > limit]
    if too_large:
        raise ConfigError(
            f"warmup.batch_sizes has {too_large[0]}, beyond the largest batch",
            where="warmup.batch_sizes in the spec",
            expected=f"at most {limit} ({'batch.max' if batching else 'the model does not batch'})",
            got=str(too_large[0]),
            fix="take it out, or raise batch.max",
        )
    states = {state.input_name for state in model.sequence.state} if model.sequence else set()
    tensors = [tensor for tensor in interface.inputs if tensor.name not in states]  # Triton adds them itself
    count = {"count": warmup.count} if warmup.count > 1 else {}
    found = []
    for size in warmup.batch_sizes:
        for number, row in enumerate(rows) if rows else [(None, None)]:
            inputs = {}
            for index, tensor in enumerate(tensors):
                if row is None or number is None:
                    shape = _made_up(tensor, sizes, batching)
                    content: dict[str, Any] = {_ONE_BYTE[warmup.data]: True}
                else:
                    shape = _real(tensor, row[tensor.name].shape, batching)
                    content = {"input_data_file": file_name(number, index, tensor.name)}
                shape = _as_seen(shape, seen.get(tensor.name))
                inputs[tensor.name] = {"data_type": tensor.dtype.config, "dims": shape, **content}
            what = f"batch of {size}" if number is None else f"sample {number}, batch of {size}"
            found.append({"name": what, "batch_size": size, "inputs": inputs, **count})
    return found


def _made_up(tensor: TensorSpec, sizes: Mapping[str, int], batching: bool) -> list[int]:
    dims = tensor.dims[1:] if batching else tensor.dims
    return [dim.size if dim.size is not None else sizes.get(str(dim.name), 1) for dim in dims]


def _real(tensor: TensorSpec, shape: Sequence[int], batching: bool) -> list[int]:
    # A sample is without the batch dimension, also where the model has one that the server does not know.
    return [*([1] if tensor.is_batched and not batching else []), *shape]


def _as_seen(shape: list[int], dims: Sequence[int] | None) -> list[int]:
    """The shape as clients send it: its one free size takes what is left."""
    if dims is None:
        return shape
    total, fixed = 1, 1
    for size in shape:
        total *= size
    for size in dims:
        fixed *= size if size > 0 else 1
    return [total // fixed if size < 0 else size for size in dims]


def file_name(row: int, index: int, tensor: str) -> str:
    """The name of one tensor of one sample in the folder."""
    return f"{row}_{index}_{plain(tensor)}"


def sample_files(model: ModelSpec, interface: Interface, rows: Sequence[Sample]) -> Iterator[tuple[str, bytes]]:
    """Name in the folder and content of every file, in the order of :func:`model_warmup`."""
    states = {state.input_name for state in model.sequence.state} if model.sequence else set()
    tensors = [tensor for tensor in interface.inputs if tensor.name not in states]
    for number, row in enumerate(rows):
        for index, tensor in enumerate(tensors):
            yield file_name(number, index, tensor.name), _bytes(tensor, row[tensor.name])


def _bytes(tensor: TensorSpec, array: Any) -> bytes:
    """An array as Triton's raw bytes; of texts, each with its length before it."""
    if tensor.dtype.numpy != "object":
        return bytes(array.astype(tensor.dtype.numpy, order="C").tobytes())
    texts = (text.encode() if isinstance(text, str) else bytes(text) for text in array.reshape(-1).tolist())
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
