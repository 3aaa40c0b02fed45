"""An ONNX file against the configuration: names, types, shapes and batching, as the backend compares them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from builder.check.artifacts.onnx import graphs
from builder.check.artifacts.reading import enum_name, listed, show
from builder.check.model import ModelOnDisk
from builder.findings import KeyPath, nearest
from builder.graphs.onnx_summary import OnnxSummary, OnnxValue
from builder.rules.rule import Hit, Rule

INPUT_UNKNOWN = Rule(
    "onnx-input-unknown",
    "error",
    "the configuration names an input that the ONNX file has not",
    '"unexpected inference input ..., allowed inputs are: ...".',
    "Write the name as the file has it, or leave `input` out: the server takes it from the file.",
    bad='input [ { name: "image" ... } ] where the file says "x"',
    good='input [ { name: "x" ... } ]',
)
INPUT_MISSING = Rule(
    "onnx-input-missing",
    "error",
    "the configuration and the ONNX file differ in how many inputs there are",
    '"configuration expects 1 inputs, model provides 2". Every input has to be there, unless the file holds a value '
    "for it: those may be named with `optional: true`. Sequence controls, states and `batch_input` count as inputs.",
    "Name all inputs of the file, or leave `input` out.",
    bad="one of the two inputs of the file",
    good="both of them",
)
OUTPUT_UNKNOWN = Rule(
    "onnx-output-unknown",
    "error",
    "the configuration names an output that the ONNX file has not",
    '"unexpected inference output ..., allowed outputs are: ...". Outputs may be left away, but not invented.',
    "Write the name as the file has it.",
    bad='output [ { name: "scores" ... } ] where the file says "y"',
    good='output [ { name: "y" ... } ]',
)
DTYPE = Rule(
    "onnx-dtype",
    "error",
    "an element type differs between the configuration and the ONNX file",
    '"configuration expects datatype TYPE_FP32 for input, model provides TYPE_INT64".',
    "Write the type of the file: the server converts nothing.",
    bad="data_type: TYPE_INT32 where the file takes int64",
    good="data_type: TYPE_INT64",
)
SHAPE = Rule(
    "onnx-shape",
    "error",
    "`dims` (or the `reshape`) do not fit the ONNX file",
    '"the model expects 2 dimensions (shape [-1,8]) but the model configuration specifies 3". An input may fix a '
    "dimension that is open in the file; an output has to be exactly as in the file, -1 where that is open. With "
    "`max_batch_size` above 0 the batch dimension is not part of `dims`.",
    "Write the dimensions of the file, without the first one where the model batches.",
    bad="max_batch_size: 8 and dims: [ -1, 8 ] for an input [batch, 8]",
    good="dims: [ 8 ]",
)
BATCH = Rule(
    "onnx-batch",
    "error",
    "`max_batch_size` is above 0, and the ONNX file has no batch dimension",
    '"for the model to support batching the shape should have at least 1 dimension and the first dimension must be -1".'
    " That holds for every input and output.",
    "Export with a dynamic first dimension, or set max_batch_size: 0 and write the first dimension into `dims`.",
    bad="max_batch_size: 8 for an input [1, 3, 224, 224]",
    good="max_batch_size: 0 and dims: [ 1, 3, 224, 224 ]",
)
NO_TENSOR = Rule(
    "onnx-not-a-tensor",
    "error",
    "the ONNX file takes or gives something that is no tensor, or of a type that Triton has none for",
    '"Unsupported ONNX Type ... expected ONNX_TYPE_TENSOR". Scikit-learn classifiers give a list of maps unless they '
    "are converted with zipmap off.",
    "Export with tensors at the border: options={'zipmap': False} of skl2onnx.",
    bad="an output of type seq(map(int64, float))",
    good="an output of type tensor(float)",
)
OPTIONAL = Rule(
    "onnx-optional",
    "error",
    "an optional input on a model that batches",
    '"optional input ... is not supported for models that support batching". Ragged inputs cannot be optional either.',
    "Set max_batch_size: 0, or give the input with every request.",
    bad='max_batch_size: 8 input [ { name: "mask" optional: true ... } ]',
    good='max_batch_size: 0 input [ { name: "mask" optional: true ... } ]',
)
RAGGED = Rule(
    "onnx-ragged",
    "error",
    "a ragged input that the ONNX file does not take as one long row",
    "Requests of different lengths are concatenated: the file has to take the shape [-1], without a batch dimension.",
    "Export it with one open dimension, or leave allow_ragged_batch out.",
    bad="allow_ragged_batch: true for an input [batch, 8]",
    good="the same for an input [-1]",
)
CONTROL = Rule(
    "onnx-control",
    "error",
    "a sequence control or state that the ONNX file has no tensor for",
    "The sequence batcher adds its controls to every request as inputs of the model, of shape [1] for each sample, and "
    "takes its states from outputs.",
    "Add the input to the graph, or remove the control.",
    bad='control_input [ { name: "START" ... } ] and no input START in the file',
    good="an input START of shape [batch, 1]",
)

WARMUP = Rule(
    "onnx-warmup",
    "error",
    "a warmup request lacks an input of the ONNX file",
    '"expected 1 inputs but got 0 inputs for model": where the configuration names no inputs they are taken from the '
    "file, and a warmup request has to have them all.",
    "Write every input into the warmup request.",
    bad='model_warmup [ { name: "w", batch_size: 1 } ] for a file with the input x',
    good='model_warmup [ { name: "w", batch_size: 1, inputs { key: "x", value { ... zero_data: true } } } ]',
)

DEFAULT_MAX_BATCH_SIZE = 4
"""What the server fills in where a configuration that is completed from the file says nothing of it."""


def warmups(model: ModelOnDisk) -> Iterator[Hit]:
    """Warmup requests of a configuration without inputs: they are held against the file's."""
    config = model.config
    if config is None or config.input:
        return
    for _, path, graph in graphs(model):
        for index, request in enumerate(config.model_warmup):
            missing = [name for name in graph.inputs if name not in request.inputs]
            if request.batch_size and missing:
                message = f"the warmup {request.name!r} lacks {listed(missing)}, which {model.relative(path)} needs"
                yield Hit(message, "write every input", ("model_warmup", index))


