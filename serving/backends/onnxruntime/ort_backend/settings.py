"""What ``config.pbtxt`` asks of this backend, read once into plain values.

The spellings, defaults and error texts follow NVIDIA's ONNX Runtime backend, so that a repository means the same
behind both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_FILENAME = "model.onnx"
DEFAULT_MAX_BATCH_SIZE = 4
RUN_ENTRIES = ("memory.enable_memory_arena_shrinkage",)
SESSION_PREFIX = "session."
# Parameters of the official backend from before it took them as a "cuda" execution accelerator.
LEGACY_CUDA = ("cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream")


class ConfigError(ValueError):
    """The model configuration cannot be honoured; the message is what the server reports."""


@dataclass(frozen=True)
class Accelerator:
    """One entry of ``optimization.execution_accelerators``."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """How to create and run the session.

    Attributes:
        graph_level: ``optimization.graph.level`` as written (-1, 0, 1, 2); 0 when absent.
        execution_mode: 0 sequential, 1 parallel.
        intra_op_thread_count: 0 lets ONNX Runtime choose.
        inter_op_thread_count: 0 lets ONNX Runtime choose.
        enable_mem_arena: None when absent.
        enable_mem_pattern: None when absent.
        session_entries: ``session.*`` parameters, passed to ONNX Runtime as they are.
        run_entries: run options, likewise.
        gpu_accelerators: in the order of the configuration.
        cpu_accelerators: in the order of the configuration.
        cuda_options: the older way to set options of the CUDA provider.
        op_libraries: custom operator libraries, registered before the model is loaded; see :func:`op_libraries`.
    """

    graph_level: int = 0
    execution_mode: int = 0
    intra_op_thread_count: int = 0
    inter_op_thread_count: int = 0
    enable_mem_arena: bool | None = None
    enable_mem_pattern: bool | None = None
    session_entries: Mapping[str, str] = field(default_factory=dict)
    run_entries: Mapping[str, str] = field(default_factory=dict)
    gpu_accelerators: Sequence[Accelerator] = ()
    cpu_accelerators: Sequence[Accelerator] = ()
    cuda_options: Mapping[str, str] = field(default_factory=dict)
    op_libraries: Sequence[str] = ()


def parameter_strings(config: Mapping[str, Any]) -> dict[str, str]:
    """``parameters`` of a model configuration as ``{key: string_value}``."""
    parameters = config.get("parameters") or {}
    return {key: str(value.get("string_value", "")) for key, value in parameters.items()}


def parse_int(parameters: Mapping[str, str], key: str, default: int = 0) -> int:
    """An integer parameter; :class:`ConfigError` when it is none."""
    text = parameters.get(key)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"failed to convert parameter '{key}' to an integer: its value is '{text}'") from None


def parse_bool(parameters: Mapping[str, str], key: str) -> bool | None:
    """A boolean parameter, None when absent; :class:`ConfigError` when it is neither true, false, 1 nor 0."""
    text = parameters.get(key)
    if text is None:
        return None
    value = {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower())
    if value is None:
        raise ConfigError(
            f"failed to convert parameter '{key}' to a boolean: its value is '{text}', not 0, 1, true, false"
        )
    return value


def op_libraries(config: Mapping[str, Any], version_dir: Path) -> tuple[str, ...]:
    """The custom operator libraries of a configuration.

    NVIDIA's backend hands the names to the system's loader as they are. Here a relative one that lies in the version
    folder, or in the model's, is that file.
    """
    names = (config.get("model_operations") or {}).get("op_library_filename") or ()
    found = []
    for name in names:
        beside = (folder / name for folder in (version_dir, version_dir.parent))
        found.append(str(next((path for path in beside if path.is_file()), name)))
    return tuple(found)


def settings_from_config(config: Mapping[str, Any], version_dir: Path) -> Settings:
    """Reads everything this backend takes from a model configuration (as Triton's JSON)."""
    parameters = parameter_strings(config)
    execution_mode = parse_int(parameters, "execution_mode")
    if execution_mode not in (0, 1):
        raise ConfigError(
            "Invalid configuration value provided. Expected values for execution_mode are 0 or 1 "
            f"but got {execution_mode}."
        )
    optimization = config.get("optimization") or {}
    accelerators = optimization.get("execution_accelerators") or {}
    return Settings(
        graph_level=int((optimization.get("graph") or {}).get("level", 0)),
        execution_mode=execution_mode,
        intra_op_thread_count=parse_int(parameters, "intra_op_thread_count"),
        inter_op_thread_count=parse_int(parameters, "inter_op_thread_count"),
        enable_mem_arena=parse_bool(parameters, "enable_mem_arena"),
        enable_mem_pattern=parse_bool(parameters, "enable_mem_pattern"),
        session_entries={key: value for key, value in parameters.items() if key.startswith(SESSION_PREFIX)},
        run_entries={key: parameters[key] for key in RUN_ENTRIES if key in parameters},
        gpu_accelerators=_accelerators(accelerators.get("gpu_execution_accelerator")),
        cpu_accelerators=_accelerators(accelerators.get("cpu_execution_accelerator")),
        cuda_options={key: parameters[key] for key in LEGACY_CUDA if key in parameters},
        op_libraries=op_libraries(config, version_dir),
    )


def _accelerators(entries: Sequence[Mapping[str, Any]] | None) -> tuple[Accelerator, ...]:
    return tuple(
        Accelerator(str(entry.get("name", "")), {k: str(v) for k, v in (entry.get("parameters") or {}).items()})
        for entry in entries or ()
    )


def model_file(version_dir: Path, config: Mapping[str, Any]) -> Path:
    """The ONNX file of a version folder; where ``default_model_filename`` is a folder, its ``model.onnx``."""
    path = version_dir / (config.get("default_model_filename") or DEFAULT_FILENAME)
    if path.is_dir():
        path = path / DEFAULT_FILENAME
    if not path.exists():
        raise ConfigError(f"unable to find '{path}' for model '{config.get('name', '')}'")
    return path


def backend_options(command_line: Sequence[str], backend: str = "onnxruntime") -> dict[str, str]:
    """``--backend-config`` settings for this backend, from the server's command line.

    Triton does not hand them to a Python-based backend. A setting without a backend name holds for all backends; one
    with our name wins over it.
    """
    ours: dict[str, str] = {}
    everyones: dict[str, str] = {}
    arguments = iter(command_line)
    for argument in arguments:
        if not argument.startswith("--backend-config"):
            continue
        value = argument.partition("=")[2] if "=" in argument else next(arguments, "")
        name, comma, setting = value.partition(",")
        key, _, text = (setting if comma else name).partition("=")
        if not comma:
            everyones[key] = text
        elif name == backend:
            ours[key] = text
    return {**everyones, **ours}


def server_command_line() -> list[str]:
    """The arguments of the server that started this stub; empty where they cannot be read."""
    try:
        raw = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(part) for part in raw.split(b"\0") if part]
