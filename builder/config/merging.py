"""What a user writes under ``config``, over what is decided: by the structure of Triton's own messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.errors import ConfigError
from builder.triton_fields import is_map, model_config_class


def merged(tree: Mapping[str, Any], asked: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The asked fields over the decided ones: blocks are merged, lists replaced, inputs and outputs merged by name.

    Of fields that exclude each other (``dynamic_batching`` and ``sequence_batching``) the one that was asked for stays.

    Raises:
        ConfigError: ``input`` or ``output`` names a tensor that the model does not have.
    """
    if not asked:
        return dict(tree)
    asked = dict(asked)
    for key in ("input", "output"):
        if key in asked:
            asked[key] = _tensors(tree.get(key, ()), asked[key], key, name)
    return _block(tree, asked, model_config_class().DESCRIPTOR)


def _block(ours: Mapping[str, Any], theirs: Mapping[str, Any], descriptor: Any) -> dict[str, Any]:
    result = dict(ours)
    for key, value in theirs.items():
        field = descriptor.fields_by_name.get(key) if descriptor is not None else None
        oneof = field.containing_oneof if field is not None else None
        for other in oneof.fields if oneof is not None and value is not None else ():
            if other.name != key and other.name not in theirs:
                result.pop(other.name, None)
        known = result.get(key)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            below = None if field is None or is_map(field) else field.message_type
            result[key] = _block(known, value, below)
        else:
            result[key] = value
    return result


def _tensors(ours: Any, theirs: Any, key: str, name: str) -> list[dict[str, Any]]:
    by_name = {tensor["name"]: dict(tensor) for tensor in ours}
    for entry in theirs if isinstance(theirs, list) else [theirs]:
        tensor = entry.get("name") if isinstance(entry, Mapping) else None
        if tensor not in by_name:
            raise ConfigError(
                f"config.{key} of {name} names {tensor!r}, which the model does not have",
                expected=", ".join(by_name),
                fix="give each entry the `name` of one of them",
            )
        by_name[str(tensor)].update(entry)
    return list(by_name.values())
