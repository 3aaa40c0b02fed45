"""What the server's machine does during a measurement: processors, memory, GPUs; and what slowed it down.

A server on this machine is seen in /proc, over exactly the measured time, and its GPUs by NVML; of any server Triton's
metrics endpoint tells the rest (its figures are of the last two seconds, so they are read all along).
"""

from __future__ import annotations

import os
import re
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from perf.nvml import Gpus, Look, slowdowns
from perf.result import Doubt, Usage

INTERVAL_S = 1.0
LOOKS = 4
"""At the GPUs, in each interval."""

_TIMEOUT_S = 2.0
_SAMPLE = re.compile(r"^(nv_[cg]pu_\w+)(?:\{([^}]*)\})? ([-+\d.eE]+)$", re.MULTILINE)
_MOST_BYTES = 1 << 22
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A measurement stays between client and server, whatever proxy there is for the rest of the world."""

FULL_PERCENT = 95.0
"""From here on a machine has nothing left to give."""

CLIENT_SHARE = 0.3
"""Of a full machine that client and server share: what the client may take before it is mentioned."""


@dataclass(frozen=True)
class Ticks:
    """Counters of this machine at one moment; None or empty for what it does not tell.

    Attributes:
        busy, total: processor time of all cores since boot, in clock ticks.
        throttled: by name, how often the processors were slowed down or stopped.
    """

    busy: int | None
    total: int | None
    throttled: Mapping[str, int]


def metrics(url: str, timeout_s: float = _TIMEOUT_S) -> dict[str, list[float]] | None:
    """``nv_cpu_*`` and ``nv_gpu_*`` by name, one value for each GPU; None where nothing answers."""
    try:
        with _DIRECT.open(url, timeout=timeout_s) as answer:
            text = answer.read(_MOST_BYTES).decode("utf-8", errors="replace")
    except (OSError, ValueError):
        return None
    found: dict[str, list[float]] = defaultdict(list)
    for match in _SAMPLE.finditer(text):
        found[match[1]].append(float(match[3]))
    return dict(found)


def ticks() -> Ticks:
    """The counters now."""
    busy = total = None
    if (text := _read("/proc/stat")) is not None:
        fields = [int(value) for value in text.splitlines()[0].split()[1:9]]
        total, busy = sum(fields), sum(fields) - fields[3] - fields[4]  # all but idle and waiting for a disk
    throttled = {}
    if (text := _read("/sys/fs/cgroup/cpu.stat")) is not None and (match := re.search(r"nr_throttled (\d+)", text)):
        throttled["the container's processor limit was hit"] = int(match[1])
    counters = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    hot = [_read(path) for path in counters]
    if hot:
        throttled["a processor was too hot and slowed down"] = sum(int(value) for value in hot if value)
    return Ticks(busy, total, throttled)


class Meter:
    """Reads what the machine does between :meth:`begin` and :meth:`end`; a context manager, so that no thread stays.

    Args:
        local: the server is on this machine.
        url: of the metrics endpoint, None without one.
        gpus: of this machine, where NVML shows any.
    """

    def __init__(self, *, local: bool, url: str | None, gpus: Gpus | None = None) -> None:
        self._local, self._url, self._gpus = local, url, gpus if local else None
        self._looks: list[Look] = []
        self._samples: list[dict[str, list[float]]] = []
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._before: Ticks | None = None
        self._after: Ticks | None = None

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * _TIMEOUT_S)

    def begin(self) -> None:
        """The load begins."""
        self._before = ticks()
        if (self._url is not None or self._gpus is not None) and self._thread is None:
            self._thread = threading.Thread(target=self._sample, name="usage", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """The measured time is over."""
        self._done.set()
        self._after = ticks()

    def _sample(self) -> None:
        turn = 0
        while not self._done.wait(INTERVAL_S / LOOKS):
            turn += 1
            if self._gpus is not None:
                self._looks += self._gpus.look()
            if self._url is None or turn % LOOKS:
                continue
            found = metrics(self._url)
            if found is not None and not self._done.is_set():
                self._samples.append(found)

    @property
    def usage(self) -> Usage | None:
        """What was seen; None where nothing could be."""
        if self._before is None or self._after is None:
            return None
        memory = _memory_bytes() if self._local else self._highest("nv_cpu_memory_used_bytes")
        power, gpu = self._mean("nv_gpu_power_usage"), _percent(self._mean("nv_gpu_utilization"))
        gpu_memory = self._highest("nv_gpu_memory_used_bytes")
        clock = None
        if looks := self.looks:
            power, gpu = _mean_of(looks, "power_w"), _mean_of(looks, "percent")
            gpu_memory, clock = _most_memory(looks), _mean_of(looks, "clock_mhz")
        cpu = self.cpu_percent if self._local else _percent(self._mean("nv_cpu_utilization"))
        usage = Usage(
            cpu_percent=cpu,
            memory_bytes=int(memory) if memory is not None else None,
            gpu_percent=gpu,
            gpu_memory_bytes=int(gpu_memory) if gpu_memory is not None else None,
            gpu_power_w=power,
            gpu_clock_mhz=clock,
        )
        return usage if usage != Usage() else None

    @property
    def looks(self) -> Sequence[Look]:
        """At the GPUs of this machine meanwhile."""
        return tuple(self._looks)

    @property
    def cpu_percent(self) -> float | None:
        """Of all cores of this machine, where the client runs."""
        before, after = self._before, self._after
        if before is None or after is None or None in (before.busy, before.total, after.busy, after.total):
            return None
        assert before.busy is not None and before.total is not None and after.busy is not None
        assert after.total is not None
        return (after.busy - before.busy) / (after.total - before.total) * 100.0 if after.total > before.total else None

    def throttled(self) -> dict[str, int]:
        """How often this machine's processors were slowed down meanwhile, by reason."""
        if self._before is None or self._after is None:
            return {}
        known = self._before.throttled
        counts = {name: count - known.get(name, count) for name, count in self._after.throttled.items()}
        return {name: count for name, count in counts.items() if count > 0}

    def _mean(self, name: str) -> float | None:
        values = [value for sample in self._samples for value in sample.get(name, ())]
        return sum(values) / len(values) if values else None

    def _highest(self, name: str) -> float | None:
        return max((sum(sample[name]) for sample in self._samples if sample.get(name)), default=None)


