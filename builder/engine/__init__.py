"""ONNX to TensorRT engines: which GPUs, which shapes, which library, and the build itself in a process of its own.

The room imports no other stage. Nothing in it but :mod:`builder.engine.tensorrt` imports TensorRT, and that runs only
in the process that :func:`builder.engine.building.engine_from_onnx` starts.
"""

from __future__ import annotations

from builder.engine.building import Built, engine_from_onnx
from builder.engine.in_container import container_command, run_in_container
from builder.engine.inspection import describe_engine
from builder.engine.library import Missing, available, library_version
from builder.engine.options import EngineOptions
from builder.engine.profiles import profiles_of
from builder.engine.running import engine_answers
from builder.engine.targets import engine_file, resolve_targets

__all__ = [
    "Built",
    "EngineOptions",
    "Missing",
    "available",
    "container_command",
    "describe_engine",
    "engine_answers",
    "engine_file",
    "engine_from_onnx",
    "library_version",
    "profiles_of",
    "resolve_targets",
    "run_in_container",
]
