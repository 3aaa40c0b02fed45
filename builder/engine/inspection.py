"""What an engine is, as plain facts: for the manifest, and for whoever wonders where it runs."""

from __future__ import annotations

from typing import Any

from builder.engine.building import Built
from builder.engine.library import LIBRARIES
from builder.engine.targets import sm_name


def describe_engine(built: Built) -> dict[str, Any]:
    """The facts of an engine, in a stable order, ready for JSON.

    ``layers`` counts the layers of the typed network by the type they give: that is what was asked for, and a strongly
    typed build keeps to it. Which of them became one kernel only the loaded engine knows, on its GPU.
    """
    facts: dict[str, Any] = {
        "library": LIBRARIES[built.kind].title,
        "version": built.version,
        "compute_capabilities": list(built.capabilities),
        "gpus": [sm_name(capability) for capability in built.capabilities],
        "built_on": {"gpu": built.gpu.name, "driver": built.gpu.driver} if built.gpu else None,
        "profiles": [
            {name: dict(zip(("min", "opt", "max"), map(list, shapes), strict=True)) for name, shapes in profile.items()}
            for profile in built.profiles
        ],
        "size_bytes": built.size_bytes,
        "build_seconds": round(built.seconds, 3),
        "layers": dict(sorted(built.layers.items())),
        "options": {},
    }
    plain = built.options.as_dict()
    defaults = type(built.options)().as_dict()
    skipped = ("gpus", "profiles")
    facts["options"] = {name: plain[name] for name in plain if name not in skipped and plain[name] != defaults[name]}
    return facts
