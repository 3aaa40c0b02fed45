"""pydantic's errors in the words of the spec: file, line, key path, what was got, what is allowed.

So that one mistake hides no other, a misspelt key is then taken for the one that was meant, and the spec is looked at
again: what is wrong below it, and what only shows in a whole model, is found in the same round.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from builder.findings import Findings, KeyPath, nearest
from builder.spec.yaml_source import Document, spell
from builder.triton_fields import DECIDED, top_level_names
from serving.errors import Problem

Model = TypeVar("Model", bound=BaseModel)
MAX_PROBLEMS = 100
_LOOKED_AT = 1000
_ROUNDS = 6
_MEANT = 0.75  # how much a key must look like another to be taken for it
_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "tuple_type": "a list: [...]",
    "list_type": "a list: [...]",
}
_LIMITS = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}


def validated(model: type[Model], document: Document) -> tuple[Model | None, list[Problem]]:
    """The document as ``model``, and everything that is wrong with it.

    Args:
        model: the pydantic model of the whole file.
        document: a mapping; unknown keys are renamed or taken out of its data.

    Returns:
        The model, or None where it could not be made; it is to be used only if there are no problems.
    """
    problems: list[Problem] = []
    for _ in range(_ROUNDS):
        try:
            return model.model_validate(document.data), problems
        except ValidationError as exc:
            errors = exc.errors(include_url=False)
        unknown = [error for error in errors if error["type"] == "extra_forbidden"]
        found = unknown[:_LOOKED_AT] or errors
        problems += [problem for error in found for problem in _problems(error, document, model)]
        if not unknown or len(unknown) > _LOOKED_AT:
            break
        for error in unknown:
            _mend(document, _written(error["loc"], document), model)
    return None, problems


def in_order(problems: Sequence[Problem], path: Path) -> list[Problem]:
    """Problems in the order of the file, one for each place and sentence, at most :data:`MAX_PROBLEMS`."""
    places: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        places.setdefault((problem.where, problem.what), problem)
    ordered = sorted(places.values(), key=lambda problem: _line(problem.where.removeprefix(str(path))))
    if len(ordered) > MAX_PROBLEMS:
        rest = len(ordered) - MAX_PROBLEMS
        ordered = [*ordered[:MAX_PROBLEMS], Problem(f"and {rest} more", fix="mend these first")]
    return ordered


def _line(where: str) -> int:
    number = re.match(r":([0-9]+)", where)
    return int(number[1]) if number else 0


def _mend(document: Document, path: KeyPath, root: type[BaseModel]) -> None:
    """Rename an unknown key to the one that was meant, or take it out."""
    name = str(path[-1])
    elsewhere = any(_homes(name, root, ""))
    meant = None if elsewhere else nearest(name, allowed_keys(root, path[:-1]), cutoff=_MEANT)
    parent = document.data
    for part in path[:-1]:
        parent = parent[part]
    value = parent.pop(path[-1])
    if meant is not None and meant not in parent:
        parent[meant] = value
        document.rename(path, meant)


def _problems(error: Any, document: Document, root: type[BaseModel]) -> Iterator[Problem]:
    """One problem for one of pydantic's errors; several where it holds :class:`Findings`."""
    path = _written(error["loc"], document)
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, Findings):
        for found in cause.findings:
            where = document.where((*path, *found.path))
            yield Problem(found.what, where, found.expected, found.got, found.fix)
        return
    yield _problem(error, path, document, root)


def _written(loc: KeyPath, document: Document) -> KeyPath:
    """A place as the user wrote it: one mapping, or one name, that stands for a list of one has no index."""
    path: list[str | int] = []
    value = document.data
    for part in loc:
        if part == "[key]" or (isinstance(part, int) and not isinstance(value, list)):
            continue
        path.append(part)
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
    return tuple(path)


