"""What a Triton release carries: ONNX Runtime and so the opset its server takes, TensorRT and so the engines it loads.

The table is ``releases.json``, with the source of every column. The opsets were measured by loading a one-node model of
every opset in onnxruntime 1.19.2, 1.20.1, 1.21.0, 1.22.0, 1.23.2, 1.24.4, 1.27.0 and 1.31.1.
"""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.errors import EngineError
from builder.findings import did_you_mean


@dataclass(frozen=True)
class Release:
    """One release of NVIDIA's image.

    Attributes:
        name: ``26.09``.
        server: version of the server, ``2.73.0``.
        onnxruntime: where it changed during the release, the lower one.
        cuda: major and minor version.
        driver: the oldest branch of the driver that runs this CUDA.
        tensorrt: None where no public source tells it.
        python: of its Python backend; None likewise.
    """

    name: str
    server: str
    onnxruntime: str
    cuda: str
    driver: str
    tensorrt: str | None
    python: str | None


def _read() -> Mapping[str, Any]:
    text = importlib.resources.files("builder").joinpath("releases.json").read_text(encoding="utf-8")
    data: Mapping[str, Any] = json.loads(text)
    return data


_DATA = _read()

PINNED_RELEASE: str = _DATA["pinned"]
"""The NVIDIA image of ``docker-compose.yml``, and the target of a spec that names none."""

RELEASES: dict[str, Release] = {name: Release(name, **row) for name, row in _DATA["releases"].items()}

ORT_OF_RELEASE: dict[str, str] = {release.name: release.onnxruntime for release in RELEASES.values()}

# (onnxruntime minor version, newest opset it loads), rising.
_Newest = tuple[tuple[tuple[int, int], int], ...]
_OPSET_OF_ORT: _Newest = (((1, 19), 21), ((1, 21), 22), ((1, 23), 23), ((1, 24), 25), ((1, 27), 26))

# (onnxruntime minor version, newest IR version it loads), rising; measured with the same releases.
_IR_OF_ORT: _Newest = (((1, 19), 10), ((1, 23), 11), ((1, 24), 13))

EXPORTER_MAX_OPSET = {"dynamo": 23, "torchscript": 20}
"""Newest opset each exporter of torch 2.13 writes (``torch.onnx._constants``)."""

_ACROSS_MAJORS = {8: {10}, 10: {11}}
"""Majors of TensorRT that load a version compatible engine of another one: NVIDIA's support matrix of 11.4.1."""


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


def opset_taken(release: str | None, onnxruntime: str = "") -> int:
    """The newest opset that the server of ``release`` loads, whoever wrote the file; or that of an ``onnxruntime``.

    Raises:
        KeyError: the release is not in the table.
    """
    return _newest(release, _OPSET_OF_ORT, onnxruntime)


def ir_taken(release: str | None, onnxruntime: str = "") -> int:
    """The newest IR version of an ONNX file that the server of ``release`` loads; or that of an ``onnxruntime``.

    Raises:
        KeyError: the release is not in the table.
    """
    return _newest(release, _IR_OF_ORT, onnxruntime)


def image_of(release: str | None) -> str:
    """NVIDIA's image of a release."""
    return f"{_DATA['image']}:{release or PINNED_RELEASE}-py3"


def check_engine_fits(
    release: str | None,
    kind: str,
    version: str,
    *,
    version_compatible: bool = False,
    tensorrt: str | None = None,
    where: str = "triton.release",
) -> tuple[str, ...]:
    """Whether the server of a release loads an engine.

    Args:
        release: of Triton; None for the pinned one.
        kind: ``tensorrt`` or ``tensorrt-rtx``.
        version: of the library that built the engine.
        version_compatible: whether it was built so that newer versions take it.
        tensorrt: what the server has, as the user says, who asked it; by default the table's.
        where: the place that names the release.

    Returns:
        Notes: what the server has to be told, or what is not known.

    Raises:
        EngineError: it does not; with the image or the version that would do.
    """
    if kind != "tensorrt":
        raise EngineError(
            f"Triton cannot load a {kind} engine: it has no backend for it",
            where=where,
            expected="an engine of TensorRT, or an ONNX model",
            got=f"an engine of {kind} {version}",
            fix="load it in your application, or serve a `tensorrt-*` or `onnx-*` variant",
        )
    row = release_of(release, where=where)
    has = tensorrt or row.tensorrt
    if has is None:
        unknown = f"which TensorRT is in {image_of(row.name)} is in no public table: {asking(row.name)}"
        return (f"{unknown}; say it as `engine.server_tensorrt`, and engines are held against it",)
    if _same(version, has):
        return ()
    if version_compatible and _runs_later(version, has):
        return ("start the server with --backend-config=tensorrt,version-compatible=true: else it refuses the engine",)
    images = [image_of(other.name) for other in RELEASES.values() if other.tensorrt and _same(version, other.tensorrt)]
    build = f"build with TensorRT {has}, or in the image: build-repo SPEC --in-container"
    raise EngineError(
        f"the server of release {row.name} cannot load an engine of TensorRT {version}",
        where=where,
        expected=f"an engine of TensorRT {has}, which is in {image_of(row.name)}",
        got=f"TensorRT {version}" + (", version compatible" if version_compatible else ""),
        fix=build + (f"; or serve it with {images[-1]}" if images else ""),
    )


def release_of(release: str | None, *, where: str = "triton.release") -> Release:
    """The row of a release.

    Raises:
        EngineError: it is not in the table.
    """
    name = release or PINNED_RELEASE
    if name not in RELEASES:
        raise EngineError(
            f"unknown release of Triton: {name}",
            where=where,
            expected=f"one of {min(RELEASES)} to {max(RELEASES)}",
            got=name,
            fix=did_you_mean(name, RELEASES) or f"{PINNED_RELEASE} is the newest that is known here",
        )
    return RELEASES[name]


def asking(release: str | None) -> str:
    """The command that asks an image which TensorRT it has."""
    return f"docker run --rm {image_of(release)} bash -c 'dpkg-query -W libnvinfer-bin \"libnvinfer1*\"' says it"


def _same(built: str, has: str) -> bool:
    """All the numbers that both have: one in the last place already makes the server refuse."""
    return all(one == other for one, other in zip(_numbers(built), _numbers(has), strict=False))


def _runs_later(built: str, has: str) -> bool:
    ours, theirs = _numbers(built), _numbers(has)
    if ours[0] == theirs[0]:
        return ours[:3] <= theirs[:3]
    return theirs[0] in _ACROSS_MAJORS.get(ours[0], ())


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else (0,)


def _taken(release: str | None) -> int:
    return _newest(release, _OPSET_OF_ORT)


def _newest(release: str | None, table: _Newest, onnxruntime: str = "") -> int:
    version = tuple(int(part) for part in (onnxruntime or ORT_OF_RELEASE[release or PINNED_RELEASE]).split(".")[:2])
    return max(newest for since, newest in table if version >= since)
