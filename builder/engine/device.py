"""The NVIDIA GPU of this machine, asked without importing anything of NVIDIA's."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_QUESTION = "--query-gpu=name,compute_cap,driver_version,uuid"
_DEVICES = ("nvidia[0-9]*", "dxg")  # the second under Windows' Linux


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: what it calls itself.
        capability: its compute capability, ``8.6``.
        driver: the version of the driver.
        uuid: what ``CUDA_VISIBLE_DEVICES`` takes, whatever the order of the GPUs.
    """

    name: str
    capability: str
    driver: str
    uuid: str = ""


def has_gpu() -> bool:
    """True when the kernel shows a device of NVIDIA's; costs nothing."""
    return any(any(Path("/dev").glob(pattern)) for pattern in _DEVICES)


def driver_version() -> str | None:
    """The version of the kernel's driver, or None."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return next((word for word in text.split() if word.count(".") >= 1 and word.replace(".", "").isdigit()), None)


def gpus() -> tuple[Gpu, ...]:
    """Every GPU, as ``nvidia-smi`` tells it; none where there is no such command or it fails."""
    command = shutil.which("nvidia-smi") if has_gpu() else None
    if command is None:
        return ()
    try:
        done = subprocess.run([command, _QUESTION, "--format=csv,noheader"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse(done.stdout) if done.returncode == 0 else ()


def parse(answer: str) -> tuple[Gpu, ...]:
    """What ``nvidia-smi`` answers to the question above, a GPU per line."""
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
    return tuple(Gpu(*row) for row in rows if len(row) == 4 and row[1].replace(".", "").isdigit())
