"""``gate.yaml``: what must hold, read with the line of every mistake.

```yaml
checks:
  - model: digits*          # a name or a pattern; default: every model
    concurrency: [1, 4]     # or rate: 200; default: every load
    p99: 20ms               # not above; p50, p90, p95, p99, p99_9 and mean, in us, ms or s
    throughput: 1500        # inferences per second, not below
regression:
  against: main             # as A of bench-repo compare
  tolerated: 5%             # what is slower by less is let pass
  metrics: [throughput, p99]
  cannot_tell: passes       # or fails
```
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf.document import Document, KeyPath
from serving.errors import Problem, ProblemsError

LATENCIES = {"p50": "p50_us", "p90": "p90_us", "p95": "p95_us", "p99": "p99_us", "p99_9": "p99_9_us", "mean": "mean_us"}
METRICS = {"throughput": "inferences_per_s", "p50": "p50_us", "p99": "p99_us", "mean": "mean_us"}
"""What a regression may be judged by: what :mod:`perf.compare` compares."""

_UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6}
_CHECK_KEYS = ("model", "concurrency", "rate", "batch_size", *LATENCIES, "throughput")
_REGRESSION_KEYS = ("against", "tolerated", "metrics", "cannot_tell")


class GateError(ProblemsError):
    """The gate cannot be used as it is written; carries every problem that was found."""

    subject = "gate"


@dataclass(frozen=True)
class Check:
    """Limits on the points that it is about.

    Attributes:
        where: file and line.
        concurrency, rate, batch_size: of the points; empty for any.
        latencies_us: the largest, by field of :class:`perf.result.Latency`.
        throughput: the smallest, inferences per second.
    """

    where: str
    model: str = "*"
    concurrency: tuple[float, ...] = ()
    rate: tuple[float, ...] = ()
    batch_size: tuple[float, ...] = ()
    latencies_us: Mapping[str, float] | None = None
    throughput: float | None = None


@dataclass(frozen=True)
class Regression:
    """No slower than a baseline.

    Attributes:
        against: None in ``compare``, where A is the baseline.
        metrics: as :mod:`perf.compare` names them.
        strict: what cannot be told fails.
    """

    where: str
    against: str | None = None
    tolerated_percent: float = 0.0
    metrics: tuple[str, ...] = ("inferences_per_s", "p99_us")
    strict: bool = False


@dataclass(frozen=True)
class Gate:
    """All of a file."""

    path: Path
    checks: tuple[Check, ...] = ()
    regression: Regression | None = None


def load_gate(path: Path) -> Gate:
    """Read a gate.

    Raises:
        GateError: with every problem, each with its line.
    """
    return _Reader(Document(path, "gate", GateError, fix="")).gate()


class _Reader:
    def __init__(self, source: Document) -> None:
        self.source = source
        self.problems = list(source.problems)

    def gate(self) -> Gate:
        data = self.source.data
        self._known(data, (), ("checks", "regression"))
        checks = data.get("checks", [])
        if not isinstance(checks, list):
            self._problem(("checks",), "checks is no list", "a list of limits, each begun with -", checks)
            checks = []
        gate = Gate(
            self.source.path,
            tuple(self._check(check, ("checks", index)) for index, check in enumerate(checks)),
            self._regression(data["regression"]) if "regression" in data else None,
        )
        if not gate.checks and gate.regression is None and not self.problems:
            self._problem((), "this gate lets everything pass", "checks, regression, or both", None)
        if self.problems:
            raise GateError(self.problems)
        return gate

    def _check(self, data: Any, path: KeyPath) -> Check:
        where = self.source.where(path).partition(",")[0]
        if not isinstance(data, dict):
            self._problem(path, "not a check", "a mapping: model, load and limits", data)
            return Check(where)
        self._known(data, path, _CHECK_KEYS)
        limits = {
            field: value
            for key, field in LATENCIES.items()
            if key in data and (value := self._time_us(data[key], (*path, key))) is not None
        }
        throughput = self._number(data["throughput"], (*path, "throughput")) if "throughput" in data else None
        if not {*LATENCIES, "throughput"} & {*data}:
            expected = f"one of {', '.join([*LATENCIES, 'throughput'])}"
            self._problem(path, "this check has no limit", expected, None)
        model = data.get("model", "*")
        if not isinstance(model, str) or not model:
            self._problem((*path, "model"), "not the name of a model", "a name, or a pattern with *", model)
        if "concurrency" in data and "rate" in data:
            self._problem(path, "this check is about no load", "concurrency or rate: no point has both", None)
        return Check(
            where,
            str(model),
            self._numbers(data, path, "concurrency"),
            self._numbers(data, path, "rate"),
            self._numbers(data, path, "batch_size"),
            latencies_us=limits,
            throughput=throughput,
        )

    def _regression(self, data: Any) -> Regression:
        path: KeyPath = ("regression",)
        where = self.source.where(path).partition(",")[0]
        if not isinstance(data, dict):
            self._problem(path, "regression is no mapping", "against, tolerated, metrics, cannot_tell", data)
            return Regression(where)
        self._known(data, path, _REGRESSION_KEYS)
        against = data.get("against")
        if against is not None and not isinstance(against, (str, int)):
            self._problem((*path, "against"), "not a run", "a result.json, a run's id or a git revision", against)
        metrics = data.get("metrics", ["throughput", "p99"])
        metrics = metrics if isinstance(metrics, list) else [metrics]
        for index, metric in enumerate(metrics):
            if metric not in METRICS:
                self._problem((*path, "metrics", index), "no such metric", ", ".join(METRICS), metric, METRICS)
        answer = data.get("cannot_tell", "passes")
        if answer not in ("passes", "fails"):
            self._problem((*path, "cannot_tell"), "no such answer", "passes or fails", answer, ("passes", "fails"))
        return Regression(
            where,
            None if against is None else str(against),
            self._percent(data.get("tolerated", "0%"), (*path, "tolerated")),
            tuple(METRICS[metric] for metric in metrics if metric in METRICS),
            strict=answer == "fails",
        )

    def _known(self, data: Mapping[str, Any], path: KeyPath, keys: tuple[str, ...]) -> None:
        for key in data:
            if key not in keys:
                self._problem((*path, key), f"unknown key {key}", ", ".join(keys), None, keys)

    def _numbers(self, data: Mapping[str, Any], path: KeyPath, key: str) -> tuple[float, ...]:
        values = data.get(key, [])
        values = values if isinstance(values, list) else [values]
        found = [self._number(value, (*path, key)) for value in values]
        return tuple(value for value in found if value is not None)

    def _number(self, value: Any, path: KeyPath) -> float | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            self._problem(path, f"{path[-1]} is no number", "a number above 0", value)
            return None
        return float(value)

    def _time_us(self, value: Any, path: KeyPath) -> float | None:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s)", value.strip()) if isinstance(value, str) else None
        if match is None or not float(match[1]):
            self._problem(path, f"{path[-1]} is no time", "a number with its unit: 20ms, 800us, 1.5s", value)
            return None
        return float(match[1]) * _UNITS_US[match[2]]

    def _percent(self, value: Any, path: KeyPath) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip()) if isinstance(value, str) else None
        if match is None or float(match[1]) >= 100:
            self._problem(path, f"{path[-1]} is no share", "a percentage below 100: 5%", value)
            return 0.0
        return float(match[1])

    def _problem(self, path: KeyPath, what: str, expected: str, got: Any, close_to: Any = ()) -> None:
        close = difflib.get_close_matches(str(path[-1] if got is None and path else got), list(close_to), n=1)
        fix = f"did you mean {close[0]}?" if close else ""
        text = "" if got is None else repr(got)
        self.problems.append(Problem(what, where=self.source.where(path), expected=expected, got=text, fix=fix))
