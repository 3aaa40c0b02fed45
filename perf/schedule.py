"""When each request is to leave: an offered load that does not wait for the server.

perf_analyzer draws a Poisson schedule of its own, the same at every run, and its export does not say when a request was
due. So the times are drawn here, handed over as ``--request-intervals``, and are known: latency is counted from them. A
client that sends late because the server is behind (coordinated omission) then shows in the figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perf.errors import RawFileError, WorkloadError
from serving.errors import Problem

Distribution = Literal["constant", "poisson", "custom"]

LEAD_IN = 0.1
"""Share of the measured time that the load runs before: the first requests make connections and fill the queue."""

THREADS = 4
"""Of perf_analyzer; they take the requests in turn and never wait for an answer."""

SHORTEST_US = 10.0
"""Mean interval: no client sends faster."""

SEED = 20241
US_PER_S = 1_000_000


@dataclass(frozen=True)
class Schedule:
    """Requests and when they are due.

    Attributes:
        due_us: microseconds since the first thread starts, int64 [requests], not falling.
        start_us: requests due before this are not measured.
        end_us: end of the measured time; no request is due later.
    """

    distribution: Distribution
    rate_per_s: float
    due_us: NDArray[np.int64]
    start_us: int
    end_us: int

    @property
    def seconds(self) -> float:
        """Length of the measured time."""
        return (self.end_us - self.start_us) / US_PER_S

    @property
    def threads(self) -> int:
        """One without a request would send without end, so there are never more than requests."""
        return min(THREADS, len(self.due_us))

    def write(self, path: Path) -> None:
        """As perf_analyzer takes it: the microseconds from one request to the next, one a line."""
        gaps = np.diff(self.due_us, prepend=0)
        path.write_text("\n".join(str(gap) for gap in gaps.tolist()) + "\n")

    def times_ns(self, sent_ns: NDArray[np.int64], wake_up_us: float = 0.0) -> NDArray[np.int64]:
        """When each request was due, by the clock that says when it was sent.

        The n-th that left is the n-th that was due. The clock's start is not told; none can leave early, so it is where
        the most punctual one was due, less the time that even that one took to wake.

        Args:
            sent_ns: of all requests, nanoseconds, in any order.
            wake_up_us: that time, from :func:`perf.punctual.wake_up_us`.

        Raises:
            RawFileError: not as many as were due.
        """
        if len(sent_ns) != len(self.due_us):
            raise RawFileError(
                "the profile export does not hold every request of the schedule",
                where="the requests of perf_analyzer's --profile-export-file",
                expected=f"{len(self.due_us)} requests",
                got=str(len(sent_ns)),
                fix="this perf_analyzer may be too old or too new: set PERF_ANALYZER to another, or unset it",
            )
        due_ns = self.due_us * 1000
        order = np.argsort(sent_ns, kind="stable")
        begin_ns = int((sent_ns[order] - due_ns).min()) - round(wake_up_us * 1000)
        times = np.empty_like(sent_ns)
        times[order] = begin_ns + due_ns
        return times


def drawn(
    rate_per_s: float, distribution: Literal["constant", "poisson"], seconds: float, *, number: int = 0
) -> Schedule:
    """A schedule at a mean rate.

    Args:
        seconds: measured; :data:`LEAD_IN` comes before.
        number: of the round; each has another draw, the same for all models, so that a round stays a fair pair.
    """
    lead_s = seconds * LEAD_IN
    gap_s = 1.0 / rate_per_s
    if distribution == "constant":
        due_s = np.arange(gap_s, lead_s + seconds + gap_s / 2, gap_s)
    else:
        # A Poisson process of which the number of requests is known: anywhere, each alike. So the rate is met exactly.
        generator = np.random.default_rng((SEED, number))
        before = generator.uniform(0.0, lead_s, round(rate_per_s * lead_s))
        within = generator.uniform(lead_s, lead_s + seconds, max(1, round(rate_per_s * seconds)))
        due_s = np.sort(np.concatenate([before, within]))
    return _schedule(distribution, rate_per_s, due_s, lead_s, seconds)


def from_intervals(intervals_us: NDArray[np.int64], seconds: float) -> Schedule:
    """A schedule of one's own, begun anew as often as ``seconds`` takes."""
    length_s = float(intervals_us.sum()) / US_PER_S
    lead_s = seconds * LEAD_IN
    repeats = math.ceil((lead_s + seconds) / length_s)
    due_s = np.cumsum(np.tile(intervals_us, repeats)) / US_PER_S
    due_s = due_s[due_s <= lead_s + seconds]
    return _schedule("custom", len(intervals_us) / length_s, due_s, lead_s, seconds)


def _schedule(
    distribution: Distribution, rate_per_s: float, due_s: NDArray[np.float64], lead_s: float, seconds: float
) -> Schedule:
    start_us, end_us = round(lead_s * US_PER_S), round((lead_s + seconds) * US_PER_S)
    due_us = np.minimum(np.round(due_s * US_PER_S).astype(np.int64), end_us)
    if not (due_us >= start_us).any():  # a draw may leave so short a time empty
        due_us = np.append(due_us, (start_us + end_us) // 2)
    return Schedule(distribution, rate_per_s, due_us, start_us, end_us)


def read_intervals(path: Path) -> NDArray[np.int64]:
    """Microseconds from one request to the next, one a line, as perf_analyzer's own ``--request-intervals`` file.

    Raises:
        WorkloadError: it cannot be read, is empty, or holds what is no such number (the first line of them is named).
    """
    expected = "a whole number of microseconds on each line, not all zero"
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise WorkloadError(
            [Problem("the intervals cannot be read", str(path), expected, reason, "name a file that can be read")]
        ) from exc
    for number, line in enumerate(lines, 1):
        if not (line.isdigit() and line.isascii() and int(line) < 3600 * US_PER_S):
            wanted, fix = f"{expected}, below an hour", "mend this line, or take it away"
            raise WorkloadError([Problem("not an interval", f"{path}:{number}", wanted, line, fix)])
    intervals = np.array([int(line) for line in lines], dtype=np.int64)
    if not intervals.sum():
        got = "all of them are zero" if len(intervals) else "an empty file"
        fix = "one number a line, for instance 20000 for 50 requests a second"
        raise WorkloadError([Problem("no intervals", str(path), expected, got, fix)])
    if (mean := float(intervals.mean())) < SHORTEST_US:
        got = f"{mean:.3g} us on average"
        wanted, fix = f"{SHORTEST_US:g} us or more", "write microseconds (not milliseconds or seconds)"
        raise WorkloadError([Problem("requests too close together", str(path), wanted, got, fix)])
    return intervals
