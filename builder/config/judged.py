"""A decided configuration held against what Triton refuses, each finding at the key of the spec that it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.config.model_config import ModelConfig, decide
from builder.errors import ConfigError
from builder.findings import Finding, KeyPath
from builder.releases import RELEASES
from builder.spec import ModelSpec, Spec
from builder.spec.yaml_source import Document, spell
from builder.triton_fields import message_of
from builder.variants import VARIANTS
from serving.errors import MissingDependencyError, Problem

_KEYS: dict[str, str] = {
    "instance_group": "instances",
    "version_policy": "versions",
    "model_warmup": "warmup",
    "optimization": "optimization",
    "model_transaction_policy": "decoupled",
    "model_repository_agents": "agents",
    "model_metrics": "metrics",
    "metric_tags": "metric_tags",
    "parameters": "parameters",
    "model_operations": "operations",
    "response_cache": "response_cache",
}
"""Fields of ``ModelConfig`` and the short forms that set them."""
_SEQUENCE = {"iterative_sequence": "iterative"}
_BATCH = {"preferred_batch_size": "preferred"}


def findings_of(config: ModelConfig, model: ModelSpec, server: str | None = None) -> list[Finding]:
    """What Triton refuses of it; paths begin at the model. Nothing where it is no valid message: render says so.

    Args:
        config: as it was decided.
        model: what the spec says.
        server: the Triton release that it is for; None for any.

    Raises:
        MissingDependencyError: tritonclient is not installed.
    """
    from builder.rules import config_hits

    placed = config if config.version is not None else config.at(1)
    found: list[Finding] = []
    for host in ("", *placed.hosts):
        judged = placed.on(host) if host else placed
        try:
            message = message_of(judged.tree)
        except ValueError:
            continue
        for rule, hit in config_hits(message, release=RELEASES.get(server or ""), warnings=False):
            path = spec_path(hit.path, judged.tree, model)
            if host and any(each.what == hit.message for each in found):
                continue  # said of the configuration that it is made of
            expected = f"what Triton takes (rule {rule.id}, explained by check-repo --explain {rule.id})"
            at = ("hosts", host, *hit.path) if host else path
            found.append(Finding(hit.message, expected, fix=hit.fix or rule.fix, path=at))
    return found


def spec_path(path: KeyPath, tree: Mapping[str, Any], model: ModelSpec) -> KeyPath:
    """The key of a model's entry that a field of its configuration comes from.

    Args:
        path: of the field, from the top of ``ModelConfig``.
        tree: the decided configuration.
        model: what the spec says.
    """
    if not path:
        return ()
    key, rest = str(path[0]), path[1:]
    if key in model.config:
        return ("config", *path)
    if key == "max_batch_size":
        return ("batch", "max")
    if key == "dynamic_batching":
        return ("batch", _BATCH.get(str(rest[0]), rest[0]), *rest[1:]) if rest else ("batch",)
    if key == "sequence_batching":
        return ("sequence", *_of_sequence(rest, tree))
    if key in ("input", "output", "batch_input", "batch_output"):
        return _of_tensor(key, rest, tree, model)
    if key in _KEYS and getattr(model, _KEYS[key], None):
        return (_KEYS[key], *rest)
    return ()


def _of_sequence(rest: KeyPath, tree: Mapping[str, Any]) -> KeyPath:
    if rest[:1] == ("control_input",):
        controls = tree["sequence_batching"].get("control_input", ())
        index = rest[1] if len(rest) > 1 else None
        return ("controls", controls[index]["name"]) if isinstance(index, int) else ("controls",)
    return (_SEQUENCE.get(str(rest[0]), rest[0]), *rest[1:]) if rest else ()


def _of_tensor(key: str, rest: KeyPath, tree: Mapping[str, Any], model: ModelSpec) -> KeyPath:
    index = rest[0] if rest else None
    entries = tree.get(key) or ()
    if not isinstance(index, int) or index >= len(entries):
        return ()
    entry = entries[index]
    name = entry["target_name"][0] if key.startswith("batch_") else entry["name"]
    if name in model.tensors:
        return ("tensors", name, *rest[1:])
    return (f"{key.removeprefix('batch_')}s", name)


def require_sound(config: ModelConfig, model: ModelSpec, name: str, server: str | None = None) -> None:
    """For what only the artifact tells: the configuration as it was decided in the end.

    Raises:
        ConfigError: Triton would refuse it; with the first thing that is wrong, and its key in the spec.
    """
    for found in findings_of(config, model, server)[:1]:
        where = spell(("models", name, *found.path))
        raise ConfigError(found.what, where=where, expected=found.expected, got=found.got, fix=found.fix)


def problems_of(spec: Spec, document: Document) -> list[Problem]:
    """What Triton refuses of the configurations that the spec asks for, as far as it declares their tensors.

    Args:
        spec: read, and without problems of its own.
        document: it knows the lines.
    """
    problems = []
    for name, model in spec.models.items():
        try:
            found = _declared(name, model, spec)
        except MissingDependencyError:  # what needs it says so
            return []
        for each in found:
            where = document.where(("models", name, *each.path))
            problems.append(Problem(each.what, where, each.expected, each.got, each.fix))
    return problems


def _declared(name: str, model: ModelSpec, spec: Spec) -> list[Finding]:
    interface = model.declared
    if model.ensemble is not None or not (interface.inputs and interface.outputs) or not _asks(model):
        return []
    fmt = "python" if model.source is not None and model.source.kind == "python_model" else _format(model)
    try:
        config = decide(name, model, interface, fmt=fmt, sizes={}, folder=spec.folder)
    except ConfigError as error:
        key = error.where.removesuffix(" in the spec")
        path = tuple(key.split(".")) if key != error.where else ()
        return [Finding(error.what, error.expected, error.got, error.fix, path)]
    return findings_of(config, model, spec.server)


def _asks(model: ModelSpec) -> bool:
    """Whether anything is asked for that could be refused: what is decided without is known to be right."""
    keys = (
        "hosts",
        "metrics",
        "decoupled",
        "response_cache",
        "parameters",
        "labels",
        "batch",
        "instances",
        "sequence",
        "tensors",
        "versions",
        "warmup",
        "optimization",
        "config",
        "agents",
    )
    return bool(
        model.model_fields_set & {*keys, "hosts", "metrics", "decoupled", "response_cache", "parameters", "labels"}
    )


def _format(model: ModelSpec) -> str:
    name = model.served if model.served in VARIANTS else model.variants[0]
    return VARIANTS[name].format
