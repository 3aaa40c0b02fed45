"""A source that is ONNX already: its tensors are read from the file and held against the spec."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder.errors import InterfaceError, SourceError, describe
from builder.graphs.external_data import external_files
from builder.graphs.onnx_tensors import interface_of_onnx
from builder.incremental.tracing import note_read
from builder.loaded import OnnxFile
from builder.sources.looks import looks_like
from builder.spec import ModelSpec, Spec
from builder.tensors import Dim, Interface, TensorSpec, troubles_of
from builder.usercode import call


def from_onnx(spec: Spec, model: ModelSpec) -> OnnxFile:
    """``{onnx: file.onnx}``, or ``{onnx: {python: "graphs.py:make"}}``: a path, or a model that was made in memory."""
    path = _path(spec, model)
    found = _read(path, model)
    declared = model.declared
    interface = Interface(
        _held_against(path, "input", found.inputs, declared.inputs),
        _held_against(path, "output", found.outputs, declared.outputs),
    )
    _check_servable(interface, model, path)
    return OnnxFile(path, interface)


def _path(spec: Spec, model: ModelSpec) -> Path:
    text = str(model.origin.onnx)
    references = [reference for key, reference in model.origin.references() if key == "onnx"]
    if not references:
        return spec.folder / text
    result = call(references[0], {}, spec.folder, what="source")
    if not isinstance(result, (str, Path)):
        result = _written(result, text, spec.repository.parent / ".build" / "made")
    if not isinstance(result, (str, Path)) or not Path(result).is_file():
        got = f"{result!r}, which is not there" if isinstance(result, (str, Path)) else repr(result)[:200]
        fix = "return its whole path, Path(__file__).with_name('model.onnx'), or the model itself"
        expected = "the path of an .onnx file, an onnx.ModelProto, or a function of onnxscript"
        raise SourceError(f"{text} returned no ONNX model", expected=expected, got=got, fix=fix)
    return Path(result)


def _written(made: Any, text: str, place: Path) -> Any:
    """A model that was made in memory as a file, named by its content; anything else as it is.

    Raises:
        SourceError: the function of onnxscript gives no model.
    """
    if isinstance(made, type) or not hasattr(made, "to_model_proto"):
        proto = made
    else:  # onnxscript
        try:
            proto = made.to_model_proto()
        except Exception as exc:
            raise SourceError(
                f"the function that {text} returned cannot become a model",
                expected="a function of onnxscript whose parameters have types: FLOAT['batch', 3]",
                got=describe(exc),
                fix="write the types of its parameters and of what it returns, or return its model: f.to_model_proto()",
            ) from exc
    if type(proto).__name__ != "ModelProto" or not hasattr(proto, "SerializeToString"):
        return made
    content = proto.SerializeToString(deterministic=True)
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{hashlib.sha256(content).hexdigest()[:32]}.onnx"
    unfinished = path.with_name(f".{path.name}-{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)
    return path


def _read(path: Path, model: ModelSpec) -> Interface:
    try:
        data = external_files(path)
        for location in data:  # before anything opens them: a location may lead anywhere
            note_read(path.parent / location)
        _check_names(data, model, path)
        return interface_of_onnx(path)
    except OSError as exc:
        raise SourceError(
            "the file cannot be read",
            where=str(path),
            expected="an ONNX file that this user may read, and its external data beside it",
            got=describe(exc),
            fix="see to the permissions of the file and of its folder, or copy it again",
        ) from exc
    except ValueError as exc:
        looks, fix = looks_like(path)
        raise SourceError(
            "this is no usable ONNX model",
            where=str(path),
            expected="an ONNX file",
            got=f"{exc}\n{looks}" if fix else str(exc),
            fix=fix or f"python -c 'import onnx; onnx.checker.check_model(\"{path}\")' says more",
        ) from exc


def _check_names(data: Mapping[str, int], model: ModelSpec, path: Path) -> None:
    """Labels and external data are copied into one folder."""
    labels = {Path(file).name: file for file in model.labels.values()}
    for location in data:
        if location in labels:
            raise SourceError(
                f"the label file {labels[location]} and the weights of the ONNX file are both copied as {location}",
                where=str(path),
                expected="files of different names",
                fix="give the label file another name",
            )


def _check_servable(interface: Interface, model: ModelSpec, path: Path) -> None:
    """What Triton would refuse, or no client could send."""
    batching = interface.batches and model.batch.max > 0
    troubles = [trouble for tensor in interface.inputs + interface.outputs for trouble in troubles_of(tensor, batching)]
    if not interface.inputs:
        fix = "make the constant an input, or leave the model out: its answer never changes"
        troubles.append(("the ONNX file has no inputs", "at least one: Triton refuses a model without", fix))
    if troubles:
        what, expected, fix = troubles[0]
        raise InterfaceError(what, where=str(path), expected=expected, got=_listed(interface), fix=fix)


def _listed(interface: Interface) -> str:
    sides = (("inputs", interface.inputs), ("outputs", interface.outputs))
    return "\n".join(f"{side}: {', '.join(f'{t.name}: {t}' for t in tensors) or 'none'}" for side, tensors in sides)


def _held_against(
    path: Path, role: str, found: tuple[TensorSpec, ...], declared: tuple[TensorSpec, ...]
) -> tuple[TensorSpec, ...]:
    """The file's tensors, with the spec's dimension names and ranges where it gives them."""
    if not declared:
        return found
    by_name = {tensor.name: tensor for tensor in found}
    result = []
    for tensor in declared:
        other = by_name.get(tensor.name)
        if other is None or not _fits(tensor, other):
            raise InterfaceError(
                f"{role} {tensor.name!r} of the ONNX file differs from the spec",
                where=str(path),
                expected=f"{tensor.name}: {tensor}",
                got=f"{tensor.name}: {other}" if other else f"{role}s: " + ", ".join(f"{t.name}: {t}" for t in found),
                fix=f"mend `{role}s` in the spec, or leave them out: they are taken from the file",
            )
        result.append(tensor)
    unnamed = [tensor.name for tensor in found if tensor.name not in {t.name for t in declared}]
    if role == "input" and unnamed:
        raise InterfaceError(
            f"the ONNX file has more inputs than the spec: {', '.join(unnamed)}",
            where=str(path),
            expected=", ".join(f"{t.name}: {t}" for t in declared),
            got=", ".join(f"{t.name}: {t}" for t in found),
            fix="add them to `inputs`, or leave `inputs` out",
        )
    return tuple(result)


def _fits(declared: TensorSpec, found: TensorSpec) -> bool:
    if declared.dtype != found.dtype or len(declared.dims) != len(found.dims):
        return False
    return all(_dim_fits(want, have) for want, have in zip(declared.dims, found.dims, strict=True))


def _dim_fits(want: Dim, have: Dim) -> bool:
    # A free dimension of the file can be narrowed by the spec; a fixed one cannot be freed.
    return have.size is None or have.size == want.size
