"""Rules about what combines with what: response cache, metrics, a batching strategy, accelerators."""

from __future__ import annotations

import re
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
        if field.startswith("gpu") and (kinds == {"KIND_CPU"} or subject.gpu is False):
            continue
        for index, accelerator in enumerate(getattr(accelerators, field)):
            if accelerator.name not in known:
                path = ("optimization", "execution_accelerators", field, index, "name")
                hint = did_you_mean(accelerator.name, known) or f"one of {', '.join(known)}"
                yield Hit(f"ONNX Runtime has no accelerator `{accelerator.name}`", hint, path)


AGENT = Rule(
    id="agent-without-name",
    severity="error",
    title="a repository agent has no name",
    reason='The server looks for the library `libtritonrepoagent_NAME.so`, and finds none of no name: "unable to find '
    "'libtritonrepoagent_.so' for repo agent ''\". The list itself must hold one at least: with "
    "`model_repository_agents { }` the server of release 24.10 ends on the spot.",
    fix="Name it (`checksum` comes with Triton), or take `model_repository_agents` out.",
    bad="model_repository_agents { agents [ { } ] }",
    good='model_repository_agents { agents [ { name: "checksum" } ] }',
)


def agent_without_name(subject: Subject) -> Iterator[Hit]:
    """Each agent, and the list that holds none."""
    config = subject.config
    at = "model_repository_agents"
    if config.HasField(at) and not config.model_repository_agents.agents:
        yield Hit("model_repository_agents holds no agent", "take it out, or name one", (at,))
    for index, agent in enumerate(config.model_repository_agents.agents):
        if not agent.name:
            yield Hit("a repository agent without a name", 'write name: "checksum"', (at, "agents", index))


_INTEGERS = ("intra_op_thread_count", "inter_op_thread_count", "execution_mode")
_BOOLEANS = ("enable_mem_arena", "enable_mem_pattern")

ONNX_PARAMETER = Rule(
    id="onnx-parameter",
    severity="error",
    title="a parameter that ONNX Runtime's backend reads has a value that it cannot read",
    reason='"failed to convert parameter to an integer", "Expected values for execution_mode are 0 or 1": the backend '
    "reads the parameters that it knows when it loads the model, and passes over all others.",
    fix="Write a whole number, or 0, 1, true, false.",
    bad='backend: "onnxruntime"\nparameters { key: "execution_mode", value { string_value: "parallel" } }',
    good='backend: "onnxruntime"\nparameters { key: "execution_mode", value { string_value: "1" } }',
)


def onnx_parameter(subject: Subject) -> Iterator[Hit]:
    """Numbers of threads, the mode, and the switches."""
    if subject.backend != "onnxruntime":
        return
    parameters = subject.config.parameters
    for name in (name for name in (*_INTEGERS, *_BOOLEANS) if name in parameters):
        value = parameters[name].string_value
        path = ("parameters", name)
        if name in _BOOLEANS and value.strip().lower() not in ("0", "1", "true", "false"):
            yield Hit(f"{name} is `{value}`", 'write string_value: "0" or "1"', path)
        elif name == "execution_mode" and value.strip() not in ("0", "1"):
            yield Hit(f"{name} is `{value}`", 'write string_value: "0" for sequential, "1" for parallel', path)
        elif name in _INTEGERS and not re.fullmatch(r"\s*[-+]?[0-9]+\s*", value):
            yield Hit(f"{name} is `{value}`", "write a whole number; 0 leaves it to ONNX Runtime", path)


RULES: tuple[ConfigRule, ...] = (
    (CACHE, response_cache_scheduler),
    (METRICS, metric_control),
    (STRATEGY, batch_strategy_sequence),
    (PARAMETER, python_parameter),
    (ACCELERATOR, accelerator_unknown),
    (AGENT, agent_without_name),
    (ONNX_PARAMETER, onnx_parameter),
)
