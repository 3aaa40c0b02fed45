"""Rules that hold a model's files against its configuration: one table, ``ARTIFACT_RULES``.

A rule is a row ``(Rule, function)``; the function takes a :class:`builder.check.model.ModelOnDisk` and yields
:class:`builder.rules.rule.Hit`. None of them imports what it judges, nor runs any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from builder.check.artifacts.files import FILE_RULES
from builder.check.artifacts.gains import GAIN_RULES
from builder.check.artifacts.labels import LABEL_RULES
from builder.check.artifacts.onnx import ONNX_RULES
from builder.check.artifacts.onnx_operators import OPERATOR_RULES
from builder.check.artifacts.onnx_signature import SIGNATURE_RULES
from builder.check.artifacts.ours import OUR_RULES
from builder.check.artifacts.plan import PLAN_RULES
from builder.check.artifacts.python_model import PYTHON_RULES
from builder.check.artifacts.torchscript import TORCHSCRIPT_RULES
from builder.check.model import ModelOnDisk
from builder.rules.rule import Hit, Rule

ArtifactRule = tuple[Rule, Callable[[ModelOnDisk], Iterable[Hit]]]

ARTIFACT_RULES: tuple[ArtifactRule, ...] = (
    *FILE_RULES,
    *ONNX_RULES,
    *OPERATOR_RULES,
    *SIGNATURE_RULES,
    *TORCHSCRIPT_RULES,
    *PLAN_RULES,
    *PYTHON_RULES,
    *LABEL_RULES,
    *OUR_RULES,
    *GAIN_RULES,
)
