"""How requests come to the model: the dynamic batcher with its queues, or the sequence batcher with its controls."""

from __future__ import annotations

from typing import Any

from builder.spec import ModelSpec, QueuePolicy, Sequence, State
from builder.spec.sequence_parts import FALSE_TRUE
from builder.tensors import Interface, TensorSpec

INITIAL_STATES = "initial_state"
"""The folder in which Triton looks for files of initial states; ours is one of that name in the version folder."""


def dynamic_batching(model: ModelSpec) -> dict[str, Any]:
    """``dynamic_batching`` as the spec has it."""
    batch = model.batch
    block: dict[str, Any] = {}
    if batch.preferred:
        block["preferred_batch_size"] = list(batch.preferred)
    for key in ("max_queue_delay_microseconds", "preserve_ordering", "priority_levels", "default_priority_level"):
        if getattr(batch, key):
            block[key] = getattr(batch, key)
    if batch.default_queue_policy is not None:
        block["default_queue_policy"] = _queue_policy(batch.default_queue_policy)
    if batch.priority_queue_policy:
        levels = sorted(batch.priority_queue_policy.items())
        block["priority_queue_policy"] = {str(level): _queue_policy(policy) for level, policy in levels}
    return block


def _queue_policy(policy: QueuePolicy) -> dict[str, Any]:
    return policy.model_dump(include=policy.model_fields_set)


def batching_comment(model: ModelSpec) -> str:
    """What the batcher does, in words."""
    delay = model.batch.max_queue_delay_microseconds
    wait = f"each waits for company at most {delay} us" if delay else "none waits for company"
    return f"Requests that are there together run together, up to {model.batch.max}; {wait}."


def sequence_batching(sequence: Sequence, interface: Interface, *, batching: bool) -> dict[str, Any]:
    """``sequence_batching`` as the spec has it; types and shapes are those of the model's tensors.

    Args:
        sequence: what the spec says, which fits the tensors (:meth:`Sequence.findings`).
        interface: the model's tensors.
        batching: whether the server batches.
    """
    block: dict[str, Any] = {}
    for key in ("direct", "oldest"):
        strategy = getattr(sequence, key)
        if strategy is not None:
            given = strategy.model_dump(include=strategy.model_fields_set)
            block[key] = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    if sequence.max_sequence_idle_microseconds:
        block["max_sequence_idle_microseconds"] = sequence.max_sequence_idle_microseconds
    inputs = {tensor.name: tensor for tensor in interface.inputs}
    if sequence.controls:
        block["control_input"] = [
            {"name": name, "control": [_control(control.kind, control.values, inputs[name])]}
            for name, control in sequence.controls.items()
        ]
    if sequence.state:
        block["state"] = [_state(state, inputs[state.input_name], batching) for state in sequence.state]
    if sequence.iterative:
        block["iterative_sequence"] = True
    return block


def _control(kind: str, values: tuple[Any, ...], tensor: TensorSpec) -> dict[str, Any]:
    control: dict[str, Any] = {"kind": f"CONTROL_SEQUENCE_{kind}"}
    if kind == "CORRID":
        return {**control, "data_type": tensor.dtype.config}
    kinds: dict[str, type] = {"int32": int, "float32": float, "bool": bool}
    return {**control, FALSE_TRUE[tensor.dtype.name]: [kinds[tensor.dtype.name](value) for value in values]}


def _state(state: State, tensor: TensorSpec, batching: bool) -> dict[str, Any]:
    shape = {"data_type": tensor.dtype.config, "dims": tensor.config_dims(batching=batching)}
    block: dict[str, Any] = {"input_name": state.input_name, "output_name": state.output_name, **shape}
    if state.initial_state is not None:
        file = state_file(state)
        content = {"data_file": file.removeprefix(f"{INITIAL_STATES}/")} if file else {"zero_data": True}
        dims = [1 if size == -1 else size for size in shape["dims"]]
        block["initial_state"] = [{**shape, "dims": dims, **content, "name": f"{state.input_name} at the beginning"}]
    for key in ("use_same_buffer_for_input_output", "use_growable_memory"):
        if getattr(state, key):
            block[key] = True
    return block


def state_file(state: State) -> str | None:
    """The name of a state's file in the version folder, if it has one."""
    from builder.config.files import plain

    return f"{INITIAL_STATES}/{plain(state.input_name)}" if state.file else None


def unseen(model: ModelSpec) -> frozenset[str]:
    """The model's tensors that are no tensors to clients: controls, states, and inputs that Triton makes of a batch."""
    names = {name for name, options in model.tensors.items() if options.batch_input}
    if model.sequence is not None:
        names |= set(model.sequence.controls)
        names |= {name for state in model.sequence.state for name in (state.input_name, state.output_name)}
    return frozenset(names)
