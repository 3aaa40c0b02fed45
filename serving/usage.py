"""How to call a model that is being served: lines to paste, with its real names, types and shapes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.dtypes import BY_TRITON

_MOST_VALUES = 64  # a body with more is made by a line of Python, not written out
_NO_JSON = ("FP16", "BF16")  # Triton's HTTP endpoint takes and gives these in binary form only


@dataclass(frozen=True)
class Example:
    """A request for one input.

    Attributes:
        name: of the input.
        datatype: Triton's word (``FP32``).
        shape: with every dimension known.
        values: a real request's, flat, where there is one and it is small; else None, for zeros.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: tuple[Any, ...] | None = None

    @property
    def size(self) -> int:
        """How many values."""
        return math.prod(self.shape)

    @property
    def zero(self) -> Any:
        """The value that stands for any."""
        if self.datatype == "BYTES":
            return "text"
        if self.datatype == "BOOL":
            return False
        return 0.0 if self.datatype.startswith("FP") else 0

    @property
    def numpy(self) -> str:
        """An expression that makes the array."""
        if self.datatype == "BYTES":
            return f"np.full({self.shape}, {self._first!r}, dtype=object)"
        known = BY_TRITON.get(self.datatype)
        dtype = known.numpy if known and known.numpy else "float32"
        if self.values is not None and self.size <= 8:
            return f"np.array({list(self.values)}, dtype=np.{_numpy_name(dtype)}).reshape({self.shape})"
        return f"np.zeros({self.shape}, dtype=np.{_numpy_name(dtype)})"

    @property
    def _first(self) -> Any:
        return self.values[0] if self.values else self.zero


def _numpy_name(dtype: str) -> str:
    return "bool_" if dtype == "bool" else dtype


def how_to_call(
    metadata: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    http_url: str,
    grpc_url: str,
    repositories: Sequence[Path] = (),
) -> str:
    """The text for one model.

    Args:
        metadata: as ``/v2/models/NAME`` answers.
        config: as ``/v2/models/NAME/config`` answers.
        http_url: ``host:port``.
        grpc_url: ``host:port``.
        repositories: where to look for a real request (``golden.npz``) whose shapes and values are then used.
    """
    name = metadata["name"]
    if config.get("model_transaction_policy", {}).get("decoupled"):
        return f"# {name} answers in a stream: use tritonclient.grpc's start_stream() and async_stream_infer()"
    examples = example_inputs(metadata, config, repositories)
    outputs = metadata.get("outputs", [])
    signature = f"{_tensors(metadata.get('inputs', []))} -> {_tensors(outputs)}"
    kinds = [example.datatype for example in examples] + [output["datatype"] for output in outputs]
    sequence = "sequence_batching" in config
    lines = [f"# {name}: {signature}"]
    if any(kind in _NO_JSON for kind in kinds):
        lines.append("# no curl: Triton has no JSON form for FP16 and BF16")
    else:
        lines.append(_curl(name, examples, http_url, sequence=sequence))
    lines.append(_tritonclient(name, examples, outputs, http_url, sequence=sequence))
    if not sequence:
        lines.append(_our_client(name, examples, grpc_url))
    return "\n".join(lines)


def example_inputs(
    metadata: Mapping[str, Any], config: Mapping[str, Any], repositories: Sequence[Path] = ()
) -> list[Example]:
    """One request: a real one's shapes where there is one, else 1 for every dimension that may vary."""
    optional = {each["name"] for each in config.get("input", []) if each.get("optional")}
    inputs = [each for each in metadata.get("inputs", []) if each["name"] not in optional] or metadata.get("inputs", [])
    golden = _golden(metadata["name"], repositories)
    examples = []
    for each in inputs:
        shape = tuple(max(1, int(size)) if int(size) < 0 else int(size) for size in each["shape"])
        real = golden.get(each["name"])
        if real is None or len(real.shape) != len(shape):
            examples.append(Example(each["name"], each["datatype"], shape))
            continue
        values = None
        if real.size <= _MOST_VALUES:
            flat = real.ravel().tolist()
            values = tuple(v.decode(errors="replace") if isinstance(v, bytes) else v for v in flat)
        examples.append(Example(each["name"], each["datatype"], tuple(real.shape), values))
    return examples


