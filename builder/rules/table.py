"""All rules about a configuration, and the one call that judges by them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from builder.releases import Release
from builder.rules import (
    advice,
    batch_tensors,
    batching,
    ensembles,
    groups,
    identity,
    policies,
    sequences,
    server,
    tensors,
    warmup,
)
from builder.rules.rule import Hit, Rule
from builder.rules.subject import ENSEMBLE, ConfigRule, Served, Subject, served_by

CONFIG_RULES: tuple[ConfigRule, ...] = (
    *identity.RULES,
    *tensors.RULES,
    *batching.RULES,
    *sequences.RULES,
    *groups.RULES,
    *batch_tensors.RULES,
    *warmup.RULES,
    *policies.RULES,
    *ensembles.RULES,
    *server.RULES,
    *advice.RULES,
)

_COMPLETING = ("tensorrt", "openvino", "tensorflow", "dali", "fil", "vllm", "tensorrtllm")


def completes(served: Served) -> bool | None:
    """Whether the backend may fill in a type or dims that a tensor of the configuration lacks.

    None where that hangs on a python model's code; a backend that is not known may be any.
    """
    if served.backend == "python":
        return None
    return served.backend in _COMPLETING or (not served.backend and served.platform != ENSEMBLE)


def config_hits(
    config: Any, *, name: str | None = None, release: Release | None = None, warnings: bool = True
) -> Iterator[tuple[Rule, Hit]]:
    """Everything that is wrong with a configuration, judged of the message alone.

    Args:
        config: a ``ModelConfig`` message, as it is written in the file.
        name: of the model's folder, None where its name is not to be held against it.
        release: of Triton, None for any.
        warnings: also what the server takes and serves worse than it could.
    """
    served = served_by(config)
    subject = Subject(config, served, name=name, release=release, completes=completes(served))
    for rule, look in CONFIG_RULES:
        if warnings or rule.severity == "error":
            for hit in look(subject):
                yield rule, hit
