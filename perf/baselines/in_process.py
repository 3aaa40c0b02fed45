"""A baseline that runs in a process of its own without a server: raw onnxruntime, or the eager module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from perf.analyzer import INTERVALS, STDERR, WINDOWS, Load
from perf.answers import Checked, differences, wrong_answers
from perf.baselines.child import Child, python_command, write_requests
from perf.errors import BaselineError, RawFileError
from perf.failures import unwritable
from perf.figures import on_schedule
from perf.parse import Profile
from perf.points import Measured, doubts_of, of_profile
from perf.runner import (
    SLOWEST_ANSWER_S,
    WARM_UP_CONCURRENCY,
    WARM_UP_S,
    WARM_UP_WINDOWS,
    Run,
    point_of,
    safe_name,
    summary,
)
from perf.target import Subject
from perf.usage import Meter, usage_doubts
from perf.workload import ALONE_S
from serving.errors import TritonRepoError

LEAD_IN = 0.1
"""Share of the measured time that a concurrency runs before; as of a schedule."""

TRACE = "trace.npz"
REQUESTS = "requests.npz"


@dataclass(frozen=True)
class Plan:
    """What the process is to open.

    Attributes:
        entry: ``module:function`` that gives the runners; see :mod:`perf.baselines.worker`.
        arguments: for it, plain data.
        instances: how many requests are answered at once.
        python: interpreter of the process; ours by default.
        golden: the right answers are the golden ones, which are the original's; else those of the served file.
    """

    entry: str
    arguments: Mapping[str, Any]
    instances: int
    python: Path | None = None
    golden: bool = False


@dataclass
class InProcess:
    """Measures one model in process, with the same requests at the same loads as ``run`` does at the server.

    A context manager: the process is started by :meth:`warm_up` and ends with the block.
    """

    run: Run
    plan: Plan
    model: str
    facts: dict[str, str] = field(default_factory=dict)
    child: Child | None = None

    def __enter__(self) -> InProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.child is not None:
            self.child.end()

    def warm_up(self, subject: Subject) -> Load:
        """Start the process and run the largest load for a moment; what it shows sets the windows.

        Raises:
            BaselineError: it does not start, or raised.
        """
        try:
            return self._warm_up(subject)
        except OSError as exc:
            raise unwritable(exc, self._folder(subject)) from exc

    def _warm_up(self, subject: Subject) -> Load:
        workload, folder = self.run.workload, self._folder(subject)
        assert subject.spec is not None and subject.data is not None
        folder.mkdir(parents=True)
        write_requests(subject.spec, subject.data, workload.batch_size, folder / REQUESTS)
        with self.run.reporter.step(f"{subject.name}: warm up") as step:
            self.child = Child(python_command("perf.baselines.worker", self.plan.python), folder / STDERR, subject.name)
            self.child.order(
                {
                    "entry": self.plan.entry,
                    "arguments": dict(self.plan.arguments),
                    "requests": str(folder / REQUESTS),
                    "instances": self.plan.instances,
                }
            )
            self.facts.update(self.child.hear()["ready"])
            seconds = workload.seconds or ALONE_S
            load = Load(
                model=subject.name,
                address="",
                protocol=workload.protocol,
                concurrency=max(workload.concurrency, default=WARM_UP_CONCURRENCY),
                batch_size=workload.batch_size,
                shared_memory="none",
                window_s=min(WARM_UP_S, seconds),
                windows=WARM_UP_WINDOWS,
            )
            place = folder / "warm-up"
            place.mkdir()
            profile = self._load(load, place)
            load = replace(load, window_s=max(seconds / WINDOWS, 2 * float(profile.latency_us.mean()) / 1e6))
            step.done("warm")
        return replace(load, windows=WINDOWS)

    def _load(self, load: Load, place: Path, at: Mapping[str, Callable[[], None]] | None = None) -> Profile:
        """Run one load, with longer windows where one passed without an answer."""
        assert self.child is not None
        order: dict[str, Any] = {"to": str(place / TRACE)}
        if load.schedule is not None:
            np.save(place / "due.npy", load.schedule.due_us)
            order["due"] = str(place / "due.npy")
        else:
            windows = {"lead_s": LEAD_IN * load.window_s * load.windows, "window_s": load.window_s}
            order |= {"concurrency": load.concurrency, "windows": load.windows, **windows}
        self.child.order(order)
        answered = self.child.until("done", self.run.patience_s(load), at)
        if not answered:
            if load.window_s >= SLOWEST_ANSWER_S:
                raise BaselineError(
                    "no request was answered within a window",
                    where=load.model,
                    expected=f"an answer within {SLOWEST_ANSWER_S:.0f} s",
                    got="none",
                    fix="a smaller --batch-size, or leave this baseline out",
                )
            return self._load(replace(load, window_s=min(SLOWEST_ANSWER_S, load.window_s * 5)), place, at)
        return _profile(place / TRACE, load)

    def measure(self, subject: Subject, load: Load, place_name: str) -> Measured:
        """Measure it once, as :meth:`perf.runner.Run.measure` does; what goes wrong is part of the answer."""
        assert subject.spec is not None and self.child is not None
        place, schedule = self._folder(subject) / place_name, load.schedule
        raw = str(place.relative_to(self.run.folder))
        point = point_of(subject, load).model_copy(update={"raw": raw, "command": self.child.command})
        with self.run.reporter.step(f"{subject.name}: {place_name.replace('-', ' ')}") as step:
            meter = Meter(local=True, url=None, gpus=self.run.gpus)
            try:
                place.mkdir()
                if schedule is not None:
                    schedule.write(place / INTERVALS)
                with meter:
                    profile = self._load(load, place, {"begun": meter.begin, "measured": meter.end})
                checked = self._checked(subject, place / TRACE, load.batch_size)
                done = of_profile(point, profile, load.batch_size)
            except TritonRepoError as error:
                step.done("failed", error.what)
                return Measured(point.model_copy(update={"error": error.as_dict()}))
            except OSError as exc:
                failed = unwritable(exc, place)
                step.done("failed", failed.what)
                return Measured(point.model_copy(update={"error": failed.as_dict()}))
            doubts = tuple(doubts_of(done, "", self.run.workload.stability_percentage))
            duration_s = done.point.duration_s or 1.0
            doubts += tuple(usage_doubts(meter, local=True, client_s=None, duration_s=duration_s, cores=0))
            update: dict[str, Any] = {"usage": meter.usage}
            if checked is not None and checked.checked:
                update |= {"checked": checked.checked, "wrong": checked.wrong}
                doubts += tuple(wrong_answers(checked))
            done = replace(done, point=done.point.model_copy(update=update | {"doubts": doubts}))
            step.done("measured", summary(done.point))
        return done

    def _checked(self, subject: Subject, path: Path, batch_size: int) -> Checked | None:
        """The last answer to each request, held against the right ones; None where none are known."""
        assert subject.spec is not None and subject.data is not None
        if any(tensor.dtype.triton in ("BYTES", "BF16") for tensor in subject.spec.outputs):
            return None
        served = self.run.right.get(self.model)
        right = dict(enumerate(subject.data.expected)) if self.plan.golden else served.answers if served else {}
        found: dict[int, dict[str, Any]] = {}
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                if key.startswith("answer/"):
                    _, number, name = key.split("/", 2)
                    found.setdefault(int(number), {})[name] = archive[key]
        return differences(right, found, batch_size, len(subject.data.requests)) if right else None

    def _folder(self, subject: Subject) -> Path:
        return self.run.folder / "raw" / safe_name(subject.name)


def _profile(path: Path, load: Load) -> Profile:
    try:
        with np.load(path, allow_pickle=False) as archive:
            start_ns, end_ns, edges_ns = archive["start_ns"], archive["end_ns"], archive["edges_ns"]
    except (OSError, ValueError, KeyError) as exc:
        fix = "free space where --output (or $TMPDIR) is, and run it again"
        raise RawFileError("the times of a baseline cannot be read", where=str(path), got=str(exc), fix=fix) from exc
    profile = Profile(start_ns, end_ns, edges_ns)
    return on_schedule(profile, load.schedule, WINDOWS) if load.schedule is not None else profile
