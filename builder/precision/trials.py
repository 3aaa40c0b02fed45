"""Candidates made, judged and timed; each result is kept in a file as soon as it is there, and not made again."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import host
from builder.agreement import Judge, Verdict
from builder.artifact import EXTERNAL_DATA_SUFFIX, sha256_of
from builder.errors import PrecisionError
from builder.precision.calibration import RangesError
from builder.precision.frontier import Candidate
from builder.precision.recipe import Recipe
from builder.reference import OnnxRunner
from serving.progress import Step

ROUNDS = 9
"""How many times each candidate is timed, in turns."""
LEAST_NOISE = 0.02
"""Differences of time below this are never taken for real."""
MOST_NOISE = 0.05
"""Above it the rounds are repeated, twice at most: something else is at work on the machine."""
_ATTEMPTS = 3

Make = Callable[[Recipe, Path], None]
"""Writes the graph of a recipe."""
Runnable = Callable[[Recipe, Path, Path], Path]
"""What to run in place of a candidate: itself, or a graph that does the same on this machine's processor."""


class OutOfTimeError(Exception):
    """The time for searching is spent."""


@dataclass(frozen=True)
class Trial:
    """A recipe and what a judge said of it.

    Attributes:
        recipe: how it was made.
        verdict: None where it could not be made or run.
        size_bytes: of its files.
        problem: why it could not be made or run.
    """

    recipe: Recipe
    verdict: Verdict | None
    size_bytes: int = 0
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Made, and within every limit."""
        return self.verdict is not None and self.verdict.ok

    @property
    def loss(self) -> float:
        """What it loses, as a share of what it may: above 1 it is outside, infinite where there is no answer."""
        return float("inf") if self.verdict is None else 1.0 - self.verdict.margin


class Trials:
    """Makes and judges candidates within a time; what was judged before is read back.

    Args:
        prepared: the fp32 graph.
        folder: where results are kept.
        make: writes a candidate.
        runnable: what to run in its place.
        exact: run as it is written, without ONNX Runtime's own integer kernels: what other hardware computes exactly
            they can overflow on a processor without VNNI.
        identity: of everything else that a result depends on.
        seconds: how long new candidates may be begun.
        step: where progress is told.

    Attributes:
        count: how many were judged now.
        known: how many were judged by a search before, and read back.
    """

    def __init__(
        self,
        prepared: Path,
        folder: Path,
        *,
        make: Make,
        runnable: Runnable,
        exact: bool = False,
        identity: str,
        seconds: float,
        step: Step,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.prepared, self.folder = prepared, folder
        self._make, self._runnable, self._step = make, runnable, step
        self._exact = exact
        self._identity = f"{graph_digest(prepared)} {identity} {exact} {_surroundings()}"
        self._ends_s = time.monotonic() + seconds
        self._judged: dict[str, Trial] = {}
        self._made = ""
        self._spent_s = 0.0
        self.count = 0
        self.known = 0

    @property
    def seconds_each(self) -> float:
        """How long a candidate takes, on average so far; 0 where all were known."""
        return self._spent_s / self.count if self.count else 0.0

    @property
    def left_s(self) -> float:
        """How long new candidates may still be begun."""
        return self._ends_s - time.monotonic()

    def judged(self, recipe: Recipe, judge: Judge) -> Trial:
        """The verdict of a judge on a recipe.

        Raises:
            OutOfTimeError: it would have to be made, and the time is spent.
        """
        key = hashlib.sha256(f"{recipe.digest} {self._identity} {judge.digest}".encode()).hexdigest()[:40]
        file = self.folder / f"{key}.json"
        trial = self._judged.get(key)
        if trial is None and (trial := _read(file, recipe)) is not None:
            self.known += 1
        if trial is None:
            if self.left_s <= 0:
                raise OutOfTimeError
            began = time.monotonic()
            trial = self._new(recipe, judge)
            _write(file, trial)
            self.count += 1
            self._spent_s += time.monotonic() - began
        self._judged[key] = trial
        return trial

    def made(self, recipe: Recipe, to: Path) -> Path:
        """Write a candidate to a place of its own."""
        self._make(recipe, to)
        return to

    def _new(self, recipe: Recipe, judge: Judge) -> Trial:
        self._step.update(f"candidate {self.count + 1}: {_told(recipe)}, {len(recipe.keep)} nodes in float")
        at = self.folder / "candidate.onnx"
        try:
            if self._made != recipe.digest:
                self._made = ""
                self._make(recipe, at)
                self._made = recipe.digest
            size = size_of(at)
            with OnnxRunner(self._runnable(recipe, at, self.folder / "runnable.onnx"), lean=self._exact) as runner:
                return Trial(recipe, judge(runner), size)
        except (PrecisionError, RangesError) as exc:  # samples that are of no use end the search
            return Trial(recipe, None, problem=str(exc))
        except ValueError as exc:  # ONNX Runtime does not take it, or cannot run it
            return Trial(recipe, None, problem=f"ONNX Runtime: {exc}")


class Stopwatch:
    """Times candidates against fp32, in turns, so that what else the machine does hits all of them."""

    def __init__(self, trials: Trials, time_one: Callable[[Path], float]) -> None:
        self._trials, self._time_one = trials, time_one
        self._file = trials.folder / "times.json"

    def timed(self, chosen: Sequence[Trial], *, rounds: int = ROUNDS) -> dict[str, Candidate]:
        """The candidates with their times, by digest of the recipe; those timed before keep their figures."""
        known = _loaded(self._file)
        names = {trial.recipe.digest: self._name(trial.recipe, rounds) for trial in chosen}
        fresh = [trial for trial in chosen if names[trial.recipe.digest] not in known]
        if fresh:
            files = {}
            for trial in fresh:
                at = self._trials.folder / f"timed-{trial.recipe.digest[:16]}.onnx"
                files[trial.recipe.digest] = self._trials.made(trial.recipe, at)
            taken = self._rounds(files, rounds)
            known.update({names[digest]: figures for digest, figures in taken.items()})
            _replace(self._file, json.dumps(known, indent=1, sort_keys=True))
            for file in files.values():
                remove(file)
        return {trial.recipe.digest: candidate(trial, known[names[trial.recipe.digest]]) for trial in chosen}

    def _name(self, recipe: Recipe, rounds: int) -> str:
        return hashlib.sha256(f"{recipe.digest} {self._trials._identity} {rounds}".encode()).hexdigest()[:40]

    def _rounds(self, files: Mapping[str, Path], rounds: int) -> dict[str, list[float]]:
        taken: dict[str, list[float]] = {digest: [] for digest in files}
        ratios: dict[str, list[float]] = {digest: [] for digest in files}
        for _ in range(_ATTEMPTS):
            for _ in range(rounds):
                fp32 = self._time_one(self._trials.prepared)
                for digest, file in files.items():
                    mine = self._time_one(file)
                    taken[digest].append(mine)
                    ratios[digest].append(fp32 / mine)
            if all(_centre(values)[1] <= MOST_NOISE for values in ratios.values()):
                break
        return {digest: [statistics.median(taken[digest]), *_centre(ratios[digest])] for digest in files}


def candidate(trial: Trial, times: Sequence[float] = ()) -> Candidate:
    """A judged recipe as a candidate; ``times``: microseconds, ratio, noise."""
    scores = trial.verdict.scores if trial.verdict else {}
    margin = trial.verdict.margin if trial.verdict else float("-inf")
    latency, ratio, noise = times if times else (None, None, 0.0)
    return Candidate(trial.recipe, scores, trial.ok, margin, trial.size_bytes, latency, ratio, noise or 0.0)


def _centre(values: Sequence[float]) -> tuple[float, float]:
    """Median, and by how much of itself it may be off (of the median's own spread, twice)."""
    middle = statistics.median(values)
    spread = statistics.median(abs(value - middle) for value in values)
    return middle, max(LEAST_NOISE, 2 * 1.4826 * spread / middle / len(values) ** 0.5)


def graph_digest(path: Path) -> str:
    """sha256 of a graph with its external data."""
    data = path.with_name(path.name + EXTERNAL_DATA_SUFFIX)
    return sha256_of(path) + (sha256_of(data) if data.exists() else "")


def size_of(path: Path) -> int:
    """Bytes of a graph with its external data."""
    data = path.with_name(path.name + EXTERNAL_DATA_SUFFIX)
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)


