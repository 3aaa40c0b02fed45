"""Whether answers under load are the right ones: those that perf_analyzer exported, against the same requests alone.

perf_analyzer can compare answers itself (``validation_data``), but byte by byte, and it ends at the first that differs:
a float differs in its last digits with the batch it happens to be in. It does write every request and answer into its
export, though. A sample of them is compared here with what the server answered to the same request before the load.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perf.inputs import ModelSpec, Request, RequestData, TensorSpec
from perf.result import Doubt
from serving.errors import TritonRepoError

if TYPE_CHECKING:
    from serving import Client

SAMPLE = 200
"""Requests of a run whose answers are looked at, evenly spread over it."""

MOST_REFERENCES = 64
"""Different requests whose right answers are asked for."""

REFERENCES_S = 3.0
"""After so long no more of them are asked: requests of which the right answer is not known are not compared."""

TOLERANCE = 0.05
"""How far floats may be off, as a share of the length of the right answer. Another batch is another order of sums, and
with dynamic quantization another scale; an answer of another request, or of a broken batch, is far outside."""

NOT_IN_JSON = {"FP16", "BF16", "BYTES"}
"""Types that perf_analyzer writes as null, or strings of which it writes the first one only."""

_REQUEST = re.compile(rb'"request_inputs":')
_ANSWER = re.compile(rb'"response_outputs":')


@dataclass(frozen=True)
class Checked:
    """Answers that were compared, and how many of them were wrong.

    Attributes:
        example: the first wrong one, in words.
    """

    checked: int
    wrong: int
    example: str = ""


@dataclass(frozen=True)
class References:
    """The right answers to a model's requests.

    Attributes:
        requests: how many different ones there are.
        places: by the bytes of its inputs: which of them a request is.
        answers: by that number the outputs, flat; not of all of them, if there are many.
        known_wrong: golden requests whose answer was not the one that they were verified with, even alone.
    """

    spec: ModelSpec
    requests: int
    places: Mapping[bytes, int]
    answers: Mapping[int, Mapping[str, NDArray[Any]]]
    known_wrong: Checked = Checked(0, 0)


def references(client: Client, spec: ModelSpec, data: RequestData) -> References | None:
    """Ask each request alone, before there is load. None where answers cannot be compared with those of an export.

    A model whose outputs are numbers made at random, or of a type that the export does not hold, is not checked; nor is
    one that does not answer: the measurement will say so.
    """
    if (
        spec.decoupled
        or spec.stateful
        or any(tensor.dtype.triton in NOT_IN_JSON for tensor in (*spec.inputs, *spec.outputs))
    ):
        return None
    answers: dict[int, Mapping[str, NDArray[Any]]] = {}
    compared, wrong, example = 0, 0, ""
    until_s = time.monotonic() + REFERENCES_S
    chosen = data.requests[:MOST_REFERENCES]
    expected = data.expected[: len(chosen)]
    try:
        for number, request in enumerate(chosen):
            whole = {name: array[None] if spec.max_batch_size else array for name, array in request.items()}
            got = {name: array.reshape(-1) for name, array in client.infer(spec.name, whole).items()}
            answers[number] = got
            if number == 0 and any(_differs(got, client.infer(spec.name, whole))):
                return None  # it answers at random
            if number < len(expected):
                compared += 1
                if found := next(_differs(expected[number], got, GROSS), ""):
                    wrong, example = wrong + 1, example or f"golden request {number}: {found}"
            if time.monotonic() > until_s:
                break
    except TritonRepoError:
        return None
    places = {_key(spec, request): number for number, request in reversed(list(enumerate(data.requests)))}
    return References(spec, len(data.requests), places, answers, Checked(compared, wrong, example))


GROSS = 0.5
"""The same between a golden answer, which is PyTorch's, and the server's to the same request alone: builds hold a
variant to much tighter limits; here only what is plainly another model is meant."""


def check_export(path: Path, right: References, batch_size: int) -> Checked:
    """Compare a sample of the answers in a profile export (with its tensors) with the right ones."""
    checked, wrong, example = 0, 0, ""
    for inputs, outputs in _sampled(path):
        asked = {tensor.name: _flat(tensor, inputs.get(tensor.name)) for tensor in right.spec.inputs}
        got = {
            tensor.name: _flat(tensor, outputs[tensor.name]) for tensor in right.spec.outputs if tensor.name in outputs
        }
        # Of a request with several samples an export may hold the inputs of the first one only; they go on in order.
        whole, first = _key(right.spec, asked), _key(right.spec, _part(asked, 0, batch_size))
        place = right.places.get(whole, right.places.get(first))
        if place is None:
            continue
        for number in range(batch_size):
            expected = right.answers.get((place + number) % right.requests)
            if expected is None:
                continue
            checked += 1
            if found := next(_differs(expected, _part(got, number, batch_size)), ""):
                wrong, example = wrong + 1, example or found
    return Checked(checked, wrong, example)


def differences(
    right: Mapping[int, Mapping[str, NDArray[Any]]],
    found: Mapping[int, Mapping[str, NDArray[Any]]],
    batch_size: int,
    requests: int,
) -> Checked:
    """Compare answers whose requests are known by number.

    Args:
        right: by number of the sample, its outputs; not of all of them.
        found: by number of the request, which holds the sample of that number and those after it, its outputs.
        requests: how many different ones there are.
    """
    checked, wrong, example = 0, 0, ""
    for number, whole in found.items():
        flat = {name: array.reshape(-1) for name, array in whole.items()}
        for place in range(batch_size):
            expected = right.get((number + place) % requests)
            if expected is None:
                continue
            checked += 1
            if different := next(_differs(expected, _part(flat, place, batch_size)), ""):
                wrong, example = wrong + 1, example or different
    return Checked(checked, wrong, example)


def wrong_answers(found: Checked, right: References | None = None) -> list[Doubt]:
    """Answers under load that are not those without load, or answers that never were the verified ones."""
    parts = []
    if found.wrong:
        parts.append(f"{found.wrong} of {found.checked} answers under load are wrong ({found.example})")
    if right is not None and (alone := right.known_wrong).wrong:
        what = f"{alone.wrong} of {alone.checked} golden requests are answered wrong even without load"
        parts.append(f"{what} ({alone.example})")
    return [Doubt(code="wrong_answers", message="; ".join(parts))] if parts else []


def _sampled(path: Path) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Requests with their answers, evenly spread over the file; what is cut off is left out."""
    data = path.read_bytes()
    asked = [match.end() for match in _REQUEST.finditer(data)]
    answered = [match.end() for match in _ANSWER.finditer(data)]
    count = min(len(asked), len(answered))
    for number in np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(int)) if count else ():
        inputs, outputs = (_value(data, places[number]) for places in (asked, answered))
        if isinstance(inputs, dict) and isinstance(outputs, list) and outputs:
            yield inputs, outputs[-1]


