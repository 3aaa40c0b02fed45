"""Graphs out of ``ModelConfig`` messages and back: any hand-written repository, and what the builder writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from builder.ensemble.graph import BATCH_DIM, FREE, EnsembleGraph, Port, Step, StepModel
from builder.tensors import BATCH, Dim, Interface, TensorSpec
from serving.dtypes import BY_CONFIG

_ONNX_NAMES = ("onnxruntime", "onnxruntime_onnx")


def step_model_of_config(
    config: Any, *, versions: Iterable[int] | None = None, served: Iterable[int] | None = None
) -> StepModel:
    """What an ensemble has to know of a model, from its ``ModelConfig`` message.

    A list of tensors that is empty counts as not known: the backend completes it when it loads the model.

    Args:
        config: the message.
        versions: version folders that are there; None where that is not known.
        served: those that the version policy leaves; None where that is not known.
    """
    batches = config.max_batch_size > 0
    format_ = "onnx" if config.backend in _ONNX_NAMES or config.platform in _ONNX_NAMES else config.backend
    return StepModel(
        name=config.name,
        max_batch_size=config.max_batch_size,
        inputs=tuple(_port(tensor, tensor.dims, batches) for tensor in config.input) or None,
        outputs=tuple(_port(tensor, tensor.dims, batches) for tensor in config.output) or None,
        decoupled=config.model_transaction_policy.decoupled,
        sequence=config.HasField("sequence_batching"),
        versions=None if versions is None else tuple(sorted(versions)),
        served=None if served is None else tuple(sorted(served)),
        format=format_ or config.platform,
        instance_kinds=tuple(sorted({group.Kind.Name(group.kind) for group in config.instance_group})),
        response_cache=config.response_cache.enable,
        steps=tuple(dict.fromkeys(step.model_name for step in config.ensemble_scheduling.step)),
    )


def _port(tensor: Any, dims: Iterable[int], batches: bool) -> Port:
    named = type(tensor).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name
    sizes = tuple(Dim(size=size) if size >= 0 else FREE for size in dims)
    return Port(
        tensor.name,
        BY_CONFIG.get(named),
        (BATCH_DIM, *sizes) if batches else sizes,
        optional=getattr(tensor, "optional", False),
        ragged=getattr(tensor, "allow_ragged_batch", False),
    )


def graph_of_config(config: Any, models: Mapping[str, StepModel]) -> EnsembleGraph:
    """The graph of an ensemble's ``ModelConfig`` message.

    Args:
        config: a message with ``ensemble_scheduling``.
        models: every other model of the repository, by name.
    """
    batches = config.max_batch_size > 0
    written = config.ensemble_scheduling.step
    often = Counter(step.model_name for step in written)
    seen: Counter[str] = Counter()
    steps = []
    for index, step in enumerate(written):
        seen[step.model_name] += 1
        name = step.model_name or f"step {index}"
        steps.append(
            Step(
                name if often[step.model_name] == 1 else f"{name}#{seen[step.model_name]}",
                step.model_name,
                _known(step.model_name, models),
                step.model_version,
                dict(sorted(step.input_map.items())),
                dict(sorted(step.output_map.items())),
            )
        )
    return EnsembleGraph(
        name=config.name,
        inputs=_own(config.input, batches),
        outputs=_own(config.output, batches),
        max_batch_size=config.max_batch_size,
        steps=tuple(steps),
        uses=reached(config.name, tuple(dict.fromkeys(step.model_name for step in written)), models),
        models=tuple(sorted({*models} - {config.name})),
        response_cache=config.response_cache.enable,
        max_inflight_requests=config.ensemble_scheduling.max_inflight_requests,
    )


def _known(name: str, models: Mapping[str, StepModel]) -> StepModel | None:
    """A model; an ensemble is decoupled where one of its steps is, as the server finds out when it loads it."""
    model = models.get(name)
    if model is None or not model.steps or model.decoupled:
        return model
    inner = {part for parts in reached(name, model.steps, models).values() for part in parts}
    return replace(model, decoupled=any(models[part].decoupled for part in inner if part in models))


def _own(tensors: Any, batches: bool) -> tuple[Port, ...]:
    """The ensemble's own tensors, as the steps see them: after its reshape."""
    seen: dict[str, Port] = {}
    for tensor in tensors:
        dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
        seen.setdefault(tensor.name, _port(tensor, dims, batches))
    return tuple(seen.values())


def reached(name: str, steps: tuple[str, ...], models: Mapping[str, StepModel]) -> dict[str, tuple[str, ...]]:
    """Ensemble: the models that it is made of; for ``name`` and every ensemble that can be reached from it."""
    found = {name: steps}
    waiting = list(steps)
    while waiting:
        other = waiting.pop()
        if other in models and other not in found and models[other].steps:
            found[other] = models[other].steps
            waiting += models[other].steps
    return dict(sorted(found.items()))


def step_model_of_interface(name: str, interface: Interface, *, max_batch_size: int, **more: Any) -> StepModel:
    """What an ensemble has to know of a model of the spec.

    Args:
        name: in the repository.
        interface: its tensors as the spec, or its artifact, has them.
        max_batch_size: Triton's.
        more: further attributes of :class:`StepModel`.
    """
    return StepModel(
        name,
        max_batch_size,
        tuple(port_of_tensor(tensor) for tensor in interface.inputs),
        tuple(port_of_tensor(tensor) for tensor in interface.outputs),
        **more,
    )


def port_of_tensor(tensor: TensorSpec, *, optional: bool = False) -> Port:
    """A tensor of the spec as a port."""
    return Port(tensor.name, tensor.dtype, tensor.dims, optional=optional)


def config_tree(graph: EnsembleGraph) -> dict[str, Any]:
    """The ensemble's ``ModelConfig`` as a tree of protobuf field names; the same bytes for the same graph.

    Raises:
        ValueError: a tensor of the ensemble has no type or no rank; ``wire`` leaves none such.
    """
    tree: dict[str, Any] = {
        "name": graph.name,
        "platform": "ensemble",
        "max_batch_size": graph.max_batch_size,
        "input": [_tensor(port, graph.batches) for port in graph.inputs],
        "output": [_tensor(port, graph.batches) for port in graph.outputs],
    }
    scheduling: dict[str, Any] = {
        "step": [
            {
                "model_name": step.model_name,
                "model_version": step.model_version,
                "input_map": dict(sorted(step.inputs.items())),
                "output_map": dict(sorted(step.outputs.items())),
            }
            for step in graph.steps
        ]
    }
    if graph.max_inflight_requests:
        scheduling["max_inflight_requests"] = graph.max_inflight_requests
    tree["ensemble_scheduling"] = scheduling
    if graph.response_cache:
        tree["response_cache"] = {"enable": True}
    return tree


def _tensor(port: Port, batches: bool) -> dict[str, Any]:
    if port.dtype is None or port.dims is None:
        raise ValueError(f"{port.name!r} of the ensemble is {port}: its type and rank have to be known")
    if batches and port.dims[:1] != (BATCH_DIM,):
        raise ValueError(f"{port.name!r} of a batching ensemble is {port}: it begins with `{BATCH}`")
    dims = port.dims[1:] if batches else port.dims
    tree: dict[str, Any] = {
        "name": port.name,
        "data_type": port.dtype.config,
        "dims": [dim.size if dim.size is not None else -1 for dim in dims],
    }
    if port.optional:
        tree["optional"] = True
    return tree
