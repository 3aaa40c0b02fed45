"""What samples say about the values of a graph: ranges, in memory that does not grow with the samples.

One request is in memory at a time, and of its inner values no more than fit a budget. Two passes: the first finds
least and largest values, the second counts values in bins between them (for entropy and percentile only).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from builder import host, operations
from builder.errors import CalibrationError, ort_reason
from builder.numerics import Array
from builder.precision import graph as graphs
from builder.precision.recipe import Feeds

Range = tuple[float, float]

CALIBRATORS = ("minmax", "entropy", "percentile")
BINS = 8192
"""Of a histogram: half of them on either side of zero."""
BUDGET_BYTES = 256 * 1024 * 1024
"""Of the inner values of one request that are held at once."""
VALUES_COUNTED = 1 << 16
"""Of one tensor in one request, evenly spread; a histogram of more says the same."""
_LEVELS = 128


class RangesError(CalibrationError):
    """Inner values have no ranges to be quantized with: a recipe that needs fewer of them, or none, may do."""


class Calibration:
    """Measurements of one graph, made when they are first asked for, and used by every recipe that needs them.

    Args:
        path: the graph.
        feeds: its calibration requests.
        folder: where graphs that are derived from it (smoothed ones) are kept; the caller removes it.
    """

    def __init__(self, path: Path, feeds: Feeds, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self._feeds = feeds
        self._minmax: dict[str, Range] = {}
        self._histograms: dict[str, Array] = {}
        self._maxima: dict[str, Array] = {}
        self._means: dict[tuple[str, int], Array] = {}
        self._derived: dict[str, Calibration] = {}

    def ranges(self, tensors: Iterable[str], method: str = "minmax", percentile: float = 99.99) -> dict[str, Range]:
        """The range of each tensor; one that was empty in every request has none.

        Raises:
            CalibrationError: there are no samples, or they say nothing about ranges.
        """
        if method not in CALIBRATORS:
            raise ValueError(f"calibrator {method!r} is none of {', '.join(CALIBRATORS)}")
        wanted = list(dict.fromkeys(tensors))
        self._observe(wanted)
        found = [name for name in wanted if name in self._minmax]
        if method == "minmax":
            return {name: self._minmax[name] for name in found}
        self._count(found)
        cut = _entropy if method == "entropy" else _percentile
        return {name: cut(self._minmax[name], self._histograms[name], percentile) for name in found}

    def maxima(self, tensors: Iterable[str]) -> dict[str, Array]:
        """The largest magnitude in each channel (the last dimension) of each tensor."""
        wanted = [name for name in dict.fromkeys(tensors) if name not in self._maxima]
        if wanted:
            for name, array in self._values(wanted):
                if array.size and array.ndim:
                    largest = np.abs(array).reshape(-1, array.shape[-1]).max(axis=0)
                    known = self._maxima.get(name)
                    self._maxima[name] = largest if known is None else np.maximum(known, largest)
            for name in wanted:
                if name in self._maxima and not np.isfinite(self._maxima[name]).all():
                    raise self._not_finite(name)
        return {name: self._maxima[name] for name in dict.fromkeys(tensors) if name in self._maxima}

    def means(self, axes: Mapping[str, int]) -> dict[str, Array]:
        """The mean of each channel of each tensor; ``axes`` says along which dimension its channels lie."""
        wanted = [name for name, axis in axes.items() if (name, axis) not in self._means]
        sums: dict[str, Array] = {}
        counts: dict[str, int] = {}
        for name, array in self._values(wanted) if wanted else ():
            if array.ndim > 1 and array.size:
                rows = np.moveaxis(array, axes[name], -1).reshape(-1, array.shape[axes[name]])
                sums[name] = rows.sum(axis=0, dtype=np.float64) + sums.get(name, 0.0)
                counts[name] = counts.get(name, 0) + len(rows)
        self._means.update({(name, axes[name]): total / counts[name] for name, total in sums.items()})
        return {name: self._means[name, axis] for name, axis in axes.items() if (name, axis) in self._means}

    def derived(self, name: str, write: Callable[[Path], None]) -> Calibration:
        """Measurements of a graph that is made of this one, over the same requests; it is written once.

        A file of that name that lies there already is of another model, or was cut off: it is written over.
        """
        if name not in self._derived:
            path = self.folder / name
            path.unlink(missing_ok=True)
            write(path)
            self._derived[name] = Calibration(path, self._feeds, self.folder)
        return self._derived[name]

    def _observe(self, tensors: Sequence[str]) -> None:
        wanted = [name for name in tensors if name not in self._minmax]
        if not wanted:
            return
        found: dict[str, Range] = {}
        inputs: dict[str, Range] = {}
        for name, array in self._values(wanted, inputs):
            if array.size:
                found[name] = _wider(found.get(name), array)
        for name, (low, high) in found.items():
            if not (np.isfinite(low) and np.isfinite(high)):
                raise self._not_finite(name)
        self._check_inputs(inputs)
        constant = [name for name, (low, high) in found.items() if low == high]
        if len(constant) * 2 > len(found) and len(found) > 2:
            what = f"{len(constant)} of {len(found)} inner values never change"
            raise _says_nothing(RangesError, what, self._place(constant[0]))
        self._minmax.update(found)

    def _check_inputs(self, inputs: Mapping[str, Range]) -> None:
        """Refuse samples that never change; one input of several may well be a constant."""
        if inputs and all(low == high for low, high in inputs.values()):
            name, (low, _) = next(iter(inputs.items()))
            raise _says_nothing(CalibrationError, f"input {name!r} is {low:g} in every sample", self._place(name))

    def _count(self, tensors: Sequence[str]) -> None:
        wanted = [name for name in tensors if name not in self._histograms]
        if not wanted:
            return
        counts = {name: np.zeros(BINS, dtype=np.int64) for name in wanted}
        for name, array in self._values(wanted):
            limit = _limit(self._minmax[name])
            flat = array.reshape(-1)
            values = flat[:: max(1, -(-flat.size // VALUES_COUNTED))].astype(np.float64)
            places = np.clip(((values + limit) * (BINS / (2 * limit))).astype(np.int64), 0, BINS - 1) if limit else None
            if places is not None:
                counts[name] += np.bincount(places, minlength=BINS)
        self._histograms.update(counts)

    def _values(self, tensors: Sequence[str], inputs: dict[str, Range] | None = None) -> Iterator[tuple[str, Array]]:
        """Every value of these tensors in every request, a few at a time; the ranges of real inputs on the way."""
        with _tapped(self.path, tensors) as session:
            order = [tensor.name for tensor in session.get_inputs()]
            chunks: list[list[str]] = []
            for request in self._feeds():
                feed = {name: request[name] for name in order if name in request}
                for name, array in feed.items():
                    if inputs is not None and array.dtype.kind == "f" and array.size:
                        inputs[name] = _wider(inputs.get(name), array)
                chunks = chunks or _chunks(session, feed, tensors)
                for chunk in chunks:
                    yield from zip(chunk, _run(session, chunk, feed), strict=True)
            if not chunks:
                raise CalibrationError(
                    "there are no calibration samples",
                    expected="at least one sample: int8 takes its ranges from real values",
                    got="none",
                    fix="give the model `samples`, or `precision.calibration`",
                )

    def _place(self, tensor: str) -> str:
        """The node that makes a tensor, or the first that uses it."""
        for node in graphs.load(self.path).graph:
            if any(value.name == tensor for value in node.outputs):
                return f"tensor {tensor!r}, made by node {node.name!r} ({node.op_type})"
            if any(value is not None and value.name == tensor for value in node.inputs):
                return f"tensor {tensor!r}, used by node {node.name!r} ({node.op_type})"
        return f"tensor {tensor!r}"

    def _not_finite(self, tensor: str) -> RangesError:
        return RangesError(
            "an inner value is NaN or Inf in a calibration sample",
            where=self._place(tensor),
            expected="finite numbers: a range is taken from them",
            got="NaN or Inf",
            fix="leave out the samples that the model itself cannot answer, or name the node in `precision.keep`",
        )


def ranges(
    prepared: Path, feeds: Feeds, tensors: Iterable[str], method: str = "minmax", percentile: float = 99.99
) -> dict[str, Range]:
    """The ranges of tensors of a graph over samples, once; :class:`Calibration` keeps them for several recipes."""
    return Calibration(prepared, feeds, prepared.parent).ranges(tensors, method, percentile)


def _says_nothing(kind: type[CalibrationError], what: str, where: str) -> CalibrationError:
    return kind(
        f"the calibration samples say nothing about ranges: {what}",
        where=where,
        expected="real inputs, as the model gets them in service, scaled as it expects them",
        got="one value",
        fix="look at what `precision.calibration` (or `samples`) gives: arrays of zeros, or a scaling forgotten",
    )


def _wider(known: Range | None, array: Array) -> Range:
    low, high = float(array.min()), float(array.max())
    if known is None:
        return low, high
    if np.isnan(low) or np.isnan(known[0]):
        return float("nan"), float("nan")
    return min(known[0], low), max(known[1], high)


def _limit(found: Range) -> float:
    return max(abs(found[0]), abs(found[1]))


@contextmanager
def _tapped(path: Path, tensors: Sequence[str]) -> Iterator[Any]:
    """A session of the graph that can be asked for inner values; its file lies beside it, to share its weights."""
    import onnx_ir
    import onnxruntime

    model = graphs.load(path)
    known = {value.name: value for node in model.graph for value in node.outputs}
    ends = {value.name for value in (*model.graph.outputs, *model.graph.inputs)}
    model.graph.outputs.extend(known[name] for name in tensors if name not in ends)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tapped-", suffix=".onnx")
    os.close(handle)
    options = operations.session_options()
    options.intra_op_num_threads = host.threads()
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    try:
        onnx_ir.save(model, name)
        session = onnxruntime.InferenceSession(name, options, providers=["CPUExecutionProvider"])
        yield session
    finally:
        Path(name).unlink(missing_ok=True)


def _run(session: Any, tensors: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
    """The values of tensors for one request; those that are inputs come from the request itself."""
    asked = [name for name in tensors if name not in feed]
    try:
        values = dict(zip(asked, session.run(asked, dict(feed)) if asked else [], strict=True))
    except Exception as exc:  # onnxruntime raises classes of its own, without a common base
        raise CalibrationError(
            "the model could not be run on a calibration sample",
            expected="samples that fit its inputs",
            got=ort_reason(exc),
            fix="mend what `precision.calibration` (or `samples`) gives",
        ) from exc
    return [np.asarray(values[name] if name in values else feed[name]) for name in tensors]


def _chunks(session: Any, feed: Mapping[str, Array], tensors: Sequence[str]) -> list[list[str]]:
    """The tensors in groups whose values fit the budget together; their sizes are those of the first request."""
    chunks: list[list[str]] = [[]]
    held = 0
    step = 16
    for start in range(0, len(tensors), step):
        group = tensors[start : start + step]
        for name, size in zip(group, (array.nbytes for array in _run(session, group, feed)), strict=True):
            if chunks[-1] and held + size > BUDGET_BYTES:
                chunks.append([])
                held = 0
            chunks[-1].append(name)
            held += size
    return chunks


def _percentile(found: Range, counts: Array, percentile: float) -> Range:
    """The range that leaves out the outermost values of either side, all in all ``100 - percentile`` of a hundred."""
    low, high = found
    limit = _limit(found)
    total = int(counts.sum())
    if not total or low == high:
        return found
    outside = (1 - percentile / 100) / 2
    share = np.cumsum(counts) / total
    edges = np.linspace(-limit, limit, BINS + 1)
    first = int(np.searchsorted(share, outside, side="right"))
    last = int(np.searchsorted(share, 1 - outside, side="left"))
    return max(low, float(edges[min(first, BINS - 1)])), min(high, float(edges[min(last, BINS - 1) + 1]))


def _entropy(found: Range, counts: Array, percentile: float) -> Range:
    """The range whose quantized distribution tells least apart from the real one (Kullback-Leibler)."""
    del percentile
    low, high = found
    limit = _limit(found)
    half = BINS // 2
    magnitudes = (counts[half:] + counts[:half][::-1]).astype(np.float64)
    if low == high:
        return found
    magnitudes[0], magnitudes[-1] = magnitudes[1], magnitudes[-2]  # what Relu and Clip heap up there is met exactly
    best, best_loss = half, float("inf")
    for kept in range(_LEVELS, half + 1, half // _LEVELS):
        loss = _divergence(magnitudes, kept)
        if loss < best_loss:
            best, best_loss = kept, loss
    threshold = limit * best / half
    return max(low, -threshold), min(high, threshold)


def _divergence(magnitudes: Array, kept: int) -> float:
    real = magnitudes[:kept].copy()
    inside = real.copy()
    real[-1] += magnitudes[kept:].sum()
    places = np.arange(kept) * _LEVELS // kept
    filled = inside > 0
    sums = np.bincount(places, weights=inside, minlength=_LEVELS)
    sizes = np.bincount(places, weights=filled, minlength=_LEVELS)
    coarse = np.where(filled, sums[places] / np.maximum(sizes[places], 1), 0.0)
    if not coarse.sum():
        return float("inf")
    p, q = real / real.sum(), coarse / coarse.sum()
    used = p > 0
    smallest = 1e-9  # a value that the coarse distribution has no place for costs much, but not everything
    return float(np.sum(p[used] * np.log(p[used] / np.maximum(q[used], smallest))))
