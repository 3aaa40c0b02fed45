"""Which distributions are installed, in which version: read from the names of folders, which takes milliseconds."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from builder.artifact import sha256_of


def normal(name: str) -> str:
    """A distribution's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@lru_cache(maxsize=32)
def installed(without: Path | None = None) -> dict[str, str]:
    """Version of every installed distribution by normalised name; found once per process.

    One that was installed from a folder or an archive of the user's, and so may change under the same version, has the
    hash of its list of files added. To be asked before the user's code can put folders on ``sys.path``.

    Args:
        without: a folder that does not count: that of a spec is on the path or not, depending on how we are started.
    """
    found: dict[str, str] = {}
    for entry in map(Path, sys.path):
        if entry == without:
            continue
        for folder, version in _distributions(entry):
            name = normal(folder.name.rpartition(".")[0].split("-")[0])
            if name not in found:
                found[name] = version + _local(folder)
    return found


def _distributions(place: Path) -> Iterator[tuple[Path, str]]:
    try:
        names = os.listdir(place)  # noqa: PTH208 - names are all we want of a thousand entries
    except OSError:
        return
    for name in sorted(names):
        if name.endswith((".dist-info", ".egg-info")):
            parts = name.rpartition(".")[0].split("-")
            yield place / name, parts[1] if len(parts) > 1 else ""


def _local(folder: Path) -> str:
    if not (folder / "direct_url.json").exists():
        return ""
    with contextlib.suppress(OSError):
        return "+" + sha256_of(folder / "RECORD")[:12]
    return ""


def version_of(name: str, *, without: Path | None = None) -> str:
    """Installed version of a distribution, ``absent`` where there is none; see :func:`installed`.

    ONNX Runtime comes under several names (``onnxruntime-gpu``): all that are here count.
    """
    here = installed(without)
    if name != "onnxruntime":
        return here.get(normal(name), "absent")
    found = [other for other in sorted(here) if other == name or other.startswith(f"{name}-")]
    return ", ".join(here[other] if other == name else f"{other} {here[other]}" for other in found) or "absent"


def distributions_of(modules: Iterable[str]) -> set[str]:
    """Names of the distributions that these top-level modules came with."""
    table = _distributions_by_module()
    return {normal(name) for module in modules for name in table.get(module, ())}


@lru_cache(maxsize=1)
def _distributions_by_module() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())
