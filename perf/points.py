"""One run of perf_analyzer and the server's statistics around it -> a point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perf.analyzer import CSV, EXPORT, WINDOWS, Load, Output
from perf.answers import Checked, References, check_export, wrong_answers
from perf.borders import Span
from perf.figures import latency_from, latency_of, on_schedule, windows_of
from perf.parse import (
    NS_PER_US,
    Profile,
    latency_from_csv,
    passes_of,
    read_csv,
    read_profile,
    server_side,
    strip_tensors,
)
from perf.result import Doubt, Point, Window
from perf.stability import (
    client_behind,
    few_requests,
    late_client,
    queue_growing,
    server_doubts,
    slow_start,
    unstable,
)

PROFILE = "profile.json"


@dataclass(frozen=True)
class Measured:
    """A point with what it was made of.

    Attributes:
        latency_us: of each request, [requests] in the order they were sent; None where they were not exported.
        late_us: how long after it was due each request left; None where nothing was due.
        doubts: about the answers.
        span: when it was measured; None where perf_analyzer does not tell.
    """

    point: Point
    latency_us: NDArray[np.float64] | None = None
    late_us: NDArray[np.float64] | None = None
    doubts: tuple[Doubt, ...] = ()
    span: Span | None = None


def measured(point: Point, load: Load, output: Output, right: References | None = None) -> Measured:
    """The client's figures, from every request where they were exported, else perf_analyzer's own.

    Args:
        right: the answers to look for in the export.

    Raises:
        RawFileError: a file is not what it should be.
    """
    update: dict[str, Any] = {"command": output.command}
    if not load.export:
        return Measured(point.model_copy(update=update | _own_figures(load, output)))
    export = output.folder / EXPORT
    checked = check_export(export, right, load.batch_size) if right is not None else Checked(0, 0)
    if right is not None and checked.checked:
        update |= {"checked": checked.checked, "wrong": checked.wrong}
    strip_tensors(export, output.folder / PROFILE)
    export.unlink()
    profile = read_profile(output.folder / PROFILE, _responses_each(load, output))
    if load.schedule is not None:
        profile = on_schedule(profile, load.schedule, WINDOWS, output.wake_up_us)
    kept = profile.measured()
    if load.streaming and kept.first_ns is not None and kept.responses is not None:
        begun_ns = kept.start_ns if kept.due_ns is None else kept.due_ns
        first_us = (kept.first_ns - begun_ns) / NS_PER_US
        update["first_response"] = latency_from(first_us, scheduled=kept.due_ns is not None)
        update["responses_per_s"] = float(kept.responses.sum()) / profile.duration_s
    done = of_profile(point.model_copy(update=update), profile, load.batch_size)
    span = Span(
        int(profile.boundaries_ns[0]),
        int(profile.boundaries_ns[-1]),
        int(profile.start_ns.min()),
        int(profile.end_ns.max()) if load.schedule is not None else None,
    )
    return replace(done, doubts=tuple(wrong_answers(checked, right)) if right is not None else (), span=span)


def of_profile(point: Point, profile: Profile, batch_size: int) -> Measured:
    """The client's figures of a run whose every request is known."""
    kept = profile.measured()
    update = {
        "latency": latency_of(kept),
        "duration_s": profile.duration_s,
        "inferences_per_s": profile.answered * batch_size / profile.duration_s,
        "windows": windows_of(profile, batch_size),
    }
    order = np.argsort(kept.start_ns, kind="stable")
    late_us = kept.late_us
    return Measured(
        point.model_copy(update=update),
        kept.latency_us[order],
        late_us[order] if late_us is not None else None,
    )


def _responses_each(load: Load, output: Output) -> float | None:
    """Responses to one request of a stream, as perf_analyzer counts them: without the empty one at the end."""
    if not load.streaming:
        return None
    row = read_csv(output.folder / CSV)
    if row.responses_per_s is None or not row.inferences_per_s:
        return None
    return row.responses_per_s / (row.inferences_per_s / load.batch_size)


def _own_figures(load: Load, output: Output) -> dict[str, Any]:
    row = read_csv(output.folder / CSV)
    latency = latency_from_csv(row, output.stdout)
    return {
        "latency": latency,
        "duration_s": latency.requests * load.batch_size / row.inferences_per_s,
        "inferences_per_s": row.inferences_per_s,
        "windows": tuple(
            Window(duration_s=None, requests=None, inferences_per_s=seen.inferences_per_s, mean_us=seen.mean_us)
            for seen in passes_of(output.stdout)[-WINDOWS:]
        ),
    }


def with_server(point: Point, before: Mapping[str, Any], after: Mapping[str, Any]) -> Point:
    """The point with the difference of two looks at the statistics: of the model, and of an ensemble's steps."""
    sides = {name: server_side(before[name], after[name]) for name in after if name in before}
    steps = tuple(side for name, side in sides.items() if name != point.model)
    return point.model_copy(update={"server": sides.get(point.model), "steps": steps})


def doubts_of(done: Measured, said: str, limit_percent: float) -> Iterator[Doubt]:
    """What a single run says against itself; ``said`` is what perf_analyzer printed."""
    point = done.point
    assert point.latency is not None
    yield from done.doubts
    yield from unstable(point.windows, limit_percent, offered=point.concurrency is None)
    yield from few_requests(point.latency)
    if point.server is not None:
        yield from server_doubts(point.server, point.latency.requests)
    yield from client_behind(said)
    if done.late_us is not None and done.latency_us is not None:
        yield from late_client(done.late_us, done.latency_us)
    if point.rate_per_s is not None and point.inferences_per_s is not None and point.duration_s:
        begun = sum(window.requests or 0 for window in point.windows)
        yield from queue_growing(point.windows, begun * point.batch_size / point.duration_s, point.inferences_per_s)
    if done.latency_us is not None and done.late_us is None:
        yield from slow_start(done.latency_us)
