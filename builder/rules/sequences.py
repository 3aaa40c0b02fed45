"""Rules about sequence batching: its control tensors, its states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from builder.findings import KeyPath
from builder.rules.rule import Hit, Rule
from builder.rules.subject import ConfigRule, Subject, enum_name

_AT = "sequence_batching"
_VALUES = ("int32_false_true", "fp32_false_true", "bool_false_true")
_IDS = ("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING")
_CORRID = "CONTROL_SEQUENCE_CORRID"
_TWO = """sequence_batching {{ control_input [
  {{ name: "A", control [ {{ kind: CONTROL_SEQUENCE_{}, int32_false_true: [0, 1] }} ] }},
  {{ name: "B", control [ {{ kind: CONTROL_SEQUENCE_{}, int32_false_true: [0, 1] }} ] }} ] }}"""


def _controls(config: Any) -> Iterator[tuple[str, Any, KeyPath]]:
    """The tensor's name, the control, where it is."""
    for index, tensor in enumerate(config.sequence_batching.control_input):
        for position, control in enumerate(tensor.control):
            yield tensor.name, control, (_AT, "control_input", index, "control", position)


NAMES = Rule(
    id="sequence-control-name",
    severity="error",
    title="a sequence control tensor has no name, or another one's",
    reason='"sequence batching control tensor must have a name", "is specified for multiple control kinds".',
    fix="Give each control tensor a name of its own.",
    bad="sequence_batching { control_input [ {\n"
    "  control [ { kind: CONTROL_SEQUENCE_START, int32_false_true: [0, 1] } ] } ] }",
    good='sequence_batching { control_input [ { name: "START"\n'
    "  control [ { kind: CONTROL_SEQUENCE_START, int32_false_true: [0, 1] } ] } ] }",
)


def control_name(subject: Subject) -> Iterator[Hit]:
    """Of every `control_input`."""
    seen: Counter[str] = Counter()
    for index, tensor in enumerate(subject.config.sequence_batching.control_input):
        path = (_AT, "control_input", index)
        seen[tensor.name] += 1
        if not tensor.name:
            yield Hit("a sequence control tensor has no name", 'write name: "..."', path)
        elif seen[tensor.name] > 1:
            yield Hit(f"two sequence control tensors are named `{tensor.name}`", "rename one", (*path, "name"))


TWICE = Rule(
    id="sequence-control-twice",
    severity="error",
    title="two tensors for one sequence control",
    reason='"sequence batching specifies multiple CONTROL_SEQUENCE_.. tensors": each kind can go to one tensor only.',
    fix="Take one of them out.",
    bad=_TWO.format("START", "START"),
    good=_TWO.format("START", "END"),
)


def control_twice(subject: Subject) -> Iterator[Hit]:
    """The kind is START where it is not written: two controls without one are the same."""
    seen: Counter[str] = Counter()
    for name, control, path in _controls(subject.config):
        kind = enum_name(control, "kind")
        seen[kind] += 1
        if seen[kind] == 2:
            yield Hit(f"a second tensor, `{name}`, for {kind}", "take one of both out", (*path, "kind"))


VALUES = Rule(
    id="sequence-control-values",
    severity="error",
    title="a sequence control without exactly one pair of false and true",
    reason="START, END and READY are told by two values: \"must specify either 'int32_false_true', 'fp32_false_true' "
    'or \'bool_false_true\'", "specifies more than one", "must have exactly 2 entries". The correlation id is a value '
    "itself and has none of them.",
    fix="Write one pair, `int32_false_true: [0, 1]`; for CONTROL_SEQUENCE_CORRID `data_type` alone.",
    bad='sequence_batching { control_input [ { name: "START"\n'
    "  control [ { kind: CONTROL_SEQUENCE_START, fp32_false_true: [0] } ] } ] }",
    good='sequence_batching { control_input [ { name: "START"\n'
    "  control [ { kind: CONTROL_SEQUENCE_START, fp32_false_true: [0, 1] } ] } ] }",
)


def control_values(subject: Subject) -> Iterator[Hit]:
    """Which of the three lists are there, and how long."""
    for name, control, path in _controls(subject.config):
        kind = enum_name(control, "kind")
        written = {field: len(getattr(control, field)) for field in _VALUES if getattr(control, field)}
        if kind == _CORRID:
            for field in written:
                yield Hit(f"`{name}` is the correlation id and has {field}", f"take {field} out", (*path, field))
        elif not written:
            yield Hit(f"{kind} to `{name}` without values", "write int32_false_true: [0, 1]", path)
        elif len(written) > 1:
            yield Hit(f"{kind} to `{name}` with {' and '.join(written)}", "keep one of them", path)
        else:
            for field, count in written.items():
                if count != 2:
                    yield Hit(
                        f"{field} of `{name}` has {count} value{'s' if count > 1 else ''}",
                        f"write two: {field}: [{'false, true' if field.startswith('bool') else '0, 1'}]",
                        (*path, field),
                    )


