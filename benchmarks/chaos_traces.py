"""Where a build is, or was when it was killed: from the traces of publishing on the disk, and from what it said."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from benchmarks.chaos_models import Models
from builder.repository.published import ModelFolder

STEPS = ("source", "samples", "reference", "export", "parity", "config", "contract", "serve", "publish")
TRACES = ("staged whole", "next config ready", "version", "config.pbtxt")
"""How the traces of publishing begin, in their order: see :meth:`Traces.of`."""


class Traces:
    """What the builds of these models leave on the disk.

    Args:
        models: which.
    """

    def __init__(self, models: Models) -> None:
        self._models = models

    def of(self, name: str) -> set[str]:
        """The traces of publishing that can be seen: see TRACES for how they begin."""
        model = ModelFolder(self._models.repository, name)
        found = {f"version {number}" for number in model.numbers()}
        if any(self._models.build_dir.glob(f"staging/*/*/repository/{name}/*/manifest.json")):
            found.add("staged whole")
        with contextlib.suppress(OSError):
            found.add(f"next config ready {model.next_config.stat().st_ino}")
        with contextlib.suppress(OSError):
            found.add(f"config.pbtxt {model.path.joinpath('config.pbtxt').stat().st_ino}")
        return found

    def coming(self, name: str, trace: str) -> Callable[[], bool]:
        """Whether a trace of publishing a model is there: asked as often as possible, for publishing is short."""
        model = ModelFolder(self._models.repository, name)
        version = max(model.numbers(), default=0) + 1
        if trace == "staged whole":
            staged = self._models.build_dir.glob(f"staging/*/*/repository/{name}")
            places = [folder / str(version) / "manifest.json" for folder in staged]
            return lambda: any(place.exists() for place in places)
        if trace == "version":
            return model.folder(version).exists
        path = model.next_config if trace == "next config ready" else model.path / "config.pbtxt"
        before = _identity(path)
        return lambda: _identity(path) not in (None, before)

    def where(self, spec: str, before: dict[str, set[str]], lines: list[str], alive: set[str]) -> str:
        """Where the build was, as far as it can be told."""
        for name in self._models.names(spec):
            new = self.of(name) - before[name]
            model = ModelFolder(self._models.repository, name)
            if model.pending() is not None and any(trace.startswith("version") for trace in new):
                return "publish: version in place, not served"
            if any(trace.startswith("next config") for trace in new):
                return "publish: next config ready, version not in place"
            if "staged whole" in new:
                return "publish: staged whole, not in the repository"
            if any(trace.startswith("config.pbtxt") for trace in new) and (name, "publish") not in map(finished, lines):
                return "publish: just served"
        steps = [done for line in lines if (done := finished(line)) is not None]
        if not steps:
            return "start: server" if "tritonserver" in alive else "start: imports"
        _, step = steps[-1]
        if step == "publish":
            return "after the first model"
        return STEPS[STEPS.index(step) + 1]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns


def finished(line: str) -> tuple[str, str] | None:
    """The model and step of a line that says that a step is done: "alpha: export  done  0.1 s"."""
    title, _, rest = line.partition("  ")
    name, _, step = title.partition(": ")
    good = step in STEPS and rest.split("  ")[0] in ("done", "cached", "built", "up to date")
    return (name, step) if good else None
