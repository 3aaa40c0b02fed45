"""A source that is ONNX already: its tensors are read from the file and held against the spec."""

from __future__ import annotations

from pathlib import Path

from builder.errors import InterfaceError, SourceError, describe
from builder.external_data import external_files
from builder.loaded import OnnxFile
from builder.onnx_tensors import interface_of_onnx
from builder.spec import ModelSpec, Spec
from builder.tensors import Dim, Interface, TensorSpec
from builder.tracing import note_read
from builder.usercode import call


def from_onnx(spec: Spec, model: ModelSpec) -> OnnxFile:
    """``{onnx: file.onnx}`` or ``{onnx: {python: "data.py:path"}}``."""
    path = _path(spec, model)
    found = _read(path)
    declared = model.declared
    return OnnxFile(
        path,
        Interface(
            _held_against(path, "input", found.inputs, declared.inputs),
            _held_against(path, "output", found.outputs, declared.outputs),
        ),
    )


def _path(spec: Spec, model: ModelSpec) -> Path:
    text = str(model.source.onnx)
    references = [reference for key, reference in model.source.references() if key == "onnx"]
    if not references:
        return spec.folder / text
    result = call(references[0], {}, spec.folder, what="source")
    if not isinstance(result, (str, Path)) or not Path(result).is_file():
        raise SourceError(
            f"{text} returned no file", expected="the path of an .onnx file", got=repr(result), fix="return its path"
        )
    return Path(result)


def _read(path: Path) -> Interface:
    try:
        for location in external_files(path):  # before anything opens them: a location may lead anywhere
            note_read(path.parent / location)
        return interface_of_onnx(path)
    except OSError as exc:
        raise SourceError("the file cannot be read", where=str(path), got=describe(exc)) from exc
    except ValueError as exc:
        raise SourceError(
            "this is no usable ONNX model",
            where=str(path),
            expected="an ONNX file",
            got=describe(exc),
            fix="python -c 'import onnx; onnx.checker.check_model(\"FILE\")' says more",
        ) from exc


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
