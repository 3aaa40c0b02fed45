"""Responses that are made once and filled many times.

To make a ``Tensor`` and an ``InferenceResponse``, copy the tensor to shared memory and free all of it again costs more
than a small model computes. Triton's stub leaves a tensor where it is once it has been sent, in shared memory, and the
server is done with a response before it asks for the next batch. So a tensor that has been sent can be sent again: this
module keeps them, by shape, and writes each new answer where the last one was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .memory import tensor_address, view_at

Array = npt.NDArray[Any]

# All that is kept, for one instance of one model; larger outputs are sent as new tensors, as usual.
DEFAULT_BUDGET_BYTES = 1 << 20


class _Shelf:
    """Tensors of one shape for one output, and how many of them the current batch has taken."""

    def __init__(self, utils: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._utils = utils
        self._name = name
        self._shape = shape
        self._dtype = dtype
        self._settled = 0  # the first so many are known to have moved to shared memory
        self.tensors: list[Any] = []
        self.views: list[Array] = []
        self.responses: list[Any] = []
        self.taken = 0

    def take(self, count: int) -> slice:
        """Room for ``count`` more answers; valid until the next batch."""
        start, stop = self.taken, self.taken + count
        self.taken = stop
        while len(self.tensors) < stop:
            array = np.empty(self._shape, dtype=self._dtype)
            tensor = self._utils.Tensor(self._name, array)
            self.tensors.append(tensor)
            self.views.append(array)
            self.responses.append(self._utils.InferenceResponse([tensor]))
        if self._settled < stop:
            self._settle(start, stop)
        return slice(start, stop)

    def _settle(self, start: int, stop: int) -> None:
        """A tensor moves to shared memory when it is first sent: follow it there."""
        settled = start <= self._settled
        for index in range(max(start, self._settled), stop):
            view = self.views[index]
            address = tensor_address(self.tensors[index])
            if address == view.ctypes.data:
                settled = False
            else:
                self.views[index] = view_at(address, view)
            if settled:
                self._settled = index + 1


class ResponseMaker:
    """Makes the responses of one batch after another.

    Args:
        utils: Triton's ``triton_python_backend_utils``.
        names: the configured outputs, in the order in which arrays are handed in.
        makers: ``maker(name, array)`` for outputs that the stub cannot make from an array as it is.
        budget_bytes: how much memory may be kept for reuse; 0 makes each response anew.
    """

    def __init__(
        self,
        utils: Any,
        names: Sequence[str],
        makers: Mapping[str, Callable[[str, Array], Any]] | None = None,
        budget_bytes: int = DEFAULT_BUDGET_BYTES,
    ) -> None:
        self._utils = utils
        self._names = tuple(names)
        self._makers = dict(makers or {})
        self._budget_bytes = budget_bytes
        self._kept_bytes = 0
        self._shelves: dict[tuple[Any, ...], _Shelf] = {}

    def begin(self) -> None:
        """A new batch: all that was sent before may be overwritten."""
        for shelf in self._shelves.values():
            shelf.taken = 0

    def one(self, outputs: Sequence[Array]) -> Any:
        """The response to one request. Outputs that it did not ask for are left out by the stub."""
        if len(outputs) == 1:
            return self._many_of_one_output(outputs[0][np.newaxis])[0]
        return self._utils.InferenceResponse(
            [self._tensors(index, output[np.newaxis])[0] for index, output in enumerate(outputs)]
        )

    def many(self, outputs: Sequence[Array], count: int) -> list[Any]:
        """The responses to ``count`` requests with equally many rows each, whose outputs follow each other."""
        blocks = [output.reshape((count, len(output) // count, *output.shape[1:])) for output in outputs]
        if len(blocks) == 1:
            return self._many_of_one_output(blocks[0])
        columns = [self._tensors(index, block) for index, block in enumerate(blocks)]
        return [self._utils.InferenceResponse(list(row)) for row in zip(*columns, strict=True)]

    def _many_of_one_output(self, block: Array) -> list[Any]:
        shelf = self._shelf(0, block)
        if shelf is None:
            return [self._utils.InferenceResponse([tensor]) for tensor in self._new_tensors(0, block)]
        room = shelf.take(len(block))
        for view, part in zip(shelf.views[room], block):  # noqa: B905 (the hot path)
            view[...] = part
        return shelf.responses[room]

    def _tensors(self, index: int, block: Array) -> list[Any]:
        shelf = self._shelf(index, block)
        if shelf is None:
            return self._new_tensors(index, block)
        room = shelf.take(len(block))
        for view, part in zip(shelf.views[room], block):  # noqa: B905 (the hot path)
            view[...] = part
        return shelf.tensors[room]

    def _new_tensors(self, index: int, block: Array) -> list[Any]:
        name = self._names[index]
        make = self._makers.get(name, self._utils.Tensor)
        return [make(name, part) for part in block]

    def _shelf(self, index: int, block: Array) -> _Shelf | None:
        """The shelf for parts of this block with room for all of them, or None: make them anew."""
        key = (index, block.dtype, block.shape[1:])
        shelf = self._shelves.get(key)
        if shelf is not None and len(shelf.tensors) >= shelf.taken + len(block):
            return shelf
        if block.dtype.hasobject or not 0 < block.nbytes <= self._budget_bytes or self._names[index] in self._makers:
            return None
        held = 0 if shelf is None else len(shelf.tensors) - shelf.taken
        needed = (len(block) - held) * (block.nbytes // len(block))
        if self._kept_bytes + needed > self._budget_bytes:
            if any(other.taken for other in self._shelves.values()):
                return None  # some of them are part of this very batch
            self._shelves.clear()
            self._kept_bytes, needed, shelf = 0, block.nbytes, None
        if shelf is None:
            shelf = self._shelves[key] = _Shelf(self._utils, self._names[index], block.shape[1:], block.dtype)
        self._kept_bytes += needed
        return shelf
