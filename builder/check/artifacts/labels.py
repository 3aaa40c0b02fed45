"""Files that the configuration names beside the model's own: labels, samples for warming up, initial states."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from builder.check.artifacts.reading import enum_name, in_words, leads_out, look, size_of
from builder.check.model import ModelOnDisk
from builder.findings import KeyPath
from builder.rules.rule import Hit, Rule
from serving.dtypes import BY_CONFIG

LABELS_MISSING = Rule(
    "labels-missing",
    "error",
    "a label file is missing",
    "`label_filename` is read when the model is loaded, from the model's folder, not the version's: \"failed to open "
    'text file for read".',
    "Put it beside config.pbtxt.",
    bad='label_filename: "labels.txt" and no labels.txt beside config.pbtxt',
    good="labels.txt beside config.pbtxt",
)
LABELS_OUTSIDE = Rule(
    "labels-outside",
    "error",
    "a label file lies outside of the model's folder",
    '"label file path ... is outside model directory".',
    "Copy it into the model's folder.",
    bad='label_filename: "../labels.txt"',
    good='label_filename: "labels.txt"',
)
LABELS_COUNT = Rule(
    "labels-count",
    "warning",
    "a label file has another number of lines than the output has classes",
    "The label of a class is the line of its index: a line too many or too few mostly means that labels are one off.",
    "Write one line for each class, in their order.",
    bad="11 lines for an output with dims: [ 10 ]",
    good="10 lines",
)
WARMUP = Rule(
    "warmup-file",
    "error",
    "a sample for warming up is missing or too short",
    "`input_data_file` is read from the folder `warmup` of the model: raw bytes, at least as many as the data type and "
    '`dims` need: "warmup setting expects 16 bytes".',
    "Put the file into MODEL/warmup/.",
    bad='input_data_file: "sample" and no warmup/sample',
    good="warmup/sample with as many bytes as dims need",
)
STATE = Rule(
    "initial-state-file",
    "error",
    "the data of an initial state is missing or too short",
    "`data_file` is read from the folder `initial_state` of the model: raw bytes, at least as many as the data type "
    "and `dims` need.",
    "Put the file into MODEL/initial_state/.",
    bad='data_file: "zeros" and no initial_state/zeros',
    good="initial_state/zeros with as many bytes as dims need",
)

_LARGEST_LABELS = 16 * 1024 * 1024


def labels_missing(model: ModelOnDisk) -> Iterator[Hit]:
    """Label files that are not there."""
    for path, name, where in _labels(model):
        if not leads_out(name) and (found := look(path)) != "file":
            yield Hit(f"label_filename {name!r}: {in_words(path, found)}", "put it beside config.pbtxt", where)


def labels_outside(model: ModelOnDisk) -> Iterator[Hit]:
    """Label files elsewhere: by their name, or through a link."""
    for path, name, where in _labels(model):
        if leads_out(name) or (look(path) == "file" and not _below(path, model.folder)):
            yield Hit(f"label_filename {name!r} leads out of the model's folder", "copy the file into it", where)


def labels_count(model: ModelOnDisk) -> Iterator[Hit]:
    """Label files of another length."""
    for path, name, where in _labels(model):
        dims = model.config.output[int(where[1])].dims
        if look(path) != "file" or leads_out(name) or size_of(path) > _LARGEST_LABELS:
            continue
        if not dims or any(dim < 1 for dim in dims):
            continue
        try:
            content = path.read_bytes()
        except OSError:
            continue
        lines, classes = len(content.split(b"\n")) - content.endswith(b"\n"), max(dims)
        if lines != classes and lines != math.prod(dims):
            yield Hit(f"{name} has {lines} lines, and the output {classes} classes", "one line for each class", where)


def warmup_files(model: ModelOnDisk) -> Iterator[Hit]:
    """Samples that are not there or too short."""
    if model.config is None:
        return
    for index, sample in enumerate(model.config.model_warmup):
        for name, entry in sorted(sample.inputs.items()) if sample.batch_size else ():
            if entry.WhichOneof("input_data_type") != "input_data_file":
                continue
            where: KeyPath = ("model_warmup", index, "inputs", name, "input_data_file")
            path = _joined(model.folder / "warmup", entry.input_data_file)
            if problem := _short(path, enum_name(entry, "data_type"), list(entry.dims)):
                shown = f"warmup/{entry.input_data_file}"
                yield Hit(f"{shown}, the sample for {name!r}: {problem}", f"put the bytes into {shown}", where)


def state_files(model: ModelOnDisk) -> Iterator[Hit]:
    """Data of states that is not there or too short."""
    if model.config is None:
        return
    for index, state in enumerate(model.config.sequence_batching.state):
        for inner, entry in enumerate(state.initial_state):
            if entry.WhichOneof("state_data") != "data_file":
                continue
            where: KeyPath = ("sequence_batching", "state", index, "initial_state", inner, "data_file")
            path = _joined(model.folder / "initial_state", entry.data_file)
            if problem := _short(path, enum_name(entry, "data_type"), list(entry.dims)):
                shown = f"initial_state/{entry.data_file}"
                message = f"{shown}, the data of state {state.input_name!r}: {problem}"
                yield Hit(message, f"put the bytes into {shown}", where)


def _labels(model: ModelOnDisk) -> Iterator[tuple[Path, str, tuple[str, int, str]]]:
    if model.config is None:
        return
    for index, output in enumerate(model.config.output):
        if output.label_filename:
            name = output.label_filename.lstrip("/")  # the server joins the two, whatever the second begins with
            yield _joined(model.folder, name), name, ("output", index, "label_filename")


def _joined(folder: Path, name: str) -> Path:
    return folder / name.lstrip("/")


def _below(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        return True


def _short(path: Path, data_type: str, dims: Sequence[int]) -> str:
    found = look(path)
    if found != "file":
        return in_words(path, found)
    width = BY_CONFIG[data_type].size_bytes if data_type in BY_CONFIG else 0
    if not width or any(dim < 0 for dim in dims):
        return ""  # strings are as long as they are; an open dimension is refused by itself
    needed = width * math.prod(dims)
    return f"{size_of(path)} bytes, and {data_type} of {list(dims)} needs {needed}" if size_of(path) < needed else ""


LABEL_RULES = (
    (LABELS_MISSING, labels_missing),
    (LABELS_OUTSIDE, labels_outside),
    (LABELS_COUNT, labels_count),
    (WARMUP, warmup_files),
    (STATE, state_files),
)
