"""An ONNX file on its own: it can be read, the server's ONNX Runtime takes its opset, and its weights are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from builder.check.artifacts.reading import in_words, leads_out, listed, look, present, size_of
from builder.check.model import ModelOnDisk
from builder.graphs.onnx_summary import ExternalData, OnnxSummary, TooLargeError, summary_of
from builder.releases import PINNED_RELEASE, ir_taken, opset_taken
from builder.rules.rule import Hit, Rule

UNREADABLE = Rule(
    "onnx-unreadable",
    "error",
    "the file is no ONNX model",
    'It does not parse: "Protobuf parsing failed". Mostly a copy that was cut short, a Git LFS pointer, a page of HTML '
    "saved in its place, or weights that belong in another format.",
    "Copy or export it again.",
    bad="the first half of model.onnx",
    good="model.onnx, whole",
)
BROKEN = Rule(
    "onnx-graph",
    "error",
    "the graph in the file is not one that ONNX Runtime can build",
    "A node takes a tensor that nothing makes, a tensor is made twice, an output is made by no node, the nodes run "
    'in a circle, or no opset is named: "This is an invalid model".',
    "Export it again, or run onnx.checker.check_model on it.",
    bad="an output that no node makes",
    good="a file that onnx.checker accepts",
)
OPSET = Rule(
    "onnx-opset",
    "error",
    "the opset of the file is newer than the server's ONNX Runtime",
    'ONNX Runtime refuses opsets that it was not released with: "ONNX Runtime only *guarantees* support for models '
    'stamped with official released onnx opset versions". Which it takes was measured for each ONNX Runtime that a '
    "Triton release carries.",
    "Export with a lower opset, or serve with a newer release.",
    bad="opset 25 and --server 24.10, which takes up to 21",
    good="opset 20",
)
IR = Rule(
    "onnx-ir-version",
    "error",
    "the IR version of the file is newer than the server's ONNX Runtime",
    '"Unsupported model IR version: 12, max supported IR version: 10". The file may hold nothing new at all: new '
    "releases of onnx stamp the newest version unless they are asked not to.",
    "Set model.ir_version = 10 before saving, or serve with a newer release.",
    bad="IR version 12 and --server 24.10, which takes up to 10",
    good="IR version 10",
)
DOMAIN = Rule(
    "onnx-custom-domain",
    "error",
    "the graph has operators of a domain that ONNX Runtime does not know, and no library brings them",
    'Without `model_operations { op_library_filename }`: "is not a registered function/op".',
    "Name the library in `model_operations`, or export with standard operators.",
    bad="a node of ai.onnx.contrib and no `model_operations`",
    good='model_operations { op_library_filename: "/opt/libortextensions.so" }',
)
EXTERNAL = Rule(
    "onnx-external-data",
    "error",
    "weights that the graph keeps in another file are missing or cut short",
    "An ONNX file over 2 GB has its weights in files beside it, which have to be copied too, under the same names: the "
    "file refers to them.",
    "Copy the files that belong to it, or save it again as one file.",
    bad="1/model.onnx without 1/model.onnx.data",
    good="both of them",
)
OUTSIDE = Rule(
    "onnx-external-outside",
    "error",
    "the graph takes weights from outside of its own folder",
    "The location is text in a file that somebody else may have written; ONNX Runtime would read whatever it names. "
    "Newer releases refuse it.",
    "Do not serve this file unless you know who made it; move the data beside it and mend the location.",
    bad="location ../../secrets.bin",
    good="location model.onnx.data",
)
NOT_LOOKED_AT = Rule(
    "onnx-too-large",
    "info",
    "the graph is too large to be held against its configuration",
    "Files are read for a fraction of a second at most.",
    "Load it once in a server: serve-repo DIR.",
    bad="a graph of 100,000 nodes",
    good="one of 10,000",
)
OPERATIONS = Rule(
    "onnx-op-library",
    "warning",
    "the library of custom operators is not here",
    "`op_library_filename` is opened as it is written, absolute or from where the server was started: the same path "
    "has to be there inside the server's container.",
    "Check that the server has it there.",
    bad='model_operations { op_library_filename: "/nowhere/libops.so" }',
    good="a path that the server has",
)

# Domains whose operators are compiled into ONNX Runtime.
_KNOWN_DOMAINS = {
    "", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "ai.onnx.preview", "com.microsoft",
    "com.microsoft.experimental", "com.microsoft.nchwc", "com.microsoft.dml", "com.ms.internal.nhwc",
    "com.ms.internal.nchwc", "com.microsoft.mlfeaturizers", "org.pytorch.aten",
}  # fmt: skip


def graphs(model: ModelOnDisk) -> Iterator[tuple[int, Path, OnnxSummary]]:
    """Each served version's graph, those that can be read."""
    for version, path in onnx_files(model):
        try:
            summary = summary_of(path)
        except (ValueError, OSError):
            continue
        if summary.has_graph:
            yield version, path, summary


