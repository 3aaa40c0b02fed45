"""What a Triton release carries: which ONNX Runtime, and so which ONNX opset its server takes.

Sources: the ``ort_version`` of ``build.py`` in triton-inference-server/server while its main branch stood at that
release (where it changed meanwhile, the lower one); the opsets were measured by loading a one-node model of every
opset in onnxruntime 1.19.2, 1.20.1, 1.21.0, 1.22.0, 1.23.2, 1.24.4, 1.27.0 and 1.31.1.
"""

from __future__ import annotations

PINNED_RELEASE = "26.09"
"""The NVIDIA image of ``docker-compose.yml``, and the target of a spec that names none."""

ORT_OF_RELEASE: dict[str, str] = {
    "24.10": "1.19.2",
    "24.11": "1.19.2",
    "24.12": "1.19.2",
    "25.01": "1.20.1",
    "25.02": "1.20.1",
    "25.03": "1.20.1",
    "25.04": "1.21.0",
    "25.05": "1.21.0",
    "25.06": "1.22.0",
    "25.07": "1.22.0",
    "25.08": "1.22.0",
    "25.09": "1.23.0",
    "25.10": "1.23.0",
    "25.11": "1.23.1",
    "25.12": "1.23.2",
    "26.01": "1.23.2",
    "26.02": "1.23.2",
    "26.03": "1.24.1",
    "26.04": "1.24.4",
    "26.05": "1.24.4",
    "26.06": "1.24.4",
    "26.07": "1.24.4",
    "26.08": "1.27.0",
    "26.09": "1.27.0",
}

# (onnxruntime minor version, newest opset it loads), rising.
_OPSET_OF_ORT: tuple[tuple[tuple[int, int], int], ...] = (((1, 19), 21), ((1, 21), 22), ((1, 23), 23), ((1, 24), 25))

EXPORTER_MAX_OPSET = {"dynamo": 23, "torchscript": 20}
"""Newest opset each exporter of torch 2.13 writes (``torch.onnx._constants``)."""


def newest_opset(release: str | None, exporter: str) -> int:
    """The newest opset that ``exporter`` writes and the server of ``release`` takes.

    Raises:
        KeyError: the release or the exporter is not in the tables.
    """
    return min(_taken(release), EXPORTER_MAX_OPSET[exporter])


def opset_of_server(release: str | None, exporter: str) -> int:
    """Likewise, where ``exporter`` may be ``auto``: any of them.

    Raises:
        KeyError: the release is not in the table.
    """
    return min(_taken(release), EXPORTER_MAX_OPSET.get(exporter, max(EXPORTER_MAX_OPSET.values())))


def _taken(release: str | None) -> int:
    version = tuple(int(part) for part in ORT_OF_RELEASE[release or PINNED_RELEASE].split(".")[:2])
    return max(opset for since, opset in _OPSET_OF_ORT if version >= since)
