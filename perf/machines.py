"""Which machines are alike: the facts that must agree before two results may be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perf.result import BenchResult

GIB = 2**30
"""Memory counts in whole GiB: what the kernel keeps for itself differs from boot to boot."""


@dataclass(frozen=True)
class Difference:
    """A fact in which two results are not alike."""

    fact: str
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.fact}: {self.first} and {self.second}"


def facts_that_count(result: BenchResult) -> dict[str, str]:
    """What must agree, as text; ``unknown`` for what a machine does not tell.

    The processor, how many cores may be used, memory, architecture, C library, GPUs with their driver, and the versions
    of perf_analyzer and of the server. Not the host's name: alike machines are one machine here.
    """
    machine = result.machine
    memory = machine.get("memory_bytes")
    limit = machine.get("cpu_limit")
    return {
        "processor": _text(machine.get("cpu")),
        "cores": _text(machine.get("cores_usable") or machine.get("cores")) + (f", {limit:g} at most" if limit else ""),
        "memory": f"{round(memory / GIB)} GiB" if memory else "unknown",
        "architecture": _text(machine.get("architecture")),
        "C library": _text(machine.get("libc")),
        "GPU": "; ".join(machine.get("gpus") or ()) or "none",
        "perf_analyzer": _text(result.tool.version),
        "server": _text(result.server.get("version")),
    }


def fingerprint(facts: Mapping[str, str]) -> str:
    """Twelve hexadecimal digits that are the same for alike machines."""
    text = "\n".join(f"{name}={value}" for name, value in sorted(facts.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(first: BenchResult, second: BenchResult) -> list[Difference]:
    """In what two results' machines are not alike; empty when they may be compared."""
    one, other = facts_that_count(first), facts_that_count(second)
    return [Difference(fact, one[fact], other[fact]) for fact in one if one[fact] != other[fact]]


def _text(value: Any) -> str:
    return str(value) if value not in (None, "") else "unknown"
