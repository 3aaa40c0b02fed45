"""Recipes worth a try for a precision and a target, from cheap to dear."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builder.precision.recipe import OPTIONS, Recipe
from builder.precision.sensitivity import WEIGHTED, Part

SMOOTH = (0.8, 0.65, 0.9)
CALIBRATORS = ("percentile", "entropy")
BLOCKS = {8: (128, 32), 4: (128, 64, 32, 16)}
"""Bits of a weight: how many weights share a scale, the cheapest first."""
_SMALL_SHARE = 0.05


@dataclass(frozen=True)
class Family:
    """Recipes that differ in a few options.

    Attributes:
        base: where to begin.
        axes: options with the values to try in place of the base's, one option after the other.
    """

    base: Recipe
    axes: tuple[tuple[str, tuple[Any, ...]], ...] = ()


def families(
    precision: str, target: str, parts: Sequence[Part], keep: Sequence[str], options: Mapping[str, Any]
) -> list[Family]:
    """What to try, in this order.

    Args:
        precision, target: as in :class:`builder.variants.Variant`.
        parts: what could be quantized at all; decides whether matrix products or convolutions are worth a family.
        keep: nodes that stay in float in all of them.
        options: what the user has decided; not varied.
    """
    given = {key: value for key, value in options.items() if value is not None and value != "auto"}
    if precision in ("fp16", "bf16"):
        return [_family(Recipe(precision, "cast", tuple(keep), {"io": "fp32"}), (), given)]
    if precision in ("int8-weights", "int4-weights"):
        bits = 8 if precision.startswith("int8") else 4
        rows = [{"bits": bits, "block_size": size, "symmetric": False} for size in BLOCKS[bits]]
        return _distinct(_family(Recipe(precision, "weights", tuple(keep), row), (), given) for row in rows)
    return _distinct(_int8(target, parts, keep, given))


def _int8(target: str, parts: Sequence[Part], keep: Sequence[str], given: Mapping[str, Any]) -> Iterable[Family]:
    whole = sum(part.work for part in parts) or 1.0
    products = sum(part.work for part in parts if part.kind.startswith(("MatMul", "Gemm"))) / whole
    calibrator: tuple[tuple[str, tuple[Any, ...]], ...] = (("calibrator", CALIBRATORS),)
    smooth = (("smooth", SMOOTH),) if products > _SMALL_SHARE else ()
    start = {"activation": "u8", "calibrator": "minmax", "per_channel": True}
    kept = tuple(keep)
    if target != "cpu":
        if target != "openvino":
            start |= {"activation": "s8", "symmetric": True}
        yield _family(Recipe("int8", "static", kept, start), (*calibrator, *smooth), given)
        return
    # Without VNNI a processor adds pairs of products in 16 bits, which full weights of 8 bits can overflow: 7 bits, or
    # unsigned weights (slower), are the two ways out. Where nothing overflows both lose, and are left at once.
    if products > 0.5:
        axes = (*smooth, ("reduce_range", (True,)))
        yield _family(Recipe("int8", "dynamic", kept, {"per_channel": True}), axes, given)
    joined = (("op_types", (WEIGHTED,)),) if products < 0.9 else ()
    axes = (("reduce_range", (True,)), *calibrator, *smooth, *joined)
    yield _family(Recipe("int8", "static", kept, start), axes, given)
    if products < 0.9:
        yield _family(Recipe("int8", "static", kept, {**start, "weight": "u8"}), (*calibrator, *smooth, *joined), given)


def _family(base: Recipe, axes: Sequence[tuple[str, tuple[Any, ...]]], given: Mapping[str, Any]) -> Family:
    allowed = {key: value for key, value in given.items() if key in OPTIONS[base.method]}
    recipe = Recipe(base.precision, base.method, base.keep, {**base.options, **allowed})
    return Family(recipe, tuple((name, values) for name, values in axes if name not in allowed))


def _distinct(found: Iterable[Family]) -> list[Family]:
    return list({family.base.digest: family for family in found}.values())
