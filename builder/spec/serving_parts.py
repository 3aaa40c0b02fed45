"""The parts of a model's entry that say how Triton runs it: batching, instances, versions, warmup, its agents.

They are short forms: each becomes fields of Triton's ``ModelConfig``, whose own spelling is kept for all that has one.
The ``Attributes`` of each class are the reference, as in :mod:`builder.spec.parts`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, WithJsonSchema, model_validator

from builder.findings import Finding, Findings, did_you_mean, refuse
from builder.spec.parts import OneOrMore, Part, no_boolean

DEFAULT_MAX_BATCH = 8
MAX_UINT64 = 2**64 - 1
MAX_UINT32 = 2**32 - 1
Microseconds = Annotated[int, Field(ge=0, le=2**63 - 1, strict=True)]
Size = Annotated[int, Field(strict=True)]
Level = Annotated[int, Field(ge=1, le=MAX_UINT64)]
"""A priority level as the key of a mapping: a key of YAML is text."""
Text = Annotated[str, Field(min_length=1)]


def outside(sizes: Iterable[int], limit: int, key: str) -> list[Finding]:
    """The preferred batch sizes that no batch can have; paths begin at the part."""
    return [
        Finding(
            f"preferred batch size {size} is outside 1..{limit} (batch.max)",
            fix="take it out, or raise `max`",
            path=(key, index),
        )
        for index, size in enumerate(sizes)
        if not 1 <= size <= limit
    ]


class QueuePolicy(Part):
    """What becomes of requests that wait in a queue of the dynamic batcher.

    Attributes:
        timeout_action: what becomes of a request that has waited too long: `REJECT` answers it with an error, `DELAY`
            serves it after all others.
        default_timeout_microseconds: how long a request may wait; 0 is for ever.
        allow_timeout_override: a request may bring a shorter timeout of its own.
        max_queue_size: how many requests may wait, beyond which they are refused; 0 is any number.
    """

    timeout_action: Literal["REJECT", "DELAY"] = "REJECT"
    default_timeout_microseconds: Microseconds = 0
    allow_timeout_override: StrictBool = False
    max_queue_size: int = Field(0, ge=0, le=MAX_UINT32, strict=True)


class Batch(Part):
    """Batching in the server.

    Attributes:
        max: Triton's `max_batch_size`; 0 turns the server's batching off.
        preferred: `preferred_batch_size` of the dynamic batcher: sizes that are sent on at once.
        max_queue_delay_microseconds: how long a request may wait for company.
        dynamic: whether requests are put together at all.
        preserve_ordering: answers are sent in the order of their requests.
        priority_levels: how many levels of priority requests may have; 1 is the highest.
        default_priority_level: that of a request which says none; needed where there are levels.
        default_queue_policy: of every level that has none of its own.
        priority_queue_policy: by level.
    """

    max: int = Field(DEFAULT_MAX_BATCH, ge=0, le=65536, strict=True)
    preferred: tuple[Size, ...] = ()
    max_queue_delay_microseconds: Microseconds = 0
    dynamic: StrictBool = True
    preserve_ordering: StrictBool = False
    priority_levels: int = Field(0, ge=0, le=MAX_UINT64, strict=True)
    default_priority_level: int = Field(0, ge=0, le=MAX_UINT64, strict=True)
    default_queue_policy: QueuePolicy | None = None
    priority_queue_policy: dict[Level, QueuePolicy] = Field({})

    @model_validator(mode="after")
    def _consistent(self) -> Batch:
        found = outside(self.preferred, self.max, "preferred") + self._priorities()
        if not self.dynamic and (self.preferred or self.max_queue_delay_microseconds):
            what = "`preferred` and `max_queue_delay_microseconds` need `dynamic: true`"
            found.append(Finding(what, path=("dynamic",)))
        elif not self.dynamic and self.queues:
            what = f"`{self.queues[0]}` is for the dynamic batcher, which `dynamic: false` turns off"
            found.append(Finding(what, fix="take one of them out", path=(self.queues[0],)))
        if found:
            raise Findings(found)
        return self

    @property
    def queues(self) -> list[str]:
        """The keys that say something of the batcher's queues, of those that were given."""
        keys = ("preserve_ordering", "priority_levels", "default_queue_policy", "priority_queue_policy")
        return [key for key in keys if getattr(self, key)]

    def _priorities(self) -> list[Finding]:
        found, levels = [], self.priority_levels
        if levels and not 1 <= self.default_priority_level <= levels:
            given = "default_priority_level" in self.model_fields_set
            found.append(
                Finding(
                    f"`default_priority_level` is {'outside the' if given else 'missing with'} `priority_levels`",
                    f"1 to {levels}: the level of a request that says none",
                    str(self.default_priority_level) if given else "",
                    path=("default_priority_level" if given else "priority_levels",),
                )
            )
        elif not levels and self.default_priority_level:
            what = "`default_priority_level` without `priority_levels`"
            found.append(Finding(what, "how many levels there are", path=("default_priority_level",)))
        for level in self.priority_queue_policy:
            if level > levels:
                what = f"a queue policy for level {level}, which is none of the `priority_levels`"
                expected = f"1 to {levels}" if levels else "priority_levels: how many there are"
                found.append(Finding(what, expected, path=("priority_queue_policy", str(level))))
        return found


