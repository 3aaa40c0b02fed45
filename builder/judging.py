"""What a precision is judged by: held-out samples, fp32's answers to them, the user's metric, and the limits.

Samples are split in two: one half calibrates and ranks, the other says whether a variant holds its accuracy, so that a
range that fits the calibration samples alone is found out.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np

from builder.agreement import DEFAULTS, DROP, KEYS, LARGEST_BATCH, AgreementJudge, Judge, Verdict
from builder.errors import CalibrationError, ParityError
from builder.numerics import Array
from builder.reference import Runner
from builder.samples import Samples, rows_of, stacked
from builder.spec import ModelSpec, Spec
from builder.tensors import TensorSpec
from builder.verify.accuracy import measure
from builder.verify.cases import Case
from builder.verify.parity import check_parity

Feeds = Callable[[], Iterator[Mapping[str, Array]]]
_SCORES = {key: score for score, key in KEYS.items()}
"""Key of the spec's ``agreement``: the score that it is a limit of."""
_OTHER_SCALE = 30.0
"""Calibration whose values are this many times larger or smaller than the samples' is of other inputs. A forgotten
division by 255 is beyond it, a longer tail of the same inputs is not."""

_WRONG = -1.0
"""Margin of what is plainly wrong somewhere: out of every budget, and no better for being close elsewhere."""


class Judging:
    """Judges of one model, and what calibrates it.

    Args:
        spec: the spec.
        model: its entry there.
        samples: what there is to ask.
        original: opens what gives the right answers: the fp32 graph; the originals of an ensemble's steps.
        baseline: the metric's value on the original; None where there is no metric.
        before_metric: called before the metric is measured.
    """

    def __init__(
        self,
        spec: Spec,
        model: ModelSpec,
        samples: Samples,
        original: Callable[[], AbstractContextManager[Runner]],
        baseline: float | None,
        before_metric: Callable[[], None] = lambda: None,
    ) -> None:
        self._spec, self._model, self._samples = spec, model, samples
        self._original, self._baseline, self._before_metric = original, baseline, before_metric
        self._calibration, self._held_out = samples.split()

    def limits(self, precision: str, reference: Sequence[Mapping[str, Array]]) -> dict[str, float]:
        """By score: the spec's own, the metric's, and the defaults of the precision where there is neither."""
        asked = self._model.agreement.model_dump(exclude_none=True)
        limits = {_SCORES[key]: float(value) for key, value in asked.items()}
        if self._model.evaluate is not None:
            limits[DROP] = self._model.evaluate.max_drop
        return limits or DEFAULTS[precision].as_limits(reference)

    def judge(self, precision: str) -> AgreementJudge:
        """The one that decides: samples that nothing was calibrated with, and the metric.

        Raises:
            AccuracyError: a limit on a score that these samples cannot give.
        """
        requests, reference = self._asked(self._held_out)
        metric = self._metric if self._model.evaluate is not None else None
        limits = self.limits(precision, reference)
        largest = self._largest_batch()
        return AgreementJudge(
            requests, reference, limits, metric, metric_reference=self._baseline or 0.0, batch=largest
        )

    def quick(self, precision: str, count: int) -> AgreementJudge:
        """One for ranking: calibration samples, and no metric."""
        requests, reference = self._asked(self._calibration[:count])
        limits = DEFAULTS[precision].as_limits(reference) if reference else {}
        return AgreementJudge(requests, reference, limits, batch=self._largest_batch())

    def feeds(self) -> Iterator[Mapping[str, Array]]:
        """Calibration requests, one sample each: the user's own stream, or half of the samples.

        Raises:
            CalibrationError, SampleError: the stream gave none, or one that does not fit.
        """
        calibration = self._model.precision.calibration
        if calibration is None:
            yield from (self._samples.batch(1, start=index) for index in self._calibration)
            return
        count = 0
        sizes = _Magnitudes()
        for row in rows_of(calibration, self._spec, self._samples.interface, what="calibration"):
            count += 1
            sizes.add(row)
            yield stacked([row], self._samples.interface)
        if not count:
            raise CalibrationError(
                f"calibration {calibration.python} gave no sample",
                expected="at least one {input name: array}",
                got="none",
                fix="return real inputs; without `calibration`, half of the `samples` are taken",
            )
        if self._samples.are_real:
            self._check_scale(calibration.python, sizes)

    def _check_scale(self, calibration: str, given: _Magnitudes) -> None:
        """Refuse calibration of another scale than the samples: it would take ranges that nothing in service has."""
        known = _Magnitudes()
        for index in self._held_out:
            known.add(self._samples.rows[index])
        for name, usual in known.means().items():
            mean = given.means()[name]
            if usual and not usual / _OTHER_SCALE <= mean <= usual * _OTHER_SCALE:
                raise CalibrationError(
                    f"calibration {calibration} is of another scale than `samples`",
                    where=f"input {name!r}",
                    expected=f"a mean magnitude like that of `samples`, {usual:.3g}",
                    got=f"{mean:.3g}",
                    fix="give both as the model gets them in service: a scaling is forgotten, or done twice",
                )

    def _metric(self, runner: Runner) -> float:
        self._before_metric()
        return measure(self._spec, self._model, runner)

    def _largest_batch(self) -> int:
        batches = self._samples.interface.batches and self._model.batch.max > 0
        return min(LARGEST_BATCH, self._model.batch.max) if batches else 1

    def _asked(self, indices: Sequence[int]) -> tuple[list[Mapping[str, Array]], list[Mapping[str, Array]]]:
        requests: list[Mapping[str, Array]] = [self._samples.batch(1, start=index) for index in indices]
        with self._original() as runner:
            reference: list[Mapping[str, Array]] = [runner(request) for request in requests]
        return requests, reference


