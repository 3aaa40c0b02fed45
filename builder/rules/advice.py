"""Warnings: what the server takes, and serves worse than it could. Each says why, and what the change should gain."""

from __future__ import annotations

from collections.abc import Iterator

from builder.findings import KeyPath
from builder.rules.rule import Hit, Rule
from builder.rules.subject import ConfigRule, Subject, enum_name

_TENSORS = (
    'input [ { name: "x", data_type: TYPE_FP32, dims: [4] } ]\noutput [ { name: "y", data_type: TYPE_FP32, dims: [4] '
    "} ]\n"
)
_THREADS = {"onnxruntime": "intra_op_thread_count", "pytorch": "INTRA_OP_THREAD_COUNT"}
_DEFAULT_ON_CPU = {"onnxruntime": 2}
"""Instances where none are asked for: the core gives ONNX Runtime two on a CPU."""


def _scheduled(subject: Subject) -> bool:
    return subject.config.WhichOneof("scheduling_choice") is not None


def _whole(subject: Subject) -> bool:
    """Inputs and outputs are written: else ONNX Runtime's backend completes max_batch_size and dynamic batching too."""
    config = subject.config
    return bool(config.input and config.output)


BATCHING = Rule(
    id="no-dynamic-batching",
    severity="warning",
    title="a model that takes batches is given none",
    reason="max_batch_size allows batches, and no scheduler makes any: requests that wait at the same time are "
    "computed "
    "one by one. Expected gain: much on a GPU and for small models (one of this project's examples computes 52,000 "
    "samples a second one at a time and 500,000 in batches of 32), at most a fifth for a large model on few CPU cores. "
    "An idle server loses nothing: without a delay nobody waits.",
    fix="Add `dynamic_batching { }`.",
    bad=f'backend: "onnxruntime"\nmax_batch_size: 8\n{_TENSORS}',
    good=f'backend: "onnxruntime"\nmax_batch_size: 8\n{_TENSORS}dynamic_batching {{ }}',
)


def no_dynamic_batching(subject: Subject) -> Iterator[Hit]:
    """Above 1, and where the backend does not add it itself."""
    config = subject.config
    if subject.is_ensemble or _scheduled(subject) or config.max_batch_size < 2 or not _whole(subject):
        return
    message = f"max_batch_size is {config.max_batch_size}, and nothing makes batches"
    yield Hit(message, "add dynamic_batching { }", ("max_batch_size",))


ONE = Rule(
    id="max-batch-size-one",
    severity="warning",
    title="max_batch_size is 1",
    reason="The model has a batch dimension, and no batch can ever be made of two requests. Expected gain of a larger "
    "one, with `dynamic_batching`: as for a batchable model without it.",
    fix="Write the largest batch that fits into memory, and `dynamic_batching { }`; or 0 and the whole shape, where "
    "the "
    "batch dimension is fixed in the model's file.",
    bad="max_batch_size: 1",
    good="max_batch_size: 8\ndynamic_batching { }",
)


def max_batch_size_one(subject: Subject) -> Iterator[Hit]:
    """Not of sequences: there a slot is a sequence, and one may be what is wanted."""
    config = subject.config
    if config.max_batch_size == 1 and not subject.is_ensemble and not config.HasField("sequence_batching"):
        fix = "write a larger one, and dynamic_batching { }"
        yield Hit("max_batch_size is 1: no batches can be made", fix, ("max_batch_size",))


UNBATCHED = Rule(
    id="dynamic-batching-unbatched",
    severity="warning",
    title="dynamic batching of a model without batches",
    reason="With max_batch_size 0 there is no batch dimension to put requests together along: the batcher's thread and "
    "its queue cost a little, and no batch comes out.",
    fix="Write max_batch_size, and dims without the batch dimension; or take dynamic_batching out.",
    bad=f"max_batch_size: 0\n{_TENSORS}dynamic_batching {{ }}",
    good=f"max_batch_size: 8\n{_TENSORS}dynamic_batching {{ }}",
)


def dynamic_batching_unbatched(subject: Subject) -> Iterator[Hit]:
    """Not where the backend completes max_batch_size."""
    config = subject.config
    if config.HasField("dynamic_batching") and config.max_batch_size == 0 and _whole(subject):
        fix = "write max_batch_size, or take dynamic_batching out"
        yield Hit("dynamic_batching, and max_batch_size is 0 or not there", fix, ("dynamic_batching",))


