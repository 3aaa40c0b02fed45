"""Raw files and server statistics -> numbers. Units are converted here, once: nanoseconds in, microseconds out."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perf.errors import RawFileError
from perf.result import Latency, ServerSide

NS_PER_US = 1_000
NS_PER_S = 1_000_000_000
PERCENTILES = (50, 90, 95, 99)
_CHUNK_BYTES = 1 << 22
_TAIL_BYTES = 1 << 16
_FULL_BYTES = 1 << 20


@dataclass(frozen=True)
class Profile:
    """Every request of one experiment.

    Attributes:
        start_ns: when each request was sent, int64 [requests], nanoseconds since the epoch.
        end_ns: when its last response came, int64 [requests].
        boundaries_ns: edges of the measured windows, int64 [windows + 1].
        first_ns: when its first response came, int64 [requests]; the same as ``end_ns`` where there is one response.
        responses: how many came to each request, int64 [requests].
        due_ns: when it should have been sent, int64 [requests]; None where nothing but an answer made it leave.
    """

    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    boundaries_ns: NDArray[np.int64]
    due_ns: NDArray[np.int64] | None = None
    first_ns: NDArray[np.int64] | None = None
    responses: NDArray[np.int64] | None = None

    @property
    def duration_s(self) -> float:
        """Length of all windows together."""
        return float(self.boundaries_ns[-1] - self.boundaries_ns[0]) / NS_PER_S

    @property
    def latency_us(self) -> NDArray[np.float64]:
        """Latency of each request, from when it was due if that is known, microseconds [requests]."""
        return (self.end_ns - (self.start_ns if self.due_ns is None else self.due_ns)) / NS_PER_US

    @property
    def answered(self) -> int:
        """Answers that came within the windows; of a schedule, some come after its end or belong to its lead-in."""
        if self.due_ns is None:
            return len(self.end_ns)
        return int(((self.end_ns > self.boundaries_ns[0]) & (self.end_ns <= self.boundaries_ns[-1])).sum())

    def measured(self) -> Profile:
        """Only what is measured of a schedule: the requests that were due within the windows."""
        if self.due_ns is None:
            return self
        kept = self.due_ns >= self.boundaries_ns[0]
        return replace(
            self,
            start_ns=self.start_ns[kept],
            end_ns=self.end_ns[kept],
            due_ns=self.due_ns[kept],
            first_ns=self.first_ns[kept] if self.first_ns is not None else None,
            responses=self.responses[kept] if self.responses is not None else None,
        )

    @property
    def late_us(self) -> NDArray[np.float64] | None:
        """How long after it was due each request left."""
        return None if self.due_ns is None else (self.start_ns - self.due_ns) / NS_PER_US


@dataclass(frozen=True)
class CsvRow:
    """perf_analyzer's own summary of one experiment; its times are whole microseconds."""

    inferences_per_s: float
    p50_us: float
    p90_us: float
    p95_us: float
    p99_us: float
    responses_per_s: float | None = None


@dataclass(frozen=True)
class Pass:
    """One window as ``perf_analyzer -v`` prints it: inferences per second and mean latency."""

    inferences_per_s: float
    mean_us: float


