"""The KServe v2 protocol over HTTP as far as clients of Triton use it: a request's tensors, and an answer's.

A body is JSON, and behind it the bytes of the tensors that it says so of; the header :data:`LENGTH` says how long the
JSON is. Imports numpy only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH = "Inference-Header-Content-Length"
_BYTES = "BYTES"
_NUMPY = {
    "BOOL": "bool",
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}


class RequestError(ValueError):
    """The request cannot be read; answered with status 400."""


def read_request(body: bytes, header_bytes: int | None) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Tensors by name, and the JSON without them.

    Args:
        header_bytes: of the JSON at the beginning; None where the body is nothing else.

    Raises:
        RequestError: it is not of the protocol.
    """
    try:
        asked: dict[str, Any] = json.loads(body[:header_bytes] if header_bytes is not None else body)
        tensors, at = {}, header_bytes or len(body)
        for entry in asked["inputs"]:
            size = (entry.get("parameters") or {}).get("binary_data_size")
            if size is None:
                tensors[entry["name"]] = _from_json(entry)
                continue
            tensors[entry["name"]] = _from_bytes(entry["datatype"], entry["shape"], memoryview(body)[at : at + size])
            at += size
        return tensors, asked
    except (ValueError, KeyError, TypeError, IndexError) as exc:
        raise RequestError(f"not a request of the KServe v2 protocol: {type(exc).__name__}: {exc}") from exc


def _from_json(entry: Mapping[str, Any]) -> NDArray[Any]:
    kind = object if entry["datatype"] == _BYTES else _NUMPY[entry["datatype"]]
    array: NDArray[Any] = np.array(entry["data"], dtype=kind).reshape(entry["shape"])
    return array


def _from_bytes(datatype: str, shape: Sequence[int], data: memoryview) -> NDArray[Any]:
    if datatype != _BYTES:
        return np.frombuffer(data, dtype=_NUMPY[datatype]).reshape(shape)
    strings, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        strings.append(bytes(data[at + 4 : at + 4 + length]).decode("utf-8", "replace"))
        at += 4 + length
    return np.array(strings, dtype=object).reshape(shape)


def write_answer(
    model: tuple[str, str],
    tensors: Mapping[str, NDArray[Any]],
    datatypes: Mapping[str, str],
    asked: Mapping[str, Any],
) -> tuple[bytes, int | None]:
    """An answer's body, and the bytes of JSON at its beginning where tensors follow.

    Args:
        model: its name and version.
        datatypes: Triton's spelling, by output.
        asked: the JSON of the request; it says which outputs, and which of them as bytes.
    """
    answer: dict[str, Any] = {"model_name": model[0], "model_version": model[1]}
    if asked.get("id"):
        answer["id"] = asked["id"]
    answer["outputs"] = entries = []
    parts: list[bytes] = []
    for name, as_bytes in _wanted(tensors, asked):
        array, datatype = np.asarray(tensors[name]), datatypes[name]
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if as_bytes:
            data = _to_bytes(array) if datatype == _BYTES else np.ascontiguousarray(array).tobytes()
            entry["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            entry["data"] = array.reshape(-1).tolist()
        entries.append(entry)
    header = json.dumps(answer, separators=(",", ":")).encode()
    return (b"".join([header, *parts]), len(header)) if parts else (header, None)


def _wanted(tensors: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    default = bool((asked.get("parameters") or {}).get("binary_data_output", False))
    outputs = asked.get("outputs") or [{"name": name} for name in tensors]
    for output in outputs:
        if output["name"] not in tensors:
            raise RequestError(f"unexpected inference output '{output['name']}'")
        yield output["name"], bool((output.get("parameters") or {}).get("binary_data", default))


def _to_bytes(array: NDArray[Any]) -> bytes:
    parts = []
    for value in array.reshape(-1).tolist():
        text = value if isinstance(value, bytes) else str(value).encode()
        parts += [len(text).to_bytes(4, "little"), text]
    return b"".join(parts)
