"""A recipe: all that is decided about a model's precision, as data that can be committed and replayed.

A recipe names nodes of the *prepared* graph (:mod:`builder.precision.prepare`); applied to the same graph with the same
calibration samples it gives the same file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from builder.errors import RecipeError
from builder.numerics import Array

Feeds = Callable[[], Iterator[Mapping[str, Array]]]
"""Gives calibration requests anew each time it is called: full tensors, with the batch dimension, one at a time."""

METHODS: dict[str, tuple[str, ...]] = {
    "cast": ("fp16", "bf16"),
    "static": ("int8",),
    "dynamic": ("int8",),
    "weights": ("int8-weights", "int4-weights"),
}
"""Method: the precisions that it makes."""

OPTIONS: dict[str, frozenset[str]] = {
    "cast": frozenset({"io"}),
    "static": frozenset(
        {
            "calibrator",
            "percentile",
            "activation",
            "symmetric",
            "reduce_range",
            "per_channel",
            "weight",
            "op_types",
            "smooth",
            "bias_correction",
        }
    ),
    "dynamic": frozenset({"op_types", "reduce_range", "per_channel", "weight", "smooth"}),
    "weights": frozenset({"bits", "block_size", "symmetric", "accuracy_level", "op_types"}),
}
"""Method: the options it has."""

_FLAG = ("true or false", lambda value: isinstance(value, bool))


def _one_of(*known: Any) -> tuple[str, Callable[[Any], bool]]:
    return ", ".join(map(str, known)), lambda value: any(value == one and type(value) is type(one) for one in known)


def _number(low: float, high: float) -> tuple[str, Callable[[Any], bool]]:
    def fits(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high

    return f"a number from {low:g} to {high:g}", fits


VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "accuracy_level": _one_of(0, 1, 2, 3, 4),
    "activation": _one_of("u8", "s8"),
    "bias_correction": _FLAG,
    "bits": _one_of(4, 8),
    "block_size": _one_of(16, 32, 64, 128, 256),
    "calibrator": _one_of("minmax", "entropy", "percentile"),
    "io": _one_of("fp32", "fp16"),
    "op_types": (
        "a list of operator types",
        lambda value: isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value),
    ),
    "per_channel": _FLAG,
    "percentile": _number(50, 100),
    "reduce_range": _FLAG,
    "smooth": ("null, or a number from 0 to 1", lambda value: value is None or _number(0, 1)[1](value)),
    "symmetric": _FLAG,
    "weight": _one_of("s8", "u8"),
}
"""Option: what it can be, in words and as a check."""


@dataclass(frozen=True)
class Recipe:
    """How a graph is brought to another precision.

    Attributes:
        precision: as in :class:`builder.variants.Variant`.
        method: a key of :data:`METHODS`.
        keep: names of the nodes that stay in float, sorted.
        options: of the method, plain data; a key of :data:`OPTIONS`.
    """

    precision: str
    method: str
    keep: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "precision": self.precision,
            "method": self.method,
            "options": dict(sorted(self.options.items())),
            "keep": sorted(self.keep),
        }

    @property
    def digest(self) -> str:
        """sha256 of what it says."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    def text(self, comment: str = "") -> str:
        """As a file: YAML, with a comment above it."""
        head = "".join(f"# {line}\n" for line in comment.splitlines())
        return head + yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True, width=120)

    @classmethod
    def from_dict(cls, data: Any, where: str) -> Recipe:
        """What :meth:`as_dict` gave.

        Raises:
            RecipeError: it is something else.
        """
        if not isinstance(data, dict):
            got = "an empty file" if data is None else type(data).__name__
            raise _refused("the recipe is no mapping", where, "precision, method, options, keep", got)
        unknown = sorted(set(data) - {"precision", "method", "options", "keep"}, key=str)
        if unknown:
            raise _refused(f"unknown key {unknown[0]!r}", where, "precision, method, options, keep", str(unknown[0]))
        method, precision = data.get("method"), data.get("precision")
        if not isinstance(method, str) or method not in METHODS:
            raise _refused(f"unknown method {method!r}", where, ", ".join(METHODS), str(method))
        if precision not in METHODS[method]:
            raise _refused(f"{method!r} does not make {precision!r}", where, ", ".join(METHODS[method]), str(precision))
        options, keep = data.get("options") or {}, data.get("keep") or []
        if not isinstance(options, dict):
            raise _refused("`options` is no mapping", where, "{option: value, ...}", repr(options)[:80])
        odd = sorted(set(options) - OPTIONS[method], key=str)
        if odd:
            raise _refused(f"unknown option {odd[0]!r}", where, ", ".join(sorted(OPTIONS[method])), str(odd[0]))
        for name, value in options.items():
            if not VALUES[name][1](value):
                raise _refused(f"option {name!r} has an unusable value", where, VALUES[name][0], repr(value)[:80])
        if not isinstance(keep, list) or not all(isinstance(name, str) for name in keep):
            raise _refused("`keep` is no list of node names", where, "[node, ...]", repr(keep)[:80])
        return cls(precision, method, tuple(sorted(set(keep))), options)


def read_recipe(path: Path) -> Recipe:
    """A recipe from its file.

    Raises:
        RecipeError: it cannot be read, or is no recipe.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as exc:
        where, got = _place_of(exc, path)
        raise _refused("the recipe cannot be read", where, "YAML, as `build-repo --recipes` wrote it", got) from exc
    return Recipe.from_dict(data, str(path))


def _place_of(exc: Exception, path: Path) -> tuple[str, str]:
    """Where a file cannot be read, with the line if there is one, and what is the matter there."""
    mark = getattr(exc, "problem_mark", None)
    if mark is not None:
        return f"{path}:{mark.line + 1}", str(getattr(exc, "problem", "") or exc)
    if isinstance(exc, UnicodeDecodeError):
        return str(path), "no text in UTF-8"
    got = exc.strerror if isinstance(exc, OSError) else " ".join(str(exc).split())
    return str(path), got or type(exc).__name__


def _refused(what: str, where: str, expected: str, got: str) -> RecipeError:
    fix = "take the file as `build-repo --recipes DIR` wrote it, or leave it out of `precision.recipes` to search again"
    return RecipeError(what, where=where, expected=expected, got=got, fix=fix)
