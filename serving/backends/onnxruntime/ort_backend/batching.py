"""The hot path: requests in, one run of the model, responses out.

What the stub charges for is calls into it and the objects it makes, so each request costs one ``inputs()``, one name
and one ``as_numpy()`` per input (private already: no further copy); responses are reused, see :mod:`.responses`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from . import bfloat16
from .responses import ResponseMaker
from .strings import decode_strings

Array = npt.NDArray[Any]
Feed = dict[str, Array]
Run = Callable[[Sequence[str], Feed], list[Array]]


class RequestError(ValueError):
    """One request cannot be answered; the message goes to its client."""


class Batcher:
    """Turns a list of requests into runs of the model, and the model's outputs into responses.

    Args:
        utils: Triton's ``triton_python_backend_utils``.
        run: ``run(output_names, feed)``: the model itself.
        outputs: names of the configured outputs.
        batched: whether requests carry a batch dimension (``max_batch_size > 0``).
        string_inputs: inputs that arrive as bytes and leave as text.
        scalar_inputs: inputs whose single element ONNX wants without dimensions.
        scalar_outputs: for outputs without dimensions, the shape that the configuration promises.
        only_input: the name of the input where the model has one: then requests need not be asked for it.
        bfloat16_inputs: inputs whose bits ``run`` takes as uint16.
        bfloat16_outputs: outputs whose bits ``run`` gives as uint16.
    """

    def __init__(
        self,
        utils: Any,
        run: Run,
        outputs: Sequence[str],
        *,
        batched: bool,
        string_inputs: frozenset[str] = frozenset(),
        scalar_inputs: frozenset[str] = frozenset(),
        scalar_outputs: Mapping[str, tuple[int, ...]] | None = None,
        only_input: str = "",
        bfloat16_inputs: frozenset[str] = frozenset(),
        bfloat16_outputs: frozenset[str] = frozenset(),
    ) -> None:
        self._utils = utils
        self._run = run
        self._outputs = list(outputs)
        self._batched = batched
        self._string_inputs = string_inputs
        self._scalar_inputs = scalar_inputs
        self._scalar_outputs = dict(scalar_outputs or {})
        self._special = bool(string_inputs or scalar_inputs)
        self._bfloat16_inputs = bfloat16_inputs
        self._only_input = "" if bfloat16_inputs else only_input
        makers = dict.fromkeys(bfloat16_outputs, partial(bfloat16.tensor_of, utils))
        self._responses = ResponseMaker(utils, outputs, makers)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request, in order; never raises for a single request's sake."""
        self._responses.begin()
        if len(requests) == 1 or not self._batched:
            return [self._alone(request) for request in requests]
        try:
            return self._together(requests)
        except Exception:
            return self._apart(requests)

    def _alone(self, request: Any) -> Any:
        try:
            feed = self._feed(request)
            outputs = self._run(self._outputs, feed)
            if self._batched:
                self._check_rows(outputs, len(next(iter(feed.values()))))
            if self._scalar_outputs:
                outputs = self._shaped(outputs)
            return self._responses.one(outputs)
        except Exception as error:
            return self._utils.InferenceResponse([], self._utils.TritonError(_message(error)))

    def _feed(self, request: Any) -> Feed:
        if self._bfloat16_inputs:
            feed = {tensor.name(): self._array(tensor) for tensor in request.inputs()}
        else:
            feed = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        if self._special:
            for name in self._string_inputs & feed.keys():
                feed[name] = decode_strings(name, feed[name])
            for name in self._scalar_inputs & feed.keys():
                feed[name] = feed[name].reshape(())
        return feed

    def _array(self, tensor: Any) -> Array:
        if tensor.name() in self._bfloat16_inputs:
            return bfloat16.bits_of(tensor)
        array: Array = tensor.as_numpy()
        return array

    def _shaped(self, outputs: Sequence[Array]) -> list[Array]:
        """Outputs without dimensions in the shape that the configuration promises for them."""
        shapes = self._scalar_outputs
        named = zip(self._outputs, outputs, strict=True)
        return [output.reshape(shapes[name]) if name in shapes else output for name, output in named]

    def _together(self, requests: Sequence[Any]) -> list[Any]:
        """All requests in one run. Raises when they do not fit together or the run fails."""
        columns: dict[str, list[Array]]
        if self._only_input:
            columns = {self._only_input: [request.inputs()[0].as_numpy() for request in requests]}
        else:
            columns = {}
            for request in requests:
                for tensor in request.inputs():
                    columns.setdefault(tensor.name(), []).append(self._array(tensor))
        first = next(iter(columns.values()))
        rows = [len(array) for array in first]
        total = sum(rows)
        feed = {name: np.concatenate(arrays) for name, arrays in columns.items()}
        if len(first) != len(requests) or any(len(array) != total for array in feed.values()):
            raise RequestError("the requests of this batch do not have the same inputs")  # _apart sorts them
        for name in self._string_inputs & feed.keys():
            feed[name] = decode_strings(name, feed[name])
        outputs = self._run(self._outputs, feed)
        self._check_rows(outputs, total)
        if rows.count(rows[0]) == len(rows):
            return self._responses.many(outputs, len(rows))
        stops = list(accumulate(rows))
        return [
            self._responses.one([output[stop - count : stop] for output in outputs])
            for count, stop in zip(rows, stops, strict=True)
        ]

    def _apart(self, requests: Sequence[Any]) -> list[Any]:
        """The slow way: requests of equal shapes together, and those of a failing group one by one."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, request in enumerate(requests):
            shapes = sorted((tensor.name(), tuple(tensor.shape()[1:])) for tensor in request.inputs())
            groups.setdefault(tuple(shapes), []).append(index)
        responses: list[Any] = [None] * len(requests)
        for indices in groups.values():
            members = [requests[index] for index in indices]
            answers: list[Any] | None = None
            if 1 < len(members) < len(requests):
                try:
                    answers = self._together(members)
                except Exception:
                    answers = None
            if answers is None:
                answers = [self._alone(request) for request in members]
            for index, answer in zip(indices, answers, strict=True):
                responses[index] = answer
        return responses

    def _check_rows(self, outputs: Sequence[Array], rows: int) -> None:
        for name, output in zip(self._outputs, outputs):  # noqa: B905 (the hot path)
            if output.ndim == 0 or len(output) != rows:
                raise RequestError(
                    f"output '{name}' has shape {list(output.shape)} for a batch of {rows}: its first dimension is "
                    "not the batch, so set max_batch_size to 0 or export the model with a batch dimension"
                )


def _message(error: Exception) -> str:
    text = str(error)
    return text if isinstance(error, RequestError) else f"onnx runtime error: {text}"
