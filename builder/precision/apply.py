"""A recipe put into effect: one graph in, one graph out, the same bytes every time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from builder.errors import CalibrationError, PrecisionError, RecipeError
from builder.precision import graph as graphs
from builder.precision.calibration import Calibration
from builder.precision.recipe import Feeds, Recipe


def apply(
    recipe: Recipe, prepared: Path, to: Path, *, feeds: Feeds | None, calibration: Calibration | None = None
) -> None:
    """Write the graph that a recipe makes of a prepared one.

    Args:
        recipe: what to do.
        prepared: what :func:`builder.precision.prepare.prepared` wrote.
        to: the file to write; weights above the limit go to ``<to>.data``.
        feeds: calibration requests, where the method needs them.
        calibration: of ``prepared`` over the same requests; several recipes can share what it measures.

    Raises:
        RecipeError: it names nodes that the graph does not have.
        CalibrationError: it needs samples, and there are none, or they say nothing.
        PrecisionError: there is nothing in the graph that it could change, or the result is no valid graph.
    """
    _check_keep(recipe, prepared)
    with tempfile.TemporaryDirectory(prefix="recipe-") as folder:
        if calibration is None and feeds is not None:
            calibration = Calibration(prepared, feeds, Path(folder))
        METHODS[recipe.method](recipe, prepared, to, calibration)
    graphs.check(prepared, to, half_at_the_border=recipe.options.get("io") == "fp16")


def _check_keep(recipe: Recipe, prepared: Path) -> None:
    from builder.graphs.onnx_tensors import load_graph

    known = {node.name for node in load_graph(prepared).graph.node}
    unknown = [name for name in recipe.keep if name not in known]
    if unknown:
        raise RecipeError(
            f"the recipe keeps {len(unknown)} nodes that the graph does not have",
            where=", ".join(unknown[:3]),
            expected="names of nodes of the prepared graph",
            got=f"{len(known)} nodes of other names",
            fix="the model or its exporter changed since the recipe was written: search again",
        )


def _cast(recipe: Recipe, prepared: Path, to: Path, calibration: Calibration | None) -> None:
    del calibration
    from builder.precision import half

    half.cast_half(prepared, to, precision=recipe.precision, keep=recipe.keep, io=recipe.options.get("io", "fp32"))


def _static(recipe: Recipe, prepared: Path, to: Path, calibration: Calibration | None) -> None:
    from builder.precision import static

    settings = static.Settings.of(recipe.options)
    measured = _smoothed(recipe, _measured(recipe, calibration))
    model = graphs.load(measured.path)
    wanted = static.tensors(model, settings)
    ranges = measured.ranges(
        wanted, recipe.options.get("calibrator", "minmax"), float(recipe.options.get("percentile", 99.99))
    )
    means = measured.means(static.channels(model, settings)) if settings.bias_correction else None
    count = static.quantize(model, ranges, settings, recipe.keep, means)
    if not count:
        _check_magnitudes(ranges, static.HOPELESS)
    _something(count, recipe, settings.op_types)
    graphs.save(model, to)


def _dynamic(recipe: Recipe, prepared: Path, to: Path, calibration: Calibration | None) -> None:
    from builder.precision import dynamic

    settings = dynamic.Settings.of(recipe.options)
    smooth = recipe.options.get("smooth") is not None
    model = graphs.load(_smoothed(recipe, _measured(recipe, calibration)).path if smooth else prepared)
    _something(dynamic.quantize(model, settings, recipe.keep), recipe, settings.op_types)
    graphs.save(model, to)


def _weights(recipe: Recipe, prepared: Path, to: Path, calibration: Calibration | None) -> None:
    del calibration
    from builder.precision import weights

    settings = weights.Settings.of(recipe.options, recipe.precision)
    model = graphs.load(prepared)
    _something(weights.quantize(model, settings, recipe.keep), recipe, settings.op_types)
    graphs.save(model, to)


METHODS: Mapping[str, Callable[[Recipe, Path, Path, Calibration | None], None]] = {
    "cast": _cast,
    "static": _static,
    "dynamic": _dynamic,
    "weights": _weights,
}
"""Method: what does it."""


def _measured(recipe: Recipe, calibration: Calibration | None) -> Calibration:
    if calibration is None:
        raise CalibrationError(
            f"a {recipe.method} {recipe.precision} recipe needs calibration samples",
            expected="real inputs: ranges are taken from them",
            got="none",
            fix="give the model `samples`, or `precision.calibration`",
        )
    return calibration


def _smoothed(recipe: Recipe, calibration: Calibration) -> Calibration:
    """Measurements of the graph after SmoothQuant, where the recipe asks for it."""
    alpha = recipe.options.get("smooth")
    if alpha is None:
        return calibration
    from builder.precision import smooth

    strength = float(alpha)
    return calibration.derived(
        f"smoothed-{strength:.4f}.onnx", lambda path: smooth.smoothed(calibration, path, strength)
    )


def _check_magnitudes(ranges: Mapping[str, tuple[float, float]], largest: float) -> None:
    """Refuse calibration whose values are all beyond what is quantized at all."""
    beyond = {name: found for name, found in ranges.items() if max(map(abs, found)) > largest}
    if beyond:
        name, (low, high) = next(iter(beyond.items()))
        raise PrecisionError(
            "the inner values are too large to be quantized",
            where=f"tensor {name!r}, and {len(beyond) - 1} more" if len(beyond) > 1 else f"tensor {name!r}",
            expected=f"ranges within -{largest:g} to {largest:g}",
            got=f"{low:g} to {high:g}",
            fix="look at the scale of what `precision.calibration` (or `samples`) gives, or leave this variant out",
        )


def _something(count: int, recipe: Recipe, op_types: Any) -> None:
    if not count:
        kept = f"; {len(recipe.keep)} nodes are kept in float" if recipe.keep else ""
        raise PrecisionError(
            f"there is nothing in the graph that a {recipe.method} {recipe.precision} recipe could change",
            expected=f"float32 {', '.join(op_types)} with constant weights, not all of them kept in float",
            got=f"none{kept}",
            fix=f"{'keep fewer nodes in float, or ' if kept else ''}leave this variant out",
        )