class NetJudge:
    """A judge that besides lets nothing pass that parity would refuse: samples seldom have every size of the spec.

    Args:
        judge: decides on samples.
        cases: requests of every size, with the original's answers.
        cases_digest: of these.
        precision: row of the tolerance table.
    """

    def __init__(self, judge: Judge, cases: Sequence[Case], cases_digest: str, precision: str) -> None:
        self._judge, self._cases, self._precision = judge, cases, precision
        self.digest = hashlib.sha256(f"{judge.digest} {cases_digest}".encode()).hexdigest()
        """sha256 of the judge's own and of the cases."""

    def __call__(self, runner: Runner) -> Verdict:
        """Ask the candidate; the cases only where the samples are answered well."""
        verdict = self._judge(runner)
        if not verdict.ok:
            return verdict
        try:
            check_parity(runner, self._cases, self._precision, what="it")
        except ParityError as error:
            said = f"{error.what}: {error.got}"
            return dataclasses.replace(verdict, failed=(said,), margin=min(verdict.margin, _WRONG))
        return verdict


class _Magnitudes:
    """The mean magnitude of each floating point input over samples that are gone through."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, row: Mapping[str, Array]) -> None:
        for name, array in row.items():
            if array.dtype.kind == "f":
                self._sums[name] = self._sums.get(name, 0.0) + float(np.abs(array).sum(dtype=np.float64))
                self._counts[name] = self._counts.get(name, 0) + array.size

    def means(self) -> dict[str, float]:
        return {name: total / max(1, self._counts[name]) for name, total in self._sums.items()}


class CastRunner:
    """An artifact that takes or gives half precision, asked and heard in fp32.

    Args:
        runner: the artifact.
        inputs: its input tensors.
        outputs: those of the original.
    """

    def __init__(self, runner: Runner, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self._runner = runner
        self._inputs = {tensor.name: tensor.dtype.numpy for tensor in inputs}
        self._outputs = {tensor.name: tensor.dtype.numpy for tensor in outputs}

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Ask it."""
        answers = self._runner(cast(inputs, self._inputs))
        return cast(answers, self._outputs)


def cast(arrays: Mapping[str, Array], dtypes: Mapping[str, str | None]) -> dict[str, Array]:
    """Floating point arrays in the types that are wanted; what is no float, or fits, as it is."""
    return {
        name: array.astype(wanted)
        if (wanted := dtypes.get(name)) and array.dtype.kind == "f" and array.dtype != wanted
        else array
        for name, array in arrays.items()
    }
