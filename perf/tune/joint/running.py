"""The order of a joint search: start the server, time each member, measure and predict plans, conclude."""

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
from perf.tune.curve import Curve
from perf.tune.joint.explore import Explorer
from perf.tune.joint.judge import JointEvidence, Seen
from perf.tune.joint.kept import curves_of, keep_curve, keep_round, rounds_of
from perf.tune.joint.measuring import JointMeter
from perf.tune.joint.outcome import result_of
from perf.tune.joint.plan import JointTrial, Scene, way_of
from perf.tune.joint.predict import CurveKey, JointPredictor
from perf.tune.joint.request import JointRequest
from perf.tune.joint.result import JointResult
from perf.tune.joint.search import JointSearch
from perf.tune.joint.stage import JointStage, open_joint_stage, threads_by_default
from perf.tune.journal import Journal
from perf.tune.resumable import resumable
from perf.tune.running import CURVE_S, CURVES_SHARE, SECONDS, SHORT_SECONDS, free_memory_bytes
from perf.tune.search import SHORT_MINUTES
from perf.tune.space import Space, space_of
from perf.tune.variants import find_variants
from serving.errors import TritonRepoError
from serving.progress import SILENT, Reporter


def tune_jointly(
    request: JointRequest, *, journal: Path | None = None, resume: bool = False, reporter: Reporter = SILENT
) -> JointResult:
    """Search for the plan that serves several models, or the steps of an ensemble, best on this machine.

    Args:
        request: what to search for.
        journal: where to keep what was measured; None for nowhere.
        resume: go on with what the journal holds.
        reporter: told what is going on.

    Returns:
        What was found, ``status`` says whether anything was.

    Raises:
        TuneUsageError: a model is not there, or of a kind that is not tuned.
        TuneError: the journal cannot be used; perf_analyzer gave nothing for the models as they are.
        AnalyzerUnavailableError, ServerStartError, ServerUnavailableError, ModelLoadError: no tool, server, or model.
    """
    started_s = time.monotonic()
    machine, load_before, ticks = machine_facts(), load_1min(), cpu_times()
    cores = int(machine.get("cores_usable") or os.cpu_count() or 1)
    kept = Journal(journal, _about(request, machine), resume=resume)
    if resume and kept.resumed:
        reporter.info(f"resuming: curves and measurements {len(kept.others)}, from {journal}")
    binary = find_binary(reporter=reporter)
    with (
        Presence() as presence,
        tempfile.TemporaryDirectory(prefix="tune-repo-raw-") as raw,
        open_joint_stage(
            request.repository,
            tuple(wanted.model for wanted in request.wanted),
            ensemble=request.is_ensemble,
            limiter=cores if request.rate_limiter else None,
            reporter=reporter,
        ) as stage,
    ):
        if others := presence.look():
            reporter.warn(f"another benchmark runs on this machine (process {min(others)}): both measure each other")
        began_s = time.monotonic()
        with resumable(kept, lambda: len(rounds_of(kept)), stage.target, reporter):
            scene = _scene(request, stage, cores)
            spaces, curves = _timed(scene, stage, kept, reporter)
            evidence = JointEvidence(scene)
            seconds = SECONDS if request.minutes >= SHORT_MINUTES else SHORT_SECONDS
            meter = JointMeter(scene, stage, binary, Path(raw), seconds)

            def keep(trial: JointTrial, number: int, seen: Seen) -> None:
                keep_round(kept, trial, number, seen)

            search = JointSearch(
                Explorer(scene, spaces, JointPredictor(scene, curves), free_memory_bytes()),
                evidence,
                meter.measure,
                keep,
                began_s + request.minutes * 60,
                reporter,
            )
            search.run(rounds_of(kept))
        doubts = [*machine_doubts(load_before, cores, steal_percent(ticks, cpu_times())), *presence.doubts()]
        return result_of(
            search,
            seconds=time.monotonic() - started_s,
            machine=machine,
            kinds={name: _kind(stage, name) for name in scene.members},
            notes=tuple(f"{name}: {note}" for name, space in spaces.items() for note in space.notes),
            doubts=tuple(doubt.message for doubt in doubts),
        )


def _scene(request: JointRequest, stage: JointStage, cores: int) -> Scene:
    served = {name: next(iter(each.configs.values())) for name, each in stage.stages.items()}
    return Scene(
        request,
        tuple(stage.stages),
        cores,
        way=way_of(stage.ensemble) if stage.ensemble is not None else None,
        threads={name: threads_by_default(config, cores) for name, config in served.items()},
        variants={name: each.variants for name, each in stage.stages.items()},
    )


def _kind(stage: JointStage, member: str) -> str:
    groups = next(iter(stage.stages[member].configs.values())).get("instance_group") or [{}]
    return str(groups[0].get("kind") or "KIND_CPU")


def _timed(
    scene: Scene, stage: JointStage, kept: Journal, reporter: Reporter
) -> tuple[dict[str, Space], dict[CurveKey, Curve]]:
    """What may be tried, and the curves of what can be timed; a variant that cannot be timed is left out."""
    curves = curves_of(kept)
    spaces = {name: _space(stage, name, scene.cores, 1000.0, None) for name in scene.members}
    wanted = [
        (name, variant, threads)
        for name, space in spaces.items()
        for variant, threads in space.curves()
        if (name, variant, threads) not in curves
    ]
    seconds = min(CURVE_S, CURVES_SHARE * scene.request.minutes * 60 / max(1, len(wanted)))
    for name, variant, threads in wanted:
        space, member = spaces[name], stage.stages[name]
        title = f"time {name}" + (f" {variant}" if variant else "") + (f" with {threads} threads" if threads else "")
        with reporter.step(title) as step:
            try:
                curve = member.curve(variant, threads, max(space.instances), space.default.max_batch_size, seconds)
            except TritonRepoError as error:
                if (variant, threads) == (space.default.variant, space.default.threads) or not stage.client.is_live():
                    raise
                step.done("failed", error.what)
                continue
            curves[name, variant, threads] = curve
            keep_curve(kept, name, curve)
            step.done("timed", f"{curve.time_us(1, 1):.0f} us at batch 1")
    found = {}
    for name, space in spaces.items():
        base = curves[name, space.default.variant, space.default.threads]
        timed = {variant for member, variant, _ in curves if member == name}
        found[name] = _space(stage, name, scene.cores, base.time_us(1, 1), timed)
    return found, curves


def _space(stage: JointStage, name: str, cores: int, run_us: float, timed: set[str] | None) -> Space:
    member = stage.stages[name]
    usable = [each for each in member.variants.values() if each.name in member.configs]
    usable = [each for each in usable if timed is None or each.name in timed]
    return space_of(usable, member.configs, cores=cores, free_bytes=free_memory_bytes(), run_us=run_us)


def _about(request: JointRequest, machine: Mapping[str, Any]) -> dict[str, Any]:
    """What a journal is of: measurements of anything else are no use."""
    variants = {}
    for wanted in request.wanted:
        for each in find_variants(request.repository, wanted.model):
            variants[each.model] = each.digest or str(each.version)
    return {
        "models": [wanted.model for wanted in request.wanted],
        "variants": variants,
        "loads": request.load,
        "percentiles": [wanted.percentile for wanted in request.wanted],
        "machine": {key: machine.get(key) for key in ("cpu", "cores_usable", "hostname") if key in machine},
    }
