"""What is asked of a joint search: several models, each at its rate and under its limit, or one ensemble."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perf.tune.errors import TuneUsageError
from perf.tune.request import Goal, Limit, TuneRequest, parse_limit, unusable_time
from perf.tune.simulate import Arrivals
from serving.errors import Problem

_NAMED = re.compile(r"^([^:=\s]+)\s*:\s*(p.*)$")
_RATE = re.compile(r"^([^=\s]+)\s*=\s*([0-9]*\.?[0-9]+(?:e[0-9]+)?)$")


@dataclass(frozen=True)
class Wanted:
    """One model (or ensemble) and what it must keep.

    Attributes:
        limit: of its latency; None where it only has to keep up.
    """

    model: str
    limit: Limit | None = None

    @property
    def percentile(self) -> float:
        """The one that matters: that of the limit, else the 99th."""
        return self.limit.percentile if self.limit is not None else 99.0


@dataclass(frozen=True)
class JointRequest:
    """What to search for.

    Attributes:
        wanted: the models, in the order they were named; a single one is an ensemble.
        loads: to try, each with the load of every model in that order.
        load: in words.
        rate_limiter: also try Triton's rate limiter.
    """

    repository: Path
    wanted: tuple[Wanted, ...]
    loads: tuple[tuple[Arrivals, ...], ...]
    load: str
    goal: Goal
    minutes: float
    rate_limiter: bool = False

    @property
    def is_ensemble(self) -> bool:
        """True where the steps of one ensemble are tuned, False for several models."""
        return len(self.wanted) == 1

    @property
    def name(self) -> str:
        """For files: the models' names."""
        return "+".join(each.model for each in self.wanted)


def of_ensemble(request: TuneRequest, *, rate_limiter: bool = False) -> JointRequest:
    """The same for the steps of an ensemble."""
    return JointRequest(
        request.repository,
        (Wanted(request.model, request.limit),),
        tuple((arrivals,) for arrivals in request.loads),
        request.load,
        request.goal,
        request.minutes,
        rate_limiter,
    )


def of_models(
    repository: Path,
    models: Sequence[str],
    *,
    rates: Sequence[str],
    limits: Sequence[str],
    goal: Goal | None = None,
    minutes: float = 5.0,
    rate_limiter: bool = False,
) -> JointRequest:
    """Several models on one machine.

    Args:
        rates: ``model=requests per second``, one for each model.
        limits: ``p99=20ms`` for all, ``model:p99=20ms`` for one.

    Raises:
        TuneUsageError: every problem: a rate for a model that is not named, a model named twice, ...
    """
    problems = [
        Problem("a model is named twice", "MODEL", "each model once", model, "leave one of them out")
        for model in dict.fromkeys(models)
        if list(models).count(model) > 1
    ]
    names = tuple(dict.fromkeys(models))
    found, wrong = _rates(names, rates)
    problems += wrong
    kept, wrong = _limits(names, limits)
    problems += wrong
    if goal == "throughput":
        what = "with fixed rates every configuration that keeps up answers as many"
        expected = "latency (the most headroom) or cost (the fewest cores)"
        problems.append(Problem(what, "--goal", expected, goal, "leave --goal out (latency)"))
    elif goal not in (None, "latency", "cost"):
        problems.append(Problem("no such goal", "--goal", "latency or cost", str(goal), "take one of these"))
    problems += unusable_time(minutes)
    if problems:
        raise TuneUsageError(problems)
    load = tuple(Arrivals(rate_per_s=found[name]) for name in names)
    spelled = ", ".join(f"{name} {found[name]:g} requests/s" for name in names) + " (poisson)"
    wanted = tuple(Wanted(name, kept.get(name)) for name in names)
    return JointRequest(repository, wanted, (load,), spelled, goal or "latency", minutes, rate_limiter)


def one_limit(model: str, texts: Sequence[str]) -> Limit | None:
    """The limit of a search for one model: ``p99=20ms``, or ``model:p99=20ms``; None for none.

    Raises:
        TuneUsageError: it is none, there are several, or it is another model's.
    """
    found, problems = _limits((model,), texts)
    if problems:
        raise TuneUsageError(problems)
    return found.get(model)


def one_rate(model: str, texts: Sequence[str]) -> float | None:
    """The rate of a search for one model: ``200``, or ``model=200``; None for none.

    Raises:
        TuneUsageError: it is none, there are several, or it is another model's.
    """
    named = [text if "=" in text else f"{model}={text}" for text in texts]
    if not named:
        return None
    found, problems = _rates((model,), named)
    if problems:
        raise TuneUsageError(problems)
    return found[model]


def _rates(models: Sequence[str], texts: Sequence[str]) -> tuple[dict[str, float], list[Problem]]:
    found: dict[str, float] = {}
    problems = []
    expected = f"MODEL=R, such as {models[0]}=200"
    for text in texts:
        match = _RATE.match(text.strip())
        if match is None or not float(match[2]) > 0:
            problems.append(Problem("not the rate of a model", "--rate", f"{expected}, above 0", text, "write it so"))
        elif match[1] not in models:
            fix = f"name {match[1]} among the models too, or leave its rate out"
            what = "a rate for a model that is not named"
            problems.append(Problem(what, "--rate", ", ".join(models), match[1], fix))
        elif match[1] in found:
            problems.append(Problem("two rates for one model", "--rate", "one for each", text, "leave one of them out"))
        else:
            found[match[1]] = float(match[2])
    said = {text.partition("=")[0].strip() for text in texts}
    if missing := [model for model in models if model not in found and model not in said]:
        fix = " ".join(f"--rate {model}=R" for model in missing)
        problems.append(Problem("a model without a rate", "--rate", "a rate for each model", ", ".join(missing), fix))
    return found, problems


def _limits(models: Sequence[str], texts: Sequence[str]) -> tuple[Mapping[str, Limit], list[Problem]]:
    for_all: Limit | None = None
    found: dict[str, Limit] = {}
    problems: list[Problem] = []
    for text in texts:
        match = _NAMED.match(text.strip())
        try:
            limit = parse_limit(match[2] if match is not None else text)
        except TuneUsageError:
            expected = f"p50, p90, p95 or p99, =, and a time, for all or for one: p99=20ms, {models[0]}:p99=20ms"
            problems.append(Problem("not a latency limit", "--latency-limit", expected, text, "write it so"))
            continue
        if match is None:
            if for_all is not None:
                fix = "say which is of which model: MODEL:pN=TIME"
                problems.append(Problem("two limits for all models", "--latency-limit", "one for all", text, fix))
            for_all = limit
        elif match[1] not in models:
            expected, fix = ", ".join(models), f"name {match[1]} among the models too, or leave its limit out"
            what = "a limit for a model that is not named"
            problems.append(Problem(what, "--latency-limit", expected, match[1], fix))
        elif match[1] in found:
            fix = "leave one of them out"
            problems.append(Problem("two limits for one model", "--latency-limit", "one for each", text, fix))
        else:
            found[match[1]] = limit
    if for_all is not None:
        found = dict.fromkeys(models, for_all) | found
    return found, problems