def remove(path: Path) -> None:
    """Delete a graph with its external data."""
    for file in (path, path.with_name(path.name + EXTERNAL_DATA_SUFFIX)):
        file.unlink(missing_ok=True)


def _surroundings() -> str:
    versions = host.tool_versions("onnxruntime", "onnx", "onnx-ir", "numpy", "triton-repo")
    own = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):  # what makes candidates is part of what they are
        own.update(source.read_bytes())
    return f"{sorted(versions.items())} {host.cpu_model()} {own.hexdigest()}"


def _told(recipe: Recipe) -> str:
    options = [f"{key} {value}" for key, value in sorted(recipe.options.items()) if value not in (None, False)]
    return " ".join([recipe.method, *options])


def _read(file: Path, recipe: Recipe) -> Trial | None:
    data = _loaded(file)
    try:
        told = data["verdict"]
        verdict = (
            None if told is None else Verdict(told["scores"], told["limits"], tuple(told["failed"]), told["margin"])
        )
        return Trial(recipe, verdict, data["size_bytes"], data["problem"])
    except (KeyError, TypeError):
        return None


def _write(file: Path, trial: Trial) -> None:
    verdict = None if trial.verdict is None else trial.verdict.as_dict()
    data = {
        "recipe": trial.recipe.as_dict(),
        "verdict": verdict,
        "size_bytes": trial.size_bytes,
        "problem": trial.problem,
    }
    _replace(file, json.dumps(data, indent=1))


def _loaded(file: Path) -> dict[str, Any]:
    """A file's data; empty where it is absent or was cut off."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _replace(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)