ID = Rule(
    id="sequence-id-type",
    severity="error",
    title="the correlation id has a type that no id can have",
    reason='"unexpected data type for control CONTROL_SEQUENCE_CORRID": ids are 32 or 64 bit integers, or strings.',
    fix="Write data_type: TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 or TYPE_STRING.",
    bad='sequence_batching { control_input [ { name: "ID"\n'
    "  control [ { kind: CONTROL_SEQUENCE_CORRID, data_type: TYPE_FP32 } ] } ] }",
    good='sequence_batching { control_input [ { name: "ID"\n'
    "  control [ { kind: CONTROL_SEQUENCE_CORRID, data_type: TYPE_UINT64 } ] } ] }",
)


def id_type(subject: Subject) -> Iterator[Hit]:
    """Missing counts as TYPE_INVALID."""
    for name, control, path in _controls(subject.config):
        kind = enum_name(control, "data_type")
        if enum_name(control, "kind") == _CORRID and kind not in _IDS and name:
            got = "no data_type" if kind == "TYPE_INVALID" else kind
            yield Hit(f"the correlation id `{name}` has {got}", f"one of {', '.join(_IDS)}", (*path, "data_type"))


SLOTS = Rule(
    id="sequence-slot-utilization",
    severity="error",
    title="minimum_slot_utilization is not between 0 and 1",
    reason='"sequence batching minimum slot utilization must be in range (0.0, 1.0]": it is a part of the slots.',
    fix="Write a number from 0 to 1.",
    bad="sequence_batching { direct { minimum_slot_utilization: 80 } }",
    good="sequence_batching { direct { minimum_slot_utilization: 0.8 } }",
)


def slot_utilization(subject: Subject) -> Iterator[Hit]:
    """Of the direct strategy."""
    part = subject.config.sequence_batching.direct.minimum_slot_utilization
    if part < 0 or part > 1:
        path = (_AT, "direct", "minimum_slot_utilization")
        yield Hit(f"minimum_slot_utilization is {part:g}", "write a number from 0 to 1", path)


STATE = Rule(
    id="sequence-initial-state",
    severity="error",
    title="an initial state that does not fit its state",
    reason="An initial state has the state's type and dims, none of them variable, a name, and either `zero_data` or "
    "`data_file`; a state has at most one.",
    fix="Write the initial state with the state's own data_type and dims.",
    bad='sequence_batching { state [ { input_name: "in", output_name: "out", data_type: TYPE_FP32, dims: [4]\n'
    '  initial_state: { data_type: TYPE_FP32, dims: [8], zero_data: true, name: "zero" } } ] }',
    good='sequence_batching { state [ { input_name: "in", output_name: "out", data_type: TYPE_FP32, dims: [4]\n'
    '  initial_state: { data_type: TYPE_FP32, dims: [4], zero_data: true, name: "zero" } } ] }',
)


def initial_state(subject: Subject) -> Iterator[Hit]:
    """Every way in which one can differ, in the order in which the server looks."""
    seen: set[str] = set()
    for index, state in enumerate(subject.config.sequence_batching.state):
        path = (_AT, "state", index, "initial_state")
        of = f"the initial state of `{state.input_name}`"
        if len(state.initial_state) > 1:
            yield Hit(f"`{state.input_name}` has {len(state.initial_state)} initial states", "keep one", path)
            continue
        for first in state.initial_state:
            at = (*path, 0)
            if first.data_type != state.data_type:
                got, want = enum_name(first, "data_type"), enum_name(state, "data_type")
                yield Hit(f"{of} is {got}, the state {want}", f"write data_type: {want}", (*at, "data_type"))
            if not first.name:
                yield Hit(f"{of} has no name", 'write name: "..."', at)
            if state.input_name in seen:
                yield Hit(f"two states with an initial state are `{state.input_name}`", "rename one", at)
            seen.add(state.input_name)
            yield from _dims(of, list(first.dims), list(state.dims), (*at, "dims"))
            if first.WhichOneof("state_data") is None:
                yield Hit(f"{of} has neither zero_data nor data_file", "write zero_data: true", at)


def _dims(of: str, first: list[int], state: list[int], path: KeyPath) -> Iterator[Hit]:
    if -1 in first:
        yield Hit(f"{of} has a variable dim: {first}", "write its sizes", path)
    elif len(first) != len(state) or any(a != b for a, b in zip(first, state, strict=True) if b != -1):
        yield Hit(f"{of} has dims {first}, the state {state}", "write the state's dims", path)


PASSIVE = Rule(
    id="sequence-needs-instance",
    severity="warning",
    title="sequence batching and only passive instances",
    reason="A passive instance runs only what the backend itself gives it, so the scheduler has none: the model loads, "
    "and no sequence is ever run.",
    fix="Take `passive` out of one instance group.",
    bad="sequence_batching { }\ninstance_group [ { kind: KIND_CPU, passive: true } ]",
    good="sequence_batching { }\ninstance_group [ { kind: KIND_CPU } ]",
)


def needs_instance(subject: Subject) -> Iterator[Hit]:
    """All groups passive."""
    config = subject.config
    groups = config.instance_group
    if config.HasField(_AT) and groups and all(group.passive for group in groups):
        fix = "take `passive` out of one instance group"
        yield Hit("all instances are passive, so none can run a sequence", fix, ("instance_group", 0, "passive"))


RULES: tuple[ConfigRule, ...] = (
    (NAMES, control_name),
    (TWICE, control_twice),
    (VALUES, control_values),
    (ID, id_type),
    (SLOTS, slot_utilization),
    (STATE, initial_state),
    (PASSIVE, needs_instance),
)
