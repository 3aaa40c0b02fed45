"""Rules that see all models of the repositories at once: one table, ``REPOSITORY_RULES``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from builder.check.model import ModelOnDisk
from builder.rules.rule import Hit, Rule

RepositoryRule = tuple[tuple[Rule, ...], Callable[[Sequence[ModelOnDisk]], Iterable[tuple[str, Rule, Hit]]]]
"""The rules of a room, and its one function: the model's name, the rule, what it found."""

REPOSITORY_RULES: tuple[RepositoryRule, ...] = ()