def onnx_files(model: ModelOnDisk) -> Iterator[tuple[int, Path]]:
    """Each served version's file, where ONNX Runtime is to serve it."""
    if model.backend == "onnxruntime":
        yield from present(model)


def unreadable(model: ModelOnDisk) -> Iterator[Hit]:
    """Files that do not parse."""
    for _, path in onnx_files(model):
        name = model.relative(path)
        try:
            summary = summary_of(path)
        except TooLargeError:
            continue
        except ValueError as error:
            yield Hit(
                f"{name} is no ONNX model, or cut short ({size_of(path)} bytes): {error}", _again(path), file=name
            )
        except OSError as error:
            yield Hit(f"{name} cannot be read: {error.strerror}", "let the server's user read it", file=name)
        else:
            if not summary.has_graph:
                message = f"{name} is no ONNX model: its {size_of(path)} bytes hold no graph"
                yield Hit(message, _again(path), file=name)


def _again(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError:
        start = b""
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer: `git lfs pull`"
    if start.lstrip()[:1] == b"<":
        return "this is a web page: download the file itself"
    if start.startswith(b"PK"):
        return "this is a zip archive: export the model with torch.onnx.export"
    return "copy or export it again"


def too_large(model: ModelOnDisk) -> Iterator[Hit]:
    """Graphs that were not looked at."""
    for _, path in onnx_files(model):
        try:
            summary_of(path)
        except TooLargeError as error:
            yield Hit(f"{model.relative(path)} was not looked at: {error}", file=model.relative(path))
        except (ValueError, OSError):
            continue


def broken(model: ModelOnDisk) -> Iterator[Hit]:
    """Graphs that hold no graph."""
    for _, path, graph in graphs(model):
        name = model.relative(path)
        problems = list(graph.problems)
        if not graph.opsets:
            problems.append("the file names no opset: it was cut short behind its graph, or never had one")
        if not graph.ir_version:
            problems.append("the file names no IR version")
        for value in graph.inputs.values():
            if not value.kind or (value.kind == "tensor" and not value.elem_type):
                problems.append(f"input {value.name!r} has no type")
        for problem in problems[:5]:
            yield Hit(f"{name}: {problem}", "export it again", file=name)


def opset(model: ModelOnDisk) -> Iterator[Hit]:
    """Opsets that the server does not take."""
    release = model.release.name if model.release else None
    newest = {"": opset_taken(release, model.release.onnxruntime if model.release else ""), "ai.onnx.ml": 5}
    for _, path, graph in graphs(model):
        for domain, version in graph.opsets.items():
            if domain in newest and version > newest[domain]:
                name = model.relative(path)
                what = f"opset {version}" + (f" of {domain}" if domain else "")
                message = f"{name} has {what}, and the server of release {release or PINNED_RELEASE} takes up to"
                yield Hit(f"{message} {newest[domain]}", f"export with opset {newest[domain]} or lower", file=name)


def ir_version(model: ModelOnDisk) -> Iterator[Hit]:
    """IR versions that the server does not take."""
    release = model.release.name if model.release else None
    newest = ir_taken(release, model.release.onnxruntime if model.release else "")
    for _, path, graph in graphs(model):
        if graph.ir_version > newest:
            name = model.relative(path)
            message = f"{name} has IR version {graph.ir_version}, and the server of release {release or PINNED_RELEASE}"
            fix = f"set model.ir_version = {newest} and save it again"
            yield Hit(f"{message} takes up to {newest}", fix, file=name)


def domains(model: ModelOnDisk) -> Iterator[Hit]:
    """Operators that nobody brings."""
    for _, path, graph in graphs(model):
        if model.config.model_operations.op_library_filename:
            return
        foreign = sorted(graph.domains - _KNOWN_DOMAINS - graph.function_domains)
        name = model.relative(path)
        if foreign:
            operators = sorted(kind for domain, kind in graph.op_types if domain in foreign)
            message = f"{name} has operators of {listed(foreign)} ({listed(operators)}), which no library brings"
            yield Hit(message, 'name the library: `model_operations { op_library_filename: "..." }`', file=name)


def op_library(model: ModelOnDisk) -> Iterator[Hit]:
    """Libraries that are not here."""
    if model.config is None or model.backend != "onnxruntime":
        return
    for index, text in enumerate(model.config.model_operations.op_library_filename):
        if text.startswith("/") and look(Path(text)) != "file":
            yield Hit(
                f"{text} is not here: {in_words(Path(text), look(Path(text)))}",
                "see that the server has it there",
                ("model_operations", "op_library_filename", index),
            )


def external(model: ModelOnDisk) -> Iterator[Hit]:
    """Weights that are missing or cut short."""
    for _, path, graph in graphs(model):
        name = model.relative(path)
        for location, needed in _needed(graph.external).items():
            if _is_outside(path, location):
                continue
            file = path.parent / location
            found = look(file)
            if not location or found != "file":
                shown = model.relative(file) if location else "a location that is empty"
                missing = in_words(file, found) if location else "nothing"
                yield Hit(f"{name} needs {shown}: {missing}", f"put {location or 'the data'} beside it", file=name)
            elif size_of(file) < needed:
                message = f"{model.relative(file)} has {size_of(file)} bytes, and {name} needs {needed}"
                yield Hit(message, "copy it again", file=model.relative(file))
        for tensor in _unusable(graph.external):
            message = f"{name}: tensor {tensor.tensor!r} lies at offset {tensor.offset!r}, length {tensor.length!r}"
            yield Hit(message, "save it again: onnx.save(model, path, save_as_external_data=True)", file=name)


def outside(model: ModelOnDisk) -> Iterator[Hit]:
    """Weights from elsewhere."""
    for _, path, graph in graphs(model):
        name = model.relative(path)
        for location in sorted({data.location for data in graph.external if _is_outside(path, data.location)}):
            message = f"{name} takes weights from {location!r}, outside of its own folder"
            yield Hit(message, "move the data beside it and mend the location", file=name)


def _is_outside(path: Path, location: str) -> bool:
    """By its text, or through a link; where the graph itself is a link, both may lie elsewhere together."""
    if leads_out(location):
        return True
    file = path.parent / location
    if not location or path.is_symlink() or look(file) != "file":
        return False
    return not file.resolve().is_relative_to(path.parent.resolve())


def _needed(external_data: list[ExternalData]) -> dict[str, int]:
    needed: dict[str, int] = {}
    for data in external_data:
        offset, length = (int(text) if text.isdecimal() else 0 for text in (data.offset, data.length))
        needed[data.location] = max(needed.get(data.location, 0), offset + (length or max(data.size_bytes, 0)))
    return needed


def _unusable(external_data: list[ExternalData]) -> list[ExternalData]:
    return [data for data in external_data if not (data.offset.isdecimal() and data.length.isdecimal())][:3]


ONNX_RULES = (
    (UNREADABLE, unreadable),
    (BROKEN, broken),
    (OPSET, opset),
    (IR, ir_version),
    (DOMAIN, domains),
    (EXTERNAL, external),
    (OUTSIDE, outside),
    (OPERATIONS, op_library),
    (NOT_LOOKED_AT, too_large),
)