DELAY = Rule(
    id="preferred-without-delay",
    severity="warning",
    title="preferred batch sizes and no delay",
    reason="The batcher waits for a preferred size as long as max_queue_delay_microseconds allows; that is 0, so it "
    "sends "
    "whatever is there at once, and under load cuts larger batches down to a preferred size. Expected gain: of a "
    "delay, "
    "fuller batches at the cost of that delay; of no preferred sizes, larger batches.",
    fix="Write max_queue_delay_microseconds, or take preferred_batch_size out; NVIDIA advises preferred sizes only for "
    "TensorRT models with a profile for each.",
    bad="max_batch_size: 8\ndynamic_batching { preferred_batch_size: [4, 8] }",
    good="max_batch_size: 8\ndynamic_batching { preferred_batch_size: [4, 8], max_queue_delay_microseconds: 200 }",
)


def preferred_without_delay(subject: Subject) -> Iterator[Hit]:
    """Of the dynamic batcher and of the sequence batcher's oldest strategy."""
    config = subject.config
    for batching, path in (
        (config.dynamic_batching, ("dynamic_batching",)),
        (config.sequence_batching.oldest, ("sequence_batching", "oldest")),
    ):
        if batching.preferred_batch_size and not batching.max_queue_delay_microseconds:
            sizes = ", ".join(map(str, batching.preferred_batch_size))
            fix = "write max_queue_delay_microseconds, or take preferred_batch_size out"
            yield Hit(f"preferred sizes {sizes}, and no delay to wait for them", fix, (*path, "preferred_batch_size"))


WARMUP = Rule(
    id="no-warmup",
    severity="warning",
    title="no warmup of a backend that prepares itself at the first requests",
    reason="TorchScript compiles and optimizes its graph in the first calls, TensorFlow likewise; ONNX Runtime loads "
    "kernels and tries convolution algorithms at the first request of each shape on a GPU, and with the TensorRT "
    "accelerator builds the engine then, which takes minutes. Somebody waits for it, at every start and every reload. "
    "Expected gain: that first wait, moved to before the model is ready.",
    fix="Write a model_warmup with the shapes that requests will have.",
    bad='backend: "pytorch"',
    good='backend: "pytorch"\nmodel_warmup [ { name: "w", batch_size: 1\n'
    '  inputs { key: "x", value { data_type: TYPE_FP32, dims: [4], random_data: true } } } ]',
)


def no_warmup(subject: Subject) -> Iterator[Hit]:
    """By backend; ONNX Runtime only on a GPU."""
    config, backend = subject.config, subject.backend
    if any(request.batch_size for request in config.model_warmup) or subject.is_ensemble:
        return
    why = {
        "pytorch": "PyTorch compiles at the first requests",
        "tensorflow": "TensorFlow prepares at the first requests",
    }
    at: KeyPath = ("backend",) if config.backend else ()
    if backend == "onnxruntime" and subject.gpu is not False:
        accelerators = [one.name for one in config.optimization.execution_accelerators.gpu_execution_accelerator]
        kinds = {enum_name(group, "kind") for group in config.instance_group}
        if "tensorrt" in accelerators and kinds != {"KIND_CPU"}:
            why["onnxruntime"] = "ONNX Runtime builds the TensorRT engine at the first request"
            at = ("optimization", "execution_accelerators")
        elif "KIND_GPU" in kinds:
            why["onnxruntime"] = "ONNX Runtime prepares its kernels at the first request of each shape on a GPU"
            at = ("instance_group",)
    if backend in why:
        yield Hit(f"no model_warmup, and {why[backend]}", "write a model_warmup with the usual shapes", at)


CORES = Rule(
    id="instances-all-cores",
    severity="warning",
    title="several instances on the CPU with all cores each",
    reason="Each instance starts as many threads as there are cores, and under load they take the cores from one "
    "another. "
    "Expected gain: 12 to 28 % more requests a second were measured here with two instances of one thread each against "
    "one of two threads (two cores, the project's examples); more threads than cores are worse than either. ONNX "
    "Runtime "
    "gets two instances on a CPU where none are asked for.",
    fix='Set the threads of an instance to cores / instances: parameters { key: "intra_op_thread_count" ... }; or '
    "write count: 1 for the lowest latency of one request.",
    bad='backend: "onnxruntime"\ninstance_group [ { kind: KIND_CPU, count: 4 } ]',
    good='backend: "onnxruntime"\ninstance_group [ { kind: KIND_CPU, count: 4 } ]\n'
    'parameters { key: "intra_op_thread_count", value { string_value: "1" } }',
)


