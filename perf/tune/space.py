"""What may be tried: the knobs, what each may be on this machine and with this artifact, and nothing beyond.

``max_batch_size`` is never made smaller: clients may send batches of that size. How many requests the *server* puts
together is bounded by a preferred size instead, which needs no client to change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from perf.tune.simulate import Batching
from perf.tune.variants import Variant

THREADS = "intra_op_thread_count"
LARGEST_BATCH = 128
"""Beyond what the configuration has, no larger ``max_batch_size`` than this is tried."""

KNOBS = ("variant", "instances", "threads", "max_batch_size", "preferred", "max_queue_delay_microseconds", "dynamic")

DELAYS_OF_A_RUN = (0.5, 1.0, 2.0)
"""Queue delays that are tried, as multiples of the time of one execution at batch 1."""

MEMORY_SHARE = 0.5
"""Of the memory that is free, for all instances together; an instance takes :data:`MEMORY_PER_BYTE` of its file."""
MEMORY_PER_BYTE = 2.0
MEMORY_PER_INSTANCE = 120 << 20


@dataclass(frozen=True, order=True)
class Settings:
    """One configuration.

    Attributes:
        variant: a variant's name.
        instances: executions at once.
        threads: of each instance, None for what the backend chooses (one for each core).
        max_batch_size: Triton's; 0 where the model does not batch.
        preferred: ``preferred_batch_size``.
        max_queue_delay_microseconds: Triton's.
        dynamic: whether there is a dynamic batcher.
    """

    variant: str
    instances: int
    threads: int | None
    max_batch_size: int
    preferred: tuple[int, ...] = ()
    max_queue_delay_microseconds: int = 0
    dynamic: bool = True

    @property
    def batching(self) -> Batching:
        """As the simulation takes it."""
        delay_us = float(self.max_queue_delay_microseconds)
        return Batching(self.instances, self.max_batch_size, self.dynamic, self.preferred, delay_us)

    def cores(self, here: int) -> int:
        """Of a machine with so many, how many it keeps busy at most."""
        return min(here, self.instances * (self.threads or here))

    def distance(self, other: Settings) -> float:
        """How unlike two configurations are: 0 for the same, about 1 for each knob that differs much."""
        far = 2.0 * (self.variant != other.variant) + 1.0 * (self.threads != other.threads)
        far += abs(_log2(self.instances) - _log2(other.instances))
        far += 0.5 * abs(_log2(self.batching.most) - _log2(other.batching.most)) / 2
        return far + 0.5 * (self.max_queue_delay_microseconds != other.max_queue_delay_microseconds)

    def put_back(self, default: Settings) -> dict[str, Settings]:
        """The same with one knob as it was, for each knob that was turned; what the server would refuse is left out."""
        turned = [name for name in KNOBS if getattr(self, name) != getattr(default, name)]
        made = {name: replace(self, **{name: getattr(default, name)}) for name in turned}
        return {name: each for name, each in made.items() if max(each.preferred, default=0) <= each.max_batch_size}

    def spell(self) -> str:
        """For people: ``onnx-fp16, 2 instances of 1 thread, batches up to 8``."""
        many = f"{self.instances} instance" + ("s" if self.instances > 1 else "")
        threads = f" of {self.threads} thread" + ("s" if self.threads != 1 else "") if self.threads else ""
        parts = [part for part in (self.variant, many + threads) if part]
        if not self.dynamic or self.max_batch_size <= 1:
            return ", ".join([*parts, "no batching in the server"])
        parts.append(f"batches up to {self.batching.most}")
        if len(self.preferred) > 1:
            parts.append(f"preferred {'/'.join(map(str, self.preferred))}")
        delay = self.max_queue_delay_microseconds
        return ", ".join([*parts, f"delay {delay} us" if delay else "no delay"])


def _log2(value: int) -> float:
    return math.log2(max(1, value))


@dataclass(frozen=True)
class Space:
    """What each knob may be.

    Attributes:
        default: the configuration as it is.
        sizes: preferred sizes, one at a time; none always may be.
        delays: queue delays beside 0; they go with a preferred size.
        notes: what is not searched, and why.
    """

    default: Settings
    variants: tuple[str, ...]
    instances: tuple[int, ...]
    threads: tuple[int | None, ...]
    max_batch_sizes: tuple[int, ...]
    sizes: tuple[int, ...]
    delays: tuple[int, ...]
    cores: int
    notes: tuple[str, ...] = ()

    def settings(self) -> Iterator[Settings]:
        """Every configuration, the default first."""
        yield self.default
        for variant in self.variants:
            for threads in self.threads:
                for instances in self.instances:
                    if threads and instances > 1 and instances * threads > 2 * self.cores:
                        continue
                    for batching in self._batchings():
                        found = replace(batching, variant=variant, instances=instances, threads=threads)
                        if found != self.default:
                            yield found

    def _batchings(self) -> Iterator[Settings]:
        """The default with every way to batch; without a batch dimension there is one."""
        base = self.default
        if base.max_batch_size <= 1:
            yield base
            return
        seen = {base}
        for largest in self.max_batch_sizes:
            plain = replace(base, max_batch_size=largest, preferred=(), max_queue_delay_microseconds=0, dynamic=True)
            below = max((size for size in self.max_batch_sizes if size < largest), default=0)
            ways = [plain, replace(base, max_batch_size=largest)]
            for size in self.sizes:
                if below < size < largest:  # a larger max_batch_size would change nothing then
                    ways += [
                        replace(plain, preferred=(size,), max_queue_delay_microseconds=d) for d in (0, *self.delays)
                    ]
            for way in ways:
                if way not in seen:
                    seen.add(way)
                    yield way
        yield base

    def curves(self) -> list[tuple[str, int | None]]:
        """The variants and threads whose executions have to be timed."""
        return [(variant, threads) for variant in self.variants for threads in self.threads]


def settings_of(config: Mapping[str, Any], variant: str) -> Settings:
    """A configuration as the server gave it (HTTP or gRPC: numbers may be strings)."""
    batcher = config.get("dynamic_batching")
    threads = (config.get("parameters") or {}).get(THREADS, {}).get("string_value", "")
    return Settings(
        variant=variant,
        instances=sum(int(group.get("count", 1)) for group in config.get("instance_group") or ()) or 1,
        threads=int(threads) if str(threads).isdigit() and int(threads) > 0 else None,
        max_batch_size=int(config.get("max_batch_size", 0)),
        preferred=tuple(sorted(int(size) for size in (batcher or {}).get("preferred_batch_size") or ())),
        max_queue_delay_microseconds=int((batcher or {}).get("max_queue_delay_microseconds") or 0),
        dynamic=batcher is not None,
    )


def config_with(config: Mapping[str, Any], settings: Settings, name: str, *, batcher: bool = True) -> dict[str, Any]:
    """A whole configuration for ``Client.load``: that of the variant, with these settings, under another name.

    Args:
        config: of the variant's model, as the server gave it.
        batcher: False to leave the dynamic batcher out, so that every request is executed as it comes.
    """
    made = {key: value for key, value in config.items() if key not in ("platform", "runtime")}
    made |= {"name": name, "max_batch_size": settings.max_batch_size}
    made.pop("dynamic_batching", None)
    if batcher and settings.dynamic and settings.max_batch_size > 0:
        kept = dict(config.get("dynamic_batching") or {})
        made["dynamic_batching"] = kept | {
            "preferred_batch_size": list(settings.preferred),
            "max_queue_delay_microseconds": settings.max_queue_delay_microseconds,
        }
    groups = config.get("instance_group") or [{}]
    if sum(int(group.get("count", 1)) for group in groups) != settings.instances:
        made["instance_group"] = [{**groups[0], "count": settings.instances}]
    made["instance_group"] = [
        {key: value for key, value in group.items() if key != "name"} for group in made.get("instance_group") or groups
    ]
    parameters = dict(config.get("parameters") or {})
    if settings.threads is not None:
        parameters[THREADS] = {"string_value": str(settings.threads)}
    else:
        parameters.pop(THREADS, None)
    made["parameters"] = parameters
    return made


def space_of(
    variants: Sequence[Variant],
    configs: Mapping[str, Mapping[str, Any]],
    *,
    cores: int,
    free_bytes: int | None,
    run_us: float = 1000.0,
) -> Space:
    """What may be tried.

    Args:
        variants: the one that is served now first.
        configs: of each variant, by its name, as the server gave it.
        cores: that the server may use.
        free_bytes: memory that is free; None where it is not known.
        run_us: time of one execution at batch 1, for the delays.
    """
    served = variants[0]
    config = configs[served.name]
    default = settings_of(config, served.name)
    notes = []
    groups = config.get("instance_group") or ()
    kinds = {str(group.get("kind", "")) for group in groups}
    on_gpu = "KIND_GPU" in kinds
    instances = [1]
    while instances[-1] * 2 <= (4 if on_gpu else cores):
        instances.append(instances[-1] * 2)
    instances += [cores] if not on_gpu else []
    if len(groups) > 1 or "KIND_MODEL" in kinds:
        instances = []
        notes.append("the number of instances is left: there are several instance groups, or a kind of the model's own")
    per_instance = max(variant.size_bytes for variant in variants) * MEMORY_PER_BYTE + MEMORY_PER_INSTANCE
    if free_bytes is not None and instances:
        fitting = [count for count in instances if count * per_instance <= free_bytes * MEMORY_SHARE]
        if len(fitting) < len(instances):
            notes.append(f"at most {max(fitting, default=1)} instances: more would take over half of the free memory")
        instances = fitting
    threads: list[int | None] = [default.threads]
    if config.get("backend") == "onnxruntime" and not on_gpu:
        halves = [count for count in (1, cores // 2) if count >= 1]
        threads += [count for count in dict.fromkeys(halves) if count != default.threads]
    largest = [default.max_batch_size] if default.max_batch_size else [0]
    if default.max_batch_size >= 1 and all(variant.batches_freely for variant in variants):
        while largest[-1] * 2 <= LARGEST_BATCH and len(largest) < 3:
            largest.append(largest[-1] * 2)
    elif default.max_batch_size:
        notes.append("max_batch_size is left: what the artifact takes beyond it is not known, or it is its profile's")
    else:
        notes.append("batching is left: the model has no batch dimension")
    sizes = [2**power for power in range(1, 8) if 2**power <= largest[-1]]
    delays = sorted({max(50, round(run_us * factor / 50) * 50) for factor in DELAYS_OF_A_RUN})
    return Space(
        default=default,
        variants=tuple(variant.name for variant in variants),
        instances=tuple(sorted({*instances, default.instances})),
        threads=tuple(dict.fromkeys(threads)),
        max_batch_sizes=tuple(largest),
        sizes=tuple(sizes),
        delays=tuple(delays),
        cores=cores,
        notes=tuple(notes),
    )
