"""Batching, sequences, instances, versions, warmup: settings that contradict themselves or the model."""

from __future__ import annotations

import random
from typing import Any

from benchmarks.differential.mutate_config import FLOAT, STRING, from_text, in_config, tensor


def preferred_sizes(config: Any, rng: random.Random) -> object:
    """Preferred batch sizes of zero, below, above the largest batch, twice, unsorted."""
    sizes = rng.choice(([0], [-4], [1000], [4, 4], [8, 2], [1], [config.max_batch_size], [config.max_batch_size + 1]))
    if config.HasField("sequence_batching"):
        target = config.sequence_batching.oldest
    elif config.HasField("ensemble_scheduling"):
        return False
    else:
        target = config.dynamic_batching
    del target.preferred_batch_size[:]
    target.preferred_batch_size.extend(sizes)
    return True


def priorities(config: Any, rng: random.Random) -> object:
    """Priority levels without a default, a default outside, policies for levels that are none."""
    if config.HasField("sequence_batching") or config.HasField("ensemble_scheduling"):
        return False
    from_text(
        config,
        rng.choice(
            (
                "dynamic_batching { priority_levels: 4 }",
                "dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
                "dynamic_batching { default_priority_level: 9 }",
                "dynamic_batching { priority_levels: 4 default_priority_level: 0 }",
                "dynamic_batching { priority_queue_policy { key: 9 value { max_queue_size: 1 } } }",
                "dynamic_batching { priority_queue_policy { key: 0 value { max_queue_size: 1 } } }",
                "dynamic_batching { priority_levels: 1 default_priority_level: 1 }",
                "dynamic_batching { priority_levels: 10 default_priority_level: 10 "
                "priority_queue_policy { key: 10 value { } } }",
                "dynamic_batching { priority_levels: 18446744073709551615 default_priority_level: 1 }",
                "dynamic_batching { default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 1 } }",
            )
        ),
    )
    return True


def batching_without_batch(config: Any, rng: random.Random) -> object:
    """Dynamic batching where the largest batch is nothing."""
    if config.HasField("ensemble_scheduling"):
        return False
    config.max_batch_size = 0
    config.dynamic_batching.max_queue_delay_microseconds = rng.choice((0, 100))
    if rng.random() < 0.3:
        config.dynamic_batching.preferred_batch_size.append(rng.choice((0, 1, 4)))
    return True


def delay_changed(config: Any, rng: random.Random) -> object:
    """Queue delays of any length."""
    if config.HasField("ensemble_scheduling") or config.HasField("sequence_batching"):
        return False
    config.dynamic_batching.max_queue_delay_microseconds = rng.choice((0, 1, 10**9, 2**64 - 1))
    return True


def scheduler_changed(config: Any, rng: random.Random) -> object:
    """Another scheduler than the model has."""
    if config.HasField("ensemble_scheduling"):
        from_text(config, rng.choice(("dynamic_batching { }", "sequence_batching { }")))
        return True
    options = (
        "ensemble_scheduling { }",
        "sequence_batching { }",
        "sequence_batching { oldest { } }",
        "sequence_batching { direct { } }",
    )
    from_text(config, rng.choice(options))
    return True


def control_changed(config: Any, rng: random.Random) -> object:
    """A sequence control without a kind, a name, values; with two kinds, values of two types, a wrong type."""
    controls = config.sequence_batching.control_input if config.HasField("sequence_batching") else ()
    if not controls:
        return False
    control = rng.choice(list(controls))
    part = control.control[0]
    way = rng.randrange(11)
    if way == 0:
        control.name = ""
    elif way == 1:
        del control.control[:]
    elif way == 2:
        del part.int32_false_true[:], part.fp32_false_true[:], part.bool_false_true[:]
        part.data_type = 0
    elif way == 3:
        part.fp32_false_true.extend([0, 1])
    elif way == 4:
        part.int32_false_true.append(3)
    elif way == 5:
        controls.add().CopyFrom(control)
    elif way == 6:
        part.data_type = rng.choice((FLOAT, STRING, 5, 9))
    elif way == 7:
        part.kind = rng.choice((0, 1, 2, 3))
    elif way == 8:
        control.control.add().CopyFrom(part)
    elif way == 9:
        control.name = controls[0].name
    else:
        control.name = config.input[0].name if config.input else "x"
    return True


def control_removed(config: Any, rng: random.Random) -> object:
    """A sequence batcher with fewer controls, or none."""
    controls = config.sequence_batching.control_input if config.HasField("sequence_batching") else ()
    if not controls:
        return False
    if rng.random() < 0.4:
        del controls[:]
    else:
        del controls[rng.randrange(len(controls))]
    return True


def control_added(config: Any, rng: random.Random) -> object:
    """A sequence control that the model has no input for."""
    if not config.HasField("sequence_batching"):
        return False
    kind = rng.choice(("START", "END", "READY"))
    values = rng.choice(("int32_false_true: [ 0, 1 ]", "fp32_false_true: [ 0, 1 ]", "bool_false_true: [ false, true ]"))
    from_text(
        config,
        f'sequence_batching {{ control_input {{ name: "{kind}2" '
        f"control {{ kind: CONTROL_SEQUENCE_{kind} {values} }} }} }}",
    )
    return True