def instances_all_cores(subject: Subject) -> Iterator[Hit]:
    """Instances on a CPU, whose number of threads nobody set."""
    config, parameter = subject.config, _THREADS.get(subject.backend)
    if parameter is None or subject.is_ensemble:
        return
    if config.parameters[parameter].string_value.strip() not in ("", "0") if parameter in config.parameters else False:
        return
    on_cpu = ("KIND_CPU", "KIND_AUTO") if subject.gpu is False else ("KIND_CPU",)
    usual = _DEFAULT_ON_CPU.get(subject.backend, 1)
    counts = [max(group.count, 0) or usual for group in config.instance_group if enum_name(group, "kind") in on_cpu]
    if not config.instance_group and subject.gpu is False:
        counts = [usual]
    if sum(counts) > 1:
        path = ("instance_group",) if config.instance_group else ()
        message = f"{sum(counts)} instances on the CPU, each with a thread for every core"
        yield Hit(message, f"set the parameter {parameter} to cores / {sum(counts)}, or write count: 1", path)


PRIORITY = Rule(
    id="priorities-without-levels",
    severity="warning",
    title="priorities are set, and there are no levels",
    reason="Without priority_levels there is one queue: default_priority_level and priority_queue_policy are not "
    "looked "
    "at, and the timeouts and limits in them never apply.",
    fix="Write priority_levels; for one queue write default_queue_policy.",
    bad="dynamic_batching { priority_queue_policy { key: 1, value { max_queue_size: 8 } } }",
    good="dynamic_batching { default_queue_policy { max_queue_size: 8 } }",
)


def priorities_without_levels(subject: Subject) -> Iterator[Hit]:
    """Either of both fields."""
    batching = subject.config.dynamic_batching
    if batching.priority_levels:
        return
    for field in ("default_priority_level", "priority_queue_policy"):
        if getattr(batching, field):
            yield Hit(f"{field} without priority_levels", "write priority_levels", ("dynamic_batching", field))


PASSIVE = Rule(
    id="all-instances-passive",
    severity="warning",
    title="all instances are passive",
    reason="The scheduler gives requests only to instances that are not passive: the model is ready, and no request "
    "to it "
    "is ever computed, unless its backend passes them on itself.",
    fix="Take `passive` out of one instance group.",
    bad="instance_group [ { kind: KIND_CPU, passive: true } ]",
    good="instance_group [ { kind: KIND_CPU, passive: true }, { kind: KIND_CPU } ]",
)


def all_instances_passive(subject: Subject) -> Iterator[Hit]:
    """Sequence batching is refused then: another rule."""
    config = subject.config
    groups = config.instance_group
    if groups and all(group.passive for group in groups) and not config.HasField("sequence_batching"):
        path = ("instance_group", 0, "passive")
        yield Hit("all instances are passive: nobody computes a request", "take `passive` out of one group", path)


CACHE = Rule(
    id="response-cache-needs-server",
    severity="info",
    title="the response cache works only where the server has one",
    reason="response_cache in a configuration asks for a cache that the server is started with: "
    "`--cache-config local,size=1048576`. Without it the field is passed over.",
    fix="Start the server with --cache-config.",
    bad="response_cache { enable: true }",
    good="response_cache { enable: false }",
)


def response_cache_needs_server(subject: Subject) -> Iterator[Hit]:
    """Whenever it is asked for."""
    if subject.config.response_cache.enable:
        fix = "start the server with --cache-config local,size=BYTES"
        yield Hit("the response cache needs a server with one", fix, ("response_cache", "enable"))


RULES: tuple[ConfigRule, ...] = (
    (BATCHING, no_dynamic_batching),
    (ONE, max_batch_size_one),
    (UNBATCHED, dynamic_batching_unbatched),
    (DELAY, preferred_without_delay),
    (WARMUP, no_warmup),
    (CORES, instances_all_cores),
    (PRIORITY, priorities_without_levels),
    (PASSIVE, all_instances_passive),
    (CACHE, response_cache_needs_server),
)