class Resource(Part):
    """What an execution takes of the rate limiter.

    Attributes:
        name: any; resources of one name are shared by all models.
        count: how many of it an execution takes.
        global: one stock for all devices, instead of one for each.
    """

    name: Text
    count: int = Field(1, ge=1, le=MAX_UINT32, strict=True)
    is_global: StrictBool = Field(False, alias="global")


class RateLimiter(Part):
    """When an instance may run, where the server's rate limiter is on (`--rate-limit=execution_count`).

    Attributes:
        resources: what each execution takes, and waits for.
        priority: its weight: an instance with priority 2 gets half the turns of one with 1.
    """

    resources: tuple[Resource, ...] = ()
    priority: int = Field(0, ge=0, le=MAX_UINT32, strict=True)


class SecondaryDevice(Part):
    """A device that an instance uses beside its own.

    Attributes:
        kind: the only one that Triton knows.
        device_id: its number.
    """

    kind: Literal["KIND_NVDLA"] = "KIND_NVDLA"
    device_id: int = Field(0, ge=0, le=2**31 - 1, strict=True)


class Instances(Part):
    """Triton's `instance_group`: how many copies run side by side, and where. One mapping, or a list of them.

    Attributes:
        count: copies, on each device.
        kind: where; `KIND_AUTO` is the GPUs where the server has any.
        gpus: device numbers, for `KIND_GPU` and `KIND_AUTO`.
        name: of the group; by default Triton makes one.
        rate_limiter: what an execution takes, and its priority.
        host_policy: the name of a `--host-policy` of the server's (NUMA node, cores).
        passive: loaded, but never run by the server itself; for backends that run it from another instance.
        profile: optimization profiles of a TensorRT engine, by number in text (`["0"]`).
        secondary_devices: such as the DLA cores of a Jetson.
    """

    count: int = Field(1, ge=1, le=1024, strict=True)
    kind: Literal["KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"] = "KIND_AUTO"
    gpus: tuple[Annotated[int, Field(ge=0, le=1023, strict=True)], ...] = ()
    name: Text | None = None
    rate_limiter: RateLimiter | None = None
    host_policy: Text | None = None
    passive: StrictBool = False
    profile: tuple[Text, ...] = ()
    secondary_devices: tuple[SecondaryDevice, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Instances:
        if self.gpus and self.kind in ("KIND_CPU", "KIND_MODEL"):
            raise Findings([Finding(f"`gpus` with {self.kind}", "KIND_GPU, or no `gpus`", path=("gpus",))])
        return self


class Warmup(Part):
    """Requests that are run before the model is called ready, so that no user pays for the first ones.

    Attributes:
        batch_sizes: one request for each of these batch sizes.
        data: what zeros or random bytes are sent, where there are no samples.
        samples: this many of the model's samples are written into the version folder and sent instead, each at every
            batch size (Triton repeats the one sample).
        count: how often each is run.
    """

    batch_sizes: tuple[Annotated[int, Field(ge=1, le=MAX_UINT32, strict=True)], ...] = (1,)
    data: Literal["zero", "random"] = "zero"
    samples: int = Field(0, ge=0, le=256, strict=True)
    count: int = Field(1, ge=1, le=MAX_UINT32, strict=True)

    @model_validator(mode="after")
    def _consistent(self) -> Warmup:
        if self.samples and "data" in self.model_fields_set:
            what = "`data` with `samples`: either made up, or real"
            raise Findings([Finding(what, fix="take one of them out", path=("data",))])
        return self


class Agent(Part):
    """A repository agent: code of the server's that is run before the model is loaded.

    Attributes:
        name: its library is `libtritonrepoagent_NAME.so` in the server. `checksum` alone, without parameters, gets the
            MD5 of every file of the version that the model is loaded from.
        parameters: handed to it.
    """

    name: Text
    parameters: dict[str, str] = Field({})

    @property
    def is_checksum(self) -> bool:
        """True where the parameters are ours to fill in."""
        return self.name == "checksum" and not self.parameters


_LATEST = re.compile(r"latest(?: +([0-9]{1,10}))?")


def _versions(value: Any) -> Any:
    """``latest 2``, ``all`` or ``[1, 3]`` as pydantic checks it."""
    expected = "latest, latest N, all, or a list of numbers: [1, 3]"
    if isinstance(value, bool) or not isinstance(value, (str, int, list, tuple)):
        raise refuse("`versions` is of the wrong type", expected=expected)
    if isinstance(value, (list, tuple)):
        if not value:
            raise refuse("`versions` is empty", expected=expected, fix="leave it out for the version that is built")
        odd = [each for each in value if isinstance(each, bool) or not isinstance(each, int) or each < 1]
        if odd or len(set(value)) != len(value):
            raise refuse("`versions` lists version numbers, each once", expected="[1, 3]", got=str(value)[:60])
        return tuple(value)
    text = str(value).strip()
    match = _LATEST.fullmatch(text)
    if match and match[1] is not None and not 1 <= int(match[1]) <= MAX_UINT32:
        raise refuse(f"`{text}` serves no version", expected="latest N, with N at least 1")
    if not match and text != "all":
        fix = f"versions: [{text}]" if text.isdigit() else did_you_mean(text, ["latest", "all"])
        raise refuse(f"{text[:60]!r} says no versions", expected=expected, fix=fix)
    return text


_VERSIONS_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": r"^(all|latest( +[0-9]+)?)$"},
        {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
    ]
}
Versions = Annotated[Any, BeforeValidator(_versions), WithJsonSchema(_VERSIONS_SCHEMA)]
"""Text, or a tuple of numbers."""


