"""pydantic's errors in the words of the spec: file, line, key path, what was got, what is allowed."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from builder.yaml_source import Document, KeyPath, spell
from serving.errors import Problem

_TYPES = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "tuple_type": "a list",
    "list_type": "a list",
}


def problems_of(exc: ValidationError, document: Document, root: type[BaseModel]) -> list[Problem]:
    """One problem per pydantic error, in the order of the file."""
    problems = [_problem(error, document, root) for error in exc.errors()]
    return sorted(problems, key=lambda problem: _line(problem.where))


def _line(where: str) -> int:
    digits = where.split(",")[0].rpartition(":")[2]
    return int(digits) if digits.isdigit() else 0


def _problem(error: Any, document: Document, root: type[BaseModel]) -> Problem:
    path: KeyPath = tuple(part for part in error["loc"] if part != "[key]")
    where = document.where(path)
    kind = error["type"]
    got = _short(error.get("input"))
    name = str(path[-1]) if path else "the spec"
    if kind == "extra_forbidden":
        allowed = allowed_keys(root, path[:-1])
        close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
        fix = f"did you mean `{close[0]}`?" if close else ""
        parent = spell(path[:-1]) or "the spec"
        return Problem(f"unknown key `{name}`", where, expected=f"in {parent}: {', '.join(allowed)}", fix=fix)
    if kind == "missing":
        return Problem(f"`{name}` is missing", document.where(path[:-1]), expected=f"{spell(path)}: ...")
    if kind == "value_error":
        return Problem(str(error["ctx"]["error"]), where, fix="see docs/reference/spec.md")
    if kind in _TYPES:
        return Problem(f"`{name}` is of the wrong type", where, expected=_TYPES[kind], got=got)
    return Problem(f"`{name}`: {error['msg'][:1].lower()}{error['msg'][1:]}", where, got=got)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def allowed_keys(root: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys that the mapping at ``path`` may have, following the models' own annotations."""
    current: Any = root
    for part in path:
        model = _model_in(current)
        if model is None:
            return []
        fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
        if part in fields:
            current = fields[str(part)]
        # else: a key of the user's own (a model's name) inside dict[str, Model]: the annotation stays.
    model = _model_in(current)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside ``dict[str, Model]``, ``Model | None`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
