"""What is wrong with a single key of a workload, in our words."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from perf.document import KeyPath
from serving.errors import Problem

_KINDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "a string",
    "dict_type": "a mapping (name: value)",
    "tuple_type": "a list",
    "path_type": "a path",
    "model_type": "a mapping (key: value)",
}


def problem_of(error: Any, where: Any, fields: Mapping[str, Any]) -> Problem:
    """One of pydantic's errors in our words.

    Args:
        where: spells the place of a key.
        fields: that there are, as pydantic keeps them.
    """
    loc: KeyPath = tuple(part for part in error["loc"] if part != "[key]")
    name, kind, got = str(loc[0]) if loc else "the workload", error["type"], repr(error.get("input"))
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = list(fields)
        close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
        fix = f"did you mean {close[0]}?" if close else "remove it"
        return Problem(f"unknown key {name}", where=where(loc), expected=", ".join(allowed), fix=fix)
    if kind == "literal_error":
        allowed_values = _choices(fields[name].annotation)
        close = difflib.get_close_matches(str(error.get("input")), allowed_values, n=1)
        fix = f"did you mean {close[0]}?" if close else "take one of these"
        return Problem(
            f"{name} has no such value", where=where(loc), expected=" or ".join(allowed_values), got=got, fix=fix
        )
    bounds = {
        "greater_than_equal": ("ge", "at least"),
        "less_than_equal": ("le", "at most"),
        "greater_than": ("gt", "more than"),
    }
    if kind in bounds:
        key, words = bounds[kind]
        expected = f"{words} {context[key]}"
        return Problem(f"{name} is out of range", where(loc), expected, got, "give one within it")
    if kind == "too_short":
        return Problem(f"{name} is empty", where(loc), "at least one value", got, "give one, or leave it out")
    if kind in _KINDS:
        return Problem(f"{name} is of the wrong type", where(loc), _KINDS[kind], got, "write it so")
    fix = "docs/reference/bench-repo.md has what it may be"
    return Problem(f"{name} cannot be used", where(loc), str(error["msg"]), got, fix)


def _choices(annotation: Any) -> tuple[str, ...]:
    """The values of a literal, or of a tuple of them."""
    values = get_args(annotation)
    return values if all(isinstance(value, str) for value in values) else get_args(values[0])
