"""What to measure: from flags, a small YAML file, or both (flags win). All problems are reported at once.

```yaml
repository: model_repository      # or url: 127.0.0.1:8000
models: [digits]                  # default: every model that is ready
concurrency: [1, 4, 16]
rate: [50, 100]                   # requests begun each second; then there is no default for concurrency
distribution: poisson             # how they are spaced; or constant
batch_size: 1
protocol: http                    # or grpc
shared_memory: none               # or system
seconds: 6                        # per point and round
rounds: 10                        # each model in turn, so often
difference: 5                     # percent: more rounds until one so large between the models would be found, or
precision: 5                      # percent: until each figure is known so well, or
budget: 300                       # seconds are over
baselines: [onnxruntime]          # measured beside each model: onnxruntime, pytorch, fastapi
shapes: {ids: [16]}               # for inputs with a dynamic dimension, without the batch dimension
```
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from perf.baselines.data import BaselineKind
from perf.document import Document, KeyPath, spell
from perf.errors import WorkloadError
from perf.workload_problems import problem_of
from serving.errors import Problem

Positive = Annotated[int, Field(ge=1)]
DEFAULT_REPOSITORY = Path("model_repository")
ALONE_S = 6.0
"""How long a single model is measured, once; several: :func:`perf.settling.settled`."""

MOST_REQUESTS = 5_000_000
"""Of one run at a rate: perf_analyzer holds them all in memory."""

# The flags that may be given several times are in the singular.
_FLAGS = {"models": "model", "shapes": "shape", "baselines": "baseline"}
_URL = re.compile(r"(?:(https?|grpcs?)://)?(\[[^\]]+\]|[^\s/:\[\]]+):(\d{1,5})/?")


class Workload(BaseModel):
    """What to measure.

    Attributes:
        repository: a Triton repository; served by an embedded server, or with ``url`` only read for request data.
        url: a running server, ``host:port`` with or without ``http://`` or ``grpc://``; ``https://`` and ``grpcs://``
            where the connection is encrypted.
        ca_file: certificates (PEM) to trust for that, instead of the system's.
        metrics_url: where a running server tells how busy its machine is; by default its port 8002 is tried.
        models: which models; empty means every model that is ready.
        concurrency: how many requests are under way at once; one point is measured for each. Where a rate or intervals
            are given, none but those that are named.
        rate: how many requests are begun each second, answered or not; one point for each.
        distribution: how those are spaced: evenly, or at random (``poisson``) as from many independent users.
        intervals: a file with microseconds from one request to the next, one a line; one point.
        batch_size: samples in each request.
        protocol: what requests go over.
        shared_memory: ``system`` hands tensors over in shared memory, ``cuda`` in that of a GPU (same machine only).
        seconds: how long one point is measured in a round, warm-up not counted; see :func:`perf.settling.settled`.
        rounds: how often every point is measured, the models in turn.
        difference: more rounds, until a difference of so many percent between any model and the first would be found
            in nine cases of ten.
        precision: more rounds, until the 95% intervals of throughput and p99 reach no further than so many percent from
            their middle, and each p99 rests on 1000 requests.
        budget: seconds after which no further round is begun for that.
        stability_percentage: by how much the windows may differ before the point is called unstable.
        sequence_length: requests in each sequence of a stateful model; by default as many as there are different ones.
        shapes: of inputs with dynamic dimensions, by input name, without the batch dimension; wins over golden data.
        baselines: the same without this server, measured beside each model of a repository.
        spec: the ``models.yaml`` of the eager module, where it is not found from the manifest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=False)

    repository: Path | None = None
    url: str | None = None
    ca_file: Path | None = None
    metrics_url: str | None = None
    models: tuple[str, ...] = ()
    concurrency: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = (1, 4, 16)
    rate: tuple[Annotated[float, Field(gt=0, le=100_000)], ...] = ()
    distribution: Literal["constant", "poisson"] = "constant"
    intervals: Path | None = None
    batch_size: Positive = 1
    protocol: Literal["http", "grpc"] = "http"
    shared_memory: Literal["none", "system", "cuda"] = "none"
    seconds: Annotated[float, Field(ge=0.3, le=3600)] | None = None
    rounds: Annotated[int, Field(ge=1, le=100)] | None = None
    difference: Annotated[float, Field(ge=0.1, le=100)] | None = None
    precision: Annotated[float, Field(gt=0, le=100)] | None = None
    budget: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    stability_percentage: Annotated[float, Field(gt=0, le=1000)] = 15.0
    sequence_length: Positive | None = None
    shapes: dict[str, tuple[Positive, ...]] = Field(default_factory=dict)
    baselines: tuple[BaselineKind, ...] = ()
    spec: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        filled = dict(data)
        for name in ("models", "concurrency", "rate", "baselines"):  # one name, or one number, needs no list
            if isinstance(filled.get(name), (str, int, float)) and not isinstance(filled[name], bool):
                filled[name] = (filled[name],)
        if filled.get("baselines") in (True, ("all",), ["all"]):
            filled["baselines"] = get_args(BaselineKind)
        if filled.get("rate") or filled.get("intervals") is not None:
            filled.setdefault("concurrency", ())
        url = filled.get("url")
        if isinstance(url, str) and (match := _URL.fullmatch(url)) and match[1]:
            filled.setdefault("protocol", match[1].removesuffix("s"))
        return filled

    @field_validator("models", "concurrency", "rate", "baselines")
    @classmethod
    def _each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(values))

    @property
    def adaptive(self) -> bool:
        """Rounds go on until something is known."""
        return self.precision is not None or self.difference is not None

    @property
    def address(self) -> str | None:
        """``host:port`` of the running server, None when one is to be started."""
        match = _URL.fullmatch(self.url) if self.url else None
        return f"{match[2]}:{match[3]}" if match else None

    @property
    def tls(self) -> bool:
        """The connection to the running server is encrypted."""
        match = _URL.fullmatch(self.url) if self.url else None
        return match is not None and (match[1] or "").endswith("s")