def _value(data: bytes, start: int) -> Any:
    """The JSON value that begins at a place of the file; None if it is not whole."""
    end = data.find(b'"response_timestamps":', start)
    stop = data.find(b'{"timestamp":', start)
    ends = [place for place in (end, stop) if place > 0]
    text = data[start : min(ends)] if ends else data[start:]
    try:
        return json.JSONDecoder().raw_decode(text.decode("utf-8", errors="replace"))[0]
    except ValueError:
        return None


def _flat(tensor: TensorSpec, values: Any) -> NDArray[Any]:
    values = values if isinstance(values, list) else [] if values is None else [values]
    return np.array(values, dtype=tensor.dtype.numpy)


def _part(arrays: Mapping[str, NDArray[Any]], number: int, batch_size: int) -> dict[str, NDArray[Any]]:
    return {
        name: array[number * (len(array) // batch_size) : (number + 1) * (len(array) // batch_size)]
        for name, array in arrays.items()
    }


def _key(spec: ModelSpec, request: Request) -> bytes:
    return b"\0".join(
        np.ascontiguousarray(request[tensor.name], dtype=tensor.dtype.numpy).tobytes()
        for tensor in spec.inputs
        if tensor.name in request
    )


def _differs(
    expected: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]], tolerance: float = TOLERANCE
) -> Iterator[str]:
    """What is wrong with an answer, in words, output by output."""
    for name, right in expected.items():
        if name not in got:
            yield f"output {name} is missing"
            continue
        right, seen = right.reshape(-1), got[name].reshape(-1)
        if right.size != seen.size:
            yield f"output {name} has {seen.size} numbers instead of {right.size}"
        elif right.dtype.kind != "f":
            if tolerance == TOLERANCE and (count := int((right != seen).sum())):
                yield f"output {name} differs in {count} of {right.size} places"
        else:
            finite = np.isfinite(right)
            if (finite != np.isfinite(seen)).any():
                yield f"output {name} has NaN or infinity where it should not, or the other way round"
                continue
            wide_right, wide_seen = right[finite].astype(np.float64), seen[finite].astype(np.float64)
            length = float(np.linalg.norm(wide_right))
            error = float(np.linalg.norm(wide_seen - wide_right))
            if error > tolerance * length + 1e-6:
                yield f"output {name} is off by {error / length if length else float('inf'):.2g} of its length"
