"""Neighbouring ONNX steps as one ONNX file: their opsets made one, their weights beside it where they are large.

Refused, with the reason, is what cannot be one graph: operators of another library in two versions, an opset that
``onnx`` has no conversion for, weights outside a file whose opset would have to be converted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.artifact import EXTERNAL_DATA_SUFFIX
from builder.ensemble.graph import EnsembleGraph
from builder.ensemble.groups import Group
from builder.ensemble.merge import Piece, merged
from builder.errors import EnsembleError
from builder.graphs.external_data import external_files, external_tensors
from builder.graphs.onnx_graph import EXTERNAL_DATA_ABOVE_BYTES
from builder.reference import OnnxRunner

_ALIGNMENT_BYTES = 4096
_SMALL_BYTES = 1024
_PIECE_BYTES = 1 << 24
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Part:
    """A step that becomes a part of a graph.

    Attributes:
        name: of the step; names in the graph begin with it.
        path: its ONNX file.
        inputs: input of the file: tensor of the ensemble.
        outputs: output of the file: tensor of the ensemble.
    """

    name: str
    path: Path
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def parts_of(graph: EnsembleGraph, group: Group, files: Mapping[str, Path]) -> list[Part]:
    """The parts of a group, in the order in which they run.

    Args:
        graph: the ensemble.
        group: of it.
        files: the ONNX file of each step, by the step's name.
    """
    steps = [graph.steps[index] for index in group.steps]
    return [Part(step.name, files[step.name], dict(step.inputs), dict(step.outputs)) for step in steps]


def fuse_onnx(
    parts: Sequence[Part],
    inputs: Sequence[str],
    outputs: Sequence[str],
    to: Path,
    *,
    load: Callable[[Path], object] | None = OnnxRunner,
    external_above_bytes: int = EXTERNAL_DATA_ABOVE_BYTES,
) -> tuple[str, ...]:
    """One ONNX file that does what the parts do one after another.

    Args:
        parts: such that each comes after those whose tensors it takes.
        inputs: tensors of the ensemble that the file takes, in order.
        outputs: tensors that it gives, in order.
        to: the file; weights above ``external_above_bytes`` together go to ``<to>.data``.
        load: opens the file to see that ONNX Runtime takes it; None where its operators are of a library that has to
            be registered first.
        external_above_bytes: see ``to``.

    Returns:
        The names of the data files beside ``to``: one, or none.

    Raises:
        EnsembleError: the parts cannot be one graph, or ONNX or ONNX Runtime do not take it.
        SourceError: external data of a part is missing, cut short, or outside its folder.
    """
    import onnx

    models = [_read(part) for part in parts]
    target = _opset(parts, models)
    models = [_converted(part, model, target) for part, model in zip(parts, models, strict=True)]
    for part, model in zip(parts, models, strict=True):
        _place_external(model, part.path.parent)
    pieces = [Piece(part.name, model, part.inputs, part.outputs) for part, model in zip(parts, models, strict=True)]
    whole = merged(pieces, inputs, outputs, to.stem)
    data = _write(whole, to, external_above_bytes)
    try:
        onnx.checker.check_model(str(to))
        if load is not None:
            load(to)
    except (onnx.checker.ValidationError, ValueError) as exc:
        names = ", ".join(part.name for part in parts)
        raise EnsembleError(
            f"steps {names} as one graph are no valid ONNX file",
            where=str(to),
            expected="a file that ONNX and ONNX Runtime take, as they take the steps",
            got=" ".join(str(exc).split())[:600],
            fix="do not fuse these steps: `fuse: false`",
        ) from exc
    return data


def _read(part: Part) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    external_files(part.path)  # whole, and in the file's own folder
    try:
        model = onnx.load(str(part.path), load_external_data=False)
    except (DecodeError, OSError) as exc:
        raise EnsembleError(
            f"step {part.name} is no readable ONNX file",
            where=str(part.path),
            expected="the ONNX file that the step was published with",
            got=" ".join(str(exc).split())[:600],
            fix=f"build the step again: build-repo --only {part.name}, or do not fuse: `fuse: false`",
        ) from exc
    for kind, wired, values in (
        ("input", part.inputs, model.graph.input),
        ("output", part.outputs, model.graph.output),
    ):
        absent = sorted(set(wired) - {value.name for value in values})
        if absent:
            raise EnsembleError(
                f"step {part.name} has no {kind} {absent[0]!r}",
                where=str(part.path),
                expected=", ".join(value.name for value in values),
                fix="mend the wiring of the step",
            )
    return model


def _used_domains(model: Any) -> set[str]:
    """Domains of the operators that a model runs, in functions and subgraphs too."""
    found: set[str] = set()
    waiting = [model.graph.node, *(function.node for function in model.functions)]
    for nodes in waiting:
        for node in nodes:
            found.add("" if node.domain in _STANDARD else node.domain)
            for attribute in node.attribute:
                waiting += [graph.node for graph in (attribute.g, *attribute.graphs) if graph.node]
    return found


def _opset(parts: Sequence[Part], models: Sequence[Any]) -> int:
    """The version of ONNX's own operators that all parts are brought to: the newest of them.

    Raises:
        EnsembleError: two parts need another library's operators in different versions.
    """
    seen: dict[str, tuple[int, str]] = {}
    standard = 1
    for part, model in zip(parts, models, strict=True):
        used = _used_domains(model)
        own = {function.domain for function in model.functions}
        for entry in model.opset_import:
            if entry.domain in _STANDARD:
                standard = max(standard, entry.version)
                continue
            if entry.domain not in used or entry.domain in own:
                continue
            version, other = seen.setdefault(entry.domain, (entry.version, part.name))
            if version != entry.version:
                raise EnsembleError(
                    f"steps {other} and {part.name} cannot be one graph: their operators are of different versions",
                    where=str(part.path),
                    expected=f"{entry.domain} {version}, as {other}",
                    got=f"{entry.domain} {entry.version}",
                    fix="export both steps with the same versions, or do not fuse them: `fuse: false`",
                )
    return standard


def _converted(part: Part, model: Any, target: int) -> Any:
    """The model at another opset; imports that nothing uses are dropped.

    Raises:
        EnsembleError: there is no way there.
    """
    from onnx import version_converter

    own = next((entry.version for entry in model.opset_import if entry.domain in _STANDARD), 1)
    if own != target and "" in _used_domains(model):
        if any(True for _ in external_tensors(model)):
            raise _no_conversion(part, own, target, "its weights are in a file of their own")
        try:
            if model.functions:
                from onnx import inliner

                model = inliner.inline_local_functions(model)
            model = version_converter.convert_version(model, target)
        except (RuntimeError, ValueError, TypeError) as exc:
            raise _no_conversion(part, own, target, " ".join(str(exc).split())[:300]) from exc
    used = _used_domains(model) | {function.domain for function in model.functions}
    versions = {entry.domain: entry.version for entry in model.opset_import if entry.domain in used - {""}}
    del model.opset_import[:]
    for domain, version in (("", target), *sorted(versions.items())):
        model.opset_import.add(domain=domain, version=version)
    return model


def _no_conversion(part: Part, own: int, target: int, why: str) -> EnsembleError:
    return EnsembleError(
        f"step {part.name} cannot be brought to the opset of its neighbours",
        where=str(part.path),
        expected=f"opset {target}",
        got=f"opset {own}: {why}",
        fix=f"export it with `export: {{opset: {target}}}`, or do not fuse it: `fuse: false`",
    )


def _place_external(model: Any, folder: Path) -> None:
    """Let tensors outside the file say where they are from anywhere."""
    for tensor in external_tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = str((folder / entry.value).resolve())


def _write(whole: Any, to: Path, above: int) -> tuple[str, ...]:
    """Write the file, and its data beside it where that is large.

    Raises:
        OSError: it cannot be written.
    """
    outside = list(external_tensors(whole))
    total = sum(_length(tensor) for tensor in outside) + whole.ByteSize()
    to.parent.mkdir(parents=True, exist_ok=True)
    names: tuple[str, ...] = ()
    if total <= above:
        for tensor in outside:
            tensor.raw_data = b"".join(_pieces(tensor))
            del tensor.external_data[:]
            tensor.data_location = tensor.DEFAULT
    else:
        data = to.with_name(to.name + EXTERNAL_DATA_SUFFIX)
        inside = [tensor for tensor in whole.graph.initializer if len(tensor.raw_data) > _SMALL_BYTES]
        with data.open("wb") as stream:
            for tensor in [*outside, *inside]:
                begin = stream.tell() + -stream.tell() % _ALIGNMENT_BYTES
                stream.seek(begin)
                for piece in _pieces(tensor):
                    stream.write(piece)
                _point_to(tensor, data.name, begin, stream.tell() - begin)
        names = (data.name,)
    to.write_bytes(whole.SerializeToString(deterministic=True))
    return names


def _entries(tensor: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _length(tensor: Any) -> int:
    """Bytes of a tensor outside the file; without a length it goes to the end of its file."""
    entries = _entries(tensor)
    if entries.get("length"):
        return int(entries["length"])
    return Path(entries["location"]).stat().st_size - int(entries.get("offset") or 0)


def _pieces(tensor: Any) -> Iterable[bytes]:
    """The bytes of a tensor, wherever they are, not all at once."""
    if tensor.data_location != tensor.EXTERNAL:
        yield tensor.raw_data
        return
    entries, left = _entries(tensor), _length(tensor)
    with Path(entries["location"]).open("rb") as stream:
        stream.seek(int(entries.get("offset") or 0))
        while left > 0:
            piece = stream.read(min(left, _PIECE_BYTES))
            if not piece:
                raise OSError(f"{entries['location']} ends {left} bytes too early")
            left -= len(piece)
            yield piece


def _point_to(tensor: Any, location: str, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