def is_completed(config: Any) -> bool:
    """Whether the backend completes the configuration: one that has inputs and outputs it leaves alone."""
    return not ((config.input or config.batch_input) and config.output)


def max_batch_size(config: Any, graph: OnnxSummary) -> int:
    """``max_batch_size`` as the backend holds the tensors against it."""
    size = int(config.max_batch_size)
    return DEFAULT_MAX_BATCH_SIZE if not size and is_completed(config) and graph.batches else size


def input_names(model: ModelOnDisk) -> Iterator[Hit]:
    """Inputs that the file has not."""
    for _, path, graph in graphs(model):
        known = {**graph.overridable, **graph.inputs}
        free = [name for name in graph.inputs if name not in {entry.name for entry in model.config.input}] or list(
            known
        )
        for index, entry in enumerate(model.config.input):
            if entry.name not in known:
                yield _unknown(model, path, "input", index, entry.name, list(known), free)


def output_names(model: ModelOnDisk) -> Iterator[Hit]:
    """Outputs that the file has not."""
    for _, path, graph in graphs(model):
        named = {entry.name for entry in model.config.output}
        free = [name for name in graph.outputs if name not in named] or list(graph.outputs)
        for index, entry in enumerate(model.config.output):
            if entry.name not in graph.outputs:
                yield _unknown(model, path, "output", index, entry.name, list(graph.outputs), free)


def _unknown(
    model: ModelOnDisk, path: Path, role: str, index: int, name: str, known: Sequence[str], free: Sequence[str]
) -> Hit:
    close = nearest(name, free) or (free[0] if len(free) == 1 else None)
    fix = f"write {close!r}" if close else f"write one of {listed(known)}"
    message = f"{model.relative(path)} has no {role} {name!r}; it has {listed(known)}"
    return Hit(message, fix, (role, index, "name"))


def input_count(model: ModelOnDisk) -> Iterator[Hit]:
    """Inputs that the configuration lacks, or has too many of."""
    for _, path, graph in graphs(model):
        config = model.config
        if not config.input and not config.batch_input:
            continue  # completed from the file
        required = [entry.name for entry in config.input if not entry.optional]
        others = [control.name for control in _controls(config)]
        others += [state.input_name for state in config.sequence_batching.state]
        expected = len(required) + len(others) + len(config.batch_input)
        if expected == len(graph.inputs):
            continue
        targets = [name for entry in config.batch_input for name in entry.target_name]
        lacking = [name for name in graph.inputs if name not in {*required, *others, *targets}]
        spare = [name for name in required if name in graph.overridable]
        marked = [entry.name for entry in config.input if entry.optional and entry.name in graph.inputs]
        name = model.relative(path)
        message = f"{name} takes {len(graph.inputs)} inputs, and the configuration has {expected}"
        if marked:
            fix = f"{listed(marked)} cannot be `optional`: the file holds no value for it"
        elif lacking:
            message += f": {listed(lacking)} is missing"
            fix = f"name {listed(lacking)} too"
        elif spare:
            fix = f"the file has a value for {listed(spare)}: `optional: true`, or leave it out"
        elif any(entry.name not in graph.inputs for entry in config.input):
            continue  # the name that is too many is reported by itself
        else:
            fix = "count inputs, sequence controls, states and `batch_input`"
        yield Hit(message, fix, ("input",))