def load_workload(
    path: Path | None = None, flags: Mapping[str, Any] | None = None, *, flag_prefix: str = "--"
) -> Workload:
    """A workload from a file, from flags, or from both.

    Args:
        path: YAML file; its paths are relative to it.
        flags: values by key of :class:`Workload`; None means not given. They win over the file's.
        flag_prefix: how messages spell a flag: ``--batch-size``, or with an empty prefix ``batch_size``.

    Raises:
        WorkloadError: with every problem that was found, each with its line or its flag.
    """
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    document = Document(path) if path is not None else None
    data = dict(document.data) if document is not None else {}
    for name in ("repository", "intervals", "ca_file", "spec"):
        if document is not None and isinstance(data.get(name), str) and path is not None:
            data[name] = path.parent / data[name]
    data |= given
    if data.get("repository") is None and data.get("url") is None and DEFAULT_REPOSITORY.is_dir():
        data["repository"] = DEFAULT_REPOSITORY

    def where(loc: KeyPath) -> str:
        if loc and loc[0] in given:
            return (
                f"{flag_prefix}{_FLAGS.get(str(loc[0]), str(loc[0])).replace('_', '-')}" if flag_prefix else spell(loc)
            )
        return document.where(loc) if document is not None else spell(loc)

    problems = list(document.problems) if document is not None else []
    workload: Workload | None = None
    try:
        workload = Workload.model_validate(data)
    except ValidationError as exc:
        problems += [problem_of(error, where, Workload.model_fields) for error in exc.errors()]
    problems += _checks(data, where)
    if problems or workload is None:
        raise WorkloadError(problems)
    return workload


def workload_from(**values: Any) -> Workload:
    """A workload from Python values, with the same checks and messages as :func:`load_workload`."""
    return load_workload(None, values, flag_prefix="")


