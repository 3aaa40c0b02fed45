"""The spec's short forms as fields of ``ModelConfig``: instances, tensors, optimization, agents, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.errors import ConfigError
from builder.operations import name_of
from builder.spec import Instances, ModelSpec, Optimization, TensorOptions
from builder.tensors import Interface, TensorSpec

CHECKSUM = "MD5"


def instance_group(group: Instances) -> dict[str, Any]:
    """One entry of ``instance_group``."""
    block: dict[str, Any] = {"name": group.name} if group.name else {}
    block |= {"count": group.count, "kind": group.kind}
    if group.gpus:
        block["gpus"] = list(group.gpus)
    if group.rate_limiter is not None:
        limiter = group.rate_limiter
        resources = [
            {"name": each.name, **({"global": True} if each.is_global else {}), "count": each.count}
            for each in limiter.resources
        ]
        block["rate_limiter"] = ({"resources": resources} if resources else {}) | (
            {"priority": limiter.priority} if limiter.priority else {}
        )
    if group.secondary_devices:
        block["secondary_devices"] = [device.model_dump() for device in group.secondary_devices]
    if group.profile:
        block["profile"] = list(group.profile)
    if group.passive:
        block["passive"] = True
    if group.host_policy:
        block["host_policy"] = group.host_policy
    return block


def tensor(spec: TensorSpec, options: TensorOptions | None, *, batching: bool) -> dict[str, Any]:
    """One entry of ``input`` or ``output``.

    Raises:
        ConfigError: the shape that clients are to see holds another number of elements.
    """
    dims = spec.config_dims(batching=batching)
    block: dict[str, Any] = {"name": spec.name, "data_type": spec.dtype.config}
    if options is None:
        return {**block, "dims": dims}
    if options.format is not None:
        block["format"] = options.format
    if options.dims is not None and list(options.dims) != dims:
        if _elements(options.dims) != _elements(dims):
            raise ConfigError(
                f"tensors: `dims` of {spec.name!r} cannot be reshaped into the tensor's own",
                where=f"tensors.{spec.name}.dims in the spec",
                expected=f"as many elements as {dims}, and as many free sizes",
                got=str(list(options.dims)),
                fix="mend `dims`, or leave it out: clients then see the tensor as it is",
            )
        block |= {"dims": list(options.dims), "reshape": {"shape": dims}}
    else:
        block["dims"] = dims
    for key in ("is_shape_tensor", "allow_ragged_batch", "optional", "is_non_linear_format_io"):
        if getattr(options, key):
            block[key] = True
    return block


def _elements(dims: Any) -> tuple[int, int]:
    count = 1
    for size in dims:
        count *= max(size, 1)
    return count, list(dims).count(-1)


def batch_tensors(model: ModelSpec, interface: Interface) -> dict[str, Any]:
    """``batch_input`` and ``batch_output``, one entry for each tensor."""
    fields: dict[str, Any] = {}
    known = {each.name: each for each in (*interface.inputs, *interface.outputs)}
    for name, options in model.tensors.items():
        source = list(options.source_input)
        if options.batch_input:
            entry = {"kind": options.batch_input, "target_name": [name], "data_type": known[name].dtype.config}
            fields.setdefault("batch_input", []).append({**entry, "source_input": source})
        if options.batch_output:
            entry = {"target_name": [name], "kind": options.batch_output, "source_input": source}
            fields.setdefault("batch_output", []).append(entry)
    return fields


def optimization(asked: Optimization) -> dict[str, Any]:
    """``optimization``."""
    block: dict[str, Any] = {}
    if asked.graph_level is not None:
        block["graph"] = {"level": asked.graph_level}
    if asked.priority is not None:
        block["priority"] = asked.priority
    if asked.cuda is not None:
        cuda = {key: True for key in ("graphs", "busy_wait_events", "output_copy_stream") if getattr(asked.cuda, key)}
        specs = [_graph_spec(spec.model_dump()) for spec in asked.cuda.graph_spec]
        block["cuda"] = cuda | ({"graph_spec": specs} if specs else {})
    accelerators = {
        key: [_accelerator(each.name, each.parameters) for each in getattr(asked, key)]
        for key in ("gpu_execution_accelerator", "cpu_execution_accelerator")
        if getattr(asked, key)
    }
    if accelerators:
        block["execution_accelerators"] = accelerators
    for key in ("input_pinned_memory", "output_pinned_memory"):
        if getattr(asked, key) is not None:
            block[key] = {"enable": getattr(asked, key)}
    for key in ("gather_kernel_buffer_threshold", "eager_batching"):
        if getattr(asked, key) is not None:
            block[key] = getattr(asked, key)
    return block


def _graph_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    block: dict[str, Any] = {"batch_size": spec["batch_size"]}
    if spec["input"]:
        block["input"] = {name: {"dim": list(dims)} for name, dims in spec["input"].items()}
    bound = spec.get("graph_lower_bound")
    return block | ({"graph_lower_bound": _graph_spec(bound)} if bound else {})


def _accelerator(name: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    return {"name": name} | ({"parameters": dict(parameters)} if parameters else {})


def other_fields(model: ModelSpec, checksums: Mapping[str, str]) -> dict[str, Any]:
    """What is left: optimization, parameters, metrics, operations, the transaction policy, agents.

    Args:
        model: what the spec says.
        checksums: MD5 of every file of the version, by its name there, for ``agents: checksum``.
    """
    tree: dict[str, Any] = {}
    if model.optimization is not None:
        tree["optimization"] = optimization(model.optimization)
    if model.parameters:
        tree["parameters"] = {key: {"string_value": text} for key, text in model.parameters.items()}
    if model.metric_tags:
        tree["metric_tags"] = dict(model.metric_tags)
    if model.metrics:
        tree["model_metrics"] = {
            "metric_control": [
                {"metric_identifier": {"family": family}, "histogram_options": {"buckets": list(buckets)}}
                for family, buckets in model.metrics.items()
            ]
        }
    if model.operations:
        tree["model_operations"] = {"op_library_filename": [name_of(text) for text in model.operations]}
    if model.decoupled:
        tree["model_transaction_policy"] = {"decoupled": True}
    if model.agents:
        sums = {f"{CHECKSUM}:{name}": digest for name, digest in sorted(checksums.items())}
        agents = [_accelerator(a.name, sums if a.is_checksum else a.parameters) for a in model.agents]
        tree["model_repository_agents"] = {"agents": agents}
    return tree
