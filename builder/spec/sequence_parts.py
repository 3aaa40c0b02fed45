"""Sequence batching in a model's entry: the strategy, the tensors that Triton fills in, the state that it keeps.

The ``Attributes`` of each class are the reference, as in :mod:`builder.spec.parts`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, WithJsonSchema, model_validator

from builder.findings import Finding, Findings, did_you_mean, refuse
from builder.spec.parts import FileText, Part
from builder.spec.serving_parts import Microseconds, Size, Text, outside
from builder.tensors import Interface

CONTROLS = ("START", "READY", "END", "CORRID")
_PREFIX = "CONTROL_SEQUENCE_"
FALSE_TRUE: dict[str, str] = {"int32": "int32_false_true", "float32": "fp32_false_true", "bool": "bool_false_true"}
"""By the tensor's element type: the field that holds the values for false and true."""
_CORRID_TYPES = ("uint64", "int64", "uint32", "int32", "string")
ZERO = "zero"


class Direct(Part):
    """Every sequence has a slot of its own in the batch, for models that keep state by slot.

    Attributes:
        max_queue_delay_microseconds: how long a request may wait for others.
        minimum_slot_utilization: share of the slots that has to be ready before that, 0 to 1.
    """

    max_queue_delay_microseconds: Microseconds = 0
    minimum_slot_utilization: float = Field(0.0, ge=0, le=1, strict=True, allow_inf_nan=False)


class Oldest(Part):
    """The requests of different sequences are put into batches as they come, the oldest first.

    Attributes:
        max_candidate_sequences: how many sequences an instance works on at a time.
        preferred_batch_size: sizes that are sent on at once.
        max_queue_delay_microseconds: how long a request may wait for others.
        preserve_ordering: answers are sent in the order of their requests.
    """

    max_candidate_sequences: int = Field(ge=1, le=2**31 - 1, strict=True)
    preferred_batch_size: tuple[Size, ...] = ()
    max_queue_delay_microseconds: Microseconds = 0
    preserve_ordering: StrictBool = False


class Control(Part):
    """What Triton writes into an input of the model's.

    Attributes:
        kind: `START`, `READY`, `END` (false or true) or `CORRID` (the sequence's id).
        values: what stands for false and for true.
    """

    kind: Literal["START", "READY", "END", "CORRID"]
    values: tuple[Any, ...] = (0, 1)


def _control(value: Any) -> Any:
    """``START``, or ``{START: [0, 1]}``, as pydantic checks it."""
    expected = f"{', '.join(CONTROLS)}, or with the values for false and true: {{START: [0, 1]}}"
    kind, values = value, None
    if isinstance(value, dict) and len(value) == 1:
        [(kind, values)] = value.items()
    if not isinstance(kind, str):
        raise refuse("this is no control of a sequence", expected=expected)
    short = kind.removeprefix(_PREFIX)
    if short not in CONTROLS:
        raise refuse(f"{kind!r} is no control of a sequence", expected=expected, fix=did_you_mean(short, CONTROLS))
    if values is None and not isinstance(value, dict):
        return {"kind": short}
    if short == "CORRID":
        raise refuse("CORRID has no values for false and true: it is the sequence's id", fix="write CORRID alone")
    if not isinstance(values, list) or len(values) != 2 or not all(isinstance(v, (int, float)) for v in values):
        raise refuse(f"{short} needs two values", expected=f"for false and true: {{{short}: [0, 1]}}")
    return {"kind": short, "values": values}


_CONTROL_SCHEMA = {
    "anyOf": [
        {"enum": list(CONTROLS)},
        {"type": "object", "additionalProperties": {"type": "array", "items": {"type": ["number", "boolean"]}}},
    ]
}


class State(Part):
    """A pair of tensors between which Triton keeps a sequence's state; clients see neither.

    Attributes:
        input_name: the input that gets what the last request of the sequence gave.
        output_name: the output that gives it.
        initial_state: `zero`, or a file with the raw bytes (`array.tofile(...)`) that the first request gets, which is
            copied into the version folder.
        use_same_buffer_for_input_output: the server keeps one buffer for both.
        use_growable_memory: the buffer grows in place; for states whose size changes, on GPUs.
    """

    input_name: Text
    output_name: Text
    initial_state: FileText | None = None
    use_same_buffer_for_input_output: StrictBool = False
    use_growable_memory: StrictBool = False

    @property
    def file(self) -> str | None:
        """The file of the initial state, if there is one."""
        return None if self.initial_state == ZERO else self.initial_state


