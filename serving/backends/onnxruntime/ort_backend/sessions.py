"""From :class:`~.settings.Settings` to an ``onnxruntime.InferenceSession`` with the right options and providers."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .settings import Accelerator, ConfigError, Settings

Warn = Callable[[str], None]

# optimization.graph.level -> name in onnxruntime.GraphOptimizationLevel; anything else enables all, as officially.
GRAPH_LEVELS = {-1: "ORT_ENABLE_BASIC", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL"}

ACCELERATOR_PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}

# Older parameters that count through choices which the CUDA provider spells out.
CUDA_CHOICES = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
}

# By default ONNX Runtime's threads wait for work by burning their cores, which here are the server's and often the
# client's too: MiniLM with 2 threads on 2 busy cores answered 2 to 3 times as many requests without.
NO_SPINNING = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}

# TensorRT accelerator parameters that ONNX Runtime knows by another name.
TENSORRT_NAMES = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
TENSORRT_PRECISIONS = {
    "FP32": {},
    "FP16": {"trt_fp16_enable": "1"},
    "BF16": {"trt_bf16_enable": "1"},
    "INT8": {"trt_int8_enable": "1"},
}


OPENVINO_FOLDER = "TRITON_REPO_OPENVINO"


def load_onnxruntime(settings: Settings, kind: str) -> Any:
    """The onnxruntime module: for a CPU model that asks for OpenVINO the build that has it, where the server has that.

    Each instance is a process of its own, so each can have the build that it needs. The first call decides.
    """
    folder = os.environ.get(OPENVINO_FOLDER, "")
    wanted = kind != "GPU" and any(accelerator.name == "openvino" for accelerator in settings.cpu_accelerators)
    if wanted and folder and Path(folder).is_dir() and folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module("onnxruntime")


@dataclass(frozen=True)
class Providers:
    """Execution providers in order of preference, and what could not be served."""

    names: list[str] = field(default_factory=list)
    options: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def choose_providers(model: str, settings: Settings, kind: str, device_id: int, available: Sequence[str]) -> Providers:
    """Which execution providers serve an instance of this kind.

    Args:
        model: name of the model, for messages.
        settings: what the configuration asks for.
        kind: ``CPU`` or ``GPU``.
        device_id: CUDA device of a GPU instance.
        available: ``onnxruntime.get_available_providers()``.

    Raises:
        ConfigError: a GPU instance where this ONNX Runtime has no CUDA provider.
    """
    chosen = Providers()

    def add(name: str, options: Mapping[str, str]) -> None:
        if name not in chosen.names:
            chosen.names.append(name)
            chosen.options.append(dict(options))

    def add_accelerator(accelerator: Accelerator, known: Sequence[str]) -> None:
        provider = ACCELERATOR_PROVIDERS.get(accelerator.name) if accelerator.name in known else None
        if provider is None:
            chosen.warnings.append(f"model '{model}': unknown Execution Accelerator '{accelerator.name}' is ignored")
        elif provider not in available:
            chosen.warnings.append(
                f"model '{model}': Execution Accelerator '{accelerator.name}' is ignored, because the ONNX Runtime of "
                f"this server has no {provider} (it has {', '.join(available)})"
            )
        else:
            add(provider, _accelerator_options(accelerator, settings, device_id))

    if kind == "GPU":
        if "CUDAExecutionProvider" not in available:
            raise ConfigError(
                f"unable to load model '{model}': its instance group is KIND_GPU, and the ONNX Runtime of this server "
                f"has no CUDAExecutionProvider (it has {', '.join(available)}). Use KIND_CPU or KIND_AUTO, or install "
                "onnxruntime-gpu in the server's runtime environment"
            )
        for accelerator in settings.gpu_accelerators:
            add_accelerator(accelerator, ("tensorrt", "cuda"))
        add("CUDAExecutionProvider", {**_legacy_cuda(settings.cuda_options), "device_id": str(device_id)})
    else:
        for accelerator in settings.gpu_accelerators:
            chosen.warnings.append(
                f"model '{model}': gpu_execution_accelerator '{accelerator.name}' is ignored, because the instance "
                "runs on the CPU"
            )
    for accelerator in settings.cpu_accelerators:
        add_accelerator(accelerator, ("openvino",))
    add("CPUExecutionProvider", {})
    return chosen


def _accelerator_options(accelerator: Accelerator, settings: Settings, device_id: int) -> dict[str, str]:
    options = dict(accelerator.parameters)
    if accelerator.name == "openvino":
        # It has threads of its own; what the model says of its threads is meant for them too.
        threads = {"num_of_threads": str(settings.intra_op_thread_count)} if settings.intra_op_thread_count > 0 else {}
        return {"device_type": "CPU", **threads, **options}
    if accelerator.name == "tensorrt":
        precision = options.pop("precision_mode", "FP32")
        if precision not in TENSORRT_PRECISIONS:
            raise ConfigError(f"unsupported precision mode '{precision}' is requested")
        options = {TENSORRT_NAMES.get(key, key): value for key, value in options.items()}
        options.update(TENSORRT_PRECISIONS[precision])
    return {**options, "device_id": str(device_id)}


def _legacy_cuda(parameters: Mapping[str, str]) -> dict[str, str]:
    options = dict(parameters)
    for key, choices in CUDA_CHOICES.items():
        if key in options:
            if options[key] not in {str(index) for index in range(len(choices))}:
                raise ConfigError(f"unsupported {key} value '{options[key]}' is requested")
            options[key] = choices[int(options[key])]
    return options


def session_options(ort: Any, settings: Settings) -> Any:
    """``onnxruntime.SessionOptions`` for these settings; ``ort`` is the onnxruntime module."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(
        ort.GraphOptimizationLevel, GRAPH_LEVELS.get(settings.graph_level, "ORT_ENABLE_ALL")
    )
    options.execution_mode = (
        ort.ExecutionMode.ORT_PARALLEL if settings.execution_mode else ort.ExecutionMode.ORT_SEQUENTIAL
    )
    if settings.intra_op_thread_count > 0:
        options.intra_op_num_threads = settings.intra_op_thread_count
    if settings.inter_op_thread_count > 0:
        options.inter_op_num_threads = settings.inter_op_thread_count
    if settings.enable_mem_arena is not None:
        options.enable_cpu_mem_arena = settings.enable_mem_arena
    if settings.enable_mem_pattern is not None:
        options.enable_mem_pattern = settings.enable_mem_pattern
    for key, value in {**NO_SPINNING, **settings.session_entries}.items():
        options.add_session_config_entry(key, value)
    for library in settings.op_libraries:
        options.register_custom_ops_library(library)
    options.log_severity_level = 3  # errors only, as the official backend does unless the server is verbose
    return options


