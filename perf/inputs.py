"""Request data for perf_analyzer: the repository's golden requests where there are any, otherwise made up.

perf_analyzer's own random data is no use: random *bit patterns* read as floats (1e31, NaN), and integers that are no
valid token id. So every run gets a JSON file from here. Tensors go in as base64 of their bytes: exact, compact, and
the only way for types that JSON has no numbers for (FP16, BF16).
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perf.errors import WorkloadError
from serving.dtypes import BY_CONFIG, DType
from serving.errors import Problem

GOLDEN = "golden.npz"
SEED = 20241
WORD = b"benchmark"

Request = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """An input or output as ``config.pbtxt`` declares it; ``dims`` without the batch dimension, -1 where dynamic."""

    name: str
    dtype: DType
    dims: tuple[int, ...]


@dataclass(frozen=True)
class ModelSpec:
    """What must be known of a model to make requests for it.

    Attributes:
        max_batch_size: 0 when the model has no batch dimension.
        decoupled: it answers in streams.
        stateful: its requests come in sequences.
        steps: names of an ensemble's models, in order, each once; empty for a plain model.
    """

    name: str
    version: str
    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()
    steps: tuple[str, ...] = ()
    decoupled: bool = False
    stateful: bool = False


@dataclass(frozen=True)
class RequestData:
    """Requests for one model, without the batch dimension where it batches.

    Attributes:
        requests: tensors by input name; at least one.
        source: where they came from, in words; goes into the report.
        expected: of golden requests the answers that were verified, one for each request; else empty.
    """

    requests: tuple[Request, ...]
    source: str
    expected: tuple[Request, ...] = ()


def model_spec(config: Mapping[str, Any], version: str) -> ModelSpec:
    """Read what is needed from a model configuration as the server gives it (HTTP or gRPC: numbers may be strings)."""
    steps = (config.get("ensemble_scheduling") or {}).get("step", ())
    return ModelSpec(
        name=str(config["name"]),
        version=version,
        max_batch_size=int(config.get("max_batch_size", 0)),
        inputs=_tensors(config.get("input", ())),
        outputs=_tensors(config.get("output", ())),
        steps=tuple(dict.fromkeys(str(step["model_name"]) for step in steps)),
        decoupled=bool((config.get("model_transaction_policy") or {}).get("decoupled", False)),
        stateful=bool(config.get("sequence_batching")),
    )


def _tensors(entries: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            str(entry["name"]), BY_CONFIG[str(entry["data_type"])], tuple(int(dim) for dim in entry.get("dims", ()))
        )
        for entry in entries
    )


def request_data(
    model: ModelSpec, *, repository: Path | None, shapes: Mapping[str, Sequence[int]], batch_size: int
) -> RequestData:
    """Requests for a model.

    Args:
        model: from :func:`model_spec`.
        repository: where to look for golden requests, None where only a URL is known.
        shapes: per input, without the batch dimension; an input named here is made up even if there are golden ones.
        batch_size: above 1, all requests get one shape, because one request holds several of them.

    Raises:
        WorkloadError: every input whose shape is missing or does not fit.
    """
    own_shapes = {spec.name: tuple(shapes[spec.name]) for spec in model.inputs if spec.name in shapes}
    if problems := [
        problem for spec in model.inputs if spec.name in own_shapes for problem in _misfits(model, spec, own_shapes)
    ]:
        raise WorkloadError(problems)
    golden = golden_requests(model, repository) if repository is not None and not own_shapes else None
    if golden is not None:
        return _of_one_shape(golden) if batch_size > 1 else golden
    return _made_up(model, own_shapes)


def golden_requests(model: ModelSpec, repository: Path) -> RequestData | None:
    """The requests kept beside the served version (or else the newest version that has any), None without any."""
    folder = repository / model.name
    versions = sorted((int(path.name) for path in folder.glob("*") if path.name.isdigit()), reverse=True)
    candidates = [*([int(model.version)] if model.version.isdigit() else []), *versions]
    for version in dict.fromkeys(candidates):
        path = folder / str(version) / GOLDEN
        if path.is_file():
            return _read_golden(model, path, version)
    return None


def write_input_data(data: RequestData, path: Path) -> None:
    """Write requests as perf_analyzer's ``--input-data`` file."""
    entries = [
        {
            name: {"b64": base64.b64encode(_to_bytes(array)).decode("ascii"), "shape": list(array.shape)}
            for name, array in request.items()
        }
        for request in data.requests
    ]
    path.write_text(json.dumps({"data": entries}))


