"""The inputs and outputs of an ONNX model, and Triton's idea of them: completed from the file, or checked with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .settings import ConfigError

# ONNX Runtime's spelling -> config.pbtxt's.
CONFIG_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(bfloat16)": "TYPE_BF16",
    "tensor(string)": "TYPE_STRING",
}


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of the ONNX model.

    Attributes:
        name: as in the file.
        type: config.pbtxt's spelling (``TYPE_FP32``); empty where Triton has none.
        shape: with the batch dimension; -1 where the file leaves it open.
    """

    name: str
    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """All inputs and outputs of an ONNX model; ``optional`` are initializers that a request may override."""

    inputs: Mapping[str, TensorInfo]
    optional: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


def signature_of(session: Any) -> Signature:
    """Reads the signature of an ``onnxruntime.InferenceSession``."""
    return Signature(
        inputs=_infos(session.get_inputs()),
        optional=_infos(session.get_overridable_initializers()),
        outputs=_infos(session.get_outputs()),
    )


def _infos(nodes: Sequence[Any]) -> dict[str, TensorInfo]:
    infos = {}
    for node in nodes:
        if not node.type.startswith("tensor("):
            raise ConfigError(f"Unsupported ONNX Type '{node.type}' for I/O '{node.name}', expected a tensor.")
        shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape)
        infos[node.name] = TensorInfo(node.name, CONFIG_TYPES.get(node.type, ""), shape)
    return infos


def names_of_type(infos: Mapping[str, TensorInfo], config_type: str) -> frozenset[str]:
    """Names of the tensors of one type, ``TYPE_STRING`` for instance."""
    return frozenset(name for name, info in infos.items() if info.type == config_type)


def config_dims(io: Mapping[str, Any]) -> tuple[int, ...]:
    """What the model is to see: the dimensions of a configured tensor after its ``reshape``."""
    reshape = io.get("reshape")
    dims = io.get("dims") if reshape is None else reshape.get("shape")
    return tuple(int(dim) for dim in dims or ())


def show(shape: Sequence[int]) -> str:
    """``[-1,8,8]``, as the server writes shapes."""
    return "[" + ",".join(str(dim) for dim in shape) + "]"


# --- completing -------------------------------------------------------------------------------------------------


def needs_completion(config: Mapping[str, Any]) -> bool:
    """True unless both inputs and outputs are given: then the official backend completes nothing at all."""
    has_inputs = bool(config.get("input")) or bool(config.get("batch_input"))
    return not (has_inputs and config.get("output"))


def complete(config: dict[str, Any], signature: Signature, default_max_batch_size: int) -> list[str]:
    """Fills in ``max_batch_size``, inputs, outputs and dynamic batching, in place; returns warnings for the log."""
    name = config.get("name", "")
    warnings = []
    tensors = [*signature.inputs.values(), *signature.outputs.values()]
    batches = all(tensor.shape[:1] == (-1,) for tensor in tensors)
    max_batch_size = int(config.get("max_batch_size", 0))
    if batches:
        if max_batch_size == 0:
            max_batch_size = config["max_batch_size"] = max(default_max_batch_size, 0)
            warnings.append(
                f"autofilled max_batch_size to {max_batch_size} for model '{name}' since batching is supported but no "
                "max_batch_size is specified in model configuration. Must specify max_batch_size to utilize autofill "
                "with a larger max batch size"
            )
        if max_batch_size > 1 and not ({"sequence_batching", "dynamic_batching"} & config.keys()):
            config["dynamic_batching"] = {}
    elif max_batch_size != 0:
        raise ConfigError(
            f"autofill failed for model '{name}': model does not support batching while non-zero max_batch_size "
            "is specified"
        )
    if not config.get("input") and not config.get("batch_input"):
        config["input"] = [_completed(tensor, max_batch_size > 0) for tensor in signature.inputs.values()]
    if not config.get("output"):
        config["output"] = [_completed(tensor, max_batch_size > 0) for tensor in signature.outputs.values()]
    return warnings


def _completed(tensor: TensorInfo, batched: bool) -> dict[str, Any]:
    dims = list(tensor.shape[1:] if batched else tensor.shape)
    io: dict[str, Any] = {"name": tensor.name, "data_type": tensor.type or "TYPE_INVALID", "dims": dims or [1]}
    if not dims and batched:
        io["reshape"] = {"shape": []}
    return io


# --- checking ---------------------------------------------------------------------------------------------------


def check(config: Mapping[str, Any], signature: Signature) -> None:
    """Raises :class:`ConfigError` where the configuration and the model cannot be brought together."""
    name = config.get("name", "")
    if (config.get("sequence_batching") or {}).get("state"):
        raise ConfigError(
            f"unable to load model '{name}', implicit state (sequence_batching.state) is not available behind the "
            "embedded server's ONNX Runtime backend; NVIDIA's backend has it"
        )
    _check_inputs(name, config, signature)
    for io in config.get("output") or ():
        info = signature.outputs.get(io["name"])
        if info is None:
            allowed = ", ".join(sorted(signature.outputs))
            raise ConfigError(
                f"unable to load model '{name}', unexpected inference output '{io['name']}', "
                f"allowed outputs are: {allowed}"
            )
        _check_type(name, "output", io, info)
        _check_dims(name, io, info, int(config.get("max_batch_size", 0)), exact=True)


