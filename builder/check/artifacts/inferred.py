"""Shapes of outputs that an ONNX file leaves open, worked out from its nodes where something hangs on it."""

from __future__ import annotations

import functools
from pathlib import Path

LARGEST_BYTES = 64 * 1024 * 1024


def inferred_shape(path: Path, output: str) -> tuple[int, ...] | None:
    """The shape of an output as its nodes give it, -1 where it stays open; None where that cannot be found out here."""
    facts = path.stat()
    if facts.st_size > LARGEST_BYTES:
        return None
    return _shapes(str(path), facts.st_mtime_ns).get(output)


@functools.lru_cache(maxsize=64)
def _shapes(path: str, _mtime_ns: int) -> dict[str, tuple[int, ...]]:
    try:
        import onnx
        import onnx.shape_inference

        from builder.graphs.onnx_tensors import load_graph

        model = load_graph(Path(path))
        for output in model.graph.output:
            output.type.tensor_type.ClearField("shape")
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # it may be missing, or refuse the file for any reason: then nothing is known
        return {}
    return {
        output.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else -1 for dim in output.type.tensor_type.shape.dim
        )
        for output in model.graph.output
        if output.type.tensor_type.HasField("shape")
    }
