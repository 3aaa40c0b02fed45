"""``golden.npz``: a few real requests with their right answers, published beside every artifact.

Keys are ``inputs/<name>/<k>`` and ``outputs/<name>/<k>`` for k = 0, 1, ...; arrays are full request tensors, with a
batch dimension of 1 where the model batches; strings are fixed-width bytes. The file's bytes depend on its content
alone. ``bench-repo`` takes its load from it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from builder.numerics import Array
from builder.verify.cases import Case

GOLDEN_REQUESTS = 8
_MAX_BYTES = 16 * 1024 * 1024
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time that every entry of an archive of ours has, so that its bytes depend on its content alone."""


def write_golden(path: Path, cases: Sequence[Case]) -> int:
    """Write the first requests, as many as stay below 16 MiB, but at least one.

    Returns:
        How many requests were written.
    """
    written, total = 0, 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, case in enumerate(cases[:GOLDEN_REQUESTS]):
            arrays = {f"inputs/{name}/{index}": array for name, array in case.inputs.items()}
            arrays |= {f"outputs/{name}/{index}": array for name, array in case.expected.items()}
            total += sum(array.nbytes for array in arrays.values())
            if written and total > _MAX_BYTES:
                break
            for key, array in arrays.items():
                info = zipfile.ZipInfo(f"{key}.npy", EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, npy(array))
            written += 1
    return written


def npy(array: Array) -> bytes:
    """An array as the content of a ``.npy`` file; strings as fixed-width UTF-8 bytes."""
    stream = io.BytesIO()
    np.save(stream, _bytes(array) if array.dtype.kind in "OU" else array, allow_pickle=False)
    return stream.getvalue()


def _bytes(array: Array) -> Array:
    encoded = [value if isinstance(value, bytes) else str(value).encode() for value in array.ravel()]
    return np.array(encoded, dtype="S").reshape(array.shape) if encoded else np.empty(array.shape, dtype="S1")


def read_golden(path: Path) -> list[Case]:
    """The requests of a published version, with their right answers.

    Raises:
        OSError, ValueError, zipfile.BadZipFile: it is not there, or not what :func:`write_golden` wrote.
    """
    sides: dict[int, dict[str, dict[str, Array]]] = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            side, _, rest = entry.removesuffix(".npy").partition("/")
            name, _, number = rest.rpartition("/")
            if side not in ("inputs", "outputs") or not name or not number.isdecimal():
                raise ValueError(f"an entry {entry!r} that is no tensor of a request")
            with archive.open(entry) as stream:
                array: Array = np.lib.format.read_array(stream, allow_pickle=False)
            sides.setdefault(int(number), {"inputs": {}, "outputs": {}})[side][name] = array
    return [Case(f"golden request {k}", 1, sides[k]["inputs"], sides[k]["outputs"]) for k in sorted(sides)]