def strip_tensors(source: Path, target: Path) -> None:
    """Copy a profile export without the tensors of its requests and responses.

    perf_analyzer writes every request's tensors as decimal text (3 MB for one photograph), none of which we need. The
    pieces that stay are found by byte patterns that cannot occur inside a JSON string, where quotes are escaped.

    Raises:
        RawFileError: the file cannot be read, or a request lacks its response.
    """
    starts: list[str] = []
    ends: list[str] = []
    tail = b""
    try:
        with source.open("rb") as handle:
            rest = b""
            while chunk := handle.read(_CHUNK_BYTES):
                # A match never spans more than what is carried over, and one that is still growing is not taken yet.
                rest = _collect(rest + chunk, starts, ends)
                tail = (tail + chunk)[-_TAIL_BYTES:]
            _collect(rest, starts, ends, last=True)
    except OSError as exc:
        raise RawFileError(
            "the profile export cannot be read",
            where=str(source),
            expected="the requests of the run, as perf_analyzer wrote them",
            got=exc.strerror or str(exc),
            fix="look for a full disk, or for what removes files there; set TMPDIR or --output to another",
        ) from exc
    closing = re.search(rb'"window_boundaries":\[([\d,]*)\].*\Z', tail, re.DOTALL)
    if closing is None or len(starts) != len(ends):
        free_bytes = shutil.disk_usage(source.parent).free
        full = free_bytes < _FULL_BYTES  # perf_analyzer itself does not look whether what it writes arrives
        got = f"{len(starts)} requests, {len(ends)} responses" + ("" if closing else ", no windows")
        raise RawFileError(
            "the profile export is not complete" + (": the disk is full" if full else ""),
            where=str(source),
            expected="as many responses as requests, and the windows at the end",
            got=f"{got}; {free_bytes / 1e6:,.1f} MB of the disk are free",
            fix="free space, or set TMPDIR (without --output) or --output to a disk that has it"
            if full
            else "measure it again; if it stays, keep the files with --output DIR and look at them",
        )
    requests = [
        {"timestamp": int(start), "response_timestamps": [int(end) for end in responses.split(",") if end]}
        for start, responses in zip(starts, ends, strict=True)
    ]
    boundaries = [int(edge) for edge in closing[1].split(b",") if edge]
    target.write_text(json.dumps({"experiments": [{"requests": requests, "window_boundaries": boundaries}]}))


_PIECES = re.compile(rb'"timestamp":(\d+),|"response_timestamps":\[([\d,]*)\]')
_LONGEST_PIECE_BYTES = 1 << 20  # 50,000 responses to one request


def _collect(data: bytes, starts: list[str], ends: list[str], *, last: bool = False) -> bytes:
    """Take the pieces that are surely whole; returns the bytes to look at again with what follows."""
    safe = len(data) if last else max(0, len(data) - _LONGEST_PIECE_BYTES)
    done = safe
    for match in _PIECES.finditer(data):
        if match.start() >= safe:
            break
        (starts if match[1] is not None else ends).append((match[1] or match[2]).decode())
        done = max(done, match.end())
    return data[done:]


def read_profile(path: Path, responses_each: float | None = None) -> Profile:
    """Read a profile export (with or without its tensors).

    Args:
        responses_each: of a stream, how many responses a request had on average. Where the export has one more, the
            last is the empty one that only says that the stream is over, and is left out.

    Raises:
        RawFileError: no JSON, or not of the expected form, or without a single request.
    """
    try:
        experiment = json.loads(path.read_text(encoding="utf-8", errors="replace"))["experiments"][0]
        answered = [request for request in experiment["requests"] if request["response_timestamps"]]
        came = [request["response_timestamps"] for request in answered]
        if responses_each is not None and came and sum(map(len, came)) / len(came) > responses_each + 0.5:
            came = [times[:-1] or times for times in came]
        profile = Profile(
            np.array([request["timestamp"] for request in answered], dtype=np.int64),
            np.array([times[-1] for times in came], dtype=np.int64),
            np.array(experiment["window_boundaries"], dtype=np.int64),
            first_ns=np.array([times[0] for times in came], dtype=np.int64),
            responses=np.array([len(times) for times in came], dtype=np.int64),
        )
    except (OSError, ValueError, KeyError, IndexError, TypeError) as exc:
        raise RawFileError(
            "the profile export is not of the form that was expected",
            where=str(path),
            expected="experiments[0] with requests and window_boundaries",
            got=f"{type(exc).__name__}: {exc}",
            fix="this perf_analyzer may be too old or too new: set PERF_ANALYZER to another, or unset it",
        ) from exc
    if not len(profile.start_ns) or len(profile.boundaries_ns) < 2:
        raise RawFileError(
            "the profile export holds no request",
            where=str(path),
            expected="at least one answered request, and the edges of the windows",
            got=f"{len(profile.start_ns)} requests, {len(profile.boundaries_ns)} edges",
            fix="--seconds with a larger number",
        )
    return profile


