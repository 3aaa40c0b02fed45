"""The order of a search, from a request to a result: find the variants, start the server, time, search, conclude."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perf.binary import find_binary
from perf.environment import cpu_times, load_1min, machine_facts, steal_percent
from perf.presence import Presence
from perf.stability import machine_doubts
from perf.tune.curve import Curve, supposed
from perf.tune.journal import Journal
from perf.tune.judge import Evidence, Measured
from perf.tune.measuring import Meter
from perf.tune.outcome import result_of
from perf.tune.predict import Predictor, Trial
from perf.tune.request import TuneRequest
from perf.tune.result import TuneResult
from perf.tune.resumable import resumable
from perf.tune.search import SHORT_MINUTES, Search
from perf.tune.space import Space, space_of
from perf.tune.stage import Stage, open_stage
from perf.tune.variants import Variant, find_variants
from serving.errors import TritonRepoError
from serving.progress import SILENT, Reporter

CURVES_SHARE = 0.15
"""Of the time, for the curves together."""
CURVE_S = 8.0
LEAST_CURVE_S = 3.0
"""What one takes whatever it is given: loading, and a few executions of every batch."""
SECONDS = 1.2
"""One trial in one round; less where the time is short. Many short rounds say more than few long ones."""
SHORT_SECONDS = 0.5


def tune(
    request: TuneRequest,
    *,
    journal: Path | None = None,
    resume: bool = False,
    capacity_rate: float | None = None,
    reporter: Reporter = SILENT,
) -> TuneResult:
    """Search for the configuration that serves a model best on this machine.

    Args:
        request: what to search for.
        journal: where to keep what was measured; None for nowhere.
        resume: go on with what the journal holds.
        capacity_rate: also say how many machines this many requests per second need.
        reporter: told what is going on.

    Returns:
        What was found, ``status`` says whether anything was.

    Raises:
        TuneUsageError: the model is not there, or of a kind that is not tuned.
        TuneError: the journal cannot be used; perf_analyzer gave nothing for the default.
        AnalyzerUnavailableError, ServerStartError, ServerUnavailableError, ModelLoadError: no tool, server, or model.
    """
    started_s = time.monotonic()
    variants = find_variants(request.repository, request.model)
    machine, load_before, ticks = machine_facts(), load_1min(), cpu_times()
    kept = Journal(journal, _about(request, variants, machine), resume=resume)
    if resume and kept.resumed:
        reporter.info(f"resuming: curves {len(kept.curves)}, measurements {len(kept.measured)}, from {journal}")
    binary = find_binary(reporter=reporter)
    with (
        Presence() as presence,
        tempfile.TemporaryDirectory(prefix="tune-repo-raw-") as raw,
        open_stage(variants, reporter=reporter) as stage,
    ):
        if others := presence.look():
            reporter.warn(f"another benchmark runs on this machine (process {min(others)}): both measure each other")
        # Finding a server and a tool may mean a download, once: that is not searching.
        began_s = time.monotonic()
        space, curves = _timed(stage, variants, request, kept, machine, reporter)
        seconds = SECONDS if request.minutes >= SHORT_MINUTES else SHORT_SECONDS
        meter = Meter(stage, binary, Path(raw), seconds, request.percentile)

        def measure(trial: Trial, number: int, latency_us: float) -> Measured:
            return meter.measure(trial, number, latency_us)

        search = Search(
            request,
            space,
            Predictor(curves, request.percentile),
            Evidence(request.goal, request.limit, space.cores),
            measure,
            kept,
            began_s + request.minutes * 60,
            reporter,
        )
        with resumable(kept, lambda: len(kept.measured), stage.target, reporter):
            search.run()
        doubts = [*machine_doubts(load_before, space.cores, steal_percent(ticks, cpu_times())), *presence.doubts()]
        return result_of(
            search,
            seconds=time.monotonic() - started_s,
            machine=machine,
            capacity_rate=capacity_rate,
            doubts=tuple(doubt.message for doubt in doubts),
        )


def _timed(
    stage: Stage,
    variants: tuple[Variant, ...],
    request: TuneRequest,
    kept: Journal,
    machine: Mapping[str, Any],
    reporter: Reporter,
) -> tuple[Space, dict[tuple[str, int | None], Curve]]:
    """What may be tried, and the curves of what can be timed; a variant that cannot be timed is left out."""
    usable = [variant for variant in variants if variant.name in stage.configs]
    cores = int(machine.get("cores_usable") or os.cpu_count() or 1)
    first = space_of(usable, stage.configs, cores=cores, free_bytes=free_memory_bytes())
    curves = {(curve.variant, curve.threads): curve for curve in kept.curves}
    wanted = [key for key in first.curves() if key not in curves]
    all_s = CURVES_SHARE * request.minutes * 60
    if len(wanted) * LEAST_CURVE_S > all_s:  # then numbers of threads for one variant alone
        wanted = [key for key in wanted if first.default.variant == key[0] or first.default.threads == key[1]]
    seconds = min(CURVE_S, all_s / max(1, len(wanted)))
    for variant, threads in wanted:
        title = f"time {variant or request.model}" + (f" with {threads} threads" if threads else "")
        with reporter.step(title) as step:
            try:
                curve = stage.curve(variant, threads, max(first.instances), max(first.max_batch_sizes), seconds)
            except TritonRepoError as error:
                if (variant, threads) == (first.default.variant, first.default.threads) or not stage.client.is_live():
                    raise
                step.done("failed", error.what)
                continue
            curves[variant, threads] = curve
            kept.curve(curve)
            step.done("timed", f"{curve.time_us(1, 1):.0f} us at batch 1, {_at_most(curve)}")
    base = curves[first.default.variant, first.default.threads]
    for variant, threads in first.curves():
        seen, other = curves.get((variant, first.default.threads)), curves.get((first.default.variant, threads))
        untimed = (variant, threads) not in curves and (variant, threads) not in wanted
        if untimed and seen is not None and other is not None:
            curves[variant, threads] = supposed(seen, threads, base, other)
    space = space_of(
        [variant for variant in usable if any(name == variant.name for name, _ in curves)],
        stage.configs,
        cores=cores,
        free_bytes=free_memory_bytes(),
        run_us=base.time_us(1, 1),
    )
    return space, curves


def _at_most(curve: Curve) -> str:
    largest = max(timing.batch for timing in curve.timings)
    return f"{curve.time_us(largest, 1) / largest:.0f} us each at batch {largest}"


def free_memory_bytes() -> int | None:
    """Memory that could be used without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _about(request: TuneRequest, variants: tuple[Variant, ...], machine: Mapping[str, Any]) -> dict[str, Any]:
    """What a journal is of: measurements of anything else are no use."""
    return {
        "model": request.model,
        "variants": {variant.model: variant.digest or str(variant.version) for variant in variants},
        "percentile": request.percentile,
        "machine": {key: machine.get(key) for key in ("cpu", "cores_usable", "hostname") if key in machine},
    }
