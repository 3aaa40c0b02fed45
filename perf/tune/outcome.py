"""From a search that is over to its result: rows, what each knob did, the fields for the spec, the reason in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, Literal

from perf.tune.capacity import capacity_for
from perf.tune.judge import Evidence
from perf.tune.predict import Trial
from perf.tune.reasons import gained, stayed, too_early
from perf.tune.result import Capacity, Knob, Row, TuneResult
from perf.tune.search import Search
from perf.tune.space import KNOBS, THREADS, Settings

_SAID = {"few_requests"}  # rounds put them together
_Within = Literal["yes", "no", "unsure"]


def result_of(
    search: Search, *, seconds: float, machine: dict[str, Any], capacity_rate: float | None, doubts: tuple[str, ...]
) -> TuneResult:
    """The result of a search, finished or out of time."""
    request, evidence = search.request, search.evidence
    default = search.baseline()
    chosen = evidence.choice(default)
    nearest = evidence.nearest() if chosen is None else None
    status: Literal["found", "default", "none"] = "none"
    if chosen is not None:
        status = "default" if chosen.settings == default.settings else "found"
    trials = sorted(evidence.trials, key=evidence.worth, reverse=True)
    rows = [_row(evidence, trial, default) for trial in trials]
    rows += [_failed(evidence, trial) for trial in evidence.failed]
    notes = list(search.space.notes)
    capacity: Capacity | None = None
    if capacity_rate is not None and chosen is not None:
        capacity = capacity_for(capacity_rate, search.predictor, chosen.settings, request.limit, evidence.rate(chosen))
        if capacity is None:
            notes.append(
                "no rate keeps the limit with random arrivals, so there is no number of machines that would do"
            )
    return TuneResult(
        model=request.model,
        goal=request.goal,
        limit=request.limit.spell() if request.limit is not None else None,
        load=request.load,
        percentile=request.percentile,
        status=status,
        reason=_reason(search, chosen, nearest, default),
        decided=not search.out_of_time,
        default=_row(evidence, default, default),
        chosen=_row(evidence, chosen, default) if chosen is not None else None,
        nearest=_row(evidence, nearest, default) if nearest is not None else None,
        knobs=tuple(_knobs(search, chosen, default)) if status == "found" and chosen is not None else (),
        rows=tuple(rows),
        fields=fields_of(chosen.settings, default.settings) if chosen is not None else {},
        capacity=capacity,
        predicted=search.predictor.played,
        measurements=sum(map(len, evidence.rounds.values())),
        seconds=round(seconds, 1),
        notes=tuple(notes),
        machine=machine,
        doubts=doubts,
    )


def fields_of(chosen: Settings, default: Settings) -> dict[str, Any]:
    """What differs from the default, in the keys of ``models.yaml``."""
    fields: dict[str, Any] = {}
    if chosen.variant != default.variant:
        fields["serve"] = chosen.variant
    batch: dict[str, Any] = {}
    if chosen.max_batch_size != default.max_batch_size:
        batch["max"] = chosen.max_batch_size
    if chosen.dynamic != default.dynamic:
        batch["dynamic"] = chosen.dynamic
    if chosen.preferred != default.preferred:
        batch["preferred"] = list(chosen.preferred)
    if chosen.max_queue_delay_microseconds != default.max_queue_delay_microseconds:
        batch["max_queue_delay_microseconds"] = chosen.max_queue_delay_microseconds
    if batch:
        fields["batch"] = batch
    if chosen.instances != default.instances:
        fields["instances"] = {"count": chosen.instances}
    if chosen.threads != default.threads and chosen.threads is not None:
        fields["parameters"] = {THREADS: str(chosen.threads)}
    return fields


def _row(evidence: Evidence, trial: Trial, default: Trial) -> Row:
    rate, latency = evidence.rate(trial), evidence.latency(trial)
    rounds = list(evidence.rounds[trial].values())
    within: _Within | None = None
    if evidence.limit is not None:
        within = "yes" if evidence.holds(trial) else "unsure" if evidence.seems_to_hold(trial) else "no"
    gain = evidence.ratio(trial, default) if trial != default else None
    batches = [each.mean_batch for each in rounds if each.mean_batch is not None]
    several = len(rounds) > 1
    return Row(
        settings=asdict(trial.settings),
        title=trial.settings.spell(),
        load=trial.load,
        rounds=len(rounds),
        requests=sum(each.requests for each in rounds),
        inferences_per_s=rate.value,
        inferences_interval=(rate.low, rate.high) if several else None,
        latency_us=latency.value,
        latency_interval_us=(latency.low, latency.high) if several else None,
        mean_batch=sum(batches) / len(batches) if batches else None,
        within_limit=within,
        gain=gain.value if gain is not None else None,
        gain_interval=(gain.low, gain.high) if gain is not None and gain.low > 0 else None,
        doubts=tuple(sorted({code for each in rounds for code in each.doubts} - _SAID)),
    )


def _failed(evidence: Evidence, trial: Trial) -> Row:
    error = dict(evidence.failed[trial])
    return Row(settings=asdict(trial.settings), title=trial.settings.spell(), load=trial.load, rounds=0, error=error)


def _knobs(search: Search, chosen: Trial, default: Trial) -> Iterator[Knob]:
    """Each knob that was turned, put back alone: measured where that was measured, predicted elsewhere."""
    evidence, predictor = search.evidence, search.predictor
    backs = chosen.settings.put_back(default.settings)
    for name in KNOBS:
        before, after = getattr(default.settings, name), getattr(chosen.settings, name)
        if before == after:
            continue
        factor, interval = None, None
        if name in backs:
            back = replace(chosen, settings=backs[name])
            ratio = evidence.ratio(chosen, back) if evidence.count(back) else None
            if ratio is not None and ratio.low > 0:
                factor, interval = ratio.value, (ratio.low, ratio.high)
            elif predictor.knows(back):
                one, other = (
                    evidence.worth_of(trial, found.inferences_per_s, found.percentile_us(search.request.percentile))
                    for trial, found in ((trial, predictor.simulated(trial)) for trial in (chosen, back))
                )
                factor = one / other if other > 0 else None
        yield Knob(name=name, before=before, after=after, factor=factor, interval=interval)


def _reason(search: Search, chosen: Trial | None, nearest: Trial | None, default: Trial) -> str:
    request, evidence = search.request, search.evidence
    what = {"throughput": "inferences/s", "latency": f"p{request.percentile:g}", "cost": "inferences/s per core"}
    if chosen is None:
        assert nearest is not None and request.limit is not None
        latency = evidence.latency(nearest)
        if evidence.count(nearest) < 2:
            return too_early(request.minutes)
        got = f"{latency.value / 1e3:.3g} ms ({latency.low / 1e3:.3g} to {latency.high / 1e3:.3g})"
        return f"nothing surely keeps {request.limit.spell()}: the nearest has {got}, {nearest.settings.spell()}"
    if chosen.settings != default.settings:
        return gained(evidence, chosen, default, what[request.goal])
    others = [trial for trial in evidence.trials if trial.settings != default.settings]
    return stayed(evidence, others, chosen, out_of_time=search.out_of_time)
