"""The fields of Triton's ``ModelConfig``, from the protobuf of tritonclient: what a user may write in ``config``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from serving.errors import MissingDependencyError

# Fields that the spec already decides: what to write instead.
DECIDED: dict[str, str] = {
    "name": "the model's key under `models`",
    "backend": "`variants`",
    "platform": "`variants`",
    "max_batch_size": "`batch.max`",
    "default_model_filename": "nothing: the file is always the backend's default",
    "ensemble_scheduling": "a model of its own",
}


def model_config_class() -> Any:
    """The ``ModelConfig`` message class.

    Raises:
        MissingDependencyError: tritonclient is not installed.
    """
    try:
        from tritonclient.grpc import model_config_pb2
    except ImportError as exc:
        raise MissingDependencyError("tritonclient", "serve", needed_for="to write and check config.pbtxt") from exc
    return model_config_pb2.ModelConfig


def message_of(tree: Mapping[str, Any]) -> Any:
    """A ``ModelConfig`` message from a tree of protobuf field names.

    Raises:
        ValueError: a field does not exist or has a value of the wrong type; the message names it.
    """
    from google.protobuf import json_format

    try:
        return json_format.ParseDict(dict(tree), model_config_class()())
    except json_format.ParseError as exc:
        raise ValueError(str(exc)) from exc


def field_problem(config: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """What is wrong with a user's ``config``: ``(what, expected, fix)``, or None.

    Unknown fields are found by walking the descriptors, with the nearest right name; the values are then parsed.
    """
    for name, instead in DECIDED.items():
        if name in config:
            return f"`{name}` is decided by the spec", f"{instead}", f"take `{name}` out of `config`"
    found = _unknown(config, model_config_class().DESCRIPTOR, "config")
    if found:
        return found
    named = {key: value for key, value in config.items() if key not in ("input", "output")}
    try:
        message_of(named)
    except ValueError as exc:
        return f"`config` is no valid ModelConfig: {exc}", "values as in Triton's model_config.proto", ""
    return None


def _unknown(value: Any, descriptor: Any, path: str) -> tuple[str, str, str] | None:
    if not isinstance(value, Mapping):
        return f"`{path}` is no mapping", f"the fields of {descriptor.name}", ""
    fields = descriptor.fields_by_name
    for key, inner in value.items():
        if key not in fields:
            close = difflib.get_close_matches(str(key), list(fields), n=1, cutoff=0.5)
            fix = f"did you mean `{close[0]}`?" if close else ""
            return f"ModelConfig has no field `{path}.{key}`", ", ".join(fields), fix
        below = _children(inner, fields[key])
        for child in below:
            found = _unknown(child, _block_type(fields[key]), f"{path}.{key}")
            if found:
                return found
    return None


def is_map(field: Any) -> bool:
    """True for ``map<..., ...>`` fields."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _block_type(field: Any) -> Any:
    return field.message_type.fields_by_name["value"].message_type if is_map(field) else field.message_type


def _children(value: Any, field: Any) -> list[Any]:
    """The nested blocks below a field, empty for scalars."""
    if field.message_type is None or _block_type(field) is None:
        return []
    if is_map(field):
        return list(value.values()) if isinstance(value, Mapping) else [value]
    return list(value) if isinstance(value, (list, tuple)) else [value]
