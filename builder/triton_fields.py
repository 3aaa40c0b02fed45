"""The fields of Triton's ``ModelConfig``, from the protobuf of tritonclient: what a user may write in ``config``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from builder.findings import Finding, KeyPath, did_you_mean
from serving.errors import MissingDependencyError

_MODULE = "tritonclient.grpc.model_config_pb2"
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
        return _model_config_pb2().ModelConfig
    except ImportError as exc:
        raise MissingDependencyError("tritonclient", "serve", needed_for="to write and check config.pbtxt") from exc


def _model_config_pb2() -> ModuleType:
    """``tritonclient.grpc.model_config_pb2``, without the rest of ``tritonclient.grpc``.

    That imports gRPC, which takes 0.4 s: much for a build that finds out that it has nothing to do.
    """
    if _MODULE in sys.modules:
        return sys.modules[_MODULE]
    package = importlib.util.find_spec("tritonclient")
    for folder in (package.submodule_search_locations or ()) if package else ():
        spec = importlib.util.spec_from_file_location(_MODULE, Path(folder, "grpc", "model_config_pb2.py"))
        if spec is not None and spec.loader is not None and Path(str(spec.origin)).is_file():
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return sys.modules.setdefault(_MODULE, module)
    return importlib.import_module(_MODULE)


def top_level_names() -> list[str]:
    """The fields of ``ModelConfig`` itself; none where tritonclient is not installed."""
    try:
        return list(model_config_class().DESCRIPTOR.fields_by_name)
    except MissingDependencyError:
        return []


def message_of(tree: Mapping[str, Any]) -> Any:
    """A ``ModelConfig`` message from a tree of protobuf field names.

    Raises:
        ValueError: a field does not exist or has a value of the wrong type; the message names it.
    """
    from google.protobuf import json_format

    try:
        return json_format.ParseDict(dict(tree), model_config_class()())
    except (json_format.ParseError, TypeError, AttributeError) as exc:  # not ParseError: a list in place of a block
        raise ValueError(str(exc)) from exc


def field_findings(config: Mapping[str, Any]) -> list[Finding]:
    """Everything that is wrong with a user's ``config``; paths begin below it.

    Raises:
        MissingDependencyError: tritonclient is not installed.
    """
    found = [
        Finding(f"`{name}` is decided by the spec", instead, fix=f"take `{name}` out of `config`", path=(name,))
        for name, instead in DECIDED.items()
        if name in config
    ]
    rest = {key: value for key, value in config.items() if key not in DECIDED}
    found += _block(rest, model_config_class().DESCRIPTOR, ())
    if not found:  # what only shows in the whole: two choices of a oneof
        try:
            message_of(rest)
        except ValueError as exc:
            found.append(Finding("this is no valid ModelConfig", "one choice where there are several", str(exc)))
    return found


def is_map(field: Any) -> bool:
    """True for ``map<..., ...>`` fields."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _block(value: Mapping[Any, Any], descriptor: Any, path: KeyPath) -> Iterator[Finding]:
    fields = descriptor.fields_by_name
    for key, inner in value.items():
        at = (*path, key)
        if key not in fields:
            spelled = ".".join(str(part) for part in at if isinstance(part, str))
            names = ", ".join(fields)
            yield Finding(f"ModelConfig has no field `{spelled}`", names, fix=did_you_mean(str(key), fields), path=at)
        elif is_map(fields[key]):
            yield from _map(inner, fields[key], at)
        elif not fields[key].is_repeated:
            yield from _single(inner, fields[key], at)
        elif isinstance(inner, list):
            for index, item in enumerate(inner):
                yield from _single(item, fields[key], (*at, index))
        else:
            yield _wrong(fields[key], inner, at, "a list: [...]")


def _map(value: Any, field: Any, path: KeyPath) -> Iterator[Finding]:
    kinds = field.message_type.fields_by_name
    if not isinstance(value, Mapping):
        yield _wrong(field, value, path, "a mapping (key: value)")
        return
    for key, inner in value.items():
        at = (*path, key)
        if kinds["key"].cpp_type != kinds["key"].CPPTYPE_STRING:
            yield from _scalar(key, kinds["key"], at)
        yield from _single(inner, kinds["value"], at)


def _single(value: Any, field: Any, path: KeyPath) -> Iterator[Finding]:
    if field.message_type is None:
        yield from _scalar(value, field, path)
    elif isinstance(value, Mapping):
        yield from _block(value, field.message_type, path)
    else:
        fields = ", ".join(field.message_type.fields_by_name)
        yield _wrong(field, value, path, f"a mapping of {fields}" if fields else "an empty mapping: {}")


def _scalar(value: Any, field: Any, path: KeyPath) -> Iterator[Finding]:
    from google.protobuf import json_format, message_factory

    odd = value is None or (field.enum_type is not None and isinstance(value, bool))
    if not odd:  # protobuf's JSON takes nothing for "not set", and false for the first of an enumeration
        message = message_factory.GetMessageClass(field.containing_type)()
        try:
            json_format.ParseDict({field.name: [value] if field.is_repeated else value}, message)
        except (json_format.ParseError, TypeError, ValueError, OverflowError):
            pass
        else:
            return
    yield _wrong(field, value, path, _kind(field))


def _kind(field: Any) -> str:
    if field.enum_type is not None:
        return ", ".join(field.enum_type.values_by_name)
    low, high = _RANGES.get(field.cpp_type, (0, 0))
    return _KINDS[field.cpp_type] + (f", {low} to {high}" if high else "")


_RANGES = {1: (-(2**31), 2**31 - 1), 2: (-(2**63), 2**63 - 1), 3: (0, 2**32 - 1), 4: (0, 2**64 - 1)}
_KINDS = dict.fromkeys(_RANGES, "a whole number") | {5: "a number", 6: "a number", 7: "true or false", 9: "text"}
"""By ``FieldDescriptor.CPPTYPE_*``."""


def _wrong(field: Any, value: Any, path: KeyPath, expected: str) -> Finding:
    name = next(part for part in reversed(path) if isinstance(part, str))
    got = "nothing" if value is None else repr(value)
    fix = did_you_mean(str(value), field.enum_type.values_by_name) if field.enum_type is not None else ""
    return Finding(f"`{name}` has a wrong value", expected, got[:100], fix, path)
