"""From a PyTorch module to a verified Triton model repository.

``load_spec`` reads a ``models.yaml``, ``plan`` says what a build would do, ``build`` does it. Imported lazily: neither
torch nor tritonclient is needed to import this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.api import build, load_spec
    from builder.options import Options
    from builder.outcome import BuildReport, ModelResult
    from builder.planning import Plan, plan

__all__ = ["BuildReport", "ModelResult", "Options", "Plan", "build", "load_spec", "plan"]

_HOMES = {
    "BuildReport": "builder.outcome",
    "ModelResult": "builder.outcome",
    "Options": "builder.options",
    "Plan": "builder.planning",
    "build": "builder.api",
    "load_spec": "builder.api",
    "plan": "builder.planning",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
