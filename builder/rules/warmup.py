"""Rules about warmup requests, which the server makes at load: one that cannot be made refuses the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from builder.findings import KeyPath, did_you_mean
from builder.rules.rule import Hit, Rule
from builder.rules.subject import ConfigRule, Subject, enum_name

_AT = "model_warmup"


def _inputs(config: Any) -> Iterator[tuple[str, Any, KeyPath]]:
    """Every input of every warmup request that is run: one with batch_size 0 is skipped."""
    for index, request in enumerate(config.model_warmup):
        if request.batch_size:
            for name in sorted(request.inputs):
                yield name, request.inputs[name], (_AT, index, "inputs", name)


def _controls(config: Any) -> set[str]:
    """Inputs that the sequence batcher fills in, and a warmup request may."""
    batching = config.sequence_batching
    return {tensor.name for tensor in batching.control_input} | {state.input_name for state in batching.state}


DATA = Rule(
    id="warmup-data-missing",
    severity="error",
    title="an input of a warmup request has no data",
    reason="\"warmup setting expects input '..' to have input_data_type set\".",
    fix="Write zero_data: true, random_data: true or input_data_file.",
    bad='model_warmup [ { name: "w", batch_size: 1\n'
    '  inputs { key: "x", value { data_type: TYPE_FP32, dims: [4] } } } ]',
    good='model_warmup [ { name: "w", batch_size: 1\n'
    '  inputs { key: "x", value { data_type: TYPE_FP32, dims: [4], zero_data: true } } } ]',
)


def data_missing(subject: Subject) -> Iterator[Hit]:
    """`zero_data: false` is data as well: only whether one is there counts."""
    for name, value, path in _inputs(subject.config):
        if value.WhichOneof("input_data_type") is None:
            yield Hit(f"the warmup of `{name}` has no data", "write zero_data: true or random_data: true", path)


DIMS = Rule(
    id="warmup-dims",
    severity="error",
    title="a warmup request has dims that vary, or that are none",
    reason="\"warmup setting expects all variable-size dimensions are specified for input '..'\": data of no size "
    "cannot be made.",
    fix="Write sizes, without the batch dimension.",
    bad='model_warmup [ { name: "w", batch_size: 1\n'
    '  inputs { key: "x", value { data_type: TYPE_FP32, dims: [-1], zero_data: true } } } ]',
    good='model_warmup [ { name: "w", batch_size: 1\n'
    '  inputs { key: "x", value { data_type: TYPE_FP32, dims: [128], zero_data: true } } } ]',
)


def warmup_dims(subject: Subject) -> Iterator[Hit]:
    """Anything below 0."""
    for name, value, path in _inputs(subject.config):
        if any(dim < 0 for dim in value.dims):
            yield Hit(f"the warmup of `{name}` has dims {list(value.dims)}", "write sizes", (*path, "dims"))


FITS = Rule(
    id="warmup-input",
    severity="error",
    title="a warmup request does not fit the model's inputs",
    reason="A warmup request is held against the configuration like any other: \"inference input '..' data-type is '..'"
    ', but model expects \'..\'", "unexpected shape for input", "expected 2 inputs but got 1".',
    fix="Write every input that is not optional, with its data_type, and sizes that its dims allow.",
    bad='input [ { name: "x", data_type: TYPE_INT64, dims: [-1] } ]\nmodel_warmup [ { name: "w", batch_size: 1\n'
    '  inputs { key: "x", value { data_type: TYPE_INT32, dims: [128], zero_data: true } } } ]',
    good='input [ { name: "x", data_type: TYPE_INT64, dims: [-1] } ]\nmodel_warmup [ { name: "w", batch_size: 1\n'
    '  inputs { key: "x", value { data_type: TYPE_INT64, dims: [128], zero_data: true } } } ]',
)


def warmup_input(subject: Subject) -> Iterator[Hit]:
    """Only against inputs that are written: others are completed, and then a rule about the artifact's files looks."""
    config = subject.config
    inputs = {tensor.name: tensor for tensor in config.input}
    if not inputs:
        return
    controls = _controls(config)
    for name, value, path in _inputs(config):
        if name in inputs:
            yield from _against(name, value, inputs[name], path)
    for index, request in enumerate(config.model_warmup):
        needed = [name for name, tensor in inputs.items() if not tensor.optional and name not in controls]
        missing = [name for name in needed if name not in request.inputs]
        if request.batch_size and missing:
            names = ", ".join(f"`{name}`" for name in missing)
            yield Hit(f"the warmup `{request.name}` lacks {names}", "write every input", (_AT, index))


