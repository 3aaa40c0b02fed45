"""``overrides.yaml`` beside a spec: what ``tune-repo`` found, laid over the entries of the models that it names.

It is laid over the data as it was read, before anything is checked: what does not fit is reported like any other
mistake, with the file and line of the override. Keys are those of ``models.yaml``; a field under ``config`` that says
the same as an overridden short form gives way to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from builder.findings import KeyPath, did_you_mean
from builder.spec.yaml_source import Document, read
from serving.errors import Problem

NAME = "overrides.yaml"
KEYS = ("serve", "batch", "instances", "parameters", "optimization", "config")
"""What may be overridden of a model's entry: what decides how it is served, not what it is."""

_IN_CONFIG: dict[KeyPath, KeyPath] = {
    ("batch", "preferred"): ("dynamic_batching", "preferred_batch_size"),
    ("batch", "max_queue_delay_microseconds"): ("dynamic_batching", "max_queue_delay_microseconds"),
    ("instances",): ("instance_group",),
    ("parameters",): ("parameters",),
}
"""Short forms, and the fields under ``config`` that would win over them."""


def overrides_path(spec: Path) -> Path:
    """``overrides.yaml`` for ``models.yaml``, and ``NAME.overrides.yaml`` for ``NAME.yaml``."""
    return spec.with_name(NAME if spec.stem == "models" else f"{spec.stem}.{NAME}")


def apply_overrides(document: Document) -> tuple[str, ...]:
    """Lay the overrides beside a spec over it; what is wrong with them is added to its problems.

    Returns:
        The models that are overridden.

    Raises:
        SpecError: the file is there and cannot be read, or is no YAML.
    """
    path = overrides_path(document.path)
    if not path.exists() and not path.is_symlink():
        return ()
    overrides = read(path)
    document.problems += overrides.problems
    document.problems += _misfits(overrides, document)
    entries = overrides.data.get("models") if isinstance(overrides.data, dict) else None
    models = document.data.get("models") if isinstance(document.data, dict) else None
    if not isinstance(entries, dict) or not isinstance(models, dict):
        return ()
    applied = []
    for name, entry in entries.items():
        if isinstance(entry, dict) and isinstance(models.get(name), dict):
            models[name] = _overridden(models[name], {key: entry[key] for key in KEYS if key in entry})
            document.take(overrides, ("models", name))
            applied.append(name)
    return tuple(applied)


def _misfits(overrides: Document, document: Document) -> Iterator[Problem]:
    fix = "tune-repo writes this file: run it again, or take the file away"
    data = overrides.data
    if data is None:
        return
    if not isinstance(data, dict):
        yield Problem("these are no overrides", overrides.where(()), expected="`models:`, a mapping", fix=fix)
        return
    for key in data:
        if key not in ("models", "evidence"):
            where = overrides.where((key,))
            yield Problem(f"unknown key {key!r} in the overrides", where, expected="models, evidence", fix=fix)
    entries = data.get("models") or {}
    if not isinstance(entries, dict):
        yield Problem("`models` is no mapping", overrides.where(("models",)), expected="models: {NAME: ...}", fix=fix)
        return
    known = document.data.get("models") if isinstance(document.data, dict) else None
    for name, entry in entries.items():
        at: KeyPath = ("models", name)
        if isinstance(known, dict) and name not in known:
            what = f"the overrides are for a model {name!r}, which the spec does not have"
            close = did_you_mean(name, known) or f"take {name} out of {overrides.path.name}"
            yield Problem(what, overrides.where(at), expected=", ".join(known), got=name, fix=close)
        elif not isinstance(entry, dict):
            yield Problem("an override is no mapping", overrides.where(at), expected=f"{name}: {{KEY: ...}}", fix=fix)
        else:
            for key in entry:
                if key not in KEYS:
                    what = f"{key!r} cannot be overridden"
                    mend = did_you_mean(key, KEYS) or "write it in models.yaml"
                    yield Problem(what, overrides.where((*at, key)), expected=", ".join(KEYS), fix=mend)


def _overridden(entry: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """A model's entry with these keys over it: mappings are merged, anything else is replaced."""
    made = dict(entry)
    groups = made.get("instances")
    if isinstance(groups, list) and len(groups) == 1:
        made["instances"] = groups[0]
    made["config"] = _without(made.get("config"), asked)
    if made["config"] in (None, {}) and "config" not in entry:
        del made["config"]
    return _merged(made, asked)


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(ours)
    for key, value in theirs.items():
        known = result.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            result[key] = _merged(known, value)
        else:
            result[key] = value
    return result


def _without(config: Any, asked: Mapping[str, Any]) -> Any:
    """``config`` without what says the same as an overridden short form."""
    for short, field in _IN_CONFIG.items():
        value: Any = asked
        for part in short:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            continue
        fields = [(*field, key) for key in value] if short == ("parameters",) else [field]
        for each in fields:
            config = _dropped(config, each)
    return config


def _dropped(tree: Any, path: KeyPath) -> Any:
    if not isinstance(tree, Mapping) or path[0] not in tree:
        return tree
    if len(path) == 1:
        return {key: value for key, value in tree.items() if key != path[0]}
    return {**tree, path[0]: _dropped(tree[path[0]], path[1:])}
