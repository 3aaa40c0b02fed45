"""``model.pt``: a TorchScript archive, or what users ship by mistake; its ``forward`` as far as its code text tells.

Nothing is unpickled: the archive's table of contents, the text of its code, and the first words of its pickle are read.
"""

from __future__ import annotations

import functools
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.check.artifacts.reading import first_bytes, listed, present
from builder.check.model import ModelOnDisk
from builder.rules.rule import Hit, Rule

NO_ARCHIVE = Rule(
    "torchscript-archive",
    "error",
    "the file is no TorchScript archive",
    "The backend opens it with torch::jit::load. A state dict, a pickled module (torch.save), an exported program "
    '(torch.export) and safetensors hold no TorchScript: "PytorchStreamReader failed".',
    "Save with torch.jit.script(module).save(path) or torch.jit.trace(module, example).save(path).",
    bad='torch.save(model.state_dict(), "1/model.pt")',
    good='torch.jit.script(model).save("1/model.pt")',
)
INPUT_COUNT = Rule(
    "torchscript-inputs",
    "error",
    "the configuration and `forward` differ in how many inputs there are",
    '"configuration expects 1 inputs, model provides 2". Each argument of `forward` counts, with a default or not; '
    "sequence controls, states and `batch_input` count as inputs too.",
    "Name an input for each argument.",
    bad="one input for forward(self, x, y)",
    good="two of them",
)
ARGUMENT = Rule(
    "torchscript-argument",
    "error",
    "`forward` takes something that the server cannot give",
    'Tensors and lists of strings, or one single Dict[str, Tensor]: "Only a single input of type Dict(str, Tensor) or '
    'input(s) of type Tensor are supported".',
    "Wrap the module in one whose forward takes tensors.",
    bad="def forward(self, x, mode: int)",
    good="def forward(self, x)",
)
NAMES = Rule(
    "torchscript-names",
    "warning",
    "inputs are neither arguments of `forward` nor of the form NAME__INDEX: they are taken in order",
    "The server falls back on the order of the configuration, so that a swapped pair computes something else without a "
    "word.",
    "Name the inputs as the arguments of forward, or INPUT__0, INPUT__1, ...",
    bad='input [ { name: "b" ... }, { name: "a" ... } ] for forward(self, x, y)',
    good='input [ { name: "x" ... }, { name: "y" ... } ]',
)

_LARGEST_DIRECTORY = 8 * 1024 * 1024
_LARGEST_TEXT = 2 * 1024 * 1024
_TAIL = 65_536 + 22
_LEGACY_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_ARGUMENT = re.compile(r"\s*(\w+)\s*(?::\s*(.+?))?\s*(?:=.*)?\Z", re.DOTALL)


@dataclass(frozen=True)
class Archive:
    """What is known of a ``model.pt``.

    Attributes:
        problem: why it is no TorchScript archive; empty where it is one, or was not looked at.
        arguments: ``(name, type)`` of ``forward``; None where the code text does not tell.
    """

    problem: str = ""
    arguments: tuple[tuple[str, str], ...] | None = None


def archives(model: ModelOnDisk) -> Iterator[tuple[str, Archive]]:
    """Each served version's file, by its name, where LibTorch is to serve it."""
    if model.backend != "pytorch" or model.config is None or model.config.platform not in ("", "pytorch_libtorch"):
        return
    for _, path in present(model):
        if path.suffix != ".py":
            facts = path.stat()
            yield model.relative(path), _archive(str(path), facts.st_mtime_ns, facts.st_size)


def no_archive(model: ModelOnDisk) -> Iterator[Hit]:
    """Files of another kind."""
    for name, archive in archives(model):
        if archive.problem:
            fix = "save with torch.jit.script(module).save(path)"
            yield Hit(f"{name} is no TorchScript archive: {archive.problem}", fix, file=name)


def input_count(model: ModelOnDisk) -> Iterator[Hit]:
    """Arguments that the configuration lacks, or has too many of."""
    for name, archive in archives(model):
        arguments = archive.arguments
        if not arguments or _is_dict(arguments) or not model.config.input:
            continue
        sequence = model.config.sequence_batching
        expected = len(model.config.input) + len(model.config.batch_input) + len(sequence.state)
        expected += sum(bool(control.control) for control in sequence.control_input)
        if expected != len(arguments):
            texts = ", ".join(argument for argument, _ in arguments)
            message = f"forward({texts}) of {name} takes {len(arguments)} inputs, and the configuration has {expected}"
            yield Hit(message, "name one input for each argument", ("input",))


def argument_types(model: ModelOnDisk) -> Iterator[Hit]:
    """Arguments that are neither tensors nor lists."""
    for name, archive in archives(model):
        arguments = archive.arguments or ()
        if _is_dict(arguments):
            continue
        for argument, kind in arguments:
            if kind and kind != "Tensor" and not kind.startswith("List["):
                message = f"forward of {name} takes {argument}: {kind}"
                yield Hit(message, "wrap it in a module that takes tensors", file=name)


