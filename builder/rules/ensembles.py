"""Rules about an ensemble's fields; its steps and how they are wired are judged in ``builder/ensemble/``."""

from __future__ import annotations

from collections.abc import Iterator

from builder.rules.rule import Hit, Rule
from builder.rules.subject import ENSEMBLE, ConfigRule, Subject

_AT = "ensemble_scheduling"
_STEP = (
    'ensemble_scheduling { step [ { model_name: "a", model_version: -1\n'
    '  input_map { key: "in", value: "x" }, output_map { key: "out", value: "y" } } ] }'
)
_TENSORS = (
    'input [ { name: "x", data_type: TYPE_FP32, dims: [4] } ]\n'
    'output [ { name: "y", data_type: TYPE_FP32, dims: [4] } ]\n'
)
_GOOD = f'platform: "ensemble"\n{_TENSORS}{_STEP}'


PLATFORM = Rule(
    id="ensemble-platform",
    severity="error",
    title='ensemble_scheduling and platform: "ensemble" do not come together',
    reason='"ensemble scheduling cannot be set for model .. whose platform is not ensemble", "ensemble scheduling must '
    'be set for ensemble".',
    fix='Write both: platform: "ensemble" and ensemble_scheduling { step [ ... ] }.',
    bad=_STEP,
    good=_GOOD,
)


def ensemble_platform(subject: Subject) -> Iterator[Hit]:
    """Either without the other."""
    config = subject.config
    if config.HasField(_AT) and config.platform != ENSEMBLE:
        got = f"platform `{config.platform}`" if config.platform else "no platform"
        yield Hit(
            f"ensemble_scheduling with {got}",
            'write platform: "ensemble"',
            ("platform",) if config.platform else (_AT,),
        )
    elif config.platform == ENSEMBLE and not config.HasField(_AT):
        yield Hit(
            "an ensemble without ensemble_scheduling", "write ensemble_scheduling { step [ ... ] }", ("platform",)
        )


FIELDS = Rule(
    id="ensemble-field",
    severity="error",
    title="an ensemble with fields that only its steps' models have",
    reason='"instance group should not be specified for ensemble", "optimization should not be specified", '
    '"model_warmup can not be specified": an ensemble computes nothing itself.',
    fix="Move the field to the models of the steps.",
    bad=_GOOD + "\ninstance_group [ { count: 2 } ]",
    good=_GOOD,
)


def ensemble_field(subject: Subject) -> Iterator[Hit]:
    """Three fields."""
    config = subject.config
    if not config.HasField(_AT):
        return
    there = {
        "instance_group": bool(config.instance_group),
        "optimization": config.HasField("optimization"),
        "model_warmup": bool(config.model_warmup),
    }
    for field in (field for field, is_there in there.items() if is_there):
        yield Hit(f"an ensemble has no {field}", f"move {field} to the models of the steps", (field,))


RULES: tuple[ConfigRule, ...] = (
    (PLATFORM, ensemble_platform),
    (FIELDS, ensemble_field),
)