def _against(name: str, value: Any, tensor: Any, path: KeyPath) -> Iterator[Hit]:
    got, want = enum_name(value, "data_type"), enum_name(tensor, "data_type")
    if got != want and want != "TYPE_INVALID":
        yield Hit(f"the warmup of `{name}` is {got}, the input {want}", f"write {want}", (*path, "data_type"))
    dims, allowed = list(value.dims), list(tensor.dims)
    if any(dim < 0 for dim in dims) or not allowed:
        return
    if len(dims) != len(allowed) or any(a not in (-1, b) for a, b in zip(allowed, dims, strict=True)):
        fix = f"write sizes that {allowed} allows, without the batch dimension"
        yield Hit(f"the warmup of `{name}` has dims {dims}, the input {allowed}", fix, (*path, "dims"))


UNKNOWN = Rule(
    id="warmup-input-unknown",
    severity="warning",
    title="a warmup request has an input that the model has not",
    reason="The server passes over it: what was meant to be warmed up with it is not.",
    fix="Correct the name, or take it out.",
    bad='backend: "onnxruntime"\ninput [ { name: "x", data_type: TYPE_INT64, dims: [2] } ]\nmodel_warmup [ { name: '
    '"w", batch_size: 1\n'
    '  inputs { key: "x", value { data_type: TYPE_INT64, dims: [2], zero_data: true } }\n'
    '  inputs { key: "y", value { data_type: TYPE_INT64, dims: [2], zero_data: true } } } ]',
    good='backend: "onnxruntime"\ninput [ { name: "x", data_type: TYPE_INT64, dims: [2] } ]\nmodel_warmup [ { name: '
    '"w", batch_size: 1\n'
    '  inputs { key: "x", value { data_type: TYPE_INT64, dims: [2], zero_data: true } } } ]',
)


def warmup_unknown(subject: Subject) -> Iterator[Hit]:
    """Only against inputs that are written."""
    config = subject.config
    known = {tensor.name for tensor in config.input}
    if not known or subject.completes:
        return
    for name, _, path in _inputs(config):
        if name not in known | _controls(config):
            hint = did_you_mean(name, known) or f"one of {', '.join(sorted(known))}"
            yield Hit(f"the model has no input `{name}`", hint, path)


BATCH = Rule(
    id="warmup-batch-size",
    severity="error",
    title="a warmup batch above max_batch_size",
    reason="The server makes that many requests and hands them to the backend as one batch, and the backends refuse "
    "one that is larger than the largest: \"failed to run warmup sample '..': batch size 32 for '..', max allowed is "
    '8".',
    fix="Write max_batch_size or less.",
    bad='max_batch_size: 8\nmodel_warmup [ { name: "w", batch_size: 32 } ]',
    good='max_batch_size: 8\nmodel_warmup [ { name: "w", batch_size: 8 } ]',
)


def warmup_batch(subject: Subject) -> Iterator[Hit]:
    """A model without batches takes one request at a time."""
    config = subject.config
    for index, request in enumerate(config.model_warmup):
        if request.batch_size > max(config.max_batch_size, 1):
            yield Hit(
                f"the warmup `{request.name}` has a batch of {request.batch_size}, max_batch_size is "
                f"{config.max_batch_size}",
                f"write batch_size: {max(config.max_batch_size, 1)}",
                (_AT, index, "batch_size"),
            )


RULES: tuple[ConfigRule, ...] = (
    (DATA, data_missing),
    (DIMS, warmup_dims),
    (FITS, warmup_input),
    (UNKNOWN, warmup_unknown),
    (BATCH, warmup_batch),
)
