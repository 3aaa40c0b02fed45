"""First rung: do the staged files fit each other? Read from disk again, so that what is checked is what is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builder.config import parse
from builder.errors import ConfigError
from builder.graphs.onnx_tensors import interface_of_onnx
from builder.tensors import Interface, TensorSpec


def check_contract(model_dir: Path, version: int, *, known: Interface | None = None) -> None:
    """Hold ``config.pbtxt`` against the artifact beside it: files, names, types, dimensions.

    Args:
        model_dir: the model's folder.
        version: the version folder in it.
        known: the tensors of an engine or a Python class, which cannot be read from its file.

    Raises:
        ConfigError: with the first thing that does not fit.
    """
    config = parse((model_dir / "config.pbtxt").read_text(encoding="utf-8"), model_dir.name)
    folder = model_dir / str(version)
    for output in config.output:
        if output.label_filename and not (model_dir / output.label_filename).is_file():
            raise ConfigError(
                f"label file {output.label_filename} is missing",
                where=str(model_dir),
                expected=f"the labels of output {output.name!r} in a file of the version",
                got="no such file",
                fix=f"name it as `labels: {{{output.name}: FILE}}` in the spec, which copies it, not under `config`",
            )
    if config.backend == "tensorrt":
        _check_engines(config, folder)
    found = interface_of_onnx(folder / "model.onnx") if known is None else known
    batching = config.max_batch_size > 0
    _check(config.input, found.inputs, "input", batching, model_dir.name)
    _check(config.output, found.outputs, "output", batching, model_dir.name)


def _check_engines(config: Any, folder: Path) -> None:
    named = [*config.cc_model_filenames.values(), *filter(None, [config.default_model_filename])] or ["model.plan"]
    for name in named:
        if not (folder / name).is_file():
            raise ConfigError(
                f"engine {name} is missing",
                where=str(folder),
                expected=f"each of {', '.join(named)} in the version folder",
                got="no such file",
                fix="leave `cc_model_filenames` and `default_model_filename` out of `config`: they are decided here",
            )


def _check(configured: Any, found: tuple[TensorSpec, ...], role: str, batching: bool, model: str) -> None:
    by_name = {tensor.name: tensor for tensor in found}
    for entry in configured:
        tensor = by_name.get(entry.name)
        if tensor is None:
            raise ConfigError(
                f"config.pbtxt of {model} has {role} {entry.name!r}, which the ONNX file has not",
                where=f"models.{model}.config.{role}",
                expected=f"one of {', '.join(by_name)}",
                got=entry.name,
                fix=f"mend the name in the spec, or leave `{role}` out of `config`: it is taken from the ONNX file",
            )
        dims = list(entry.reshape.shape) if entry.HasField("reshape") else list(entry.dims)
        rank = len(dims) + int(batching)
        if rank != len(tensor.dims):
            raise ConfigError(
                f"{role} {entry.name!r} of {model} has {rank} dimensions in config.pbtxt and {len(tensor.dims)} in the "
                "ONNX file",
                where=f"models.{model}.config.{role}",
                expected=str(tensor),
                got=f"dims {dims}" + (" and a batch dimension" if batching else ""),
                fix=_fix(role),
            )
        fixed = [dim.size for dim in tensor.dims[int(batching) :]]
        fits = all(have is None or want in (have, -1) for want, have in zip(dims, fixed, strict=True))
        type_name = entry.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[entry.data_type].name
        if not fits or type_name != tensor.dtype.config:
            raise ConfigError(
                f"{role} {entry.name!r} of {model} differs between config.pbtxt and the ONNX file",
                where=f"models.{model}.config.{role}",
                expected=f"{tensor.dtype.config} {tensor}",
                got=f"{type_name} dims {dims}",
                fix=_fix(role),
            )


def _fix(role: str) -> str:
    return f"mend `{role}` under `config` in the spec; `dims` and `data_type` are taken from the ONNX file if left out"