def types(model: ModelOnDisk) -> Iterator[Hit]:
    """Element types that differ."""
    for _, path, graph in graphs(model):
        for role, index, entry, value in _pairs(model, graph):
            configured = enum_name(entry, "data_type")
            if value.kind != "tensor" or not value.elem_type:
                continue  # `not-a-tensor`, or left to ONNX Runtime to find out
            if configured != value.type:
                of_file = value.type or f"an element type that Triton has none for (ONNX's number {value.elem_type})"
                message = f"{role} {entry.name!r} is {configured}, and {of_file} in {model.relative(path)}"
                yield Hit(message, f"write data_type: {value.type}" if value.type else "cast it inside the graph",
                          (role, index, "data_type"))  # fmt: skip


def not_tensors(model: ModelOnDisk) -> Iterator[Hit]:
    """What is no tensor."""
    for _, path, graph in graphs(model):
        name = model.relative(path)
        completed = is_completed(model.config)
        for value in [*graph.inputs.values(), *graph.overridable.values(), *graph.outputs.values()]:
            if value.kind not in ("tensor", ""):
                message = f"{value.name!r} of {name} is a {value.kind}, and Triton serves tensors only"
                yield Hit(message, "export it with tensors at the border", file=name)
            elif completed and value.elem_type and not value.type and value.name not in graph.overridable:
                message = f"{value.name!r} of {name} holds a type that Triton has none for (ONNX's {value.elem_type})"
                yield Hit(message, "cast it inside the graph", file=name)


def batching(model: ModelOnDisk) -> Iterator[Hit]:
    """Batching that the file cannot do."""
    for _, path, graph in graphs(model):
        size = max_batch_size(model.config, graph)
        if not size:
            continue
        named = {(role, entry.name): ("max_batch_size",) for role, _, entry, _ in _pairs(model, graph)}
        roles = [("input", value) for value in graph.inputs.values()]
        roles += [("output", value) for value in graph.outputs.values()]
        ragged = {entry.name for entry in model.config.input if entry.allow_ragged_batch}
        ragged |= {name for entry in model.config.batch_input for name in entry.target_name}
        ragged |= {name for entry in model.config.batch_output for name in entry.target_name}
        for role, value in roles:
            fixed = value.shape is not None and (not value.shape or value.shape[0] != -1)
            counted = (role, value.name) in named or is_completed(model.config)
            if fixed and counted and value.name not in ragged:
                message = (
                    f"max_batch_size is {size}, and {role} {value.name!r} of {model.relative(path)} has the shape "
                    f"{show(value.shape or ())}: its first dimension is not open"
                )
                yield Hit(message, "export it with a dynamic batch, or set max_batch_size: 0", ("max_batch_size",))


def shapes(model: ModelOnDisk) -> Iterator[Hit]:
    """Dimensions that do not fit."""
    for _, path, graph in graphs(model):
        size = max_batch_size(model.config, graph)
        gathered = {name for entry in model.config.batch_output for name in entry.target_name}
        for role, index, entry, value in _pairs(model, graph):
            ragged = role == "input" and entry.allow_ragged_batch
            if value.shape is None or ragged or (role == "output" and entry.name in gathered):
                continue
            if size and (not value.shape or value.shape[0] != -1):
                continue  # `onnx-batch`
            reshaped = entry.HasField("reshape")
            dims = list(entry.reshape.shape) if reshaped else list(entry.dims)
            wanted = value.shape[1:] if size else value.shape
            if _fits(dims, wanted, exact=role == "output") or (role == "output" and _refined(path, value, dims, size)):
                continue
            where: KeyPath = (role, index, "reshape", "shape") if reshaped else (role, index, "dims")
            yield Hit(
                _mismatch(model, path, role, entry.name, dims, value, size, reshaped), _fix(wanted, reshaped), where
            )


def _fits(dims: Sequence[int], wanted: Sequence[int], *, exact: bool) -> bool:
    if not wanted:
        return all(dim == 1 for dim in dims)
    return len(dims) == len(wanted) and all(
        have == want or (want == -1 and not exact) for have, want in zip(dims, wanted, strict=True)
    )


def _refined(path: Path, value: OnnxValue, dims: Sequence[int], size: int) -> bool:
    """Whether the file leaves open what follows from its nodes: ONNX Runtime works the shapes of outputs out anew.

    A size that the file does say stays, and of a shape with another rank nothing does.
    """
    from builder.check.artifacts.inferred import inferred_shape

    inferred, said = inferred_shape(path, value.name), value.shape or ()
    if inferred is None or len(inferred) != len(said):
        return False
    shape = [have if have != -1 else found for have, found in zip(said, inferred, strict=True)]
    return _fits(dims, shape[1:] if size else shape, exact=True)


