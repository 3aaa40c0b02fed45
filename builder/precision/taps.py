"""A look at the values inside a graph: it is run with them as outputs, some at a time, for memory to stay bounded."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from builder import operations
from builder.numerics import Array
from builder.reference import OnnxRunner

CHUNK_BYTES = 128 * 1024 * 1024
"""About how much the values that are looked at together may take."""


class Taps:
    """A graph that can be asked for its inner values; made by :func:`taps_of`."""

    def __init__(self, folder: Path, *, lean: bool) -> None:
        import onnx

        self._folder, self._lean = folder, lean
        self._base = onnx.load(folder / "base.onnx", load_external_data=False)

    @contextmanager
    def runner(self, names: Sequence[str]) -> Iterator[OnnxRunner]:
        """The graph with these values as its only outputs, in ONNX Runtime.

        Raises:
            ValueError: ONNX Runtime does not take it.
        """
        with OnnxRunner(self.write(names), lean=self._lean) as runner:
            yield runner

    def write(self, names: Sequence[str]) -> Path:
        """A file of the graph with these values as its only outputs; the next one takes its place."""
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self._base)
        known = {value.name: value for value in (*model.graph.output, *model.graph.input)}
        wanted = [known.get(name) or onnx.ValueInfoProto(name=name) for name in names]
        del model.graph.output[:]
        model.graph.output.extend(wanted)
        path = self._folder / "tapped.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        return path


@contextmanager
def taps_of(path: Path, *, lean: bool = False) -> Iterator[Taps]:
    """A graph with its weights written once, beside it, where every look at it maps them from.

    Args:
        path: the graph.
        lean: looked at in little memory, not in little time.
    """
    import onnx_ir

    with tempfile.TemporaryDirectory(prefix="taps-", dir=path.parent) as folder:
        onnx_ir.save(onnx_ir.load(path), Path(folder) / "base.onnx", external_data="base.data")
        yield Taps(Path(folder), lean=lean)


def element_types(path: Path, names: Sequence[str]) -> dict[str, int]:
    """Element types of inner values as ONNX Runtime infers them, which knows operators that ONNX does not.

    What is no tensor of a float type that can be told apart here is left out.
    """
    import onnx
    import onnxruntime

    with taps_of(path) as taps:
        tapped = taps.write(names)
        options = operations.session_options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(tapped), options, providers=["CPUExecutionProvider"])
        told = {output.name: output.type for output in session.get_outputs()}
    known = {"tensor(float)": onnx.TensorProto.FLOAT, "tensor(float16)": onnx.TensorProto.FLOAT16}
    return {name: known[text] for name, text in told.items() if text in known}


def chunks(groups: Sequence[Sequence[Any]], request: Mapping[str, Array], inputs: Sequence[Any]) -> Iterator[list[Any]]:
    """Groups of ``onnx_ir`` values that belong together, put together up to :data:`CHUNK_BYTES`.

    Args:
        groups: values, by node.
        request: one that is going to be run; its sizes stand for the symbolic ones of the graph.
        inputs: the graph's inputs.
    """
    sizes = {
        str(dim.value): size
        for value in inputs
        if value.name in request and value.shape is not None
        for dim, size in zip(value.shape, request[value.name].shape, strict=False)
        if not isinstance(dim, int)
    }
    largest = max(sizes.values(), default=1)
    chunk: dict[str, Any] = {}
    used = 0
    for group in groups:
        new = {value.name: value for value in group if value.name not in chunk}
        needed = sum(_bytes(value, sizes, largest) for value in new.values())
        if chunk and used + needed > CHUNK_BYTES:
            yield list(chunk.values())
            chunk, used, new = {}, 0, {value.name: value for value in group}
            needed = sum(_bytes(value, sizes, largest) for value in new.values())
        chunk.update(new)
        used += needed
    if chunk:
        yield list(chunk.values())


def _bytes(value: Any, sizes: Mapping[str, int], largest: int) -> int:
    if value.shape is None:
        return 4 * largest**3
    return 4 * math.prod(dim if isinstance(dim, int) else sizes.get(str(dim.value), largest) for dim in value.shape)
