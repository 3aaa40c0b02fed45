"""The user's own metric, on PyTorch and on the artifact: a drop beyond ``max_drop`` stops the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from builder.errors import AccuracyError, describe, user_code_error
from builder.numerics import Array
from builder.reference import Runner
from builder.spec import ModelSpec, Spec
from builder.usercode import resolve
from serving.errors import TritonRepoError


@dataclass(frozen=True)
class Accuracy:
    """The metric's value for both.

    Attributes:
        metric: the callable (``data.py:accuracy``).
        reference: PyTorch's value.
        value: the artifact's.
        max_drop: how much lower it may be.
    """

    metric: str
    reference: float
    value: float
    max_drop: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return asdict(self)


def measure_accuracy(spec: Spec, model: ModelSpec, reference: Runner, artifact: Runner) -> Accuracy | None:
    """Evaluate both; None where the spec has no ``evaluate``.

    Raises:
        AccuracyError: the metric raised, gave no number, or dropped too far.
    """
    if model.evaluate is None:
        return None
    before, after = _value(spec, model, reference), _value(spec, model, artifact)
    result = Accuracy(model.evaluate.python, before, after, model.evaluate.max_drop)
    if before - after > result.max_drop:
        raise AccuracyError(
            f"{result.metric} drops from {before:.6g} to {after:.6g}",
            expected=f"a drop of at most {result.max_drop:g} (evaluate.max_drop)",
            got=f"a drop of {before - after:.6g}",
            fix="raise evaluate.max_drop if that is acceptable; it is not published as it is",
        )
    return result


def _value(spec: Spec, model: ModelSpec, runner: Runner) -> float:
    assert model.evaluate is not None
    reference = model.evaluate.python
    function = resolve(reference, spec.folder, kind=AccuracyError)

    def predict(inputs: Mapping[str, Any]) -> dict[str, Array]:
        return runner({name: np.asarray(array) for name, array in inputs.items()})

    try:
        value = function(predict, **model.evaluate.args)
    except TritonRepoError:
        raise
    except Exception as exc:
        raise user_code_error(AccuracyError, f"evaluate {reference} raised", exc, folder=spec.folder) from exc
    try:
        number = float(value)
    except (TypeError, ValueError) as exc:
        raise AccuracyError(
            f"evaluate {reference} gave no number", expected="a float, higher is better", got=describe(exc)
        ) from exc
    if math.isnan(number):
        raise AccuracyError(f"evaluate {reference} gave NaN", expected="a float, higher is better", got="nan")
    return number