def version_policy(versions: str | tuple[int, ...]) -> dict[str, Any]:
    """Triton's ``version_policy`` for what the spec says."""
    if isinstance(versions, tuple):
        return {"specific": {"versions": list(versions)}}
    match = _LATEST.fullmatch(versions)
    return {"latest": {"num_versions": int(match[1] or 1)}} if match else {"all": {}}


def _listed(value: Any) -> Any:
    """One mapping stands for a list of one."""
    return [value] if isinstance(value, dict) else value


def _agents(value: Any) -> Any:
    """``checksum`` stands for ``[{name: checksum}]``, each name of a list for one of these."""
    entries = value if isinstance(value, (list, tuple)) else [value]
    return [{"name": entry} if isinstance(entry, str) else entry for entry in entries]


def _increasing(buckets: tuple[float, ...]) -> tuple[float, ...]:
    if list(buckets) != sorted(set(buckets)):
        raise refuse("the buckets of a histogram do not rise", expected="upper bounds, each above the one before")
    return buckets


Groups = Annotated[tuple[Instances, ...], BeforeValidator(_listed), OneOrMore()]
Agents = Annotated[tuple[Agent, ...], BeforeValidator(_agents), OneOrMore(text=True)]
_Bound = Annotated[float, BeforeValidator(no_boolean), Field(allow_inf_nan=False)]
Buckets = Annotated[tuple[_Bound, ...], Field(min_length=1), AfterValidator(_increasing)]
HostName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$")]
