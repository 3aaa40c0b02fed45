"""Which versions a server takes from a model's folder, by the ``config.pbtxt`` in place, whoever wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from builder.errors import ConfigError, ManifestError
from builder.repository.published import ModelFolder, is_pinned
from serving.errors import MissingDependencyError


def served_versions(model: ModelFolder) -> frozenset[int] | None:
    """The versions that a server serves; None where that cannot be said: no configuration, or one that does not parse.

    A configuration of ours that names one version is recognised by its bytes; any other is parsed, which takes
    tritonclient.
    """
    own = model.served()
    if own is not None and _pinned(model, own):
        return frozenset([own])
    config = model.config()
    return None if config is None else versions_under(model, config)


def versions_under(model: ModelFolder, config: bytes) -> frozenset[int] | None:
    """The versions of a model that would be served under another configuration; None if it does not parse."""
    from builder.config import parse

    try:
        policy = parse(config.decode("utf-8"), model.name).version_policy
    except (ConfigError, UnicodeDecodeError, MissingDependencyError):
        return None
    there = [number for number in model.numbers() if model.folder(number).is_dir()]
    return frozenset(_chosen(policy, there))


def _chosen(policy: Any, there: Sequence[int]) -> Sequence[int]:
    """What Triton's ``ModelVersionPolicy`` leaves of the versions that are there, rising."""
    if policy.HasField("all"):
        return there
    if policy.HasField("specific"):
        return [number for number in there if number in policy.specific.versions]
    count = policy.latest.num_versions if policy.HasField("latest") else 1
    return there[-max(count, 1) :]


def _pinned(model: ModelFolder, version: int) -> bool:
    try:
        return is_pinned(model.manifest(version))
    except ManifestError:
        return False