def sequence_limits(config: Any, rng: random.Random) -> object:
    """Limits of the sequence batcher out of bounds."""
    if not config.HasField("sequence_batching"):
        return False
    from_text(
        config,
        "sequence_batching { "
        + rng.choice(
            (
                "oldest { max_candidate_sequences: 0 }",
                "oldest { max_candidate_sequences: -2 }",
                "oldest { max_candidate_sequences: 1 }",
                "oldest { max_candidate_sequences: 4 preferred_batch_size: 0 }",
                "direct { minimum_slot_utilization: 2.5 }",
                "direct { minimum_slot_utilization: -1 }",
                "max_sequence_idle_microseconds: 0",
                "iterative_sequence: true",
                "max_sequence_idle_microseconds: 18446744073709551615",
            )
        )
        + " }",
    )
    return True


def state_changed(config: Any, rng: random.Random) -> object:
    """An implicit state without names, type or shape, twice, or with a first value that does not fit."""
    states = config.sequence_batching.state if config.HasField("sequence_batching") else ()
    if not states:
        return False
    state = states[0]
    way = rng.randrange(10)
    if way == 0:
        state.input_name = ""
    elif way == 1:
        state.output_name = ""
    elif way == 2:
        state.data_type = rng.choice((0, FLOAT))
    elif way == 3:
        del state.dims[:]
    elif way == 4:
        state.dims[0] = rng.choice((0, -2, -1, 4))
    elif way == 5:
        states.add().CopyFrom(state)
    elif way == 6:
        state.initial_state[0].data_file = "absent"
    elif way == 7:
        state.initial_state[0].data_type = FLOAT
    elif way == 8:
        state.initial_state[0].name = ""
    else:
        state.initial_state[0].dims[0] = rng.choice((-1, 0, 7))
    return True


def instances_changed(config: Any, rng: random.Random) -> object:
    """Instance groups with impossible counts, GPUs for the CPU, resources that contradict each other."""
    group = rng.choice(
        (
            "count: -1",
            "count: -3 kind: KIND_CPU",
            "count: 0 kind: KIND_CPU",
            "count: 1 kind: KIND_CPU gpus: [ 0 ]",
            "count: 1 kind: KIND_MODEL gpus: [ 0 ]",
            "count: 1 kind: KIND_MODEL",
            "count: 1 kind: KIND_CPU secondary_devices { kind: KIND_NVDLA device_id: 0 }",
            'count: 1 kind: KIND_CPU profile: "0"',
            'count: 1 kind: KIND_CPU rate_limiter { resources { name: "A" count: 0 } }',
            "count: 1 kind: KIND_CPU "
            'rate_limiter { resources [ { name: "A" count: 1 }, { name: "A" global: true count: 1 } ] }',
            "count: 1 kind: KIND_CPU rate_limiter { resources { count: 1 } }",
            "count: 1 kind: KIND_CPU rate_limiter { priority: 0 }",
            'count: 1 kind: KIND_CPU host_policy: "numa9"',
            "count: 1 kind: KIND_CPU passive: true",
            'count: 1 name: "twice" }, { count: 1 name: "twice" ',
        )
    )
    del config.instance_group[:]
    from_text(config, f"instance_group [ {{ {group} }} ]")
    return True


def instances_on_gpu(config: Any, rng: random.Random) -> object:
    """Instances on GPUs, of which this machine has none."""
    if config.HasField("ensemble_scheduling"):
        return False
    del config.instance_group[:]
    group = rng.choice(("count: 1 kind: KIND_GPU", "count: 2 kind: KIND_GPU gpus: [ 0 ]", "count: 1 gpus: [ 0, 1 ]"))
    from_text(config, f"instance_group [ {{ {group} }} ]")
    return True


def versions_changed(config: Any, rng: random.Random) -> object:
    """A version policy that names no version, or one that is not there."""
    policy = rng.choice(
        (
            "latest { num_versions: 0 }",
            "latest { num_versions: 5 }",
            "specific { }",
            "specific { versions: [ 7 ] }",
            "specific { versions: [ 1, 9 ] }",
            "specific { versions: [ 0 ] }",
            "specific { versions: [ -1 ] }",
            "specific { versions: [ 1, 1 ] }",
            "all { }",
            "latest { }",
        )
    )
    config.ClearField("version_policy")
    from_text(config, f"version_policy {{ {policy} }}")
    return True