def _mismatch(
    model: ModelOnDisk,
    path: Path,
    role: str,
    name: str,
    dims: Sequence[int],
    value: OnnxValue,
    size: int,
    reshaped: bool,
) -> str:
    has = f"{'reshape' if reshaped else 'dims'} {show(dims)}" + (" and a batch dimension" if size else "")
    return f"{role} {name!r} has {has}, and the shape {show(value.shape or ())} in {model.relative(path)}"


def _fix(wanted: Sequence[int], reshaped: bool) -> str:
    if not wanted:
        return "write dims: [ 1 ]: the tensor is a single number"
    return f"write {'shape' if reshaped else 'dims'}: {show(wanted)}"


def optionals(model: ModelOnDisk) -> Iterator[Hit]:
    """Optional inputs that the backend refuses."""
    for _, _, graph in graphs(model):
        for index, entry in enumerate(model.config.input):
            if entry.optional and max_batch_size(model.config, graph):
                message = f"input {entry.name!r} is optional, and the model batches"
                yield Hit(message, "set max_batch_size: 0", ("input", index, "optional"))
            elif entry.optional and entry.allow_ragged_batch:
                message = f"input {entry.name!r} is optional and ragged"
                yield Hit(message, "drop one of the two", ("input", index, "allow_ragged_batch"))
        return


def ragged_inputs(model: ModelOnDisk) -> Iterator[Hit]:
    """Ragged inputs that the file does not take as one row."""
    for _, path, graph in graphs(model):
        for role, index, entry, value in _pairs(model, graph):
            if role == "input" and entry.allow_ragged_batch and value.shape not in (None, (-1,)):
                message = f"input {entry.name!r} is ragged, and has the shape {show(value.shape or ())}"
                fix = "export it with the shape [-1], or leave allow_ragged_batch out"
                yield Hit(f"{message} in {model.relative(path)}", fix, (role, index, "allow_ragged_batch"))


def controls(model: ModelOnDisk) -> Iterator[Hit]:
    """Controls and states without a tensor."""
    for _, path, graph in graphs(model):
        config, name = model.config, model.relative(path)
        size = max_batch_size(config, graph)
        for index, control in enumerate(config.sequence_batching.control_input):
            where: KeyPath = ("sequence_batching", "control_input", index)
            value = graph.inputs.get(control.name)
            if value is None:
                if control.control:
                    message = f"{name} has no input {control.name!r} for the sequence control"
                    yield Hit(message, f"it has {listed(list(graph.inputs))}", (*where, "name"))
                continue
            shape = value.shape[1:] if size and value.shape else value.shape
            if shape not in (None, (1,)):
                message = f"sequence control {control.name!r} has the shape {show(shape or ())} in {name}"
                yield Hit(message, "a control has the shape [1] for each sample", (*where, "name"))
            wanted = _control_type(control)
            if wanted and value.type and wanted != value.type:
                message = f"sequence control {control.name!r} is {wanted}, and {value.type} in {name}"
                yield Hit(message, f"give it values of {value.type}", (*where, "control"))
        for index, state in enumerate(config.sequence_batching.state):
            for field, known in (("input_name", graph.inputs), ("output_name", graph.outputs)):
                text = getattr(state, field)
                if text and text not in known:
                    message = f"{name} has no {field.partition('_')[0]} {text!r} for the state"
                    fix = f"it has {listed(list(known))}"
                    yield Hit(message, fix, ("sequence_batching", "state", index, field))


def _controls(config: Any) -> list[Any]:
    return [control for control in config.sequence_batching.control_input if control.control]


def _control_type(control: Any) -> str:
    for entry in control.control:
        for field, kind in (("int32", "TYPE_INT32"), ("fp32", "TYPE_FP32"), ("bool", "TYPE_BOOL")):
            if len(getattr(entry, f"{field}_false_true")):
                return kind
        if entry.data_type:
            return enum_name(entry, "data_type")
    return ""


def _pairs(model: ModelOnDisk, graph: OnnxSummary) -> Iterator[tuple[str, int, Any, OnnxValue]]:
    """Every tensor that the configuration and the file both have."""
    tables: tuple[tuple[str, Any, Mapping[str, OnnxValue]], ...] = (
        ("input", model.config.input, {**graph.overridable, **graph.inputs}),
        ("output", model.config.output, graph.outputs),
    )
    for role, entries, known in tables:
        for index, entry in enumerate(entries):
            if entry.name in known:
                yield role, index, entry, known[entry.name]


SIGNATURE_RULES = (
    (INPUT_UNKNOWN, input_names),
    (INPUT_MISSING, input_count),
    (OUTPUT_UNKNOWN, output_names),
    (DTYPE, types),
    (SHAPE, shapes),
    (BATCH, batching),
    (NO_TENSOR, not_tensors),
    (OPTIONAL, optionals),
    (RAGGED, ragged_inputs),
    (CONTROL, controls),
    (WARMUP, warmups),
)
