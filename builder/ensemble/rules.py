"""Every rule about ensembles, as data. What looks for them is in ``checks.py``, ``flow.py`` and ``edge_checks.py``.

Most of them are what the server itself refuses when it loads an ensemble: from the config alone (its graph has to be
whole) and, once its models are loaded, from the types and shapes of their tensors. The ids in :data:`AT_REQUEST` are
errors that it does not see until a request runs into them.
"""

from __future__ import annotations

from builder.rules.rule import Rule

_STEP = 'step [{{ model_name: "encoder" {} }}]'
_WIRED = (
    'step [{{ model_name: "encoder" model_version: -1 input_map {{ key: "{}" value: "text" }} '
    'output_map {{ key: "{}" value: "{}" }} }}]'
)
_LOADS = "The server loads the ensemble, and answers with an error when a request comes to it"

EMPTY = Rule(
    "ensemble-empty",
    "error",
    "An ensemble has no step",
    "The server: \"must specify 'step' for ensemble\".",
    "Write at least one step.",
    "ensemble_scheduling {}",
    "ensemble_scheduling { " + _WIRED.format("text", "embedding", "embedding") + " }",
)
STEP_UNNAMED = Rule(
    "ensemble-step-unnamed",
    "error",
    "A step names no model",
    "The server: \"must specify 'model_name' in step\".",
    "Write the model's name.",
    "step [{ model_version: -1 }]",
    _STEP.format("model_version: -1 ..."),
)
MODEL_MISSING = Rule(
    "ensemble-model-missing",
    "error",
    "A step's model is not in the repository",
    'The server: "ensemble contains models that are not available or ambiguous".',
    "Add the model, or mend the name.",
    'step [{ model_name: "encodr" }]',
    'step [{ model_name: "encoder" }]',
)
RECURSION = Rule(
    "ensemble-recursion",
    "error",
    "An ensemble is one of its own steps, directly or through other ensembles",
    'The server: "circular dependency between ensembles".',
    "Take the step out, or give the inner model a name of its own.",
    'name: "search" ... step [{ model_name: "search" }]',
    'name: "search" ... step [{ model_name: "encoder" }]',
)
VERSION = Rule(
    "ensemble-version",
    "error",
    "A step asks for a version of its model that is not served",
    'The server: "whose required version is not loaded". A step without `model_version` asks for version 0, which no '
    "model has.",
    "Write `model_version: -1` for the latest, or a version that the model's version policy serves.",
    _STEP.format("model_version: 7"),
    _STEP.format("model_version: -1"),
)
STEP_UNWIRED = Rule(
    "ensemble-step-unwired",
    "error",
    "A step has no input or no output in the ensemble",
    "The server: \"must specify 'input_map'\", \"must specify 'output_map'\".",
    "Map at least one input and one output of the model.",
    _STEP.format('input_map { key: "text" value: "text" }'),
    _WIRED.format("text", "embedding", "embedding"),
)
UNKNOWN_INPUT = Rule(
    "ensemble-unknown-input",
    "error",
    "A step maps a tensor to an input that its model does not have",
    'The server: "ensemble tensor is mapping to non-existing input".',
    "Mend the name: the key of `input_map` is the model's input, the value is the ensemble's tensor.",
    _WIRED.format("txt", "embedding", "embedding"),
    _WIRED.format("text", "embedding", "embedding"),
)
UNKNOWN_OUTPUT = Rule(
    "ensemble-unknown-output",
    "error",
    "A step maps an output that its model does not have",
    'The server: "ensemble tensor is mapped from non-existing output".',
    "Mend the name: the key of `output_map` is the model's output, the value is the ensemble's tensor.",
    _WIRED.format("text", "embeding", "embedding"),
    _WIRED.format("text", "embedding", "embedding"),
)
INPUT_UNCONNECTED = Rule(
    "ensemble-input-unconnected",
    "error",
    "A model's input is not connected, and is not optional",
    'The server: "input is not mapped to any ensemble tensors".',
    "Map a tensor to it, or make it `optional` in the model's config if the model can do without.",
    'step [{ ... input_map { key: "input_ids" value: "ids" } }]',
    'step [{ ... input_map { key: "input_ids" value: "ids" } input_map { key: "attention_mask" value: "mask" } }]',
)
PRODUCED_TWICE = Rule(
    "ensemble-produced-twice",
    "error",
    "Two outputs are written to one tensor of the ensemble",
    'The server: "ensemble tensor can appear in an output map only once".',
    "Give one of them another name.",
    'output_map { key: "a" value: "x" } ... output_map { key: "b" value: "x" }',
    'output_map { key: "a" value: "x" } ... output_map { key: "b" value: "y" }',
)
INPUT_OVERWRITTEN = Rule(
    "ensemble-input-overwritten",
    "error",
    "A step writes to a tensor that is an input of the ensemble",
    "The server loads it; then the step's answer is a second value of the caller's tensor, and steps run with either.",
    "Give the step's output another name.",
    'input [{ name: "image" }] ... output_map { key: "image" value: "image" }',
    'input [{ name: "image" }] ... output_map { key: "image" value: "resized" }',
)
NOT_PRODUCED = Rule(
    "ensemble-not-produced",
    "error",
    "A tensor is used, and nothing makes it",
    'The server: "output for ensemble is not written: at least one of its depending tensors is not connected".',
    "Make it an input of the ensemble, or mend its name on the side that makes it or uses it.",
    'input_map { key: "input_ids" value: "idz" }',
    'input_map { key: "input_ids" value: "ids" }',
)
CYCLE = Rule(
    "ensemble-cycle",
    "error",
    "Steps need each other's outputs",
    'The server: "output is not written: at least one of its depending tensors is not connected".',
    "Cut the circle: an ensemble runs each step once. A loop is a BLS model's work.",
    'step [{ model_name: "a" input_map { key: "x" value: "q" } output_map { key: "y" value: "p" } }, '
    '{ model_name: "b" input_map { key: "x" value: "p" } output_map { key: "y" value: "q" } }]',
    'step [{ model_name: "a" input_map { key: "x" value: "text" } output_map { key: "y" value: "p" } }, '
    '{ model_name: "b" input_map { key: "x" value: "p" } output_map { key: "y" value: "q" } }]',
)
UNUSED_INPUT = Rule(
    "ensemble-unused-input",
    "error",
    "An input of the ensemble is not used by any step",
    'The server: "ensemble input is not used".',
    "Connect it, or take it out.",
    'input [{ name: "text" }, { name: "language" }]',
    'input [{ name: "text" }]',
)
UNUSED_TENSOR = Rule(
    "ensemble-unused-tensor",
    "error",
    "A step's output is given a name in the ensemble that nothing uses",
    'The server: "ensemble tensor is unused". An output that is not in `output_map` is not even computed for.',
    "Take it out of `output_map`, or make it an output of the ensemble.",
    'output_map { key: "attentions" value: "attentions" }',
    'output_map { key: "embedding" value: "embedding" }',
)
DTYPE = Rule(
    "ensemble-dtype",
    "error",
    "The two ends of an edge have different element types",
    'The server: "inconsistent data type". Nothing is cast on the way.',
    "Cast in one of the two models, or mend the config that is wrong.",
    "tokenize.input_ids int64[batch, seq] -> encoder.input_ids int32[batch, 128]",
    "tokenize.input_ids int64[batch, seq] -> encoder.input_ids int64[batch, 128]",
)
SHAPE = Rule(
    "ensemble-shape",
    "error",
    "The two ends of an edge have shapes that exclude each other",
    'The server: "inconsistent shape".',
    "Reshape in one of the two models, or mend the config that is wrong.",
    "resize.image float32[batch, 3, 224, 224] -> model.image float32[batch, 3, 240, 240]",
    "resize.image float32[batch, 3, 240, 240] -> model.image float32[batch, 3, 240, 240]",
)
SHAPE_AT_REQUEST = Rule(
    "ensemble-shape-at-request",
    "error",
    "No size of a dimension fits all steps that share it",
    f"{_LOADS}: it compares the two ends of an edge where both are fixed, and neither ranges nor what a name means "
    "further on.",
    "Reshape between the two steps that are named, or mend the config that is wrong.",
    "a.x int64[batch, seq: 256..512] -> b.x int64[batch, seq: 1..128]",
    "a.x int64[batch, seq: 1..128] -> b.x int64[batch, seq: 1..128]",
)
MAX_BATCH_SIZE = Rule(
    "ensemble-max-batch-size",
    "error",
    "The ensemble takes larger batches than one of its steps",
    'The server: "ensemble allows maximum batch size, but it contains model which only allows".',
    "Lower the ensemble's `max_batch_size`, or raise the step's.",
    "max_batch_size: 64, with a step of max_batch_size: 8",
    "max_batch_size: 8, with a step of max_batch_size: 8",
)
BATCH_LOST = Rule(
    "ensemble-batch-lost",
    "error",
    "A tensor passes between a step that batches and one that does not, without room for the batch",
    f"{_LOADS} with more than one sample: the batch dimension is added or cut off only where it is 1.",
    "Let both batch, give the one that does not a first dimension of -1, or write `max_batch_size: 0` for the "
    "ensemble.",
    "decode.image uint8[3, 224, 224] -> model.image uint8[batch, 3, 224, 224]",
    "decode.image uint8[-1, 3, 224, 224] -> model.image uint8[batch, 3, 224, 224]",
)
OPTIONAL = Rule(
    "ensemble-optional",
    "error",
    "An input that callers may leave out goes to a step that cannot do without it",
    f"{_LOADS} without that input.",
    "Take `optional` out of the ensemble's input, or make the step's input optional.",
    'input [{ name: "mask" optional: true }] for a step whose "mask" is not optional',
    'input [{ name: "mask" }]',
)
DECOUPLED_MIXED = Rule(
    "ensemble-decoupled-mixed",
    "error",
    "A step's inputs come from different decoupled models, or from one and from outside of it",
    'The server: "receives inputs originated from different decoupled models". Each answers any number of times, so '
    "it is not known which answers belong together.",
    "Pass what the step needs through the decoupled model.",
    "generate (decoupled) -> render.text, input style -> render.style",
    "generate (decoupled) -> render.text, generate (decoupled) -> render.style",
)
DECOUPLED = Rule(
    "ensemble-decoupled",
    "info",
    "The ensemble is decoupled, because one of its steps is",
    "Callers have to use gRPC streaming: HTTP and plain gRPC requests are refused.",
    "Nothing, if callers stream.",
    "generate (decoupled) -> output text",
    "",
)
DIM_NARROWED = Rule(
    "ensemble-dim-narrowed",
    "warning",
    "A tensor may have sizes that a later step does not take",
    "Requests of such sizes fail inside the ensemble, with an error about a tensor the caller does not know.",
    "Write the narrower size or range where the tensor comes from, so that it is refused, cut or padded there.",
    "tokenize.input_ids int64[batch, seq] -> encoder.input_ids int64[batch, seq: 1..512]",
    "tokenize.input_ids int64[batch, seq: 1..512] -> encoder.input_ids int64[batch, seq: 1..512]",
)
DIM_UNCHECKED = Rule(
    "ensemble-dim-unchecked",
    "info",
    "A step's output is -1 where the next step takes one size",
    "Whether it fits is not known before a request: the server does not compare -1 with anything.",
    "Write the size in the config of the step that makes it, if it is always the same.",
    "decode.image uint8[batch, -1, -1, 3] -> model.image uint8[batch, 224, 224, 3]",
    "decode.image uint8[batch, 224, 224, 3] -> model.image uint8[batch, 224, 224, 3]",
)
UNBATCHED = Rule(
    "ensemble-unbatched",
    "warning",
    "Every step batches, and the ensemble does not",
    "Callers send one sample a request. A batch in one request saves the cost of a request, about half a millisecond, "
    "for each further sample.",
    "Give the ensemble the smallest `max_batch_size` of its steps.",
    "max_batch_size: 0, with steps of max_batch_size: 8",
    "max_batch_size: 8, with steps of max_batch_size: 8",
)
SINGLE_STEP = Rule(
    "ensemble-single-step",
    "warning",
    "The ensemble has one step",
    "It only passes requests on: the cost of a second queue and of copies, for another name.",
    "Serve the model under that name, or leave it if the name is what you want.",
    'step [{ model_name: "encoder" ... }]',
    'step [{ model_name: "tokenize" ... }, { model_name: "encoder" ... }]',
)
COULD_BE_OPTIONAL = Rule(
    "ensemble-could-be-optional",
    "info",
    "Callers must give an input that every step could do without",
    "The steps' inputs are optional, the ensemble's is not.",
    "Write `optional: true` for it.",
    'input [{ name: "mask" }] for steps whose "mask" is optional',
    'input [{ name: "mask" optional: true }]',
)
FUSABLE = Rule(
    "ensemble-fusable",
    "warning",
    "Neighbouring ONNX steps could be one model",
    "Between two steps the server queues, schedules and copies, and the graph optimizer sees each half alone. Of small "
    "steps, this is most of their time.",
    "Merge the steps' graphs: `fuse: true` in the spec, or onnx.compose.",
    "normalise (onnx) -> classify (onnx)",
    "normalise_classify (onnx)",
)

RULES: tuple[Rule, ...] = (
    EMPTY, STEP_UNNAMED, MODEL_MISSING, RECURSION, VERSION, STEP_UNWIRED, UNKNOWN_INPUT, UNKNOWN_OUTPUT,
    INPUT_UNCONNECTED, PRODUCED_TWICE, INPUT_OVERWRITTEN, NOT_PRODUCED, CYCLE, UNUSED_INPUT, UNUSED_TENSOR, DTYPE,
    SHAPE, SHAPE_AT_REQUEST, MAX_BATCH_SIZE, BATCH_LOST, OPTIONAL, DECOUPLED_MIXED, DECOUPLED, DIM_NARROWED,
    DIM_UNCHECKED, UNBATCHED, SINGLE_STEP, COULD_BE_OPTIONAL, FUSABLE,
)  # fmt: skip
"""Every rule of this room."""

AT_REQUEST: frozenset[str] = frozenset(rule.id for rule in (INPUT_OVERWRITTEN, SHAPE_AT_REQUEST, BATCH_LOST, OPTIONAL))
"""Errors that the server does not refuse when it loads the ensemble, but runs into at a request."""
