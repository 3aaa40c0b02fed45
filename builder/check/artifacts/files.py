"""The file that a backend loads of each version: there, not empty, and readable by the server."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from builder.check.artifacts.reading import artifacts, in_words, look, parameters_of, size_of
from builder.check.model import ModelOnDisk
from builder.findings import nearest
from builder.rules.rule import Hit, Rule

MISSING = Rule(
    "artifact-missing",
    "error",
    "a version that is served lacks the file that its backend loads",
    "The backend looks for one file in each version folder that the version policy serves: `default_model_filename`, "
    'else its own default. Without it: "unable to find ... for model instance". One version that cannot be loaded '
    "takes the other ones down with it.",
    "Put the file there, name it in `default_model_filename`, or remove the version folder.",
    bad='backend: "onnxruntime" and a folder 1/ without model.onnx',
    good="1/model.onnx",
)
WRONG_KIND = Rule(
    "artifact-kind",
    "error",
    "what lies at the place of the model's file is a folder, a device or a pipe, or the other way round",
    "The backend opens a file there (a TensorFlow SavedModel: a folder), and fails.",
    "Put the file itself there.",
    bad="a folder 1/model.pt/",
    good="a file 1/model.pt",
)
EMPTY = Rule(
    "artifact-empty",
    "error",
    "the model's file is empty",
    "Nothing can be loaded of it; a copy that was cut short, or a full disk.",
    "Copy the file again.",
    bad="1/model.onnx of 0 bytes",
    good="1/model.onnx as it was exported",
)
UNREADABLE = Rule(
    "file-unreadable",
    "warning",
    "a file of the model may be read by its owner alone",
    "NVIDIA's images have a user `triton-server` of their own, and many clusters start containers as no user that owns "
    'the files: the server then says "Permission denied" where yours, or root, loaded it.',
    "chmod -R a+rX the model's folder.",
    bad="-rw------- 1/model.onnx",
    good="-rw-r--r-- 1/model.onnx",
)
CC_MISSING = Rule(
    "cc-file-missing",
    "warning",
    "a file that `cc_model_filenames` names is missing",
    "On a GPU of that compute capability the server looks for exactly this file and refuses the model; on any other "
    "it loads the default file.",
    "Put the file there, or remove the line.",
    bad='cc_model_filenames { key: "8.6" value: "model_sm86.plan" } without 1/model_sm86.plan',
    good="1/model_sm86.plan",
)
BESIDE_MISSING = Rule(
    "artifact-part-missing",
    "error",
    "a file that belongs to the model's file is missing",
    "OpenVINO reads the weights from the .bin beside the .xml, TensorFlow the graph from saved_model.pb, the forest "
    "library the model under a name of its type.",
    "Copy it too: the two travel together.",
    bad="1/model.xml without 1/model.bin",
    good="1/model.xml and 1/model.bin",
)

_FOLDERS = {"model.savedmodel"}
# The name that the forest backend expects, by its parameter `model_type`.
_FOREST = {
    "xgboost": "xgboost.model",
    "xgboost_json": "xgboost.json",
    "xgboost_ubj": "xgboost.ubj",
    "lightgbm": "model.txt",
    "treelite_checkpoint": "checkpoint.tl",
}
# What backends load that complete no `default_model_filename` of their own.
_OTHER_DEFAULTS = {"dali": "model.dali", "vllm": "model.json", "fil": ""}


def missing(model: ModelOnDisk) -> Iterator[Hit]:
    """Versions without their file."""
    if model.backend == "tensorrt" and model.config is not None and model.config.cc_model_filenames:
        return  # every engine may have a name of its own: `cc-file-missing`
    for version, path in [*artifacts(model), *_others(model)]:
        found = look(path)
        if found in ("file", "folder", "other"):
            continue
        name = model.relative(path)
        there = _names(path.parent)
        close = nearest(path.name, there) or (there[0] if len(there) == 1 else None)
        fix = f'version {version} holds {close}: rename it, or set `default_model_filename: "{close}"`' if close else ""
        yield Hit(f"{name} is missing: {in_words(path, found)}", fix or f"put {name} there", file=name)


def wrong_kind(model: ModelOnDisk) -> Iterator[Hit]:
    """A folder in place of a file, or a file in place of a folder."""
    for _, path in artifacts(model):
        found = look(path)
        wanted = "folder" if path.name in _FOLDERS else "file"
        if found in ("file", "folder", "other") and found != wanted:
            name = model.relative(path)
            message = f"{name} is {in_words(path, found)}, and the {model.backend} backend opens a {wanted}"
            yield Hit(message, f"put the {wanted} itself there", file=name)


def empty(model: ModelOnDisk) -> Iterator[Hit]:
    """Files of no bytes."""
    for _, path in artifacts(model):
        if look(path) == "file" and not size_of(path) and model.backend != "python":
            name = model.relative(path)
            yield Hit(f"{name} is empty", "copy it again", file=name)


def unreadable(model: ModelOnDisk) -> Iterator[Hit]:
    """Files that others may not read, and folders that they may not enter."""
    if model.config is None:
        return
    places = [model.folder, model.folder / "config.pbtxt"]
    for version, path in artifacts(model):
        places += [model.versions[version], path]
    for path in places:
        try:
            mode = path.stat().st_mode
        except OSError:
            continue
        needed = stat.S_IROTH | stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
        if mode & needed != needed:
            name = "." if path == model.folder else model.relative(path)
            kind = "folder" if stat.S_ISDIR(mode) else "file"
            shown = stat.filemode(mode)
            fix = f"chmod a+r{'x' if kind == 'folder' else ''} it"
            yield Hit(f"the {kind} {name} is {shown}: only some users may read it", fix, file=name)


def cc_missing(model: ModelOnDisk) -> Iterator[Hit]:
    """Files for one compute capability that are not there."""
    if model.config is None:
        return
    for version in model.served:
        for capability, name in sorted(model.config.cc_model_filenames.items()):
            path = model.versions[version] / name.lstrip("/")
            found = look(path)
            if found not in ("file", "folder"):
                message = (
                    f"{model.relative(path)} is missing ({in_words(path, found)}): the file for GPUs of {capability}"
                )
                yield Hit(message, "put it there, or remove the entry", ("cc_model_filenames",))


def part_missing(model: ModelOnDisk) -> Iterator[Hit]:
    """What has to lie beside, or below, the model's file."""
    for _, path in artifacts(model):
        part = _part(path)
        if part is not None and look(part) != "file":
            name = model.relative(part)
            yield Hit(f"{name} is missing: {model.relative(path)} needs it", "copy it too", file=name)


def _part(path: Path) -> Path | None:
    found = look(path)
    if path.suffix == ".xml" and found == "file":
        return path.with_suffix(".bin")
    if path.name in _FOLDERS and found == "folder":
        text = path / "saved_model.pbtxt"
        return None if look(text) == "file" else path / "saved_model.pb"
    return None


def _others(model: ModelOnDisk) -> Iterator[tuple[int, Path]]:
    """The files of backends that the server itself has no default for."""
    if model.config is None or model.filename or model.backend not in _OTHER_DEFAULTS:
        return
    name = _OTHER_DEFAULTS[model.backend]
    if model.backend == "fil":
        name = _FOREST.get(parameters_of(model.config).get("model_type", "xgboost"), "")
    for version in model.served:
        folder = model.versions[version]
        if model.backend == "dali" and look(folder / "dali.py") == "file":
            continue
        if name:
            yield version, folder / name


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_file())[:50]
    except OSError:
        return []


FILE_RULES = (
    (MISSING, missing),
    (WRONG_KIND, wrong_kind),
    (EMPTY, empty),
    (BESIDE_MISSING, part_missing),
    (CC_MISSING, cc_missing),
    (UNREADABLE, unreadable),
)