def run_options(ort: Any, settings: Settings) -> Any | None:
    """``onnxruntime.RunOptions``, or None where the defaults do."""
    if not settings.run_entries:
        return None
    options = ort.RunOptions()
    for key, value in settings.run_entries.items():
        options.add_run_config_entry(key, value)
    return options


def create_session(ort: Any, model: str, path: Path, settings: Settings, kind: str, device_id: int, warn: Warn) -> Any:
    """Loads the file into a session; every reason for which it cannot be loaded becomes a :class:`ConfigError`."""
    providers = choose_providers(model, settings, kind, device_id, ort.get_available_providers())
    for message in providers.warnings:
        warn(message)
    try:
        session = ort.InferenceSession(
            str(path),
            sess_options=session_options(ort, settings),
            providers=providers.names,
            provider_options=providers.options,
        )
    except Exception as error:
        raise ConfigError(f"unable to load model '{model}': onnx runtime error: {error}") from error
    session.disable_fallback()
    lost = [name for name in providers.names if name not in session.get_providers()]
    if "CUDAExecutionProvider" in lost:
        raise ConfigError(
            f"unable to load model '{model}': its instance group is KIND_GPU, and ONNX Runtime could not start its "
            "CUDAExecutionProvider (see the server's log)"
        )
    for name in lost:
        warn(f"model '{model}': ONNX Runtime could not start {name}, and goes on without it")
    return session


def runner(session: Any, options: Any) -> Callable[[Sequence[str], dict[str, Any]], list[Any]]:
    """``run(names, feed)`` without the checks of ``InferenceSession.run``, all of which Triton has made already."""
    native_run = session._sess.run

    def run(names: Sequence[str], feed: dict[str, Any]) -> list[Any]:
        outputs: list[Any] = native_run(names, feed, options)
        return outputs

    return run
