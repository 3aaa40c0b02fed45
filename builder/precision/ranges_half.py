"""Which nodes must stay in float32 when the rest is fp16 or bf16: found by measuring on real samples, node by node.

Two looks. The float32 graph says which values, and which sums inside a node, go beyond the largest half. Then the graph
that rounds as half precision does is run: where its answers are off, the nodes that bring the error in are found, kept,
and it is run again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from builder.errors import CalibrationError, PrecisionError
from builder.numerics import Array
from builder.precision import graph as graphs
from builder.precision.half import LARGEST, emulated, typed
from builder.precision.half_plan import has_float, index_arithmetic
from builder.precision.recipe import Feeds
from builder.precision.seen import Seen, compared, peak_of, without_cut, worse
from builder.precision.sums import largest_inside
from builder.precision.taps import chunks, taps_of
from builder.reference import OnnxRunner

REQUESTS = 8
"""Requests that are looked at; ranges hardly grow after a few, and every value of each is read."""
SAFETY = 4.0
"""Samples do not show the largest value there will ever be: what comes within a quarter of the limit is kept."""
OFF = {"fp16": 0.01, "bf16": 0.05}
"""Relative error of the answers that is looked into. Rounding alone gives 0.3% and 2% on EfficientNet."""
GROWS = 4.0
"""A node brings an error in when its result is off by this many times what its inputs are."""
ROUNDS = 4
ROUNDED = "rounded.onnx"
LEAN_ABOVE_BYTES = 400_000_000
"""Graphs with larger weights are measured in little memory, not in little time."""


@dataclass(frozen=True)
class Kept:
    """What stays in float32.

    Attributes:
        nodes: their names, sorted.
        reasons: why, by name.
        off: relative error of each output with these kept, as rounding alone makes it.
    """

    nodes: tuple[str, ...]
    reasons: Mapping[str, str]
    off: Mapping[str, float]


@dataclass
class _Look:
    values: dict[str, Seen] = field(default_factory=dict)
    inside: dict[str, tuple[float, str]] = field(default_factory=dict)


def keep_in_fp32(prepared: Path, feeds: Feeds, precision: str, *, io: str = "fp32") -> Kept:
    """Find the nodes that half precision would break.

    Args:
        prepared: an ONNX file of :func:`builder.precision.prepare.prepared`.
        feeds: real requests; the first :data:`REQUESTS` are used.
        precision: ``fp16`` or ``bf16``.
        io: element type that inputs and outputs will have.

    Raises:
        CalibrationError: there is no request.
        PrecisionError: with ``io: fp16``, an input or an output is itself beyond what fp16 holds.
    """
    work = _Ranges(prepared, feeds, precision)
    if io == "fp16":
        work.refuse_io()
    keep = index_arithmetic(work.nodes)
    with tempfile.TemporaryDirectory(prefix="ranges-", dir=prepared.parent) as folder:
        keep = {**work.cut_constants(Path(folder)), **keep}
        keep = {**work.beyond_range(Path(folder), keep), **keep}
        off = work.rounded(Path(folder), keep)
        for _ in range(ROUNDS):
            new = work.culprits(Path(folder), keep) if work.is_off(off) else {}
            if not new:
                break
            keep.update(new)
            off = work.rounded(Path(folder), keep)
        if work.is_off(off):
            keep, off = work.first_nodes(Path(folder), keep, off)
    return Kept(tuple(sorted(keep)), dict(sorted(keep.items())), off)


class _Ranges:
    """One measurement: the graph, its requests, and what float32 answers."""

    def __init__(self, prepared: Path, feeds: Feeds, precision: str) -> None:
        self.path, self.precision, self.feeds = prepared, precision, feeds
        self.limit = LARGEST[precision]
        self.model = typed(prepared)
        self.nodes = list(self.model.graph)
        self.cut: Path | None = None
        weights = [value.const_value for value in self.model.graph.initializers.values()]
        self._lean = sum(tensor.nbytes for tensor in weights if tensor is not None) > LEAN_ABOVE_BYTES
        if next(self.requests(), None) is None:
            raise CalibrationError(
                f"there is no request to measure {precision} with",
                where=str(prepared),
                expected="at least one sample",
                got="none",
                fix="write `samples` in the spec",
            )

    def requests(self) -> Iterator[Mapping[str, Array]]:
        """The requests that are looked at, one at a time."""
        return islice(self.feeds(), REQUESTS)

    def runner(self, path: Path) -> OnnxRunner:
        """A graph as it is measured: where it is large, its weights are read where they lie."""
        return OnnxRunner(path, lean=self._lean)

    @cached_property
    def answers(self) -> list[dict[str, Array]]:
        """What float32 gives for each request: the float outputs."""
        with self.runner(self.path) as runner:
            rows = [runner(request) for request in self.requests()]
        return [{name: array for name, array in row.items() if array.dtype == np.float32} for row in rows]

    def refuse_io(self) -> None:
        """Hold inputs and outputs against what fp16 can say.

        Raises:
            PrecisionError: one is beyond it.
        """
        for request, answers in zip(self.requests(), self.answers, strict=False):
            for kind, tensors in (("input", request), ("output", answers)):
                for name, array in tensors.items():
                    peak = peak_of(array) if array.dtype == np.float32 else 0.0
                    if peak > LARGEST["fp16"]:
                        raise self._beyond_io(kind, name, peak)

    def _beyond_io(self, kind: str, name: str, peak: float) -> PrecisionError:
        maker = next((node for node in self.nodes for value in node.outputs if value.name == name), None)
        made = f", made by node {maker.name!r} ({maker.op_type})" if maker is not None else ""
        return PrecisionError(
            f"{kind} {name!r} is beyond what fp16 can hold",
            where=f"{self.path.name}, {kind} {name!r}{made}",
            expected=f"at most {LARGEST['fp16']:.0f}, the largest fp16",
            got=f"{peak:.6g} on a sample",
            fix="leave `precision: {io: fp32}`, as it is by default, or scale the values in the model",
        )

    def cut_constants(self, folder: Path) -> dict[str, str]:
        """Constants beyond the largest half are cut to it. That is right for a mask; where it changes the answers,
        the nodes that use them are kept.
        """
        beyond = {}
        for name, value in self.model.graph.initializers.items():
            if (
                graphs.is_float(value)
                and graphs.constant(value) is not None
                and peak_of(value.const_value.numpy()) > self.limit
            ):
                beyond[name] = value
        if not beyond:
            return {}
        self.cut = folder / "cut.onnx"
        _write_cut(self.path, set(beyond), self.limit, self.cut)
        if max(self.off(self.cut).values(), default=0.0) <= 1e-3:
            return {}
        self.cut = None
        told = {name: f"{peak_of(value.const_value.numpy()):.3g}" for name, value in beyond.items()}
        return {
            use.node.name: f"its constant {name!r} holds {told[name]}, beyond {self.limit:.6g}"
            for name, value in beyond.items()
            for use in value.uses()
        }

    def off(self, other: Path) -> dict[str, float]:
        """Relative error of each float output of another graph; infinite where it is not finite."""
        worst: dict[str, float] = {}
        with self.runner(other) as runner:
            for request, right in zip(self.requests(), self.answers, strict=False):
                answers = runner(request)
                for name, array in right.items():
                    seen = compared(array, answers[name], float("inf"))
                    worst[name] = max(worst.get(name, 0.0), float("inf") if seen.broken else seen.error)
        return worst

    def beyond_range(self, folder: Path, keep: Mapping[str, str]) -> dict[str, str]:
        """Nodes whose values, or sums inside, come near the largest half."""
        if self.precision == "bf16":
            return {}  # as far as float32
        look = self._look(None)
        found: dict[str, str] = {}
        limit = self.limit / SAFETY
        for node in self.nodes:
            values = [value for value in (*node.outputs, *node.inputs) if graphs.is_float(value)]
            high = next((value for value in values if look.values.get(value.name, Seen()).peak > limit), None)
            if high is not None:
                verb = "gives" if any(high is value for value in node.outputs) else "takes"
                found[node.name] = (
                    f"{verb} {high.name!r} up to {look.values[high.name].peak:.3g}; fp16 ends at {self.limit:.0f}"
                )
            elif node.name in look.inside:
                value, what = look.inside[node.name]
                found[node.name] = f"{what} is up to {value:.3g}; fp16 ends at {self.limit:.0f}"
        return found

    def is_off(self, off: Mapping[str, float]) -> bool:
        """The answers are off by more than rounding makes them."""
        return max(off.values(), default=0.0) > OFF[self.precision]

    def rounded(self, folder: Path, keep: Mapping[str, str]) -> dict[str, float]:
        """How far the answers are off when all but the kept nodes round; the graph that does is left there."""
        emulated(self.path, folder / ROUNDED, precision=self.precision, keep=keep)
        return self.off(folder / ROUNDED)

    def first_nodes(
        self, folder: Path, keep: dict[str, str], off: dict[str, float]
    ) -> tuple[dict[str, str], dict[str, float]]:
        """Where errors only add up, the first nodes are kept, as few as it takes: all that follows amplifies theirs.

        Where not even half of the nodes are enough, nothing more is kept.
        """
        reason = f"one of the first nodes: what they lose is amplified to {max(off.values()):.1%} of the answer"
        low, high = 0, len(self.nodes) // 2
        best = keep, off
        while low < high:
            count = (low + high) // 2 if best[0] is not keep else high
            tried = {**dict.fromkeys((node.name for node in self.nodes[:count] if has_float(node)), reason), **keep}
            now = self.rounded(folder, tried)
            if not self.is_off(now):
                best, high = (tried, now), count
            elif best[0] is keep:
                break
            else:
                low = count + 1
        return best

    def culprits(self, folder: Path, keep: Mapping[str, str]) -> dict[str, str]:
        """Nodes where the error comes in, and those that make what they read."""
        look = self._look(folder / ROUNDED)
        found: dict[str, str] = {}
        for node in self.nodes:
            inputs = [value for value in node.inputs if graphs.is_float(value) and graphs.constant(value) is None]
            before = [look.values[value.name] for value in inputs if value.name in look.values]
            for value in filter(graphs.is_float, node.outputs):
                seen = look.values.get(value.name)
                if seen is None or any(one.broken for one in before):
                    continue
                came = max((one.error for one in before), default=0.0)
                if not seen.broken and (seen.error <= OFF[self.precision] or seen.error <= GROWS * came):
                    continue
                told = "not finite" if seen.broken else f"off by {seen.error:.1%}"
                reason = f"{value.name!r} is {told} in {self.precision}, what it is made of by {came:.2%}"
                for one in (node, *(v.producer() for v in inputs)):
                    if one is not None and one.name not in keep:
                        found.setdefault(
                            one.name, reason if one is node else f"makes what {node.name!r} reads: {reason}"
                        )
        return found

    def _look(self, rounded: Path | None) -> _Look:
        """Every float value in every request: magnitudes, or errors where a rounding graph is given."""
        look = _Look()
        groups = [[v for v in (*node.outputs, *node.inputs) if _is_tapped(v)] for node in self.nodes]
        request = next(self.requests())
        other = rounded or self.cut
        with taps_of(self.path, lean=self._lean) as right, taps_of(other or self.path, lean=self._lean) as second:
            for values in chunks([group for group in groups if group], request, self.model.graph.inputs):
                names = [value.name for value in values]
                with right.runner(names) as runner, second.runner(names) as also:
                    for one in self.requests():
                        self._read(look, runner(one), also(one) if other else {}, one, rounded is not None)
        return look

    def _read(
        self,
        look: _Look,
        right: dict[str, Array],
        second: Mapping[str, Array],
        request: Mapping[str, Array],
        compare: bool,
    ) -> None:
        if compare:
            for name, array in right.items():
                look.values[name] = worse(look.values.get(name), compared(array, second[name], self.limit))
            return
        clean = {name: without_cut(array, second.get(name), self.limit / SAFETY) for name, array in right.items()}
        clean.update({name: array for name, array in request.items() if array.dtype == np.float32})
        for name, array in clean.items():
            look.values[name] = worse(look.values.get(name), Seen(peak=peak_of(array)))
        for node in self.nodes:
            known = [self._array(value, clean) for value in node.inputs]
            complete = all(
                array is not None or value is None for array, value in zip(known[:2], node.inputs[:2], strict=True)
            )
            if not complete or not any(map(graphs.is_float, node.inputs)):
                continue
            inside = largest_inside(node, known, self.limit)
            if inside is not None and inside[0] > look.inside.get(node.name, (0.0, ""))[0]:
                look.inside[node.name] = inside

    def _array(self, value: Any, known: Mapping[str, Array]) -> Array | None:
        if value is None:
            return None
        constant = graphs.constant(value)
        if constant is not None:
            array: Array = constant.numpy()
            return array
        return known.get(value.name)


def _is_tapped(value: Any) -> bool:
    return graphs.is_float(value) and value.producer() is not None


def _write_cut(path: Path, names: set[str], limit: float, to: Path) -> None:
    import onnx_ir

    model = graphs.load(path)
    for name in sorted(names):
        value = model.graph.initializers[name]
        array = value.const_value.numpy()
        cut = np.where(np.isfinite(array), np.clip(array, -limit, limit), array).astype(np.float32)
        value.const_value = onnx_ir.tensor(cut, name=name)
    graphs.save(model, to)
