"""What the GPUs of this machine do, as their driver tells it (NVML): use, memory, power, clocks, what slows them down.

Needs the package ``nvidia-ml-py`` and a driver. Without either nothing is read, and :func:`nvml_fact` says which is
missing.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf.result import Doubt

SLOWED = {
    0x0000000000000004: "the power limit",
    0x0000000000000008: "a hardware slowdown (heat or power)",
    0x0000000000000010: "the slower GPUs that its clock is bound to (sync boost)",
    0x0000000000000020: "heat (the driver's limit)",
    0x0000000000000040: "heat (the hardware's limit)",
    0x0000000000000080: "the external power brake",
    0x0000000000000200: "the board's limits",
    0x0000000000000400: "the reliability voltage limit",
}
"""Bits of NVML's clocks event reasons. The others are no slowdown: idle, clocks that someone has set, a display."""

NOTED_SHARE = 0.05
"""Of the looks at a GPU: below this a slowdown is not mentioned."""

NOT_INSTALLED = "not read: nvidia-ml-py is not installed (pip install 'triton-repo[nvml]')"
_DEVICES = "/dev"


@dataclass(frozen=True)
class Look:
    """One GPU at one moment; None for what it does not tell.

    Attributes:
        number: of the GPU, as nvidia-smi counts.
        clock_mhz: of its multiprocessors; ``highest_mhz`` what it could be.
        reasons: why the clock is not higher, NVML's bits.
    """

    number: int
    percent: float | None = None
    memory_bytes: int | None = None
    power_w: float | None = None
    clock_mhz: float | None = None
    highest_mhz: float | None = None
    reasons: int | None = None


class Gpus:
    """The GPUs that NVML sees.

    Args:
        library: the module ``pynvml``, initialized.
    """

    def __init__(self, library: Any) -> None:
        self._nvml = library
        numbers = range(int(library.nvmlDeviceGetCount()))
        handles = {number: library.nvmlDeviceGetHandleByIndex(number) for number in numbers}
        wanted = visible(
            os.environ.get("CUDA_VISIBLE_DEVICES"), {n: self._uuid(handle) for n, handle in handles.items()}
        )
        self._handles = {number: handles[number] for number in wanted}

    def __len__(self) -> int:
        return len(self._handles)

    def look(self) -> list[Look]:
        """Each of them now."""
        return [self._look(number, handle) for number, handle in self._handles.items()]

    def close(self) -> None:
        """Let the library go."""
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def _look(self, number: int, handle: Any) -> Look:
        nvml = self._nvml
        use = self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        memory = self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used)
        power_mw = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        reasons = self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
        if reasons is None:  # drivers before 535 know it by its older name
            reasons = self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        return Look(
            number=number,
            percent=use,
            memory_bytes=int(memory) if memory is not None else None,
            power_w=power_mw / 1000 if power_mw is not None else None,
            clock_mhz=self._ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            highest_mhz=self._ask(lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)),
            reasons=int(reasons) if reasons is not None else None,
        )

    def _uuid(self, handle: Any) -> str:
        try:
            uuid = self._nvml.nvmlDeviceGetUUID(handle)
        except self._nvml.NVMLError:
            return ""
        return uuid.decode() if isinstance(uuid, bytes) else str(uuid)

    def _ask(self, question: Callable[[], Any]) -> float | None:
        """A number, None where this GPU or driver does not tell it (some do not, MIG instances in particular)."""
        try:
            return float(question())
        except (self._nvml.NVMLError, AttributeError):
            return None


def visible(setting: str | None, uuids: dict[int, str]) -> list[int]:
    """The GPUs that a server started from here would see; NVML itself shows all.

    Args:
        setting: ``CUDA_VISIBLE_DEVICES``: numbers or the beginnings of UUIDs; what follows one that is not there is not
            seen. None for all.
        uuids: of the GPUs, by number.
    """
    if setting is None:
        return list(uuids)
    found = []
    for part in (each.strip() for each in setting.split(",")):
        numbers = [
            n for n, uuid in uuids.items() if part == str(n) or (part.startswith("GPU-") and uuid.startswith(part))
        ]
        if len(numbers) != 1:
            break
        found += numbers
    return list(dict.fromkeys(found))


def open_gpus() -> tuple[Gpus | None, str]:
    """The GPUs of this machine, and what is to be said of NVML; None with the reason where they cannot be read."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None, NOT_INSTALLED
    try:
        nvml.nvmlInit()
        version = nvml.nvmlSystemGetDriverVersion()
        gpus = Gpus(nvml)
    except nvml.NVMLError as exc:
        return None, f"not read: {exc}"
    version = version.decode() if isinstance(version, bytes) else str(version)
    if not len(gpus):
        gpus.close()
        return None, f"not read: driver {version} shows no GPU"
    return gpus, f"driver {version}"


@contextlib.contextmanager
def gpus_here(*, wanted: bool = True) -> Iterator[Gpus | None]:
    """The GPUs of this machine for the length of a block; None where they are not wanted or cannot be read."""
    gpus = open_gpus()[0] if wanted else None
    try:
        yield gpus
    finally:
        if gpus is not None:
            gpus.close()


def nvml_fact() -> str | None:
    """What is written into the facts of a machine; None where there is neither a GPU nor the package."""
    gpus, said = open_gpus()
    if gpus is not None:
        gpus.close()
    return said if said != NOT_INSTALLED or any(Path(_DEVICES).glob("nvidia[0-9]*")) else None


def slowdowns(looks: Sequence[Look]) -> Iterator[Doubt]:
    """GPUs whose clocks were held down while they were looked at, with how often and why."""
    for number in sorted({look.number for look in looks}):
        own = [look for look in looks if look.number == number and look.reasons is not None]
        counts = Counter(why for look in own for bit, why in SLOWED.items() if look.reasons and look.reasons & bit)
        parts = [
            f"{why} in {count / len(own):.0%}" for why, count in counts.most_common() if count >= NOTED_SHARE * len(own)
        ]
        if not parts:
            continue
        clocks = [look.clock_mhz for look in own if look.clock_mhz is not None]
        highest = max((look.highest_mhz for look in own if look.highest_mhz is not None), default=None)
        ran = f"; it ran at {sum(clocks) / len(clocks):.0f} MHz" if clocks else ""
        ran += f" of {highest:.0f}" if ran and highest else ""
        message = f"GPU {number} was slowed down by {', '.join(parts)} of {len(own)} looks{ran}"
        yield Doubt(code="clock_throttled", message=message)
