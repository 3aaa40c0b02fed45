"""What Triton refuses in a ``ModelConfig``, and what makes it slow: judged of the message alone."""

from builder.rules.rule import Hit, Rule, Severity
from builder.rules.subject import ConfigRule, Served, Subject, served_by
from builder.rules.table import CONFIG_RULES, completes, config_hits

__all__ = [
    "CONFIG_RULES",
    "ConfigRule",
    "Hit",
    "Rule",
    "Served",
    "Severity",
    "Subject",
    "completes",
    "config_hits",
    "served_by",
]