def warmup_changed(config: Any, rng: random.Random) -> object:
    """A warmup that lacks inputs, has others, or values that do not fit."""
    given = tensor(config, rng, "input")
    if given is None or config.HasField("ensemble_scheduling"):
        return False
    dims = [2 if dim < 0 else dim for dim in given.dims]
    batch = min(1, config.max_batch_size)
    name, kind = given.name, given.data_type
    way = rng.randrange(12)
    sample = {"name": "w", "batch": batch, "key": name, "type": kind, "dims": dims, "data": "zero_data: true"}
    changes = {
        0: {"key": name + "x"},
        1: {"type": FLOAT if kind != FLOAT else 9},
        2: {"dims": [*dims, 3]},
        3: {"dims": [dim + 1 for dim in dims]},
        4: {"batch": config.max_batch_size + 5},
        5: {"data": 'input_data_file: "absent"'},
        6: {"data": "random_data: true"},
        7: {"data": ""},
        8: {"dims": [-1 for _ in dims]},
        9: {"type": 0},
        10: {"name": ""},
        11: {"batch": 0},
    }
    sample |= changes[way]
    inner = f"data_type: {sample['type']} dims: {sample['dims']} {sample['data']}"
    inputs = f'inputs {{ key: "{sample["key"]}" value {{ {inner} }} }}'
    for other in config.input:
        if other.name != name:
            rest = [2 if dim < 0 else dim for dim in other.dims]
            value = f"data_type: {other.data_type} dims: {rest} zero_data: true"
            inputs += f' inputs {{ key: "{other.name}" value {{ {value} }} }}'
    del config.model_warmup[:]
    from_text(config, f'model_warmup {{ name: "{sample["name"]}" batch_size: {sample["batch"]} {inputs} }}')
    return True


def warmup_empty(config: Any, rng: random.Random) -> object:
    """A warmup that gives nothing, or not every input."""
    if config.HasField("ensemble_scheduling"):
        return False
    del config.model_warmup[:]
    from_text(config, rng.choice(('model_warmup { name: "w" batch_size: 1 }', "model_warmup { }")))
    return True


def batch_io_changed(config: Any, rng: random.Random) -> object:
    """A batch input or output without a source, a target, of another kind."""
    if not config.batch_input:
        return False
    given = config.batch_input[0]
    way = rng.randrange(9)
    if way == 0:
        del given.source_input[:]
    elif way == 1:
        del given.target_name[:]
    elif way == 2:
        given.source_input[0] = "absent"
    elif way == 3:
        given.data_type = rng.choice((0, 2, STRING))
    elif way == 4:
        given.kind = rng.choice((0, 2, 3, 4, 5))
    elif way == 5:
        given.source_input.append(given.source_input[0])
    elif way == 6:
        config.batch_output[0].target_name[0] = "absent"
    elif way == 7:
        del config.batch_output[0].source_input[:]
    else:
        given.target_name.append("second")
    return True


def cache_and_streams(config: Any, rng: random.Random) -> None:
    """Response cache, decoupled answers, sequences: not all of them go together."""
    if rng.random() < 0.7:
        config.response_cache.enable = True
    if rng.random() < 0.7:
        config.model_transaction_policy.decoupled = not config.model_transaction_policy.decoupled


def agents_added(config: Any, rng: random.Random) -> None:
    """A repository agent that the server does not have, or none in the list."""
    from_text(
        config,
        rng.choice(
            ('model_repository_agents { agents { name: "checksum" } }', "model_repository_agents { agents { } }")
        ),
    )


def optimization_changed(config: Any, rng: random.Random) -> None:
    """Optimizations of other devices, levels that are none, accelerators that are not known."""
    from_text(
        config,
        "optimization { "
        + rng.choice(
            (
                "graph { level: 9 }",
                "graph { level: -1 }",
                "cuda { graphs: true }",
                "cuda { graph_spec { batch_size: 4 } }",
                "cuda { graph_spec { batch_size: -1 } }",
                'execution_accelerators { cpu_execution_accelerator { name: "tensorrt" } }',
                'execution_accelerators { gpu_execution_accelerator { name: "warp" } }',
                'execution_accelerators { gpu_execution_accelerator { name: "tensorrt" '
                'parameters { key: "precision_mode" value: "FP8" } } }',
                "gather_kernel_buffer_threshold: 8",
                "eager_batching: true",
                "output_pinned_memory { enable: true }",
            )
        )
        + " }",
    )


SCHEDULING = {
    "preferred batch sizes": in_config(preferred_sizes),
    "priorities": in_config(priorities),
    "batching without a batch": in_config(batching_without_batch),
    "queue delay": in_config(delay_changed),
    "scheduler changed": in_config(scheduler_changed),
    "sequence control changed": in_config(control_changed),
    "sequence control removed": in_config(control_removed),
    "sequence control added": in_config(control_added),
    "sequence limits": in_config(sequence_limits),
    "sequence state": in_config(state_changed),
    "instance groups": in_config(instances_changed),
    "instances on a GPU": in_config(instances_on_gpu),
    "version policy": in_config(versions_changed),
    "warmup changed": in_config(warmup_changed),
    "warmup empty": in_config(warmup_empty),
    "batch inputs and outputs": in_config(batch_io_changed),
    "cache and streams": in_config(cache_and_streams),
    "repository agents": in_config(agents_added),
    "optimization": in_config(optimization_changed),
}
