"""The user's own metric, on PyTorch and on the artifact: a drop beyond ``max_drop`` stops the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from builder.errors import AccuracyError, describe, user_code_error
from builder.numerics import Array
from builder.reference import Runner
from builder.spec import ModelSpec, Spec
from builder.usercode import check_arguments, resolve
from serving.errors import TritonRepoError


@dataclass(frozen=True)
class Accuracy:
    """The metric's value for both.

    Attributes:
        metric: the callable (``data.py:accuracy``).
        reference: PyTorch's value.
        value: the artifact's.
        max_drop: how much lower it may be.
        allowed: what is out of that and was allowed all the same.
    """

    metric: str
    reference: float
    value: float
    max_drop: float
    allowed: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return asdict(self)


def measure_accuracy(
    spec: Spec, model: ModelSpec, reference: float, artifact: Runner, *, allow: bool = False
) -> Accuracy:
    """The metric on the artifact, held against its value on the original.

    Args:
        spec: the spec.
        model: its entry there.
        reference: the metric on the original.
        artifact: what is judged.
        allow: let it drop too far, and keep that it did.

    Raises:
        AccuracyError: the metric raised, gave no number, or dropped too far.
    """
    assert model.evaluate is not None
    value = measure(spec, model, artifact)
    result = Accuracy(model.evaluate.python, reference, value, model.evaluate.max_drop)
    if reference - value <= result.max_drop:
        return result
    what = f"{result.metric} drops from {reference:.6g} to {value:.6g}"
    if allow:
        return replace(result, allowed=(what,))
    raise AccuracyError(
        what,
        expected=f"a drop of at most {result.max_drop:g} (evaluate.max_drop)",
        got=f"a drop of {reference - value:.6g}",
        fix="raise evaluate.max_drop if that is acceptable, or publish it this once with --allow-accuracy-drop",
    )


def measure(spec: Spec, model: ModelSpec, runner: Runner) -> float:
    """The user's metric on one runner.

    Raises:
        AccuracyError: the metric raised, or gave no number.
    """
    assert model.evaluate is not None
    reference = model.evaluate.python
    function = resolve(reference, spec.folder, kind=AccuracyError)

    def predict(inputs: Mapping[str, Any]) -> dict[str, Array]:
        return runner({name: np.asarray(array) for name, array in inputs.items()})

    check_arguments(function, model.evaluate.args, reference, AccuracyError, "predict")
    try:
        value = function(predict, **model.evaluate.args)
    except TritonRepoError:
        raise
    except (Exception, SystemExit) as exc:
        raise user_code_error(AccuracyError, f"evaluate {reference} raised", exc, folder=spec.folder) from exc
    try:
        number = float(value)
    except (TypeError, ValueError) as exc:
        raise AccuracyError(
            f"evaluate {reference} gave no number",
            expected="a float, higher is better",
            got=describe(exc),
            fix="end it with `return value`" if value is None else "return float(value)",
        ) from exc
    if not math.isfinite(number):
        raise AccuracyError(f"evaluate {reference} gave {number}", expected="a finite number, higher is better")
    return number