def export_bytes(model: ModelSpec, data: RequestData) -> float:
    """About how many bytes of JSON perf_analyzer would write for the tensors of one sample of one request."""
    sizes = {
        spec.name: sum(request[spec.name].size for request in data.requests) / len(data.requests)
        for spec in model.inputs
    }
    largest = max(sizes.values(), default=1.0)
    for spec in model.outputs:  # how large a dynamic output gets is not known before: as large as the largest input
        sizes[spec.name] = float(np.prod(spec.dims)) if -1 not in spec.dims else largest
    return sum(sizes[spec.name] * _JSON_BYTES.get(spec.dtype.triton, 6) for spec in (*model.inputs, *model.outputs))


_JSON_BYTES = {"FP32": 21, "FP64": 21, "FP16": 0, "BF16": 0, "INT64": 12, "UINT64": 12}  # 0: written as null


def _read_golden(model: ModelSpec, path: Path, version: int) -> RequestData:
    wanted = [spec.name for spec in model.inputs]
    found: dict[int, dict[str, NDArray[Any]]] = {}
    answers: dict[int, dict[str, NDArray[Any]]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                kind, _, rest = key.partition("/")
                name, _, number = rest.rpartition("/")
                if kind == "inputs" and name in wanted:
                    array = archive[key]
                    found.setdefault(int(number), {})[name] = array[0] if model.max_batch_size else array
                elif kind == "outputs":
                    answers.setdefault(int(number), {})[name] = archive[key]
    except (OSError, ValueError, IndexError) as exc:
        raise WorkloadError(
            [Problem("the golden requests cannot be read", where=str(path), got=str(exc), fix="build the model again")]
        ) from exc
    numbers = [number for number in sorted(found) if fits(model, found[number])]
    whole = [found[number] for number in numbers]
    if not whole:
        raise WorkloadError(
            [
                Problem(
                    "the golden requests do not fit the model",
                    where=str(path),
                    expected=", ".join(f"{spec.name} {spec.dtype.triton}{_spell(spec.dims)}" for spec in model.inputs),
                    got=_describe(found.values()),
                    fix="build the model again, or give the shapes with --shape",
                )
            ]
        )
    source = f"{len(whole)} golden requests of version {version}"
    shapes = {_shapes(request) for request in whole}
    expected = tuple(answers[number] for number in numbers) if all(number in answers for number in numbers) else ()
    return RequestData(tuple(whole), source + (f" in {len(shapes)} shapes" if len(shapes) > 1 else ""), expected)


def fits(model: ModelSpec, request: Request) -> bool:
    """True where every input is there, of the declared type and shape (a type that numpy lacks is taken on trust)."""
    for spec in model.inputs:
        array = request.get(spec.name)
        if array is None or not _fits_dims(spec, array.shape):
            return False
        if spec.dtype.triton == "BYTES":
            if array.dtype.kind not in "SUO":
                return False
        elif spec.dtype.numpy is not None and array.dtype != np.dtype(spec.dtype.numpy):
            return False
    return True


def _fits_dims(spec: TensorSpec, shape: Sequence[int]) -> bool:
    pairs = zip(spec.dims, shape, strict=False)
    return len(shape) == len(spec.dims) and all(dim in (-1, size) for dim, size in pairs)


def _describe(requests: Iterable[Request]) -> str:
    tensors = {f"{name} {array.dtype}{_spell(array.shape)}" for request in requests for name, array in request.items()}
    return ", ".join(sorted(tensors)) or "no inputs of these names"


def _of_one_shape(data: RequestData) -> RequestData:
    """Only the requests of the most frequent shape: perf_analyzer batches them into one tensor."""
    counts = Counter(_shapes(request) for request in data.requests)
    if len(counts) == 1:
        return data
    chosen = max(counts, key=lambda shapes: (counts[shapes], shapes))
    places = [place for place, request in enumerate(data.requests) if _shapes(request) == chosen]
    return RequestData(
        tuple(data.requests[place] for place in places),
        f"{len(places)} of {data.source}: only equal shapes fit into one batch",
        tuple(data.expected[place] for place in places) if data.expected else (),
    )


def _shapes(request: Request) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, request[name].shape) for name in sorted(request))


