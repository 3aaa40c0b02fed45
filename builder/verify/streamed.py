"""Models that answer a request any number of times: all its answers as one, to be kept and compared like any other.

The second answer's ``text`` is ``text #2``; how many there were is an entry of its own, so that one too many is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from builder.numerics import Array
from builder.verify.cases import Case
from serving import Client

COUNT = "number of answers"
_MARK = " #"


def joined(answers: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """All answers to one request as one mapping."""
    found = {f"{name}{_MARK}{number}": array for number, one in enumerate(answers, 1) for name, array in one.items()}
    return {COUNT: np.array([len(answers)], np.int64), **found}


def output_of(name: str) -> str:
    """The output that an entry of :func:`joined` is of; any other name as it is."""
    return name.partition(_MARK)[0]


class Joining:
    """What answers any number of times, as a :class:`builder.reference.Runner`."""

    def __init__(self, responses: Callable[[Mapping[str, Array]], Sequence[Mapping[str, Array]]]) -> None:
        self._responses = responses

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All answers to a request."""
        return joined(self._responses(inputs))


def ask(client: Client, model: str, case: Case, *, decoupled: bool, version: str = "") -> dict[str, Array]:
    """A server's answer to a case.

    Raises:
        UsageError: a decoupled model, asked over HTTP.
        InferenceError: the request failed.
    """
    if decoupled:
        return joined(list(client.stream(model, case.inputs, version=version)))
    return client.infer(model, case.inputs, sequence=case.sequence, version=version)