def usage_doubts(
    meter: Meter, *, local: bool, client_s: float | None, duration_s: float, cores: int
) -> Sequence[Doubt]:
    """The client or the machine was the limit.

    Args:
        client_s: processor time that perf_analyzer took.
        duration_s: of the measurement.
        cores: that it could use.
    """
    doubts = [
        Doubt(code="throttled", message=f"{reason}: {count} times during this point")
        for reason, count in meter.throttled().items()
    ]
    doubts += slowdowns(meter.looks)
    cpu = meter.cpu_percent
    share = client_s / (duration_s * cores) if client_s is not None and duration_s > 0 and cores else 0.0
    if cpu is not None and cpu >= FULL_PERCENT and not local:
        message = f"the client's machine was {cpu:.0f}% busy: the server may be able to do more; use a larger machine"
        doubts.append(Doubt(code="client_saturated", message=message))
    elif cpu is not None and cpu >= FULL_PERCENT and share >= CLIENT_SHARE:
        message = (
            f"client and server share a machine that was {cpu:.0f}% busy, and the client took {share:.0%} of it: alone "
            "the server can do more; run the client on another (--url)"
        )
        doubts.append(Doubt(code="client_saturated", message=message))
    return doubts


def cpu_seconds(pid: int) -> float | None:
    """Processor time that a process took so far; None where it is gone."""
    text = _read(f"/proc/{pid}/stat")
    if text is None:
        return None
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_bytes() -> int | None:
    values = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", _read("/proc/meminfo") or "", re.MULTILINE))
    if len(values) < 2:
        return None
    return (int(values["MemTotal"]) - int(values["MemAvailable"])) * 1024


def _mean_of(looks: Sequence[Look], name: str) -> float | None:
    values = [value for look in looks if (value := getattr(look, name)) is not None]
    return sum(values) / len(values) if values else None


def _most_memory(looks: Sequence[Look]) -> int | None:
    """The highest of each GPU, all of them together."""
    highest: dict[int, int] = {}
    for look in looks:
        if look.memory_bytes is not None:
            highest[look.number] = max(highest.get(look.number, 0), look.memory_bytes)
    return sum(highest.values()) if highest else None


def _percent(share: float | None) -> float | None:
    return share * 100.0 if share is not None else None


def _read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text()
    except OSError:
        return None
