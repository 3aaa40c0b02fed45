"""The server's statistics over exactly the measured windows.

The statistics are counters, and when the windows began and ended is only known afterwards, from perf_analyzer's own
files. So the counters are read a little before and after each border, each reading with its time, and between two
readings a counter is taken to grow evenly. Reading costs the server a request, so it is not done all along.

Times are nanoseconds since the epoch, by this machine's clock: perf_analyzer runs here too.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from perf.analyzer import Load
from serving.errors import TritonRepoError

Statistics = Mapping[str, Mapping[str, Any]]
"""By model, its entry of ``model_stats``."""

BEFORE_S = 0.05
"""How long before a border, and after it, it is looked at: about as long as it takes to notice one."""

_JOIN_S = 5.0
_NAMES = ("name", "version")


@dataclass(frozen=True)
class Reading:
    """What the counters were at a moment: in the middle between the question and its answer."""

    at_ns: int
    statistics: Statistics


@dataclass(frozen=True)
class Span:
    """What was measured.

    Attributes:
        begin_ns, end_ns: the borders.
        first_ns: when the load's first request left: until then its counters do not grow.
        last_ns: when the load's last answer came, where it ends by itself: from then on they do not grow either.
    """

    begin_ns: int
    end_ns: int
    first_ns: int
    last_ns: int | None = None


@dataclass
class Borders:
    """Reads the statistics about the borders of what is measured; a context manager, so that no thread stays.

    Args:
        read: asks the server.
        leave: called in the end by a thread that has asked it.
    """

    read: Callable[[], Statistics]
    leave: Callable[[], None] = lambda: None
    _readings: list[Reading] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _ended: bool = False

    def __enter__(self) -> Borders:
        self._look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def begin(self, load: Load) -> None:
        """The load begins (or begins anew, with longer windows): look about each border that is to come."""
        self._stop()
        self._over = threading.Event()
        arguments = (self._over, time.monotonic(), moments_of(load))
        self._thread = threading.Thread(target=self._watch, args=arguments, name="borders", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """The measured time is over: read for the last time; once.

        Raises:
            TritonRepoError: the server does not answer.
        """
        if not self._ended:
            self._ended = True
            self._over.set()
            self._look()

    def between(self, span: Span | None) -> tuple[Statistics, Statistics]:
        """What the counters were at both ends of a span; None for everything that was read."""
        with self._lock:
            readings = sorted(self._readings, key=lambda reading: reading.at_ns)
        if span is None:
            return readings[0].statistics, readings[-1].statistics
        if len(readings) > 1 and readings[0].at_ns < span.first_ns < readings[1].at_ns:
            readings.insert(1, Reading(span.first_ns, readings[0].statistics))
        if span.last_ns is not None and readings[-1].at_ns > span.last_ns:
            kept = [reading for reading in readings if reading.at_ns < span.last_ns]
            readings = [*kept, Reading(span.last_ns, readings[-1].statistics)]
        return _at(readings, span.begin_ns), _at(readings, span.end_ns)

    def _look(self) -> None:
        before_ns = time.time_ns()
        said = self.read()
        with self._lock:
            self._readings.append(Reading((before_ns + time.time_ns()) // 2, said))

    def _watch(self, over: threading.Event, begun_s: float, moments_s: Sequence[float]) -> None:
        try:
            for moment_s in moments_s:
                if over.wait(max(0.0, begun_s + moment_s - time.monotonic())):
                    return
                self._look()
        except TritonRepoError:  # the run itself says what is wrong with the server
            return
        finally:
            self.leave()

    def _stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)


def moments_of(load: Load) -> list[float]:
    """Seconds from the beginning of a load at which to look, beside its beginning and its end."""
    if load.schedule is None:  # its first window begins with its first request
        return [load.window_s * load.windows - BEFORE_S]
    begin_s, end_s = load.schedule.start_us / 1e6, load.schedule.end_us / 1e6
    return [begin_s - BEFORE_S, begin_s + BEFORE_S, end_s - BEFORE_S]


def _at(readings: Sequence[Reading], at_ns: int) -> Statistics:
    """The counters at a moment; beyond all readings, those of the nearest."""
    place = bisect_right([reading.at_ns for reading in readings], at_ns)
    if place in (0, len(readings)):
        return readings[min(place, len(readings) - 1)].statistics
    before, after = readings[place - 1], readings[place]
    share = (at_ns - before.at_ns) / (after.at_ns - before.at_ns)
    return {
        model: _mixed(before.statistics[model], entry, share)
        for model, entry in after.statistics.items()
        if model in before.statistics
    }


def _mixed(before: Any, after: Any, share: float) -> Any:
    """Numbers in between, everything else as it is afterwards. gRPC spells counts as text and leaves out zeros."""
    if isinstance(after, Mapping):
        old = before if isinstance(before, Mapping) else {}
        return {key: value if key in _NAMES else _mixed(old.get(key), value, share) for key, value in after.items()}
    try:
        first, second = int(before or 0), int(after)
    except (TypeError, ValueError):
        return after
    return round(first + share * (second - first))
