"""Rules about what combines with what: response cache, metrics, a batching strategy, accelerators."""

from __future__ import annotations

from collections.abc import Iterator

from builder.findings import did_you_mean
from builder.rules.rule import Hit, Rule
from builder.rules.subject import ConfigRule, Subject, enum_name

CACHE = Rule(
    id="response-cache-scheduler",
    severity="error",
    title="the response cache of a decoupled model or of one with sequences",
    reason='"Response Cache does not currently support model .. with \'decoupled\' transaction policy", "with sequence '
    'batching scheduler": an answer that depends on what came before cannot be kept.',
    fix="Take `response_cache` out.",
    bad="response_cache { enable: true }\nmodel_transaction_policy { decoupled: true }",
    good="response_cache { enable: true }",
)


def response_cache_scheduler(subject: Subject) -> Iterator[Hit]:
    """Both combinations."""
    config = subject.config
    if not config.response_cache.enable:
        return
    path = ("response_cache", "enable")
    if config.model_transaction_policy.decoupled:
        yield Hit("the response cache cannot keep what a decoupled model answers", "take response_cache out", path)
    if config.HasField("sequence_batching"):
        yield Hit("the response cache cannot keep answers of sequences", "take response_cache out", path)


METRICS = Rule(
    id="metric-control",
    severity="error",
    title="a metric control is not whole",
    reason="\"metric control must specify 'metric_identifier'\", \"non-empty 'family'\", \"'histogram_options'\", "
    "\"non-empty 'buckets'\".",
    fix="Write metric_identifier { family: ... } and histogram_options { buckets: [...] }.",
    bad="model_metrics { metric_control [ {\n"
    '  metric_identifier { family: "nv_inference_first_response_histogram_ms" } } ] }',
    good='model_metrics { metric_control [ { metric_identifier { family: "nv_inference_first_response_histogram_ms" }\n'
    "  histogram_options { buckets: [100, 500] } } ] }",
)


def metric_control(subject: Subject) -> Iterator[Hit]:
    """The first thing that is missing from each."""
    for index, control in enumerate(subject.config.model_metrics.metric_control):
        path = ("model_metrics", "metric_control", index)
        if not control.HasField("metric_identifier") or not control.metric_identifier.family:
            yield Hit("a metric control without a family", 'write metric_identifier { family: "..." }', path)
        elif not control.HasField("histogram_options") or not control.histogram_options.buckets:
            family = control.metric_identifier.family
            yield Hit(
                f"the metric control of `{family}` has no buckets", "write histogram_options { buckets: [...] }", path
            )


STRATEGY = Rule(
    id="batch-strategy-sequence",
    severity="error",
    title="a batching strategy of one's own with sequence batching",
    reason='"TRITON_BATCH_STRATEGY_PATH cannot be specified with sequence batcher".',
    fix="Take the parameter TRITON_BATCH_STRATEGY_PATH out.",
    bad='sequence_batching { }\nparameters { key: "TRITON_BATCH_STRATEGY_PATH", value { string_value: "b.so" } }',
    good='dynamic_batching { }\nparameters { key: "TRITON_BATCH_STRATEGY_PATH", value { string_value: "b.so" } }',
)


def batch_strategy_sequence(subject: Subject) -> Iterator[Hit]:
    """The strategy is the dynamic batcher's."""
    config, name = subject.config, "TRITON_BATCH_STRATEGY_PATH"
    if config.HasField("sequence_batching") and name in config.parameters:
        yield Hit(f"{name} with sequence batching", "take the parameter out", ("parameters", name))


PARAMETER = Rule(
    id="python-parameter",
    severity="error",
    title="FORCE_CPU_ONLY_INPUT_TENSORS is neither yes nor no",
    reason='"Incorrect value for FORCE_CPU_ONLY_INPUT_TENSORS": the python backend reads these two words.',
    fix="Write yes or no.",
    bad='backend: "python"\nparameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS", value { string_value: "true" } }',
    good='backend: "python"\nparameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS", value { string_value: "yes" } }',
)


def python_parameter(subject: Subject) -> Iterator[Hit]:
    """Of python models only."""
    name = "FORCE_CPU_ONLY_INPUT_TENSORS"
    if subject.backend != "python" or name not in subject.config.parameters:
        return
    value = subject.config.parameters[name].string_value
    if value not in ("yes", "no"):
        yield Hit(f"{name} is `{value}`", 'write string_value: "yes" or "no"', ("parameters", name))


_ACCELERATORS = {
    "gpu_execution_accelerator": ("tensorrt", "cuda"),
    "cpu_execution_accelerator": ("openvino",),
}

ACCELERATOR = Rule(
    id="accelerator-unknown",
    severity="error",
    title="an execution accelerator that ONNX Runtime does not have",
    reason="\"unknown Execution Accelerator '..' is requested\": on GPUs `tensorrt` and `cuda`, on CPUs `openvino`.",
    fix="Correct the name, or take the accelerator out.",
    bad='backend: "onnxruntime"\n'
    'optimization { execution_accelerators { gpu_execution_accelerator [ { name: "trt" } ] } }',
    good='backend: "onnxruntime"\n'
    'optimization { execution_accelerators { gpu_execution_accelerator [ { name: "tensorrt" } ] } }',
)


def accelerator_unknown(subject: Subject) -> Iterator[Hit]:
    """Those for GPUs are not looked at where all instances are on the CPU."""
    if subject.backend != "onnxruntime":
        return
    config = subject.config
    accelerators = config.optimization.execution_accelerators
    kinds = {enum_name(group, "kind") for group in config.instance_group}
    for field, known in _ACCELERATORS.items():
        if field.startswith("gpu") and kinds == {"KIND_CPU"}:
            continue
        for index, accelerator in enumerate(getattr(accelerators, field)):
            if accelerator.name not in known:
                path = ("optimization", "execution_accelerators", field, index, "name")
                hint = did_you_mean(accelerator.name, known) or f"one of {', '.join(known)}"
                yield Hit(f"ONNX Runtime has no accelerator `{accelerator.name}`", hint, path)


RULES: tuple[ConfigRule, ...] = (
    (CACHE, response_cache_scheduler),
    (METRICS, metric_control),
    (STRATEGY, batch_strategy_sequence),
    (PARAMETER, python_parameter),
    (ACCELERATOR, accelerator_unknown),
)