def names(model: ModelOnDisk) -> Iterator[Hit]:
    """Names that say nothing of their place."""
    for name, archive in archives(model):
        arguments = [argument for argument, _ in archive.arguments or ()]
        given = [entry.name for entry in model.config.input]
        if len(arguments) < 2 or _is_dict(archive.arguments or ()) or set(given) <= set(arguments):
            continue
        if not all(re.search(r"__\d*\Z", text) for text in given):
            message = f"inputs {listed(given)} are not the arguments of forward({', '.join(arguments)}) of {name}"
            yield Hit(f"{message}: they are taken in this order", f"name them {listed(arguments)}", ("input",))


def _is_dict(arguments: Sequence[tuple[str, str]]) -> bool:
    return len(arguments) == 1 and arguments[0][1].startswith("Dict[")


@functools.lru_cache(maxsize=256)
def _archive(path: str, _mtime_ns: int, size: int) -> Archive:
    start = first_bytes(Path(path), 64)
    if not start.startswith(b"PK"):
        return Archive(_other_kind(start))
    try:
        if _directory_bytes(Path(path), size) > _LARGEST_DIRECTORY:
            return Archive()
        with zipfile.ZipFile(path) as archive:
            return _of_zip(archive)
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        NotImplementedError,
        RuntimeError,
        struct.error,
        zlib.error,
        EOFError,
    ):
        return Archive("the zip archive cannot be read: it was cut short, or damaged")


def _other_kind(start: bytes) -> str:
    if _LEGACY_MAGIC in start:
        return "it was written by torch.save in its old format: a state dict or a pickled module"
    if start[:1] == b"\x80":
        return "it is a pickle"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 32:
        return "it is a safetensors file: weights without a model"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer (`git lfs pull`)"
    if start.lstrip()[:1] == b"<":
        return "it is a web page"
    return "it does not begin as a zip archive does"


def _of_zip(archive: zipfile.ZipFile) -> Archive:
    entries = archive.namelist()
    root = entries[0].split("/")[0] if entries else ""
    inside = {entry.removeprefix(f"{root}/") for entry in entries if entry.startswith(f"{root}/")}
    if "archive_format" in inside or "models/model.json" in inside or "serialized_exported_program.json" in inside:
        return Archive("it is an exported program (torch.export.save): the PyTorch backend wants TorchScript")
    if "data.pkl" in inside and "constants.pkl" not in inside:
        return Archive("it was written by torch.save: a state dict or a pickled module, weights without code")
    for needed in ("data.pkl", "constants.pkl"):
        if needed not in inside:
            return Archive(f"the zip archive holds no {needed}")
    if not any(entry.startswith("code/") for entry in inside):
        return Archive("the zip archive holds no code/")
    return Archive("", _forward(archive, root))


def _forward(archive: zipfile.ZipFile, root: str) -> tuple[tuple[str, str], ...] | None:
    """The arguments of the outermost module's ``forward``."""
    qualified = _class_name(_read(archive, f"{root}/data.pkl", 4096))
    module, _, name = qualified.rpartition(".")
    if not module:
        return None
    try:
        code = _read(archive, f"{root}/code/{module.replace('.', '/')}.py", _LARGEST_TEXT).decode("utf-8", "replace")
    except KeyError:
        return None
    of_class = re.search(rf"^class {re.escape(name)}\(Module\):\n((?:[ \n].*\n?)*)", code, re.MULTILINE)
    if of_class is None:
        return None
    return _arguments(of_class[1])


def _arguments(body: str) -> tuple[tuple[str, str], ...] | None:
    begin = re.search(r"^  def forward\(", body, re.MULTILINE)
    if begin is None:
        return None
    parts, depth, text = [], 0, ""
    for letter in body[begin.end() : begin.end() + 20_000]:
        if letter == "," and depth == 0:
            parts.append(text)
            text = ""
        elif letter == ")" and depth == 0:
            parts.append(text)
            break
        else:
            depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(letter, 0)
            text += letter
    found = []
    for part in parts[1:]:
        match = _ARGUMENT.match(part)
        if match is None:
            return None
        found.append((match[1], (match[2] or "").strip()))
    return tuple(found)


def _class_name(start: bytes) -> str:
    """The first class that a pickle names: that of the outermost module."""
    try:
        for opcode, argument, _ in pickletools.genops(start):
            if opcode.name == "GLOBAL":
                return str(argument).replace(" ", ".")
    except Exception:  # cut short, or rubbish: pickletools raises whatever it stumbles over
        return ""
    return ""


def _read(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """At most so many bytes of an entry, however many it says to have."""
    with archive.open(name) as stream:
        return stream.read(most)


def _directory_bytes(path: Path, size: int) -> int:
    """How large the archive's table of contents is: one of millions of entries is not read."""
    with path.open("rb") as stream:
        stream.seek(max(0, size - _TAIL))
        tail = stream.read(_TAIL)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise ValueError("no end of the archive")
    count = int.from_bytes(tail[at + 12 : at + 16], "little")
    if count == 0xFFFFFFFF:
        wide = tail.rfind(b"PK\x06\x06", 0, at)
        count = int.from_bytes(tail[wide + 40 : wide + 48], "little") if wide >= 0 else count
    return count


TORCHSCRIPT_RULES = (
    (NO_ARCHIVE, no_archive),
    (INPUT_COUNT, input_count),
    (ARGUMENT, argument_types),
    (NAMES, names),
)
