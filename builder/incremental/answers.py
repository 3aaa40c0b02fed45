"""The reference's answers, kept as one file: what is asked of a model to verify it, and what is right.

A file is written uncompressed: it is large, read once or twice, and lives in the cache only.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builder.golden import EPOCH, npy
from builder.numerics import Array
from builder.verify.cases import Case

_INDEX = "index.json"


@dataclass(frozen=True)
class Answers:
    """Cases with their right answers.

    Attributes:
        cases: asked one at a time.
        golden: single requests that are published beside the artifact.
        together: single requests that are asked at once.
    """

    cases: Sequence[Case]
    golden: Sequence[Case]
    together: Sequence[Case]

    def save(self, path: Path) -> None:
        """Write them; the bytes depend on the content alone."""
        lists = {"cases": self.cases, "golden": self.golden, "together": self.together}
        numbers: dict[int, int] = {}
        rows: list[Case] = []
        for case in (case for cases in lists.values() for case in cases):
            if id(case) not in numbers:
                numbers[id(case)] = len(rows)
                rows.append(case)
        index = {
            "rows": [_row(case) for case in rows],
            "lists": {name: [numbers[id(case)] for case in cases] for name, cases in lists.items()},
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(zipfile.ZipInfo(_INDEX, EPOCH), json.dumps(index))
            for number, case in enumerate(rows):
                for side, arrays in (("inputs", case.inputs), ("expected", case.expected)):
                    for name, array in arrays.items():
                        archive.writestr(zipfile.ZipInfo(f"{number}/{side}/{name}.npy", EPOCH), _content(array))

    @staticmethod
    def load(path: Path) -> Answers:
        """Read them back.

        Raises:
            ValueError, KeyError, OSError, zipfile.BadZipFile: this is no such file.
        """
        with zipfile.ZipFile(path) as archive:
            index = json.loads(archive.read(_INDEX))
            rows = [_case(archive, number, row) for number, row in enumerate(index["rows"])]
        lists = {name: [rows[number] for number in numbers] for name, numbers in index["lists"].items()}
        return Answers(**lists)


def _row(case: Case) -> dict[str, Any]:
    sides = {"inputs": case.inputs, "expected": case.expected}
    kinds = {side: {name: _kind(array) for name, array in arrays.items()} for side, arrays in sides.items()}
    return {"name": case.name, "batch": case.batch, **kinds}


def _kind(array: Array) -> str:
    """``strings`` for what is kept as JSON: numpy pickles objects, and cuts zeros off the end of bytes."""
    return "strings" if array.dtype.kind in "OSU" else ""


def _content(array: Array) -> bytes:
    if not _kind(array):
        return npy(array)
    values = [{"hex": value.hex()} if isinstance(value, bytes) else str(value) for value in array.flat]
    return json.dumps({"shape": array.shape, "dtype": array.dtype.str, "values": values}).encode()


def _case(archive: zipfile.ZipFile, number: int, row: dict[str, Any]) -> Case:
    sides = {}
    for side in ("inputs", "expected"):
        sides[side] = {name: _array(archive, f"{number}/{side}/{name}.npy", kind) for name, kind in row[side].items()}
    return Case(row["name"], row["batch"], sides["inputs"], sides["expected"])


def _array(archive: zipfile.ZipFile, entry: str, kind: str) -> Array:
    with archive.open(entry) as stream:
        if not kind:
            array: Array = np.lib.format.read_array(stream, allow_pickle=False)
            return array
        kept = json.load(stream)
    result = np.empty(kept["shape"], dtype=kept["dtype"])
    for index, value in enumerate(kept["values"]):
        result.flat[index] = value if isinstance(value, str) else bytes.fromhex(value["hex"])
    return result
