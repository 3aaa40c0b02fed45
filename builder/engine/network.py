"""An ONNX file as a strongly typed network: what the parser has against it, and whether the profiles fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from builder.engine.library import LIBRARIES
from builder.engine.options import Job, Profile, Shape
from builder.errors import EngineError

_DTYPES = {"float": "float32", "half": "float16", "bf16": "bfloat16", "fp8": "float8"}
_NOT_COMPUTED = ("CONSTANT", "SHAPE")
# Where the parser was, and what is said about CUDA at every turn where there is no driver.
NOISE = ("ModelImporter.cpp:1", "catchCudaError", "ScopedCudaStream", "getCurrentCC", "In function")


def parsed(trt: Any, job: Job) -> tuple[Any, Any, Any]:
    """Builder, network and parser; the parser owns the weights and must outlive the network.

    Raises:
        EngineError: the parser refuses the graph; with every node that it names.
    """
    from polygraphy.backend.trt import CreateNetwork, SetDecomposableAttentions
    from polygraphy.backend.trt.util import get_trt_logger

    typed = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")  # else there is no other kind any more
    builder, network = CreateNetwork(strongly_typed=typed)()
    trt.init_libnvinfer_plugins(get_trt_logger(), "")
    parser = trt.OnnxParser(network, get_trt_logger())
    is_read = parser.parse_from_file(str(job.source))
    if not is_read or parser.num_errors or not network.num_outputs:  # noise is read as an empty graph
        raise _parser_error(trt, job, [parser.get_error(index) for index in range(parser.num_errors)])
    if hasattr(trt.LayerType, "ATTENTION_INPUT"):  # where no one kernel does all of it (float32), several may
        SetDecomposableAttentions((builder, network, parser))()
    return builder, network, parser


def _parser_error(trt: Any, job: Job, errors: list[Any]) -> EngineError:
    """All that the parser has against the graph, node by node."""
    title = f"{LIBRARIES[job.kind].title} {trt.__version__}"
    lines = [_parser_line(error) for error in errors] or ["the file is no ONNX model: nothing in it has an output"]
    is_plugin = any("Plugin not found" in error.desc() for error in errors)
    return EngineError(
        f"{title} cannot read the graph: {len(lines)} {'place is' if len(lines) == 1 else 'places are'} refused",
        where=str(job.source),
        expected="operators and types that TensorRT's parser takes",
        got="\n".join(lines),
        fix="name a library with these operators under engine.plugins, or serve an `onnx-*` variant"
        if is_plugin
        else "change the model so that it exports without them, or serve an `onnx-*` variant",
    )


def _parser_line(error: Any) -> str:
    """``/conv1 (Conv): UNSUPPORTED_NODE``, with the reason where it gives one."""
    name = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""
    said = [line.strip() for line in error.desc().splitlines()]
    reason = "; ".join(line for line in said if line and not any(noise in line for noise in NOISE))
    reason = reason.rpartition('&& "')[2].rstrip('"') if '&& "' in reason else reason
    code = str(error.code()).rpartition(".")[2]
    place = f"{name or f'node {error.node()}'} ({operator})" if operator or name else "the file"
    return f"{place}: {code}" + ("" if reason in ("", "false") else f": {reason}")


def check_profiles(network: Any, job: Job) -> None:
    """The profiles against the network itself; polygraphy would make up what is missing.

    Raises:
        EngineError: one does not fit.
    """
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    inputs = {tensor.name: tuple(tensor.shape) for tensor in tensors}
    for profile in job.options.profiles or ({},):
        if problem := _problem(inputs, profile):
            raise EngineError(
                "a profile does not fit the graph",
                where="engine.profiles",
                expected=", ".join(f"{name} {list(shape)}" for name, shape in inputs.items()),
                got=problem,
                fix="give min, opt and max for every input with a free dimension (-1), and the graph's own sizes else",
            )


def _problem(inputs: Mapping[str, Shape], profile: Profile) -> str:
    """What is wrong with a profile for these inputs; nothing where it fits."""
    for name in profile:
        if name not in inputs:
            return f"`{name}` is no input of the graph"
    for name, real in inputs.items():
        if name not in profile and -1 in real:
            return f"`{name}` has free dimensions and is in no profile"
        for shape in profile.get(name, ()):
            if len(shape) != len(real) or any(there not in (-1, size) for there, size in zip(real, shape, strict=True)):
                return f"`{name}` is {list(real)} in the graph and {list(shape)} in the profile"
    return ""


def layers(trt: Any, network: Any) -> dict[str, int]:
    """How many layers of the typed network give each type; what the builder fuses of them is its own affair."""
    skipped = [getattr(trt.LayerType, name) for name in _NOT_COMPUTED]
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return dict(
        Counter(_dtype(layer.get_output(0)) for layer in layers if layer.num_outputs and layer.type not in skipped)
    )


def tensors(network: Any, side: str) -> dict[str, Any]:
    """Type and shape of the inputs (``input``) or outputs (``output``), by name."""
    found = [getattr(network, f"get_{side}")(index) for index in range(getattr(network, f"num_{side}s"))]
    return {tensor.name: {"dtype": _dtype(tensor), "shape": list(tensor.shape)} for tensor in found}


def _dtype(tensor: Any) -> str:
    name = str(tensor.dtype).rpartition(".")[2].lower()
    return _DTYPES.get(name, name)