def _check_inputs(name: str, config: Mapping[str, Any], signature: Signature) -> None:
    inputs = list(config.get("input") or ())
    controls = control_inputs(config)
    expected = sum(not io.get("optional", False) for io in inputs) + len(controls)
    if config.get("batch_input") or config.get("batch_output") or any(io.get("allow_ragged_batch") for io in inputs):
        raise ConfigError(
            f"unable to load model '{name}', ragged batches (allow_ragged_batch, batch_input, batch_output) are not "
            "available behind the embedded server's ONNX Runtime backend; NVIDIA's backend has them"
        )
    known = {**signature.optional, **signature.inputs}
    for io in inputs:
        if io["name"] not in known:
            raise ConfigError(
                f"unable to load model '{name}', unexpected inference input '{io['name']}', "
                f"allowed inputs are: {', '.join(sorted(known))}"
            )
    for control, configured in controls.items():
        if control not in signature.inputs:
            raise ConfigError(
                f"configuration specified sequence control '{control}', but model does not provide that input"
            )
        _check_control(name, signature.inputs[control], configured, int(config.get("max_batch_size", 0)))
    if len(signature.inputs) != expected:
        missing = sorted(
            signature.inputs.keys() - {io["name"] for io in inputs if not io.get("optional")} - set(controls)
        )
        raise ConfigError(
            f"unable to load model '{name}', configuration expects {expected} inputs, model provides "
            f"{len(signature.inputs)}" + (f" (also needed: {', '.join(missing)})" if missing else "")
        )
    for io in inputs:
        if io.get("optional") and int(config.get("max_batch_size", 0)) != 0:
            raise ConfigError(
                f"unable to load model '{name}', optional input '{io['name']}' is not supported for models that "
                "support batching"
            )
        _check_type(name, "input", io, known[io["name"]])
        _check_dims(name, io, known[io["name"]], int(config.get("max_batch_size", 0)), exact=False)


def control_inputs(config: Mapping[str, Any]) -> dict[str, str]:
    """The inputs that the sequence batcher adds to each request, with the data type of each."""
    controls = (config.get("sequence_batching") or {}).get("control_input") or ()
    return {control["name"]: _control_type(control["control"][0]) for control in controls if control.get("control")}


def _control_type(control: Mapping[str, Any]) -> str:
    types = {
        "int32_false_true": "TYPE_INT32",
        "fp32_false_true": "TYPE_FP32",
        "bool_false_true": "TYPE_BOOL",
    }
    given = (config_type for field, config_type in types.items() if control.get(field))
    return next(given, str(control.get("data_type", "TYPE_INVALID")))


def _check_control(name: str, info: TensorInfo, configured: str, max_batch_size: int) -> None:
    dims = info.shape[1:] if max_batch_size > 0 else info.shape
    if dims != (1,):
        raise ConfigError(
            f"unable to load model '{name}', sequence control '{info.name}' in model has dims {show(dims)} but "
            "dims [1] is expected"
        )
    if configured != info.type:
        raise ConfigError(
            f"unable to load model '{name}', sequence control '{info.name}', the model expects data-type {info.type} "
            f"but the model configuration specifies data-type {configured}"
        )


def _check_type(name: str, role: str, io: Mapping[str, Any], info: TensorInfo) -> None:
    configured = io.get("data_type", "TYPE_INVALID")
    if not info.type:
        raise ConfigError(f"unsupported datatype of {role} '{info.name}' of model '{name}': Triton has no such type")
    if configured != info.type:
        raise ConfigError(
            f"unable to load model '{name}', configuration expects datatype {configured} for {role} '{info.name}', "
            f"model provides {info.type}"
        )


def _check_dims(name: str, io: Mapping[str, Any], info: TensorInfo, max_batch_size: int, *, exact: bool) -> None:
    dims = config_dims(io)
    if not info.shape:
        if max_batch_size > 0:
            raise ConfigError(
                f"model '{name}', tensor '{info.name}': for the model to support batching the shape should have at "
                "least 1 dimension and the first dimension must be -1; but shape expected by the model is []"
            )
        if any(dim != 1 for dim in dims):
            raise ConfigError(
                f"unable to load model '{name}', scalar tensor '{info.name}', should only provide 1 in the model "
                f"configuration when the model doesn't support batching. Model configuration provided: {show(dims)}."
            )
        return
    if max_batch_size > 0 and info.shape[0] != -1:
        raise ConfigError(
            f"model '{name}', tensor '{info.name}': for the model to support batching the shape should have at least "
            f"1 dimension and the first dimension must be -1; but shape expected by the model is {show(info.shape)}"
        )
    full = (-1, *dims) if max_batch_size > 0 else dims
    matches = len(full) == len(info.shape) and all(
        model == ours or (model == -1 and not exact) for model, ours in zip(info.shape, full, strict=True)
    )
    if matches:
        return
    batch_note = ""
    if max_batch_size > 0:
        batch_note = "an initial batch dimension because max_batch_size > 0 followed by the explicit tensor shape, "
        batch_note += "making complete "
    raise ConfigError(
        f"model '{name}', tensor '{info.name}': the model expects {len(info.shape)} dimensions (shape "
        f"{show(info.shape)}) but the model configuration specifies {len(full)} dimensions ({batch_note}shape "
        f"{show(full)})"
    )
