"""Rules about inputs and outputs, each by itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from builder.findings import KeyPath
from builder.rules.rule import Hit, Rule
from builder.rules.subject import ConfigRule, Subject, enum_name

_OF_TENSORRT = "tensorrt_plan"
_WITHOUT_OPTIONAL = ("pytorch", "tensorrt")


def tensors(config: Any) -> Iterator[tuple[str, int, Any]]:
    """``input`` or ``output``, the index, the tensor: of every one."""
    for side in ("input", "output"):
        for index, tensor in enumerate(getattr(config, side)):
            yield side, index, tensor


def called(side: str, index: int, tensor: Any) -> str:
    """How a message names a tensor."""
    return f"{side} `{tensor.name}`" if tensor.name else f"{side} {index}"


NAME = Rule(
    id="tensor-name-missing",
    severity="error",
    title="an input or output has no name",
    reason="\"model input must specify 'name'\".",
    fix="Write the tensor's `name`, as the model's file has it.",
    bad="input [ { data_type: TYPE_FP32, dims: [4] } ]",
    good='input [ { name: "x", data_type: TYPE_FP32, dims: [4] } ]',
)


def name_missing(subject: Subject) -> Iterator[Hit]:
    """No backend can fill in a name."""
    for side, index, tensor in tensors(subject.config):
        if not tensor.name:
            yield Hit(f"{side} {index} has no name", 'write name: "..."', (side, index))


TYPE = Rule(
    id="tensor-data-type-missing",
    severity="error",
    title="an input or output has no data type",
    reason="\"must specify 'data_type'\". A backend that completes a configuration fills in whole lists of inputs or "
    "outputs; one that is there has to be whole (TensorRT and OpenVINO complete the types as well, and a python model "
    "whose `auto_complete_config` does it).",
    fix="Write the tensor's `data_type`.",
    bad='backend: "onnxruntime"\ninput [ { name: "x", dims: [4] } ]',
    good='backend: "onnxruntime"\ninput [ { name: "x", data_type: TYPE_FP32, dims: [4] } ]',
)


def data_type_missing(subject: Subject) -> Iterator[Hit]:
    """TYPE_INVALID, which is also what the field has where it is not written."""
    if subject.completes is not False:
        return
    for side, index, tensor in tensors(subject.config):
        if enum_name(tensor, "data_type") == "TYPE_INVALID":
            yield Hit(
                f"{called(side, index, tensor)} has no data_type",
                "write data_type: TYPE_FP32, or what it is",
                (side, index, "data_type"),
            )


DIMS = Rule(
    id="tensor-dims-missing",
    severity="error",
    title="an input or output has no dims",
    reason="\"must specify 'dims'\". A scalar per sample is written as dims: [1] with reshape: { shape: [] }.",
    fix="Write the tensor's `dims`, without the batch dimension where max_batch_size is above 0.",
    bad='backend: "onnxruntime"\noutput [ { name: "y", data_type: TYPE_FP32 } ]',
    good='backend: "onnxruntime"\noutput [ { name: "y", data_type: TYPE_FP32, dims: [10] } ]',
)


def dims_missing(subject: Subject) -> Iterator[Hit]:
    """No dims at all."""
    if subject.completes is not False:
        return
    for side, index, tensor in tensors(subject.config):
        if not tensor.dims:
            scalar = "; of one number per sample: dims: [1] with reshape: { shape: [] }"
            yield Hit(f"{called(side, index, tensor)} has no dims", "write dims: [...]" + scalar, (side, index, "dims"))


CODE = Rule(
    id="tensor-left-to-code",
    severity="warning",
    title="a tensor of a python model lacks its type or dims",
    reason="The server refuses the model unless the code's `auto_complete_config` fills them in, which is not looked "
    "at "
    "with --config-only. Expected gain of writing them: the model loads whatever its code does, and others can see "
    "what "
    "it takes.",
    fix="Write the tensor's `data_type` and `dims`.",
    bad='backend: "python"\ninput [ { name: "x", dims: [4] } ]',
    good='backend: "python"\ninput [ { name: "x", data_type: TYPE_FP32, dims: [4] } ]',
)


def left_to_code(subject: Subject) -> Iterator[Hit]:
    """Where the code is not looked at; where it is, either it completes or the server refuses."""
    if subject.completes is not None:
        return
    for side, index, tensor in tensors(subject.config):
        missing = [] if tensor.dims else ["dims"]
        missing += ["data_type"] if enum_name(tensor, "data_type") == "TYPE_INVALID" else []
        if missing:
            message = f"{called(side, index, tensor)} has no {' and no '.join(missing)}: the code has to fill that in"
            yield Hit(message, f"write {' and '.join(missing)}", (side, index))


RANGE = Rule(
    id="tensor-dim-invalid",
    severity="error",
    title="a dimension is 0, or below -1",
    reason='"dimension must be integer >= 1, or -1 to indicate a variable-size dimension".',
    fix="Write the size, or -1 where it varies.",
    bad='input [ { name: "x", data_type: TYPE_FP32, dims: [0, 4] } ]',
    good='input [ { name: "x", data_type: TYPE_FP32, dims: [-1, 4] } ]',
)


def dim_invalid(subject: Subject) -> Iterator[Hit]:
    """In dims, and in the shape of a reshape."""
    for side, index, tensor in tensors(subject.config):
        places: list[tuple[KeyPath, Any, str]] = [((side, index, "dims"), tensor.dims, "dims")]
        places.append(((side, index, "reshape", "shape"), tensor.reshape.shape, "reshape"))
        for path, dims, what in places:
            for position, dim in enumerate(dims):
                if dim < 1 and dim != -1:
                    yield Hit(
                        f"{called(side, index, tensor)} has {dim} in its {what}",
                        "a dimension is 1 or more, or -1 where it varies",
                        (*path, position),
                    )


EMPTY = Rule(
    id="reshape-empty",
    severity="error",
    title="an empty reshape in a model without batches",
    reason='"cannot have empty reshape for non-batching model as scalar tensors are not supported": without a batch '
    "dimension the tensor would have none at all.",
    fix="Give the model a batch dimension, or the tensor a shape.",
    bad='max_batch_size: 0\ninput [ { name: "x", data_type: TYPE_FP32, dims: [1], reshape: { shape: [] } } ]',
    good='max_batch_size: 8\ninput [ { name: "x", data_type: TYPE_FP32, dims: [1], reshape: { shape: [] } } ]',
)


def reshape_empty(subject: Subject) -> Iterator[Hit]:
    """Of a model whose max_batch_size is 0."""
    if subject.config.max_batch_size != 0:
        return
    for side, index, tensor in tensors(subject.config):
        if tensor.HasField("reshape") and not tensor.reshape.shape:
            yield Hit(
                f"{called(side, index, tensor)} is reshaped to nothing, and max_batch_size is 0",
                "write reshape: { shape: [1] }, or a max_batch_size above 0",
                (side, index, "reshape"),
            )


SIZE = Rule(
    id="reshape-size",
    severity="error",
    title="dims and reshape hold different numbers of elements",
    reason='"has different size for dims and reshape". Dimensions that vary have to be as many on both sides, and the '
    "fixed ones between them to multiply to the same.",
    fix="Write a reshape with the same number of elements.",
    bad='input [ { name: "x", data_type: TYPE_FP32, dims: [6], reshape: { shape: [2, 2] } } ]',
    good='input [ { name: "x", data_type: TYPE_FP32, dims: [6], reshape: { shape: [2, 3] } } ]',
)


def reshape_size(subject: Subject) -> Iterator[Hit]:
    """Run by run between the dimensions that vary, as the server compares them."""
    for side, index, tensor in tensors(subject.config):
        dims, shape = list(tensor.dims), list(tensor.reshape.shape)
        if not tensor.HasField("reshape") or any(dim < 1 and dim != -1 for dim in dims + shape) or not dims:
            continue
        if (not shape and math.prod(dims) == 1) or _runs(dims) == _runs(shape):
            continue
        yield Hit(
            f"{called(side, index, tensor)}: dims {dims} cannot be reshaped to {shape}",
            "the same number of elements on both sides, and as many -1",
            (side, index, "reshape"),
        )


def _runs(dims: list[int]) -> list[int]:
    """The products between dimensions that vary."""
    runs = [1]
    for dim in dims:
        if dim == -1:
            runs.append(1)
        else:
            runs[-1] *= dim
    return runs if dims else []


TWICE = Rule(
    id="tensor-twice",
    severity="error",
    title="two inputs, or two outputs, have one name",
    reason="ONNX Runtime compares the number of inputs with the model's and refuses another, TensorRT and PyTorch that "
    "of the outputs as well.",
    fix="Take one of them out, or correct its name.",
    bad='backend: "onnxruntime"\n'
    'input [ { name: "x", data_type: TYPE_FP32, dims: [1] }, { name: "x", data_type: TYPE_FP32, dims: [1] } ]',
    good='backend: "onnxruntime"\n'
    'input [ { name: "x", data_type: TYPE_FP32, dims: [1] }, { name: "z", data_type: TYPE_FP32, dims: [1] } ]',
)
REPEATED = Rule(
    id="tensor-repeated",
    severity="warning",
    title="two inputs, or two outputs, have one name, and the server does not mind",
    reason="Python models, ensembles and outputs of ONNX models are not counted at load. With an input that is there "
    "twice no request can have the number of inputs that the server then demands.",
    fix="Take one of them out, or correct its name.",
    bad='backend: "python"\n'
    'input [ { name: "x", data_type: TYPE_FP32, dims: [1] }, { name: "x", data_type: TYPE_FP32, dims: [1] } ]',
    good='backend: "python"\n'
    'input [ { name: "x", data_type: TYPE_FP32, dims: [1] }, { name: "z", data_type: TYPE_FP32, dims: [1] } ]',
)
_COUNTED = {"onnxruntime": ("input",), "tensorrt": ("input", "output"), "pytorch": ("input", "output")}


def tensor_twice(subject: Subject) -> Iterator[Hit]:
    """Where the backend counts them."""
    yield from _twice(subject, _COUNTED.get(subject.backend, ()))


def tensor_repeated(subject: Subject) -> Iterator[Hit]:
    """Everywhere else."""
    counted = _COUNTED.get(subject.backend, ())
    yield from _twice(subject, [side for side in ("input", "output") if side not in counted])


def _twice(subject: Subject, sides: Iterable[str]) -> Iterator[Hit]:
    for side in sides:
        seen: Counter[str] = Counter()
        for index, tensor in enumerate(getattr(subject.config, side)):
            seen[tensor.name] += 1
            if tensor.name and seen[tensor.name] == 2:
                yield Hit(f"two {side}s are named `{tensor.name}`", "take one out", (side, index, "name"))


FORMAT = Rule(
    id="format-needs-three-dims",
    severity="error",
    title="FORMAT_NHWC or FORMAT_NCHW without three dims",
    reason='"model input NHWC/NCHW require 3 dims": height, width and channels, without the batch dimension.',
    fix="Write three dims, or take `format` out.",
    bad='input [ { name: "x", data_type: TYPE_FP32, format: FORMAT_NCHW, dims: [224, 224] } ]',
    good='input [ { name: "x", data_type: TYPE_FP32, format: FORMAT_NCHW, dims: [3, 224, 224] } ]',
)


def format_needs_three_dims(subject: Subject) -> Iterator[Hit]:
    """Only inputs have a format."""
    for index, tensor in enumerate(subject.config.input):
        form = enum_name(tensor, "format")
        if form != "FORMAT_NONE" and len(tensor.dims) != 3 and (tensor.dims or subject.completes is False):
            yield Hit(
                f"{called('input', index, tensor)} is {form} and has {len(tensor.dims)} dims",
                "write three dims, without the batch dimension, or take `format` out",
                ("input", index, "format"),
            )


SHAPE = Rule(
    id="tensorrt-only-tensor",
    severity="error",
    title="a shape tensor or a non-linear format outside TensorRT",
    reason='"shape tensors are only supported for TensorRT platform", "Non-linear IO format is only supported for the '
    'TensorRT platform"; the latter with three dims.',
    fix="Take `is_shape_tensor` or `is_non_linear_format_io` out.",
    bad='backend: "onnxruntime"\ninput [ { name: "x", data_type: TYPE_INT32, dims: [2], is_shape_tensor: true } ]',
    good='backend: "tensorrt"\ninput [ { name: "x", data_type: TYPE_INT32, dims: [2], is_shape_tensor: true } ]',
)


def tensorrt_only_tensor(subject: Subject) -> Iterator[Hit]:
    """Both kinds, on both sides; where the backend is not known it may be TensorRT."""
    known = bool(subject.served.backend or subject.is_ensemble)
    elsewhere = known and subject.served.platform != _OF_TENSORRT
    who = subject.served.backend or "ensemble"
    for side, index, tensor in tensors(subject.config):
        tensor_name = called(side, index, tensor)
        for field, what in (("is_shape_tensor", "a shape tensor"), ("is_non_linear_format_io", "non-linear")):
            if getattr(tensor, field) and elsewhere:
                message = f"{tensor_name} is {what}, which only TensorRT has, not {who}"
                yield Hit(message, f"take `{field}` out", (side, index, field))
        if tensor.is_non_linear_format_io and not elsewhere and len(tensor.dims) != 3:
            path = (side, index, "is_non_linear_format_io")
            yield Hit(f"{tensor_name} has a non-linear format and {len(tensor.dims)} dims", "write three dims", path)


OPTIONAL = Rule(
    id="optional-input-unsupported",
    severity="error",
    title="an optional input of a backend that has none",
    reason="\"'optional' is set to true for input '..' while the backend model doesn't support optional input\": "
    "PyTorch and TensorRT refuse it, ONNX Runtime and python take it.",
    fix="Take `optional` out.",
    bad='backend: "tensorrt"\ninput [ { name: "x", data_type: TYPE_FP32, dims: [4], optional: true } ]',
    good='backend: "python"\ninput [ { name: "x", data_type: TYPE_FP32, dims: [4], optional: true } ]',
)


def optional_input_unsupported(subject: Subject) -> Iterator[Hit]:
    """Decided by the backend alone."""
    if subject.backend not in _WITHOUT_OPTIONAL:
        return
    for index, tensor in enumerate(subject.config.input):
        if tensor.optional:
            yield Hit(
                f"{called('input', index, tensor)} is optional, which {subject.backend} does not support",
                "take `optional` out",
                ("input", index, "optional"),
            )


NONE = Rule(
    id="pytorch-needs-tensors",
    severity="error",
    title="a PyTorch model without inputs or outputs in its configuration",
    reason="A TorchScript file does not tell the types and shapes of its tensors, so the backend completes nothing: "
    '"model configuration must contain at least one input, none were specified".',
    fix="Write all inputs and outputs.",
    bad='backend: "pytorch"\nmax_batch_size: 8',
    good='backend: "pytorch"\ninput [ { name: "x__0", data_type: TYPE_FP32, dims: [4] } ]\n'
    'output [ { name: "y__0", data_type: TYPE_FP32, dims: [2] } ]',
)


def pytorch_needs_tensors(subject: Subject) -> Iterator[Hit]:
    """TorchScript only: a .pt2 tells them."""
    config = subject.config
    if subject.served.platform != "pytorch_libtorch" or subject.backend != "pytorch":
        return
    if not config.input and not config.batch_input:
        yield Hit("a PyTorch model without an input in its configuration", "write `input [ ... ]`", ("input",))
    if not config.output:
        yield Hit("a PyTorch model without an output in its configuration", "write `output [ ... ]`", ("output",))


RULES: tuple[ConfigRule, ...] = (
    (NAME, name_missing),
    (TYPE, data_type_missing),
    (DIMS, dims_missing),
    (CODE, left_to_code),
    (RANGE, dim_invalid),
    (EMPTY, reshape_empty),
    (SIZE, reshape_size),
    (TWICE, tensor_twice),
    (REPEATED, tensor_repeated),
    (FORMAT, format_needs_three_dims),
    (SHAPE, tensorrt_only_tensor),
    (OPTIONAL, optional_input_unsupported),
    (NONE, pytorch_needs_tensors),
)
