"""The class in this process, through the same boilerplate as in the server: its answers are the right ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import PythonModelError, user_code_error
from builder.python_model.served import Ask, Step, StepError, as_bytes
from builder.python_model.step import PythonStep, check_class

Array = NDArray[Any]
Call = Callable[[str, Mapping[str, Array]], Mapping[str, Array]]


class PythonRunner:
    """A :class:`builder.reference.Runner`: one request in, the answer of the user's class out.

    To be made and called inside :func:`builder.usercode.user_code` of ``home``. As a context manager it ends the
    user's object at the end, as the server does when it unloads the model.

    Args:
        step: what is asked for.
        home: the folder of the user's files: the spec's, or ``code/`` of a version.
        call: asks another model, for a class that does.

    Raises:
        PythonModelError: the class does not fit the step, or its ``__init__`` raised.
    """

    def __init__(self, step: PythonStep, home: Path, call: Call | None = None) -> None:
        self._step = step
        self._reference = step.reference
        kind = check_class(step, home)
        ask: Ask = call or _nobody
        try:
            self._served = Step(step.description(), home.resolve(), ask, load=lambda: kind)
        except (Exception, SystemExit) as exc:
            raise user_code_error(PythonModelError, f"{step.reference}() raised", exc, folder=home) from exc

    def __enter__(self) -> PythonRunner:
        return self

    def __exit__(self, *exc: object) -> None:
        self._served.close()

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer one request.

        Raises:
            PythonModelError: the class raised, gave something else than the spec says, or not exactly one response.
        """
        responses = self.responses(inputs)
        if len(responses) != 1:
            raise PythonModelError(
                f"{self._reference} gave {len(responses)} responses to a request",
                expected="one, where an answer is compared",
                got=f"{len(responses)}, from a decoupled model",
                fix="compare all of them: PythonRunner.responses()",
            )
        return responses[0]

    def responses(self, inputs: Mapping[str, Array]) -> list[dict[str, Array]]:
        """All the responses to one request; one, unless the model is decoupled.

        Raises:
            PythonModelError: the class raised, or gave something else than the spec says.
        """
        request = self._request(inputs)
        try:
            if self._step.decoupled:
                return list(self._served.stream(request))
            (answer,) = self._served.answers([request])
        except StepError as exc:
            raise self._failed(exc) from exc
        if isinstance(answer, StepError):
            raise self._failed(answer) from answer
        return [answer]

    def _request(self, inputs: Mapping[str, Array]) -> dict[str, Array | None]:
        request: dict[str, Array | None] = {}
        for tensor in self._step.interface.inputs:
            if tensor.name in inputs:
                value = np.array(inputs[tensor.name], copy=True)  # the class may change what it is given
                request[tensor.name] = as_bytes(value) if tensor.dtype.name == "string" else value
            elif tensor.name in self._step.optional:
                request[tensor.name] = None
            else:
                raise PythonModelError(
                    f"the request has no {tensor.name!r}",
                    expected=", ".join(other.name for other in self._step.interface.inputs),
                    got=", ".join(inputs) or "nothing",
                    fix="give it, or make the input optional",
                )
        return request

    def _failed(self, error: StepError) -> PythonModelError:
        return PythonModelError(str(error), where=self._reference, fix="mend the class, or `outputs` in the spec")


def _nobody(model: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    raise StepError(f"the model {model!r} cannot be asked here: nobody to ask was given")
