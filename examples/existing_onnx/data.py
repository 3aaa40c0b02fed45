"""Magika's file type model as its makers published it, the features it reads, and real files to try it on."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray[Any, Any]]

LABELS = Path(__file__).parent / "labels.txt"
BLOCK = 4096  # bytes read from each end of a file
PART = 1024  # of these, how many are looked at
PADDING = 256  # no byte has this value
SHORTEST = 8  # below this many bytes there is nothing to judge
PER_TYPE = 12
BATCH = 32
# What the makers call the contents -> the files of that kind in the packages that this example needs anyway.
FILES: dict[str, tuple[str, ...]] = {
    "python": ("magika/**/*.py", "sklearn/datasets/*.py"),
    "json": ("magika/**/*.json",),
    "markdown": ("magika/**/*.md",),
    "onnx": ("magika/**/*.onnx",),
    "csv": ("sklearn/datasets/data/*.csv",),
    "gzip": ("sklearn/datasets/data/*.gz",),
    "rst": ("sklearn/datasets/descr/*.rst",),
    "jpeg": ("sklearn/datasets/images/*.jpg",),
    "elf": ("sklearn/utils/*.so",),
}


def path() -> Path:
    """The .onnx in the installed package. ``labels.txt`` belongs to this very model."""
    return _package("magika") / "models" / "standard_v3_3" / "model.onnx"


def labels() -> list[str]:
    """The names of the 214 content types, in the order of the scores."""
    return LABELS.read_text(encoding="utf-8").splitlines()


def features(content: bytes) -> np.ndarray[Any, Any]:
    """What the model looks at, ``int32[2048]``: the first and the last 1024 bytes, white space at the ends left out.

    Raises:
        ValueError: with less than 8 bytes there is nothing to judge.
    """
    begin = content[:BLOCK].lstrip()[:PART]
    end = content[-BLOCK:].rstrip()[-PART:]
    if len(begin) < SHORTEST:
        raise ValueError(f"{len(begin)} bytes are too few, {SHORTEST} are needed after white space at the start")
    row = np.full(2 * PART, PADDING, dtype=np.int32)
    row[: len(begin)] = list(begin)
    row[2 * PART - len(end) :] = list(end)
    return row


def files() -> Iterator[tuple[Path, str]]:
    """Real files, up to twelve of a type, with the type that each one is."""
    for kind, patterns in FILES.items():
        found = [file for pattern in patterns for file in _glob(pattern) if file.stat().st_size > 256]
        for file in found[:PER_TYPE]:
            yield file, kind


def samples() -> list[dict[str, np.ndarray[Any, Any]]]:
    """The features of every file."""
    return [{"bytes": features(file.read_bytes())} for file, _ in files()]


def accuracy(predict: Callable[[Arrays], Arrays]) -> float:
    """The share of files that are taken for what they are."""
    names = labels()
    rows = np.stack([sample["bytes"] for sample in samples()])
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    scores = np.concatenate([predict({"bytes": batch})["target_label"] for batch in batches])
    return float(np.mean([names[row.argmax()] == kind for row, (_, kind) in zip(scores, files(), strict=True)]))


def _glob(pattern: str) -> list[Path]:
    package, _, rest = pattern.partition("/")
    return sorted(_package(package).glob(rest))


def _package(name: str) -> Path:
    # Found without importing it: importing magika loads onnxruntime, and importing sklearn loads scipy.
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return Path(spec.origin).parent
