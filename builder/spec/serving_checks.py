"""What the parts of a model's entry that are about serving say against each other, and against its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from builder.findings import Finding

if TYPE_CHECKING:
    from builder.spec.models import ModelSpec

_ONEOFS = {"sequence": "sequence_batching", "versions": "version_policy"}
"""Short forms whose field under `config` would be the other choice of a oneof, or set the same twice."""


def serving_findings(model: ModelSpec) -> list[Finding]:
    """All of it; paths begin at the model. What needs tensors waits for them where only the file has them."""
    found = [*_choices(model), *_agents(model)]
    declared = model.declared
    if declared.inputs and declared.outputs:
        if model.sequence is not None:
            found += model.sequence.findings(declared, model.batch.max if declared.batches else 0)
        for name, options in model.tensors.items():
            found += options.findings(name, declared)
        found += _warmup(model, declared.batches)
    return found


def _choices(model: ModelSpec) -> Iterator[Finding]:
    queues = model.batch.queues
    if model.sequence is not None and (queues or model.batch.preferred or model.batch.max_queue_delay_microseconds):
        key = (queues or (["preferred"] if model.batch.preferred else ["max_queue_delay_microseconds"]))[0]
        what = f"`batch.{key}` with `sequence`: the sequence batcher takes the place of the dynamic one"
        oldest = "sequence.oldest has fields of its own" if key in ("preferred", "max_queue_delay_microseconds") else ""
        yield Finding(what, "one of them", fix=oldest or f"take `{key}` out", path=("batch", key))
    for key, field in _ONEOFS.items():
        if getattr(model, key) and field in model.config:
            what = f"`config.{field}` and `{key}` say the same thing twice"
            yield Finding(what, "one of them", fix=f"take `{field}` out of `config`", path=("config", field))
    if model.sequence is not None and "dynamic_batching" in model.config:
        what = "`config.dynamic_batching` with `sequence`: a model has one scheduler"
        yield Finding(what, "one of them", path=("config", "dynamic_batching"))
    if model.response_cache and (model.sequence is not None or model.decoupled):
        other = "sequence" if model.sequence is not None else "decoupled"
        what = f"`response_cache` with `{other}`: such answers are never taken from the cache"
        yield Finding(what, "one of them", path=("response_cache",))
    if model.decoupled and model.kind != "python_model":
        what = "`decoupled` is for a Python class that yields its answers"
        yield Finding(
            what, "source: {python_model: ...}", f"{model.kind}, which answers a request once", path=("decoupled",)
        )
    if model.is_decoupled and model.kind == "python_model" and model.declared.batches and model.batch.max:
        what = "a decoupled class that batches: how often each sample of a batch is answered, nobody could tell"
        fix = "write the tensors without `batch`, or set batch.max: 0"
        yield Finding(what, "one sample to a request", fix=fix, path=("decoupled",))
    seen: set[str] = set()
    for index, group in enumerate(model.instances):
        if group.name in seen:
            yield Finding(f"two groups of instances are called {group.name!r}", path=("instances", index, "name"))
        seen |= {group.name} if group.name else set()


def _agents(model: ModelSpec) -> Iterator[Finding]:
    names = [agent.name for agent in model.agents]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Finding(f"agent {name!r} is listed twice", fix="keep one of them", path=("agents", index))
    if any(agent.is_checksum for agent in model.agents) and "model_repository_agents" in model.config:
        what = "`config.model_repository_agents` would replace `agents`"
        yield Finding(what, "one of them", path=("config", "model_repository_agents"))


def _warmup(model: ModelSpec, batches: bool) -> Iterator[Finding]:
    if model.warmup is None:
        return
    limit = model.batch.max if batches and model.batch.max else 1
    for index, size in enumerate(model.warmup.batch_sizes):
        if size > limit:
            what = f"warmup with {size}, beyond the largest batch"
            expected = f"at most {limit} ({'batch.max' if batches else 'the model does not batch'})"
            yield Finding(what, expected, path=("warmup", "batch_sizes", index))