class Sequence(Part):
    """Triton's sequence batcher: the requests of a sequence go to one instance, one after the other.

    Attributes:
        direct: the strategy; Triton's default.
        oldest: the other strategy.
        max_sequence_idle_microseconds: a sequence that is idle for longer is over; by default a second.
        controls: input: what Triton writes into it. Clients do not send these.
        state: what Triton keeps between the requests of a sequence.
        iterative: a request is run again and again until the model says that it is done.
    """

    direct: Direct | None = None
    oldest: Oldest | None = None
    max_sequence_idle_microseconds: Microseconds = 0
    controls: dict[Text, Annotated[Control, BeforeValidator(_control), WithJsonSchema(_CONTROL_SCHEMA)]] = Field({})
    state: tuple[State, ...] = ()
    iterative: StrictBool = False

    @model_validator(mode="after")
    def _consistent(self) -> Sequence:
        found = []
        if self.direct is not None and self.oldest is not None:
            found.append(Finding("`direct` and `oldest` are two strategies", "one of them", path=("oldest",)))
        first: dict[str, str] = {}
        for tensor, control in self.controls.items():
            if first.setdefault(control.kind, tensor) != tensor:
                what = f"{control.kind} is given to {first[control.kind]!r} and to {tensor!r}"
                found.append(Finding(what, "one tensor for each control", path=("controls", tensor)))
        for key in ("input_name", "output_name"):
            seen: set[str] = set()
            for index, state in enumerate(self.state):
                name = getattr(state, key)
                if name in seen:
                    found.append(Finding(f"state: {name!r} is here twice", path=("state", index, key)))
                seen.add(name)
        if found:
            raise Findings(found)
        return self

    def findings(self, interface: Interface, max_batch: int) -> list[Finding]:
        """What is wrong with it for these tensors; paths begin at the model.

        Args:
            interface: the model's tensors, as declared or as the file has them.
            max_batch: the largest batch.
        """
        found = [*self._control_findings(interface), *self._state_findings(interface)]
        if self.oldest is not None:
            found += [
                Finding(each.what, each.expected, each.got, each.fix, ("oldest", *each.path))
                for each in outside(self.oldest.preferred_batch_size, max(max_batch, 1), "preferred_batch_size")
            ]
        return [Finding(each.what, each.expected, each.got, each.fix, ("sequence", *each.path)) for each in found]

    def _control_findings(self, interface: Interface) -> list[Finding]:
        found, inputs = [], {tensor.name: tensor for tensor in interface.inputs}
        for name, control in self.controls.items():
            path = ("controls", name)
            if name not in inputs:
                what = f"a control for {name!r}, which is none of the inputs"
                found.append(Finding(what, ", ".join(inputs), fix=did_you_mean(name, inputs), path=path))
                continue
            dtype = inputs[name].dtype.name
            allowed = _CORRID_TYPES if control.kind == "CORRID" else tuple(FALSE_TRUE)
            if dtype not in allowed:
                what = f"{control.kind} cannot be written into {name!r}, which is {dtype}"
                found.append(Finding(what, ", ".join(allowed), path=path))
        return found

    def _state_findings(self, interface: Interface) -> list[Finding]:
        found = []
        sides = (("input_name", interface.inputs), ("output_name", interface.outputs))
        for index, state in enumerate(self.state):
            tensors = []
            for key, side in sides:
                known = {tensor.name: tensor for tensor in side}
                name = getattr(state, key)
                if name not in known:
                    what = f"state: {name!r} is none of the {key.removesuffix('_name')}s"
                    fix = did_you_mean(name, known)
                    found.append(Finding(what, ", ".join(known), fix=fix, path=("state", index, key)))
                elif name in self.controls:
                    what = f"{name!r} is a control and a state"
                    found.append(Finding(what, "one of them", path=("state", index, key)))
                else:
                    tensors.append(known[name])
            if len(tensors) == 2 and tensors[0].dtype != tensors[1].dtype:
                what = f"state: {tensors[0].name!r} and {tensors[1].name!r} are of different types"
                got = f"{tensors[0].dtype.name} and {tensors[1].dtype.name}"
                found.append(Finding(what, "what comes out goes in again", got, path=("state", index)))
        return found