def _made_up(model: ModelSpec, shapes: Mapping[str, tuple[int, ...]]) -> RequestData:
    dynamic = [spec for spec in model.inputs if -1 in spec.dims and spec.name not in shapes]
    if dynamic:
        raise WorkloadError([_no_shape(model, spec) for spec in dynamic])
    generator = np.random.default_rng(SEED)
    request: dict[str, NDArray[Any]] = {}
    for spec in model.inputs:
        shape = shapes.get(spec.name, spec.dims)
        if spec.dtype.triton == "BYTES":
            request[spec.name] = np.full(shape, WORD, dtype=object)
        elif spec.dtype.triton == "BF16":  # numpy has none: the upper half of a float32
            bits = generator.random(shape, dtype=np.float32).view(np.uint32) >> 16
            request[spec.name] = bits.astype(np.uint16)
        elif spec.dtype.is_float:
            request[spec.name] = generator.random(shape).astype(spec.dtype.numpy)
        else:
            request[spec.name] = np.zeros(shape, dtype=spec.dtype.numpy)
    kinds = {
        "words" if spec.dtype.triton == "BYTES" else "random numbers 0..1" if spec.dtype.is_float else "zeros"
        for spec in model.inputs
    }
    return RequestData((request,), f"made up: {', '.join(sorted(kinds)) or 'no inputs'}")


def _misfits(model: ModelSpec, spec: TensorSpec, shapes: Mapping[str, tuple[int, ...]]) -> list[Problem]:
    shape = shapes[spec.name]
    if _fits_dims(spec, shape):
        return []
    return [
        Problem(
            "the shape does not fit the model's input",
            where=f"model {model.name}, input {spec.name}",
            expected=_spell(spec.dims) + (", without the batch dimension" if model.max_batch_size else ""),
            got=_spell(shape),
            fix=f"--shape {spec.name}:{_example(spec.dims)}",
        )
    ]


def _no_shape(model: ModelSpec, spec: TensorSpec) -> Problem:
    return Problem(
        "the input has a dynamic dimension and there are no golden requests to take its shape from",
        where=f"model {model.name}, input {spec.name}",
        expected=f"sizes for {_spell(spec.dims)}",
        fix=f"--shape {spec.name}:{_example(spec.dims)}",
    )


def _example(dims: Sequence[int]) -> str:
    return ",".join(str(dim if dim > 0 else 16) for dim in dims)


def _spell(dims: Sequence[int]) -> str:
    return "[" + ", ".join(str(dim) for dim in dims) + "]"


def _to_bytes(array: NDArray[Any]) -> bytes:
    """A tensor's bytes as they travel: strings each with a four byte length in front."""
    if array.dtype.kind not in "OSU":
        return np.ascontiguousarray(array).tobytes()
    parts = []
    for value in array.ravel().tolist():
        text = value if isinstance(value, bytes) else str(value).encode()
        parts.append(len(text).to_bytes(4, "little") + text)
    return b"".join(parts)