def _golden(model: str, repositories: Sequence[Path]) -> dict[str, Any]:
    """The first real request that was recorded when the newest version was built, by input name."""
    versions = [
        path for root in repositories for path in (root / model).glob("*/golden.npz") if path.parent.name.isdigit()
    ]
    if not versions:
        return {}
    import numpy as np

    try:
        with np.load(max(versions, key=lambda path: int(path.parent.name)), allow_pickle=False) as stored:
            return {
                key.split("/")[1]: stored[key]
                for key in stored.files
                if key.startswith("inputs/") and key.endswith("/0")
            }
    except (OSError, ValueError):  # a foreign or broken file: the example does without
        return {}


def _tensors(tensors: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{each['name']} {each['datatype']}{[int(size) for size in each['shape']]}" for each in tensors)


def _curl(name: str, examples: Sequence[Example], http_url: str, *, sequence: bool) -> str:
    head = {"parameters": {"sequence_id": 1, "sequence_start": True, "sequence_end": True}} if sequence else {}
    url = f"http://{http_url}/v2/models/{name}/infer"
    if sum(example.size for example in examples) <= _MOST_VALUES:
        body = {**head, "inputs": [_json_input(example) for example in examples]}
        return f"curl -s {url} -d '{_in_quotes(json.dumps(body))}'"
    inputs = ", ".join(
        f'{{"name": {json.dumps(each.name)}, "shape": {list(each.shape)}, "datatype": "{each.datatype}", '
        f'"data": [{json.dumps(each.zero) if each.datatype == "BYTES" else each.zero}] * {each.size}}}'
        for each in examples
    )
    start = "".join(f'"{key}": {value}, ' for key, value in head.items())
    code = f'import json; print(json.dumps({{{start}"inputs": [{inputs}]}}))'
    return f"python3 -c '{_in_quotes(code)}' | curl -s {url} -d @-"


def _json_input(example: Example) -> dict[str, Any]:
    data = list(example.values) if example.values is not None else [example.zero] * example.size
    return {"name": example.name, "shape": list(example.shape), "datatype": example.datatype, "data": data}


def _in_quotes(text: str) -> str:
    return text.replace("'", "'\\''")


def _tritonclient(
    name: str, examples: Sequence[Example], outputs: Sequence[Mapping[str, Any]], http_url: str, *, sequence: bool
) -> str:
    lines = ["python3 - <<'END'", "import numpy as np, tritonclient.http as triton", "inputs = []"]
    for each in examples:
        lines.append(f"inputs.append(triton.InferInput({each.name!r}, {list(each.shape)}, {each.datatype!r}))")
        lines.append(f"inputs[-1].set_data_from_numpy({each.numpy})")
    extra = ", sequence_id=1, sequence_start=True, sequence_end=True" if sequence else ""
    lines.append(f"answer = triton.InferenceServerClient({http_url!r}).infer({name!r}, inputs{extra})")
    lines += [f"print({each['name']!r}, answer.as_numpy({each['name']!r}))" for each in outputs]
    return "\n".join([*lines, "END"])


def _our_client(name: str, examples: Sequence[Example], grpc_url: str) -> str:
    inputs = ", ".join(f"{each.name!r}: {each.numpy}" for each in examples)
    lines = ["python3 - <<'END'", "import numpy as np", "from serving import Client"]
    lines.append(f'with Client("grpc://{grpc_url}") as client:')
    lines.append(f"    print(client.infer({name!r}, {{{inputs}}}))")
    return "\n".join([*lines, "END"])