def _problem(error: Any, path: KeyPath, document: Document, root: type[BaseModel]) -> Problem:
    where, kind = document.where(path), error["type"]
    name = str(path[-1]) if path else "the spec"
    if kind == "extra_forbidden":
        parent = spell(path[:-1]) or "the spec"
        allowed = allowed_keys(root, path[:-1])
        fix = _where_else(name, path[:-1], allowed, root)
        return Problem(f"unknown key `{name}`", where, f"in {parent}: {', '.join(allowed)}", fix=fix)
    if kind == "missing":
        return Problem(f"`{name}` is missing", document.where(path[:-1]), expected=f"{spell(path)}: ...")
    got = spelled(error.get("input"))
    context = error.get("ctx", {})
    if kind in _TYPES:
        fix = _type_fix(kind, error.get("input"), name, document.texts.get(path))
        return Problem(f"`{name}` is of the wrong type", where, _TYPES[kind], got, fix)
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return Problem(f"`{name}` is out of range", where, f"{words} {context[key]:g}", got)
    if kind == "literal_error":
        choices = [str(choice) for choice in re.findall(r"'([^']+)'", context["expected"])]
        close = nearest(str(error.get("input")), choices)
        fix = f"did you mean {close}?" if close else ""
        return Problem(f"`{name}` has no such choice", where, ", ".join(choices), got, fix)
    if kind == "too_short":
        return Problem(f"`{name}` is empty", where, "at least one", got)
    return Problem(f"`{name}`: {error['msg'][:1].lower()}{error['msg'][1:]}", where, got=got)


def _type_fix(kind: str, value: Any, name: str, text: str | None) -> str:
    if kind == "string_type" and text:
        return f'put it in quotes: "{text}"'
    if kind == "string_type" and isinstance(value, (list, dict)):
        return "put it in quotes: YAML gives [ ] { } a meaning"
    if kind == "model_type" and isinstance(value, str) and name in ("source", "samples", "evaluate"):
        return f'{name}: {{python: "{value}"}}'
    if kind in ("tuple_type", "list_type") and isinstance(value, (str, int)):
        return f"{name}: [{spelled(value)}]"
    return ""


def _where_else(name: str, path: KeyPath, allowed: list[str], root: type[BaseModel]) -> str:
    """What to write instead of an unknown key: the nearest one, or where it belongs."""
    homes = list(_homes(name, root, ""))
    if homes:
        return f"`{name}` belongs into {' or '.join(homes)}"
    close = nearest(name, allowed, cutoff=_MEANT)
    if close:
        return f"did you mean `{close}`?"
    in_a_model = len(path) == 2 and path[0] == "models"
    if in_a_model and name in DECIDED:
        return f"{DECIDED[name]} decides that"
    if in_a_model and name in top_level_names():
        return f"Triton's own fields go into `config`: config: {{{name}: ...}}"
    close = nearest(name, allowed)
    return f"did you mean `{close}`?" if close else ""


def _homes(name: str, model: type[BaseModel], path: str) -> Iterator[str]:
    """The parts of a spec that do have a key of this name, in words."""
    if name in _keys(model):
        yield f"`{path}`" if path else "the top level"
    for key, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is not None:
            below = "models.NAME" if key == "models" else f"{path}.{key}".removeprefix("models.NAME.")
            yield from _homes(name, inner, below)


class _Short(reprlib.Repr):
    """Values as a reader of YAML writes them, cut short."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxlong = self.maxother = 80

    def repr1(self, x: Any, level: int) -> str:
        if x is None or isinstance(x, bool):
            return {None: "nothing", True: "true", False: "false"}[x]
        return super().repr1(x, level)


def spelled(value: Any) -> str:
    """A value as a reader of YAML would write it, cut short."""
    return _Short().repr(value)


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def allowed_keys(root: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys that the mapping at ``path`` may have, following the models' own annotations."""
    current: Any = root
    for part in path:
        current = _below(current, part)
    model = _model_in(current)
    return _keys(model) if model else []


def _below(annotation: Any, part: str | int) -> Any:
    """The annotation of what is under ``part`` of something that is annotated so."""
    if isinstance(part, int):
        return _item(annotation)
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    model = _model_in(annotation)
    fields = model.model_fields.items() if model else ()
    return next((field.annotation for name, field in fields if part == (field.alias or name)), None)


def _item(annotation: Any) -> Any:
    """The annotation of what is in a ``tuple[X, ...]``, which may be one of several choices."""
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0]
    return next((found for inner in get_args(annotation) if (found := _item(inner)) is not None), None)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside ``dict[str, Model]``, ``Model | None`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
