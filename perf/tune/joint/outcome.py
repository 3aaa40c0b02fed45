"""From a joint search that is over to its result: rows, what each member's change did, the reason in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Literal

from perf.intervals import Interval
from perf.tune.joint.judge import JointEvidence
from perf.tune.joint.plan import JointTrial, Plan, Scene
from perf.tune.joint.result import Carried, Change, JointResult, ModelFigures, PlanRow
from perf.tune.joint.search import JointSearch
from perf.tune.joint.stage import RESOURCE, limiter_arguments
from perf.tune.outcome import fields_of
from perf.tune.reasons import gained, stayed, too_early

FEWEST_BEYOND = 3
"""Requests beyond a percentile, over all rounds, before it is taken as it is."""

_SAID = {"few_requests"}  # rounds put them together


def result_of(
    search: JointSearch,
    *,
    seconds: float,
    machine: dict[str, Any],
    kinds: Mapping[str, str],
    notes: tuple[str, ...],
    doubts: tuple[str, ...],
) -> JointResult:
    """The result of a search, finished or out of time.

    Args:
        kinds: by member, its instance group's ``kind``.
    """
    scene, evidence = search.explorer.scene, search.evidence
    default = search.baseline()
    chosen = evidence.choice(default)
    nearest = evidence.nearest() if chosen is None else None
    status: Literal["found", "default", "none"] = "none"
    if chosen is not None:
        status = "default" if chosen.plan == default.plan else "found"
    rows = [_row(evidence, trial, default) for trial in sorted(evidence.trials, key=lambda t: _order(evidence, t))] + [
        _failed(scene, trial, default, error) for trial, error in evidence.failed.items()
    ]
    shares = evidence.shares(nearest) if nearest is not None else {}
    taken = chosen if status == "found" else None
    return JointResult(
        models=tuple(wanted.model for wanted in scene.request.wanted),
        members=scene.members,
        goal=scene.request.goal,
        limits={wanted.model: wanted.limit.spell() for wanted in scene.request.wanted if wanted.limit is not None},
        load=scene.request.load,
        status=status,
        reason=_reason(search, chosen, nearest, default),
        decided=not search.out_of_time,
        default=_row(evidence, default, default),
        chosen=_row(evidence, chosen, default) if chosen is not None else None,
        nearest=_row(evidence, nearest, default) if nearest is not None else None,
        bottleneck=max(shares, key=lambda name: shares[name]) if shares else None,
        changes=tuple(_changes(search, taken, default)) if taken is not None else (),
        rows=tuple(rows),
        fields=joint_fields(scene, taken.plan, default.plan, kinds) if taken is not None else {},
        server_arguments=tuple(limiter_arguments(scene.cores)) if taken is not None and taken.plan.limited else (),
        carried=_carried(search, chosen or nearest or default),
        predicted=len(search.explorer.predictor.predicted),
        measurements=sum(map(len, evidence.rounds.values())),
        seconds=round(seconds, 1),
        notes=(*notes, *_few(_row(evidence, chosen or nearest or default, default))),
        machine=machine,
        doubts=doubts,
    )


def _few(row: PlanRow) -> Iterator[str]:
    """What rests on too few requests to say much."""
    for each in row.models:
        if each.requests * (1 - each.percentile / 100) < FEWEST_BEYOND:
            title = f"p{each.percentile:g} of {each.model}"
            yield f"{title} rests on {each.requests} requests: more --minutes, or a lower percentile"


def joint_fields(scene: Scene, plan: Plan, default: Plan, kinds: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """By member, what differs from the plan as it is, in the keys of ``models.yaml``."""
    found: dict[str, dict[str, Any]] = {}
    for name, settings in plan.parts:
        fields = fields_of(settings, default.of(name))
        if plan.limited:
            limiter = {"resources": [{"name": RESOURCE, "count": scene.threads_of(name, settings)}]}
            group = {"count": settings.instances, "kind": kinds.get(name, "KIND_CPU"), "rate_limiter": limiter}
            fields.pop("instances", None)
            fields["config"] = {"instance_group": [group]}
        if fields:
            found[name] = fields
    return found


def _order(evidence: JointEvidence, trial: JointTrial) -> tuple[bool, float]:
    holds = evidence.seems_to_hold(trial)
    return not holds, -evidence.worth(trial) if holds else evidence.share(trial)


def _ends(interval: Interval, several: bool) -> tuple[float, float] | None:
    return (interval.low, interval.high) if several else None


def _plain(scene: Scene, trial: JointTrial, default: JointTrial) -> dict[str, Any]:
    return {
        "settings": {name: asdict(settings) for name, settings in trial.plan.parts},
        "limited": trial.plan.limited,
        "title": trial.plan.spell(default.plan),
        "load": scene.load(trial),
        "cores": scene.cores_of(trial.plan),
        "memory_bytes": int(scene.memory_bytes(trial.plan)),
    }


def _row(evidence: JointEvidence, trial: JointTrial, default: JointTrial) -> PlanRow:
    rounds = list(evidence.rounds[trial].values())
    several, models = len(rounds) > 1, []
    for wanted in evidence.scene.request.wanted:
        rate, latency = evidence.rate(trial, wanted.model), evidence.latency(trial, wanted.model)
        within: Any = evidence.within(trial, wanted.model)
        models.append(
            ModelFigures(
                model=wanted.model,
                inferences_per_s=rate.value,
                inferences_interval=_ends(rate, several),
                percentile=wanted.percentile,
                latency_us=latency.value,
                latency_interval_us=_ends(latency, several),
                limit=wanted.limit.spell() if wanted.limit is not None else None,
                within_limit=within,
                requests=sum(seen.models[wanted.model].requests for seen in rounds),
            )
        )
    gain = evidence.ratio(trial, default) if trial != default else None
    codes = {code for seen in rounds for each in seen.models.values() for code in each.doubts}
    return PlanRow(
        **_plain(evidence.scene, trial, default),
        rounds=len(rounds),
        models=tuple(models),
        gain=gain.value if gain is not None else None,
        gain_interval=(gain.low, gain.high) if gain is not None and gain.low > 0 else None,
        doubts=tuple(sorted(codes - _SAID)),
    )


def _failed(scene: Scene, trial: JointTrial, default: JointTrial, error: Mapping[str, object]) -> PlanRow:
    return PlanRow(**_plain(scene, trial, default), rounds=0, error=dict(error))


def _changes(search: JointSearch, chosen: JointTrial, default: JointTrial) -> Iterator[Change]:
    """Each member that was changed, put back alone: measured where that was measured, predicted elsewhere."""
    evidence, explorer = search.evidence, search.explorer
    for name, back in search.put_back(chosen):
        known = name in explorer.scene.members
        before = default.plan.of(name).spell() if known else "off"
        after = chosen.plan.of(name).spell() if known else "on"
        ratio = evidence.ratio(chosen, back)
        if ratio is not None and ratio.low > 0:
            yield Change(name=name, before=before, after=after, factor=ratio.value, interval=(ratio.low, ratio.high))
            continue
        one, other = (explorer.scene.worth(t, explorer.predictor.expected(t)) for t in (chosen, back))
        yield Change(name=name, before=before, after=after, factor=one / other if other > 0 else None)


def _carried(search: JointSearch, trial: JointTrial) -> Carried | None:
    """None for an ensemble: ``--capacity`` and the load that is found are that question there."""
    request = search.explorer.scene.request
    if request.is_ensemble:
        return None
    factor = search.explorer.predictor.carried(trial)
    rates = {
        w.model: round(factor * (load.rate_per_s or 0.0), 2)
        for w, load in zip(request.wanted, trial.loads, strict=True)
    }
    return Carried(factor=round(factor, 3), rates_per_s=rates)


def _reason(search: JointSearch, chosen: JointTrial | None, nearest: JointTrial | None, default: JointTrial) -> str:
    evidence, request = search.evidence, search.explorer.scene.request
    if chosen is None:
        assert nearest is not None
        if evidence.count(nearest) < 2:
            return too_early(request.minutes)
        shares = evidence.shares(nearest)
        worst = max(shares, key=lambda name: shares[name])
        wanted = next(each for each in request.wanted if each.model == worst)
        latency, rate = evidence.latency(nearest, worst), evidence.rate(nearest, worst)
        limit = wanted.limit.spell() if wanted.limit is not None else "its rate"
        got = (
            f"p{wanted.percentile:g} {latency.value / 1e3:.3g} ms ({latency.low / 1e3:.3g} to {latency.high / 1e3:.3g})"
        )
        every = "the limit" if request.is_ensemble else "every limit"
        return (
            f"nothing surely keeps {every}: {worst} is the bottleneck ({limit}): in the nearest plan it has {got} "
            f"at {rate.value:.4g} inferences/s; {nearest.plan.spell(default.plan)}"
        )
    named = {"throughput": "inferences/s", "cost": "inferences/s per core"}
    headroom = any(wanted.limit for wanted in request.wanted) and not request.is_ensemble
    what = named.get(request.goal, "headroom below the limits" if headroom else "latency")
    if chosen.plan != default.plan:
        return gained(evidence, chosen, default, what)
    others = [trial for trial in evidence.trials if trial.plan != default.plan]
    return stayed(evidence, others, chosen, out_of_time=search.out_of_time)
