"""Rules that see all models of the repositories at once: one table, ``REPOSITORY_RULES``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from builder.check.model import ModelOnDisk
from builder.ensemble.adapters import graph_of_config, step_model_of_config
from builder.ensemble.checks import check
from builder.ensemble.graph import StepModel
from builder.ensemble.rules import RULES as ENSEMBLE_RULES
from builder.rules.rule import Hit, Rule

Found = tuple[str, Rule, Hit]
RepositoryRule = tuple[tuple[Rule, ...], Callable[[Sequence[ModelOnDisk], bool], Iterable[Found]]]
"""The rules of a room and its one function: of the models, and whether to judge as if their files were there; it gives
the model's name, the rule, and what it found."""


def ensembles(models: Sequence[ModelOnDisk], config_only: bool) -> Iterator[Found]:
    """Every ensemble against the models of its steps."""
    known = {model.name: _step_model(model, config_only) for model in models}
    for model in models:
        if model.config is None or not model.config.HasField("ensemble_scheduling"):
            continue
        config = model.config
        if not config.name:  # the folder's name is the model's
            config = type(config)()
            config.CopyFrom(model.config)
            config.name = model.name
        for rule, hit in check(graph_of_config(config, known)):
            yield model.name, rule, hit


def _step_model(model: ModelOnDisk, config_only: bool) -> StepModel:
    """A model as a step sees it; one whose configuration cannot be read is there, and nothing else is known of it."""
    versions = None if config_only else model.versions
    served = None if config_only or model.config is None else model.served
    if model.config is None:
        return StepModel(model.name, 0, None, None, versions=None if versions is None else tuple(versions))
    made = step_model_of_config(model.config, versions=versions, served=served)
    return replace(made, name=model.name, format="onnx" if model.backend == "onnxruntime" else made.format)


REPOSITORY_RULES: tuple[RepositoryRule, ...] = ((ENSEMBLE_RULES, ensembles),)
