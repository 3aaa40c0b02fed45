"""Facts of the machine, saved with every run: a number without them cannot be compared with another."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from perf.nvml import nvml_fact

_DISTRIBUTIONS = ("triton-repo", "tritonclient", "numpy")


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def machine_facts() -> dict[str, Any]:
    """Processor, memory, load, kernel, C library, GPUs and versions; None for what this machine does not tell."""
    memory = _memory_bytes()
    return {
        "hostname": platform.node(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": usable_cores(),
        "cpu_limit": _cgroup_cpus(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_bytes": memory.get("MemTotal"),
        "memory_available_bytes": memory.get("MemAvailable"),
        "load_1min": load_1min(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "gpus": _gpus(),
        "nvml": nvml_fact(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _DISTRIBUTIONS},
    }


def load_1min() -> float | None:
    """The load average of the last minute."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def cpu_times() -> tuple[int, int] | None:
    """(steal, total) of all cores since boot, in clock ticks; the difference of two is what a run lost."""
    text = _read("/proc/stat")
    if not text:
        return None
    fields = [int(value) for value in text.splitlines()[0].split()[1:9]]
    return (fields[7], sum(fields)) if len(fields) == 8 else None


def steal_percent(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    """Share of processor time that the hypervisor kept between two :func:`cpu_times`."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1]) * 100.0


def _cpu_model() -> str | None:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or None


def _memory_bytes() -> dict[str, int]:
    facts = {}
    for line in (_read("/proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        digits = value.split()
        if digits and digits[0].isdigit():
            facts[name] = int(digits[0]) * 1024
    return facts


def _cgroup_cpus() -> float | None:
    """Cores that a container may use (cgroup v2, then v1), None without a limit."""
    if (text := _read("/sys/fs/cgroup/cpu.max")) and not text.startswith("max"):
        quota, period = text.split()[:2]
        return int(quota) / int(period)
    quota_v1 = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
    period_v1 = _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    if quota_v1 and period_v1 and int(quota_v1) > 0:
        return int(quota_v1) / int(period_v1)
    return None


def _gpus() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
        if answer.returncode == 0:
            return answer.stdout.strip().splitlines()
    return []


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
