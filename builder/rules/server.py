"""Rules about the server that was named: what its release does not know yet or has no longer, what it lacks."""

from __future__ import annotations

from collections.abc import Iterator

from builder.rules.rule import Hit, Rule
from builder.rules.subject import ConfigRule, Subject, enum_name

# (path of the field, first release whose model_config.proto has it): read from the branches r24.10 to r26.07 of
# github.com/triton-inference-server/common.
_FIELDS = (
    (("model_metrics",), "24.11"),
    (("ensemble_scheduling", "max_inflight_requests"), "25.11"),
)
_AOTI_SINCE = "26.03"
"""First release whose core knows the platform `torch_aoti`: src/constants.h on the branches of .../core."""
_TENSORFLOW_UNTIL = "25.02"
"""Last release whose build.py names the TensorFlow backend: branches of .../server."""

NEWER = Rule(
    id="field-newer-than-server",
    severity="error",
    title="the configuration uses what the named server does not know yet",
    reason="A server refuses a config.pbtxt with a field that its own model_config.proto lacks, and a platform that it "
    "does not know. Asked only with `--server`.",
    fix="Take the field out, or serve with a newer release.",
    bad='# --server 24.10\nmodel_metrics { metric_control [ { metric_identifier { family: "f" }\n'
    "  histogram_options { buckets: [1] } } ] }",
    good="# --server 24.10\nmax_batch_size: 8",
)


def newer_than_server(subject: Subject) -> Iterator[Hit]:
    """By the first release that has it."""
    release, config = subject.release, subject.config
    if release is None:
        return
    for path, since in _FIELDS:
        there = config.HasField(path[0]) and (len(path) == 1 or bool(getattr(getattr(config, path[0]), path[1])))
        if there and release.name < since:
            message = f"`{path[-1]}` is known since release {since}, the server is {release.name}"
            yield Hit(message, f"take it out, or serve with {since}", path)
    if config.platform == "torch_aoti" and release.name < _AOTI_SINCE:
        message = f"the platform `torch_aoti` is known since release {_AOTI_SINCE}, the server is {release.name}"
        yield Hit(message, f"serve with {_AOTI_SINCE}", ("platform",))


BACKENDS = Rule(
    id="backend-not-in-server",
    severity="error",
    title="the named server does not have the backend",
    reason="NVIDIA's images have no TensorFlow backend since release 25.03; the embedded server has the backends "
    "python "
    "and onnxruntime: \"unable to find backend library for backend '..'\". Asked only with `--server`.",
    fix="Name a server that has it, or convert the model.",
    bad='# --server 26.09\nbackend: "tensorflow"\nplatform: "tensorflow_savedmodel"',
    good='# --server 26.09\nbackend: "onnxruntime"',
)


def backend_not_in_server(subject: Subject) -> Iterator[Hit]:
    """Where the server says what it has, or its release dropped one."""
    backend, release = subject.backend, subject.release
    path = ("backend",) if subject.config.backend else ("platform",)
    if subject.backends and backend and backend not in subject.backends and backend not in subject.libraries:
        has = ", ".join(subject.backends)
        yield Hit(f"this server has no backend `{backend}`, it has {has}", "serve it with NVIDIA's image", path)
    elif backend == "tensorflow" and release is not None and release.name > _TENSORFLOW_UNTIL:
        fix = f"convert the model to ONNX, or serve it with {_TENSORFLOW_UNTIL}"
        yield Hit(f"release {release.name} has no TensorFlow backend any more", fix, path)


GPU = Rule(
    id="kind-gpu-on-cpu-server",
    severity="error",
    title="KIND_GPU, or numbers of GPUs, on a server without GPUs",
    reason='"instance group .. has kind KIND_GPU but no GPUs are available", or "but server does not support GPUs": '
    "the "
    "server refuses the model. Asked only with `--server RELEASE-cpu` or `--server embedded`.",
    fix="Write KIND_CPU; or KIND_AUTO, which is the default: a GPU where there is one.",
    bad="# --server embedded\ninstance_group [ { kind: KIND_GPU } ]",
    good="# --server embedded\ninstance_group [ { kind: KIND_AUTO } ]",
)


def gpu_on_cpu_server(subject: Subject) -> Iterator[Hit]:
    """Every group."""
    if subject.gpu is not False or subject.is_ensemble:
        return
    for index, group in enumerate(subject.config.instance_group):
        kind = enum_name(group, "kind")
        if kind == "KIND_GPU":
            fix = "write KIND_CPU, or KIND_AUTO"
            yield Hit("KIND_GPU, and the server has no GPU", fix, ("instance_group", index, "kind"))
        elif kind == "KIND_AUTO" and group.gpus:
            path = ("instance_group", index, "gpus")
            yield Hit("an instance group names GPUs, and the server has none", "take `gpus` out", path)


RULES: tuple[ConfigRule, ...] = (
    (NEWER, newer_than_server),
    (BACKENDS, backend_not_in_server),
    (GPU, gpu_on_cpu_server),
)
