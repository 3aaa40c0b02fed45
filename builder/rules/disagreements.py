"""Where `check-repo` and the real server are known to differ, and why it is left so: data for the rules' pages.

`make differential` holds both against each other; what it finds is mended, or explained here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Disagreement:
    """One kind of difference.

    Attributes:
        rule: on whose page it is explained.
        server: a regular expression for what the server says where it refuses and `check-repo` does not; empty where
            it is the other way round and the rule finds an error in what the server loads.
        why: the explanation, one sentence or two.
    """

    rule: str
    why: str
    server: str = ""

    def fits(self, reason: str, rules: Collection[str]) -> bool:
        """Whether this explains a case with the server's ``reason``, and the ``rules`` that found errors in it."""
        if self.server:
            return not rules and bool(reason) and re.search(self.server, reason) is not None
        return not reason and self.rule in rules


DISAGREEMENTS: tuple[Disagreement, ...] = (
    Disagreement(
        "python-environment",
        "An absolute path is one of the server's machine, or of its container: whether the environment is there cannot "
        "be told from here.",
        server=r"Failed to get the canonical path for /",
    ),
    Disagreement(
        "python-auto-complete",
        "What `auto_complete_config` sets, and whether that contradicts the configuration, only running it tells.",
        server=r"auto-complete-config function for model .* tries to set",
    ),
    Disagreement(
        "python-raises",
        "A python model that fails at a warmup request ends the server of release 24.10 (signal 11): whether `execute` "
        "raises, only running it tells.",
        server=r"^Signal \(11\)",
    ),
)


def explained(rule: str) -> tuple[Disagreement, ...]:
    """The known differences of a rule."""
    return tuple(known for known in DISAGREEMENTS if known.rule == rule)
