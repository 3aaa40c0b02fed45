"""Rules about the inputs that the server makes of a batch, and the outputs that it takes apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from builder.findings import did_you_mean
from builder.rules.rule import Hit, Rule
from builder.rules.subject import ConfigRule, Subject, enum_name


def _both(config: Any) -> Iterator[tuple[str, int, Any]]:
    for field in ("batch_input", "batch_output"):
        for index, tensor in enumerate(getattr(config, field)):
            yield field, index, tensor


SOURCES = Rule(
    id="batch-source-input",
    severity="error",
    title="a batch input or output without exactly one known source input",
    reason="\"batch input kind '..' expects 1 source input, got ..\", \"unknown source input name '..'\".",
    fix="Name one input of the model as `source_input`.",
    bad='input [ { name: "x", data_type: TYPE_FP32, dims: [-1], allow_ragged_batch: true } ]\n'
    'batch_input [ { kind: BATCH_ELEMENT_COUNT, target_name: "n", data_type: TYPE_INT32, source_input: "y" } ]',
    good='input [ { name: "x", data_type: TYPE_FP32, dims: [-1], allow_ragged_batch: true } ]\n'
    'batch_input [ { kind: BATCH_ELEMENT_COUNT, target_name: "n", data_type: TYPE_INT32, source_input: "x" } ]',
)


def batch_source_input(subject: Subject) -> Iterator[Hit]:
    """How many, and whether the model has them."""
    inputs = [tensor.name for tensor in subject.config.input]
    for field, index, tensor in _both(subject.config):
        what, path = field.replace("_", " "), (field, index, "source_input")
        count = len(tensor.source_input)
        if count != 1:
            yield Hit(f"{what} {index} has {count or 'no'} source inputs", 'write source_input: "..."', path)
        for position, name in enumerate(tensor.source_input):
            if name not in inputs:
                hint = did_you_mean(name, inputs) or (
                    f"one of {', '.join(inputs)}" if inputs else "write `input [ ... ]`"
                )
                yield Hit(f"{what} {index}: the model has no input `{name}`", hint, (*path, position))


TYPE = Rule(
    id="batch-input-type",
    severity="error",
    title="a batch input of another type than INT32 and FP32",
    reason='"batch input data type must be TYPE_INT32 or TYPE_FP32".',
    fix="Write data_type: TYPE_INT32 or TYPE_FP32.",
    bad='batch_input [ { kind: BATCH_ELEMENT_COUNT, target_name: "n", data_type: TYPE_INT64, source_input: "x" } ]',
    good='batch_input [ { kind: BATCH_ELEMENT_COUNT, target_name: "n", data_type: TYPE_INT32, source_input: "x" } ]',
)


def batch_input_type(subject: Subject) -> Iterator[Hit]:
    """Missing counts as TYPE_INVALID."""
    for index, tensor in enumerate(subject.config.batch_input):
        kind = enum_name(tensor, "data_type")
        if kind not in ("TYPE_INT32", "TYPE_FP32"):
            got = "no data_type" if kind == "TYPE_INVALID" else kind
            yield Hit(
                f"batch input {index} has {got}", "write TYPE_INT32 or TYPE_FP32", ("batch_input", index, "data_type")
            )


TARGETS = Rule(
    id="batch-output-target",
    severity="error",
    title="a batch output whose target is not an output, or is named twice",
    reason="\"unknown target output name '..'\", \"target output name '..' can only be specified once\".",
    fix="Name an output of the model as `target_name`, once.",
    bad='output [ { name: "y", data_type: TYPE_FP32, dims: [-1] } ]\n'
    'batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE, target_name: "z", source_input: "x" } ]',
    good='output [ { name: "y", data_type: TYPE_FP32, dims: [-1] } ]\n'
    'batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE, target_name: "y", source_input: "x" } ]',
)


def batch_output_target(subject: Subject) -> Iterator[Hit]:
    """Twice inside one batch output: that is as far as the server looks."""
    outputs = [tensor.name for tensor in subject.config.output]
    for index, tensor in enumerate(subject.config.batch_output):
        seen: set[str] = set()
        for position, name in enumerate(tensor.target_name):
            path = ("batch_output", index, "target_name", position)
            if name not in outputs:
                hint = did_you_mean(name, outputs) or "name one of the model's outputs"
                yield Hit(f"batch output {index}: the model has no output `{name}`", hint, path)
            elif name in seen:
                yield Hit(f"batch output {index} names `{name}` twice", "name it once", path)
            seen.add(name)


RULES: tuple[ConfigRule, ...] = (
    (SOURCES, batch_source_input),
    (TYPE, batch_input_type),
    (TARGETS, batch_output_target),
)
