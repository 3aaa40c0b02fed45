"""What a measurement is: typed, with units in the names, and written as one versioned JSON document.

Times are microseconds (``_us``) or seconds (``_s``); rates are per second. A number that could not be had is None,
never zero.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from perf.baselines.data import Baseline, BaselineRatio, LeftOut

SCHEMA: Literal["triton-repo/bench"] = "triton-repo/bench"
SCHEMA_VERSION: Literal[2] = 2


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Doubt(_Data):
    """A reason to trust a number less; part of the result, so that it travels with the number.

    Attributes:
        code: stable, for programs: ``unstable``, ``few_requests``, ``other_traffic``, ``failed_requests``,
            ``client_behind``, ``cache_hits``, ``busy_machine``, ``cpu_steal`` and others: docs/reference/bench-repo.md.
        message: for people, with the numbers.
    """

    code: str
    message: str


class Histogram(_Data):
    """How many requests took how long.

    Attributes:
        edges_us: of the bins, rising; one more than there are counts.
        counts: requests in each bin.
    """

    edges_us: tuple[float, ...]
    counts: tuple[int, ...]


class Latency(_Data):
    """Request latencies as the client saw them, microseconds.

    Attributes:
        requests: how many requests the percentiles rest on.
        measured_from: ``sent``: when the request left; ``scheduled``: when it was to leave, which counts the time that
            it waited in the client because the server was behind (no coordinated omission).
        source: ``requests``: computed here from the timestamps of every request; ``perf_analyzer``: its own figures,
            whole microseconds, because exporting every request would have written gigabytes of tensors.
    """

    requests: int
    mean_us: float
    p50_us: float
    p90_us: float
    p95_us: float
    p99_us: float
    min_us: float | None = None
    max_us: float | None = None
    source: Literal["requests", "perf_analyzer"] = "requests"
    p99_9_us: float | None = None
    measured_from: Literal["sent", "scheduled"] = "sent"
    histogram: Histogram | None = None


class Window(_Data):
    """One of the windows a point is made of; their agreement says whether it was stable."""

    duration_s: float | None
    requests: int | None
    inferences_per_s: float
    mean_us: float | None


class ServerSide(_Data):
    """What the server's own statistics say of one model over the measured windows (means per request).

    Attributes:
        requests: answered with success; ``failures`` with an error.
        inferences: samples; ``executions``: batches the backend ran. ``mean_batch`` is their ratio.
        queue_us: waiting for an instance (and for the batch to fill).
    """

    model: str
    version: str
    requests: int
    failures: int
    inferences: int
    executions: int
    mean_batch: float | None
    queue_us: float | None
    compute_input_us: float | None
    compute_infer_us: float | None
    compute_output_us: float | None
    cache_hits: int = 0

    @property
    def compute_us(self) -> float | None:
        """Input, inference and output together."""
        parts = (self.compute_input_us, self.compute_infer_us, self.compute_output_us)
        return None if any(part is None for part in parts) else sum(part for part in parts if part is not None)


class Usage(_Data):
    """What the server's machine did while a point was measured; None for what it does not tell.

    Attributes:
        cpu_percent: of all its cores.
        gpu_percent, gpu_power_w, gpu_clock_mhz: means over time and the GPUs that were used.
    """

    cpu_percent: float | None = None
    memory_bytes: int | None = None
    gpu_percent: float | None = None
    gpu_memory_bytes: int | None = None
    gpu_power_w: float | None = None
    gpu_clock_mhz: float | None = None


class Round(_Data):
    """One of several measurements of a point, in turns with those of others; those of one number are a pair.

    Attributes:
        number: from 0; a point need not be in every round.
        mean_us: of the latency; None in results from before it was kept.
    """

    number: int
    inferences_per_s: float
    requests: int
    p50_us: float
    p99_us: float
    mean_us: float | None = None
    raw: str | None = None


class Point(_Data):
    """One model under one load: so many requests under way at once, or so many begun each second.

    Attributes:
        concurrency: requests under way at once; None where a rate is given.
        rate_per_s: requests that were to begin each second, and how they are spaced: ``distribution``.
        rounds: where it was measured several times: each; the figures are medians over them, the percentiles those of
            all requests together, and ``*_interval`` the 95% intervals of the medians.
        checked: answers that were compared with the right ones; ``wrong`` of them differed.
        usage: what the server's machine did meanwhile.
        first_response: of a model that answers in streams, until the first response; ``latency`` is until the last.
        responses_per_s: of those, all together.
        inferences_per_s: samples answered per second (requests per second times ``batch_size``).
        duration_s: length of the windows together.
        server: the model's own statistics; ``steps``: those of an ensemble's models.
        error: why there is no measurement (then the figures are None).
        command: the arguments perf_analyzer was run with.
        raw: folder with its files, relative to the result; None when they were not kept.
    """

    model: str
    version: str
    concurrency: int | None
    batch_size: int
    rate_per_s: float | None = None
    distribution: Literal["constant", "poisson", "custom"] | None = None
    rounds: tuple[Round, ...] = ()
    inferences_interval: tuple[float, float] | None = None
    p99_interval_us: tuple[float, float] | None = None
    checked: int | None = None
    wrong: int | None = None
    usage: Usage | None = None
    first_response: Latency | None = None
    responses_per_s: float | None = None
    inferences_per_s: float | None = None
    duration_s: float | None = None
    latency: Latency | None = None
    windows: tuple[Window, ...] = ()
    server: ServerSide | None = None
    steps: tuple[ServerSide, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    error: dict[str, Any] | None = None
    command: tuple[str, ...] = ()
    raw: str | None = None

    @property
    def ok(self) -> bool:
        """True when it was measured."""
        return self.error is None


class ModelRun(_Data):
    """What one model was asked, and what came of it.

    Attributes:
        inputs: where the request data came from, in words.
        error: why the model could not be measured at all.
        config: as the server gave it: what was measured.
        about: what its manifest says, where there is one: ``variant``, ``precision``, ``accuracy``, ``size_bytes``.
        baseline: set where this is no served model but one beside it; ``model`` is then ``MODEL@KIND``.
    """

    model: str
    baseline: Baseline | None = None
    config: dict[str, Any] = {}
    about: dict[str, Any] = {}
    version: str = ""
    inputs: str = ""
    points: tuple[Point, ...] = ()
    error: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """True when every point was measured."""
        return self.error is None and all(point.ok for point in self.points)


class Tool(_Data):
    """The perf_analyzer that measured."""

    path: str
    version: str
    origin: str


class BenchResult(_Data):
    """A whole run: numbers, doubts, and all it takes to judge or repeat them.

    Attributes:
        workload: what was asked, after defaults.
        server: name, version, kind (``url``, ``local``, ``embedded``) and address of the server.
        machine: facts of the machine the client ran on (with ``local`` and ``embedded``, the server's too).
        doubts: those that concern every point.
        id: of this run, for the history; ``revision`` the git commit of the working directory, with ``+`` if changed.
        interrupted: what ended it before all was measured: ``Ctrl-C``, ``SIGTERM``, ``the server died``; None where it
            went through. (Added within version 2 of the form: older files lack it.)
        baselines: how the served models compare with the baselines that were measured beside them.
        left_out: baselines that there cannot be.
        folder: where the files of this run were kept; not written to the file itself.
    """

    schema_name: Literal["triton-repo/bench"] = Field(default=SCHEMA, alias="schema")
    schema_version: Literal[2] = SCHEMA_VERSION
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    revision: str | None = None
    started_at: datetime
    duration_s: float
    workload: dict[str, Any]
    tool: Tool
    server: dict[str, str]
    machine: dict[str, Any]
    models: tuple[ModelRun, ...]
    doubts: tuple[Doubt, ...] = ()
    interrupted: str | None = None
    baselines: tuple[BaselineRatio, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    folder: Path | None = Field(default=None, exclude=True)

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @property
    def points(self) -> tuple[Point, ...]:
        """All points, in the order they were measured."""
        return tuple(point for run in self.models for point in run.points)

    @property
    def ok(self) -> bool:
        """True when everything that was asked was measured."""
        return self.interrupted is None and bool(self.models) and all(run.ok for run in self.models)
