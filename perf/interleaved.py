"""Several models on one running server, measured in turn (A B C, C A B, B C A, ...) until the caller knows enough.

Measured one after the other, whatever else the machine does in the meantime would count for or against one of them. In
rounds it meets all alike, and figures of one round can be compared as a pair.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from perf.analyzer import Load
from perf.binary import find_binary
from perf.environment import cpu_times, steal_percent
from perf.errors import WorkloadError
from perf.inputs import ModelSpec, Request, RequestData, fits, model_spec
from perf.result import Doubt, Point
from perf.runner import Run
from perf.stability import machine_doubts
from perf.target import READY, Subject, Target, unsupported
from perf.workload import workload_from
from serving.errors import ModelLoadError, Problem, ServerUnavailableError, TritonRepoError
from serving.progress import SILENT, Reporter

MAX_REQUESTS = 64
MAX_REQUEST_BYTES = 1 << 23
"""Of all different requests together: perf_analyzer reads them as text, anew at every run."""


@dataclass(frozen=True)
class Rounds:
    """What was measured so far.

    Attributes:
        points: by model, by number of the round (from 0); a model is not in every round. A point with an ``error``
            is its model's last.
        elapsed_s: since the first round began, warm-up not counted.
        doubts: about the machine while it lasted.
    """

    points: Mapping[str, Mapping[int, Point]]
    elapsed_s: float = 0.0
    doubts: tuple[Doubt, ...] = field(default=())

    def measured(self, model: str) -> dict[int, Point]:
        """The rounds in which a model gave figures."""
        return {number: point for number, point in self.points.get(model, {}).items() if point.ok}

    def error(self, model: str) -> Mapping[str, Any] | None:
        """Why a model is not measured any more; None where nothing went wrong."""
        return next((point.error for point in self.points.get(model, {}).values() if point.error), None)

    def rates(self, model: str) -> dict[int, float]:
        """Inferences per second, by round."""
        return {number: point.inferences_per_s or 0.0 for number, point in self.measured(model).items()}

    def paired_rates(self, first: str, second: str) -> tuple[list[float], list[float]]:
        """Inferences per second of two models in the rounds that both were in."""
        one, other = self.rates(first), self.rates(second)
        both = sorted(set(one) & set(other))
        return [one[number] for number in both], [other[number] for number in both]


def subject_of(target: Target, model: str, requests: Sequence[Request], source: str) -> Subject:
    """A model that is loaded, with these requests; what keeps it from being measured is its ``error``.

    Args:
        requests: whole tensors by input name, with a batch dimension of one where the model batches. Numbers are cast
            to the type that the model takes (one that takes halves gets halves).
        source: where they are from, in words.

    Raises:
        WorkloadError: none of the requests fits the model.
    """
    entry = next((entry for entry in target.client.index() if entry["name"] == model), None)
    if entry is None or entry.get("state") != READY:
        got = str(entry.get("reason") or entry.get("state")) if entry else "the server does not know it"
        fix = "look at what the server says of it: serve-repo with the same repository"
        return Subject(
            model, error=ModelLoadError("the model is not ready", where=model, expected=READY, got=got, fix=fix)
        )
    config = target.client.config(model)
    statistics = target.statistics([model]).get(model)
    spec = model_spec(config, str(statistics["version"]) if statistics is not None else "")
    if error := unsupported(spec, config):
        return Subject(model, spec, error=error)
    kept = [request for request in (_as_taken(spec, request) for request in requests) if fits(spec, request)]
    if not kept:
        expected = ", ".join(f"{tensor.name} {tensor.dtype.triton}{list(tensor.dims)}" for tensor in spec.inputs)
        got = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in requests[0].items())
        what = "none of the requests fits the model"
        fix = "give requests of these names, types and shapes"
        raise WorkloadError([Problem(what, where=model, expected=expected, got=got, fix=fix)])
    few = tuple(_first_ones(kept))
    return Subject(model, spec, RequestData(few, f"{len(few)} of {len(requests)} requests: {source}"))


def _as_taken(spec: ModelSpec, request: Request) -> Request:
    """One sample as perf_analyzer takes it: without the batch dimension, in the types of the model."""
    types = {tensor.name: tensor.dtype for tensor in spec.inputs}
    taken = {}
    for name, array in request.items():
        wanted = types[name].numpy if name in types else None
        number = wanted is not None and array.dtype.kind in "fiub" and np.dtype(wanted).kind == array.dtype.kind
        row = array[0] if spec.max_batch_size and array.ndim else array
        taken[name] = row.astype(wanted) if number else row
    return taken


def _first_ones(requests: Sequence[Request]) -> Iterator[Request]:
    held_bytes = 0
    for number, request in enumerate(requests[:MAX_REQUESTS]):
        held_bytes += sum(array.nbytes for array in request.values())
        if number and held_bytes > MAX_REQUEST_BYTES:
            return
        yield request


def measure_interleaved(
    target: Target,
    subjects: Sequence[Subject],
    *,
    concurrency: int,
    seconds: float,
    folder: Path,
    still_wanted: Callable[[Rounds], Collection[str]],
    reporter: Reporter = SILENT,
) -> Rounds:
    """Measure models in rounds with perf_analyzer, until nothing more is wanted.

    Args:
        target: a server on which all of them are loaded, by its HTTP address.
        subjects: from :func:`subject_of`.
        concurrency: requests under way at once, the same for all.
        seconds: how long one model is measured in one round.
        folder: where raw files go; a new one.
        still_wanted: called after each round; names of the models for another one, none to end. A model that failed
            is not measured again whatever it says.

    Raises:
        AnalyzerUnavailableError: there is no perf_analyzer.
        ServerUnavailableError: the server is gone.
    """
    binary = find_binary(reporter=reporter)
    names = tuple(subject.name for subject in subjects)
    workload = workload_from(url=target.address, models=names, concurrency=(concurrency,), seconds=seconds)
    run = Run(workload, binary, target, folder, reporter)
    points: dict[str, dict[int, Point]] = {name: {} for name in names}
    loads: dict[str, Load] = {}
    for subject in subjects:
        try:
            if subject.error is not None:
                raise subject.error
            loads[subject.name] = run.warm_up(subject)
        except ServerUnavailableError:
            raise
        except TritonRepoError as error:
            version = subject.spec.version if subject.spec else ""
            points[subject.name][0] = Point(
                model=subject.name, version=version, concurrency=concurrency, batch_size=1, error=error.as_dict()
            )
    started_s, ticks = time.monotonic(), cpu_times()
    rounds, number = Rounds(points), 0
    wanted: Collection[str] = names
    while wanted := [name for name in names if name in wanted and rounds.error(name) is None]:
        for name in in_turn(wanted, number):
            subject = next(subject for subject in subjects if subject.name == name)
            point = run.point(subject, loads[name], f"round-{number + 1}")
            _raise_if_gone(point)
            points[name][number] = point
        doubts = tuple(machine_doubts(None, 0, steal_percent(ticks, cpu_times())))
        rounds = Rounds(points, time.monotonic() - started_s, doubts)
        wanted, number = still_wanted(rounds), number + 1
    return rounds


def in_turn(names: Sequence[str], number: int) -> list[str]:
    """The order of a round: each one further than in the round before, so that none is always first."""
    first = -number % len(names)
    return [*names[first:], *names[:first]]


def _raise_if_gone(point: Point) -> None:
    if point.error is not None and point.error.get("error") == ServerUnavailableError.__name__:
        parts = {key: str(point.error[key]) for key in ("where", "expected", "got", "fix") if key in point.error}
        raise ServerUnavailableError(str(point.error["what"]), **parts)