def _checks(data: Mapping[str, Any], where: Any) -> list[Problem]:
    """What a single field cannot know, looked at in whatever was given, even beside fields that are wrong."""
    problems = []
    repository, url = data.get("repository"), data.get("url")
    if repository is None and url is None:
        problems.append(
            Problem(
                "nothing to measure",
                where="--repository, --url",
                expected="a model repository to serve, or the address of a running server",
                got=f"neither, and no folder {DEFAULT_REPOSITORY} here",
                fix="bench-repo --repository DIR, or bench-repo --url 127.0.0.1:8000",
            )
        )
    if isinstance(repository, (str, Path)) and not Path(repository).is_dir():
        problems.append(
            Problem(
                "no such model repository",
                where=where(("repository",)),
                expected="a folder with one folder per model",
                got=f"{repository} is a file" if Path(repository).exists() else f"nothing at {repository}",
                fix="build one with build-repo, or name another with --repository",
            )
        )
    problems += _load_checks(data, where) + _baseline_checks(data, where)
    if data.get("shared_memory") == "cuda" and not any(Path("/dev").glob("nvidia[0-9]*")):
        problems.append(
            Problem(
                "CUDA shared memory without a GPU",
                where=where(("shared_memory",)),
                expected="an NVIDIA GPU on the machine that client and server share",
                got="no /dev/nvidia0 here",
                fix="--shared-memory system, which hands tensors over in the memory of the machine",
            )
        )
    ca_file = data.get("ca_file")
    if isinstance(ca_file, (str, Path)) and not Path(ca_file).is_file():
        problems.append(
            Problem("no such file", where(("ca_file",)), "certificates (PEM)", str(ca_file), "name one that is there")
        )
    metrics_url = data.get("metrics_url")
    if isinstance(metrics_url, str) and not re.match(r"https?://[^/\s]+", metrics_url):
        expected = "http://HOST:8002/metrics"
        problems.append(Problem("not an address", where(("metrics_url",)), expected, metrics_url, "write it so"))
    if isinstance(url, str):
        match = _URL.fullmatch(url)
        if match is None or not 0 < int(match[3]) < 65536:
            example = "http://127.0.0.1:8000, grpc://127.0.0.1:8001 or 127.0.0.1:8000 (https, grpcs: encrypted)"
            problems.append(Problem("not a server's address", where(("url",)), example, url, "write it so"))
        elif match[1] and data.get("protocol") in ("http", "grpc") and data["protocol"] != match[1].removesuffix("s"):
            problems.append(
                Problem(
                    "the address and the protocol contradict each other",
                    where=f"{where(('url',))} and {where(('protocol',))}",
                    got=f"{url} and {data['protocol']}",
                    fix="leave the protocol out: the address says it",
                )
            )
    return problems


def _load_checks(data: Mapping[str, Any], where: Any) -> list[Problem]:
    """What the kinds of load ask of each other."""
    problems = []
    concurrency, rate, intervals = data.get("concurrency"), data.get("rate"), data.get("intervals")
    for name, value in (("concurrency", concurrency), ("rate", rate)):
        if isinstance(value, (list, tuple)) and not value and (name == "rate" or not (rate or intervals)):
            problems.append(
                Problem(
                    f"{name} is empty", where((name,)), "at least one value", repr(value), "give one, or leave it out"
                )
            )
    if data.get("distribution") in ("constant", "poisson") and not rate:
        got, fix = str(data["distribution"]), "--rate 50 (requests a second), or leave --distribution out"
        problems.append(Problem("a distribution without a rate", where(("distribution",)), "a rate too", got, fix))
    if data.get("budget") is not None and data.get("precision") is None and data.get("difference") is None:
        fix = "--precision 5 or --difference 5 (percent), or --rounds N for a number of rounds"
        got, expected = str(data["budget"]), "what it is to be enough for"
        problems.append(Problem("a budget without a precision", where(("budget",)), expected, got, fix))
    named = data.get("models")
    if data.get("difference") is not None and isinstance(named, (list, tuple)) and len(set(named)) == 1:
        fix = "name another --model, or --precision 5 for the figures of one"
        problems.append(
            Problem("a difference takes two models", where=where(("difference",)), got=str(named[0]), fix=fix)
        )
    seconds = _number(data.get("seconds", ALONE_S))
    for value in rate if isinstance(rate, (list, tuple)) else [rate]:
        number = _number(value)
        if number and seconds and 0 < number * seconds < 2:
            fix = f"--seconds {2 / number:.3g} or more"
            got = f"{number:g} a second for {seconds:g} s"
            problems.append(
                Problem("too few requests to measure", where=where(("rate",)), expected="at least 2", got=got, fix=fix)
            )
        elif number and seconds and number * seconds > MOST_REQUESTS:
            got = f"{number:g} a second for {seconds:g} s"
            fix = "shorter --seconds, and more --rounds"
            expected = f"at most {MOST_REQUESTS:,} in a round"
            problems.append(Problem("too many requests", where=where(("rate",)), expected=expected, got=got, fix=fix))
    return problems


def _baseline_checks(data: Mapping[str, Any], where: Any) -> list[Problem]:
    """Baselines run a repository's own files, on the machine whose server is measured."""
    problems = []
    if data.get("baselines") and data.get("url") is not None:
        problems.append(
            Problem(
                "baselines of a server that runs elsewhere",
                where=where(("baselines",)),
                expected="a repository that bench-repo serves itself: the same files, threads and machine",
                got=f"url {data['url']}",
                fix="--repository DIR without --url",
            )
        )
    spec = data.get("spec")
    if isinstance(spec, (str, Path)) and not Path(spec).is_file():
        fix = "name the models.yaml that the repository was built from"
        problems.append(Problem("no such file", where(("spec",)), "a models.yaml", str(spec), fix))
    return problems


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
