"""Rules about instance groups: kinds, devices, profiles, resources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from builder.rules.rule import Hit, Rule
from builder.rules.subject import ConfigRule, Subject, enum_name

_AT = "instance_group"


def _groups(subject: Subject) -> Iterator[tuple[int, Any, str]]:
    """The index, the group, its kind; of an ensemble none: another rule says that."""
    if subject.is_ensemble:
        return
    for index, group in enumerate(subject.config.instance_group):
        yield index, group, enum_name(group, "kind")


GPUS = Rule(
    id="instance-group-gpus",
    severity="error",
    title="GPUs in an instance group of another kind, or a GPU that no machine has",
    reason='"has kind KIND_CPU but specifies one or more GPUs", likewise KIND_MODEL; "specifies invalid or unsupported '
    'gpu id". KIND_AUTO becomes KIND_CPU where one of its GPUs is not there, and is refused then like that kind.',
    fix="Take `gpus` out, or write kind: KIND_GPU.",
    bad="instance_group [ { kind: KIND_CPU, gpus: [0] } ]",
    good="instance_group [ { kind: KIND_GPU, gpus: [0] } ]",
)


def instance_group_gpus(subject: Subject) -> Iterator[Hit]:
    """KIND_AUTO may name some that are there."""
    for index, group, kind in _groups(subject):
        if kind in ("KIND_CPU", "KIND_MODEL") and group.gpus:
            listed = ", ".join(map(str, group.gpus))
            fix = "take `gpus` out, or write kind: KIND_GPU"
            yield Hit(f"an instance group of {kind} names GPUs: {listed}", fix, (_AT, index, "gpus"))
            continue
        for position, gpu in enumerate(group.gpus):
            if gpu < 0:
                path = (_AT, index, "gpus", position)
                yield Hit(f"there is no GPU {gpu}", "write the numbers that nvidia-smi shows, from 0", path)


PROFILE = Rule(
    id="instance-group-profile",
    severity="error",
    title="an optimization profile outside TensorRT, or one that is no number",
    reason='"specifies profile field which is only supported for TensorRT models"; a profile is the index of one, as '
    "text.",
    fix='Take `profile` out, or write profile: "0".',
    bad='backend: "onnxruntime"\ninstance_group [ { profile: ["0"] } ]',
    good='backend: "tensorrt"\ninstance_group [ { profile: ["0"] } ]',
)


def instance_group_profile(subject: Subject) -> Iterator[Hit]:
    """The server reads as many digits as it finds at the front."""
    for index, group, _ in _groups(subject):
        if not group.profile:
            continue
        if subject.backend and subject.served.platform != "tensorrt_plan":
            message = f"an instance group names a TensorRT profile, and {subject.backend} serves the model"
            yield Hit(message, "take `profile` out", (_AT, index, "profile"))
            continue
        for position, profile in enumerate(group.profile):
            text = profile.strip().removeprefix("+")
            if not text[:1].isascii() or not text[:1].isdigit():
                path = (_AT, index, "profile", position)
                yield Hit(f"`{profile}` is no index of a profile", 'write a number as text: "0"', path)


RESOURCE = Rule(
    id="rate-limiter-resource",
    severity="warning",
    title="one resource is both global and of a device",
    reason='With `--rate-limit=execution_count` the server refuses the model: "Resource is present as both global and '
    'device-specific resource". Without that flag resources are not looked at.',
    fix="Write `global` for all of that name, or for none.",
    bad='instance_group [ { rate_limiter { resources [ { name: "R", global: true, count: 1 } ] } },\n'
    '  { rate_limiter { resources [ { name: "R", count: 1 } ] } } ]',
    good='instance_group [ { rate_limiter { resources [ { name: "R", count: 1 } ] } },\n'
    '  { rate_limiter { resources [ { name: "R", count: 1 } ] } } ]',
)


def rate_limiter_resource(subject: Subject) -> Iterator[Hit]:
    """Inside one model; across models the server compares as well."""
    seen: dict[str, bool] = {}
    for index, group, _ in _groups(subject):
        for position, resource in enumerate(group.rate_limiter.resources):
            is_global = getattr(resource, "global")
            if seen.setdefault(resource.name, is_global) != is_global:
                path = (_AT, index, "rate_limiter", "resources", position)
                fix = "write global: true for all of that name, or for none"
                yield Hit(f"the resource `{resource.name}` is global and of a device", fix, path)


RULES: tuple[ConfigRule, ...] = (
    (GPUS, instance_group_gpus),
    (PROFILE, instance_group_profile),
    (RESOURCE, rate_limiter_resource),
)
