"""Requests as clients of the server see them: reshaped where the configuration says so, without what Triton adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from builder.numerics import Array
from builder.samples import Sample, Samples
from builder.spec import Sequence as SequenceSpec
from builder.verify.cases import Case
from builder.verify.streamed import COUNT, output_of

_CORRID = "CORRID"


def as_seen(cases: Sequence[Case], tree: Mapping[str, Any], sequence: SequenceSpec | None = None) -> list[Case]:
    """The cases for a model with this configuration.

    Args:
        cases: requests and answers in the tensors of the model itself.
        tree: the decided configuration.
        sequence: what the spec says of sequences: each case becomes one of its own, of a single request.
    """
    sides = [{entry["name"]: entry for entry in tree.get(key) or ()} for key in ("input", "output")]
    if not any("reshape" in entry for side in sides for entry in side.values()) and sequence is None:
        return list(cases)
    batching = bool(tree.get("max_batch_size"))
    seen = [
        replace(
            case,
            inputs=_shown(case.inputs, sides[0], batching),
            expected=_shown(case.expected, sides[1], batching),
            sequence=_id(case, sequence, number) if sequence else 0,
        )
        for number, case in enumerate(cases, start=1)
    ]
    # A sequence whose id the model reads is asked once: two of one id at a time would end each other.
    return list({case.sequence: case for case in seen}.values()) if sequence and _corrid(sequence) else seen


def _shown(arrays: Mapping[str, Array], entries: Mapping[str, Any], batching: bool) -> dict[str, Array]:
    found = {}
    for name, array in arrays.items():
        entry = entries.get(output_of(name))
        if name == COUNT:
            found[name] = array
            continue
        if entry is None:  # a control, a state, an input that Triton makes
            continue
        leading = array.shape[:1] if batching else ()
        found[name] = array.reshape((*leading, *entry["dims"])) if "reshape" in entry else array
    return found


def _corrid(sequence: SequenceSpec) -> str | None:
    return next((name for name, control in sequence.controls.items() if control.kind == _CORRID), None)


def _id(case: Case, sequence: SequenceSpec, number: int) -> int | str:
    name = _corrid(sequence)
    if name is None:
        return number
    value = case.inputs[name].reshape(-1)[0]
    return value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else int(value)


def of_sequences(samples: Samples, sequence: SequenceSpec) -> Samples:
    """The samples with what Triton writes into a sequence of one request: at its start, its end, ready, state zero.

    Each has an id of its own where the model is told one.
    """
    rows: list[Sample] = []
    states = {state.input_name for state in sequence.state}
    for number, row in enumerate(samples.rows, start=1):
        filled = dict(row)
        for name, control in sequence.controls.items():
            value: Any = control.values[1]
            if control.kind == _CORRID:
                value = number if row[name].dtype.kind in "iu" else str(number).encode()
            filled[name] = np.full_like(row[name], value)
        rows.append(filled | {name: np.zeros_like(row[name]) for name in states})
    return replace(samples, rows=tuple(rows))
