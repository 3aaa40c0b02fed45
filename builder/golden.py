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
_EPOCH = (1980, 1, 1, 0, 0, 0)


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
                info = zipfile.ZipInfo(f"{key}.npy", _EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, _npy(array))
            written += 1
    return written


def _npy(array: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array.astype("S") if array.dtype.kind in "OU" else array, allow_pickle=False)
    return stream.getvalue()