def read_csv(path: Path) -> CsvRow:
    """Read the first row of perf_analyzer's ``-f`` file.

    Raises:
        RawFileError: it is not there, empty, or lacks a column.
    """
    try:
        with path.open(newline="") as handle:
            row = next(csv.DictReader(handle))
        p50, p90, p95, p99 = (float(row[f"p{percentile} latency"]) for percentile in PERCENTILES)
        responses = float(row["Response Throughput"]) if "Response Throughput" in row else None
        return CsvRow(float(row["Inferences/Second"]), p50, p90, p95, p99, responses)
    except (OSError, StopIteration, KeyError, ValueError, TypeError) as exc:
        raise RawFileError(
            "perf_analyzer's CSV file is not of the form that was expected",
            where=str(path),
            expected="one row with Inferences/Second and p50, p90, p95, p99 latency",
            got=f"{type(exc).__name__}: {exc}",
            fix="this perf_analyzer may be too old or too new: set PERF_ANALYZER to another, or unset it",
        ) from exc


_PASS = re.compile(r"Pass \[\d+\] throughput: ([\d.e+]+) infer/sec\. Avg latency: (\d+) usec")
_REQUEST_COUNT = re.compile(r"Request count: (\d+)")


def passes_of(stdout: str) -> tuple[Pass, ...]:
    """The windows as ``perf_analyzer -v`` printed them."""
    return tuple(Pass(float(match[1]), float(match[2])) for match in _PASS.finditer(stdout))


def request_count_of(stdout: str) -> int:
    """``Request count`` as printed; 0 when it is not there."""
    match = _REQUEST_COUNT.search(stdout)
    return int(match[1]) if match else 0


def latency_from_csv(row: CsvRow, stdout: str) -> Latency:
    """perf_analyzer's own percentiles, for runs whose requests were not exported."""
    passes = passes_of(stdout)
    return Latency(
        requests=request_count_of(stdout),
        mean_us=float(np.mean([entry.mean_us for entry in passes])) if passes else row.p50_us,
        p50_us=row.p50_us,
        p90_us=row.p90_us,
        p95_us=row.p95_us,
        p99_us=row.p99_us,
        source="perf_analyzer",
    )


def server_side(before: Mapping[str, Any], after: Mapping[str, Any]) -> ServerSide:
    """The difference of two entries of Triton's statistics of one model and version.

    Args:
        before, after: entries of ``model_stats``; gRPC gives counts as strings and leaves out zeros, HTTP does not.
    """

    def number(entry: Mapping[str, Any], *path: str) -> int:
        value: Any = entry
        for part in path:
            value = value.get(part, {}) if isinstance(value, Mapping) else {}
        return int(value) if value not in ({}, None) else 0

    def delta(*path: str) -> int:
        return number(after, *path) - number(before, *path)

    def mean_us(name: str) -> float | None:
        count = delta("inference_stats", name, "count")
        return delta("inference_stats", name, "ns") / count / NS_PER_US if count > 0 else None

    inferences, executions = delta("inference_count"), delta("execution_count")
    return ServerSide(
        model=str(after["name"]),
        version=str(after.get("version", "")),
        requests=delta("inference_stats", "success", "count"),
        failures=delta("inference_stats", "fail", "count"),
        inferences=inferences,
        executions=executions,
        mean_batch=inferences / executions if executions > 0 else None,
        queue_us=mean_us("queue"),
        compute_input_us=mean_us("compute_input"),
        compute_infer_us=mean_us("compute_infer"),
        compute_output_us=mean_us("compute_output"),
        cache_hits=delta("inference_stats", "cache_hit", "count"),
    )


def newest(entries: Sequence[Mapping[str, Any]], model: str) -> Mapping[str, Any] | None:
    """The entry of the model's highest version, which is the one that answers when none is asked for."""
    own = [entry for entry in entries if entry.get("name") == model]
    return max(own, key=lambda entry: int(entry.get("version") or 0), default=None)
