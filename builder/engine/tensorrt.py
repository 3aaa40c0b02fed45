"""The build itself, the same for TensorRT and TensorRT-RTX: polygraphy's loaders decide by the environment which it is.

Runs only in the process that :mod:`builder.engine.building` starts, for the choice between the two libraries is made
once, when polygraphy is imported.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.engine.library import LIBRARIES, check_version
from builder.engine.options import EngineOptions, Profile, Shape
from builder.engine.targets import as_pair, sm_name
from builder.errors import EngineError, UnavailableError, describe

_DTYPES = {"float": "float32", "half": "float16", "bf16": "bfloat16", "fp8": "float8"}
_NOT_COMPUTED = ("CONSTANT", "SHAPE")
# Where the parser was, and what is said about CUDA at every turn where there is no driver.
NOISE = ("ModelImporter.cpp:1", "catchCudaError", "ScopedCudaStream", "getCurrentCC", "In function")


@dataclass(frozen=True)
class Job:
    """What one process is to build.

    Attributes:
        kind: ``tensorrt`` or ``tensorrt-rtx``.
        source: the ONNX file.
        to: where the engine goes.
        options: how it is built; ``gpus`` are compute capabilities by now.
        cache: the timing cache, which may not exist yet.
        cache_is_users: whether the user named that file, so that it must not be passed over.
    """

    kind: str
    source: Path
    to: Path
    options: EngineOptions
    cache: Path | None = None
    cache_is_users: bool = False


def environment(kind: str) -> dict[str, str]:
    """What the process needs in its environment for this library."""
    rtx = "1" if kind == "tensorrt-rtx" else "0"
    return {"POLYGRAPHY_USE_TENSORRT_RTX": rtx, "POLYGRAPHY_AUTOINSTALL_DEPS": "0", "CUDA_MODULE_LOADING": "LAZY"}


def build(job: Job) -> dict[str, Any]:
    """Build the engine and tell what became of it, as plain data.

    Raises:
        EngineError: the library refuses an option, a node, a profile, or the whole network.
        UnavailableError: the library cannot be imported.
    """
    trt = import_library(job.kind)
    _check_options(trt, job)
    began = time.monotonic()
    _load_plugins(job.options.plugins)
    builder, network, parser = _parsed(trt, job)
    _check_profiles(network, job)
    config = _configured(trt, job, builder, network)
    notes = _use_cache(config, job)
    plan = _built(builder, network, config)
    with job.to.open("wb") as stream:
        stream.write(memoryview(plan))
    del parser
    return {
        "version": str(trt.__version__),
        "seconds": time.monotonic() - began,
        "layers": _layers(trt, network),
        "inputs": _tensors(network, "input"),
        "outputs": _tensors(network, "output"),
        "cache_saved": _save_cache(config, job),
        "notes": notes,
    }


def import_library(kind: str) -> Any:
    """The library's Python module, under the name that polygraphy looks for.

    Raises:
        UnavailableError: it cannot be imported.
        EngineError: it is too old.
    """
    library = LIBRARIES[kind]
    try:
        if library.before and importlib.util.find_spec(library.before):
            importlib.import_module(library.before)
        found = [name for name in library.modules if importlib.util.find_spec(name)]
        trt = importlib.import_module(found[0] if found else library.modules[0])
    except (ImportError, OSError) as exc:
        raise UnavailableError(
            f"{library.title} cannot be imported",
            where=library.modules[0],
            expected=f"{library.title} and the shared libraries that it needs",
            got=describe(exc),
            fix=f"pip install 'triton-repo[{library.extra}]'",
        ) from exc
    sys.modules.setdefault(library.modules[0], trt)
    check_version(kind, str(trt.__version__))
    return trt


def _check_options(trt: Any, job: Job) -> None:
    """Every option that this library does not have is refused by name: none is passed over in silence."""
    options, flags, rtx = job.options, trt.BuilderFlag.__members__, job.kind == "tensorrt-rtx"
    level = options.hardware_compatibility.upper()
    missing = {
        "version_compatible": options.version_compatible and ("VERSION_COMPATIBLE" not in flags or rtx),
        "sparsity": options.sparsity and "SPARSE_WEIGHTS" not in flags,
        "refit": options.refit and ("REFIT" not in flags or rtx),  # needs the GPU itself, and one architecture
        "weight_streaming": options.weight_streaming and "WEIGHT_STREAMING" not in flags,
        "hardware_compatibility": level != "NONE"
        and (rtx or level not in getattr(getattr(trt, "HardwareCompatibilityLevel", None), "__members__", ())),
        "dla_core": options.dla_core is not None and (rtx or not hasattr(trt.IBuilderConfig, "DLA_core")),
        "optimization_level": options.optimization_level is not None
        and not hasattr(trt.IBuilderConfig, "builder_optimization_level"),
    }
    for option in (name for name, is_missing in missing.items() if is_missing):
        raise refused_option(option, job.kind, str(trt.__version__))
    if rtx:
        _check_architectures(trt, options)


def refused_option(option: str, kind: str, version: str) -> EngineError:
    """An option that a library does not have."""
    title = LIBRARIES[kind].title
    return EngineError(
        f"{title} {version} has no `{option}`",
        where=f"engine.{option}",
        expected=f"an option of {title} {version}",
        got=option,
        fix=f"take `{option}` out of the spec"
        + (", or build a `tensorrt-*` variant: TensorRT has it" if kind == "tensorrt-rtx" else ""),
    )


def _check_architectures(trt: Any, options: EngineOptions) -> None:
    known = trt.ComputeCapability.__members__
    unknown = [name for name in map(sm_name, options.gpus) if name.upper() not in known]
    if unknown:
        able = ", ".join(name.lower() for name in known if name.startswith("SM"))
        raise EngineError(
            f"TensorRT-RTX {trt.__version__} cannot build for {', '.join(unknown)}",
            where="engine.gpu",
            expected=f"of {able}",
            got=", ".join(unknown),
            fix="take it out of `gpu`, or build a `tensorrt-*` variant on a machine with that GPU",
        )


def _load_plugins(plugins: tuple[str, ...]) -> None:
    from polygraphy.backend.trt import LoadPlugins

    for plugin in plugins:
        try:
            LoadPlugins([plugin])()
        except OSError as exc:
            raise EngineError(
                "a plugin cannot be loaded",
                where=f"engine.plugins: {plugin}",
                expected="a shared library with TensorRT plugins, for this machine",
                got=str(exc),
                fix="name the .so file; `ldd` shows what it lacks",
            ) from exc


def _parsed(trt: Any, job: Job) -> tuple[Any, Any, Any]:
    from polygraphy.backend.trt import CreateNetwork, SetDecomposableAttentions
    from polygraphy.backend.trt.util import get_trt_logger

    typed = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")  # else there is no other kind any more
    builder, network = CreateNetwork(strongly_typed=typed)()
    trt.init_libnvinfer_plugins(get_trt_logger(), "")
    parser = trt.OnnxParser(network, get_trt_logger())
    is_read = parser.parse_from_file(str(job.source))
    if not is_read or parser.num_errors or not network.num_outputs:  # noise is read as an empty graph
        raise _parser_error(trt, job, [parser.get_error(index) for index in range(parser.num_errors)])
    if hasattr(trt.LayerType, "ATTENTION_INPUT"):  # where no one kernel does all of it (float32), several may
        SetDecomposableAttentions((builder, network, parser))()
    return builder, network, parser  # the parser owns the weights: it must outlive the network


def _parser_error(trt: Any, job: Job, errors: list[Any]) -> EngineError:
    """All that the parser has against the graph, node by node."""
    title = f"{LIBRARIES[job.kind].title} {trt.__version__}"
    lines = [_parser_line(error) for error in errors] or ["the file is no ONNX model: nothing in it has an output"]
    is_plugin = any("Plugin not found" in error.desc() for error in errors)
    return EngineError(
        f"{title} cannot read the graph: {len(lines)} {'place is' if len(lines) == 1 else 'places are'} refused",
        where=str(job.source),
        expected="operators and types that TensorRT's parser takes",
        got="\n".join(lines),
        fix="name a library with these operators under engine.plugins, or serve an `onnx-*` variant"
        if is_plugin
        else "change the model so that it exports without them, or serve an `onnx-*` variant",
    )


def _parser_line(error: Any) -> str:
    """``/conv1 (Conv): UNSUPPORTED_NODE``, with the reason where it gives one."""
    name = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""
    said = [line.strip() for line in error.desc().splitlines()]
    reason = "; ".join(line for line in said if line and not any(noise in line for noise in NOISE))
    reason = reason.rpartition('&& "')[2].rstrip('"') if '&& "' in reason else reason
    code = str(error.code()).rpartition(".")[2]
    place = f"{name or f'node {error.node()}'} ({operator})" if operator or name else "the file"
    return f"{place}: {code}" + ("" if reason in ("", "false") else f": {reason}")


def _check_profiles(network: Any, job: Job) -> None:
    """The profiles against the network itself; polygraphy would make up what is missing."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    inputs = {tensor.name: tuple(tensor.shape) for tensor in tensors}
    for profile in job.options.profiles or ({},):
        if problem := _problem(inputs, profile):
            raise EngineError(
                "a profile does not fit the graph",
                where="engine.profiles",
                expected=", ".join(f"{name} {list(shape)}" for name, shape in inputs.items()),
                got=problem,
                fix="give min, opt and max for every input with a free dimension (-1), and the graph's own sizes else",
            )


def _problem(inputs: Mapping[str, Shape], profile: Profile) -> str:
    """What is wrong with a profile for these inputs; nothing where it fits."""
    for name in profile:
        if name not in inputs:
            return f"`{name}` is no input of the graph"
    for name, real in inputs.items():
        if name not in profile and -1 in real:
            return f"`{name}` has free dimensions and is in no profile"
        for shape in profile.get(name, ()):
            if len(shape) != len(real) or any(there not in (-1, size) for there, size in zip(real, shape, strict=True)):
                return f"`{name}` is {list(real)} in the graph and {list(shape)} in the profile"
    return ""


def _configured(trt: Any, job: Job, builder: Any, network: Any) -> Any:
    from polygraphy.backend.trt import CreateConfig, PostprocessConfig, Profile

    options = job.options
    profiles = []
    for profile in options.profiles:
        profiles.append(Profile())
        for name, (low, opt, high) in profile.items():
            profiles[-1].add(name, low, opt, high)
    common: dict[str, Any] = {
        "profiles": profiles or None,
        "sparse_weights": options.sparsity,
        "refittable": options.refit,
        "weight_streaming": options.weight_streaming,
        "builder_optimization_level": options.optimization_level,
    }
    if options.workspace_bytes is not None:
        common["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: options.workspace_bytes}
    if job.kind == "tensorrt-rtx":
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        create = CreateConfigRTX(compute_capabilities=[as_pair(gpu) for gpu in options.gpus], **common)
    else:
        if options.hardware_compatibility != "none":
            level = getattr(trt.HardwareCompatibilityLevel, options.hardware_compatibility.upper())
            common["hardware_compatibility_level"] = level
        on_dla = options.dla_core is not None
        common |= {"version_compatible": options.version_compatible, "use_dla": on_dla, "allow_gpu_fallback": on_dla}
        create = CreateConfig(**common)

    def finish(builder: Any, network: Any, config: Any) -> None:
        config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32: the two libraries have different defaults
        if options.dla_core is not None:
            _use_dla(builder, config, options.dla_core)

    return PostprocessConfig(create, finish)(builder, network)


def _use_dla(builder: Any, config: Any, core: int) -> None:
    if core >= builder.num_DLA_cores:
        raise EngineError(
            "this GPU has no such deep learning accelerator",
            where="engine.dla_core",
            expected=f"below {builder.num_DLA_cores}" if builder.num_DLA_cores else "a Jetson: no DLA is here",
            got=str(core),
            fix="take `dla_core` out",
        )
    config.DLA_core = core


def _use_cache(config: Any, job: Job) -> list[str]:
    if job.cache is None or not job.cache.exists():
        return []
    cache = config.create_timing_cache(job.cache.read_bytes())
    if config.set_timing_cache(cache, False):
        return []
    if job.cache_is_users:
        raise EngineError(
            "the timing cache was made elsewhere, or is damaged: the library does not take it",
            where=str(job.cache),
            expected="a timing cache of this GPU and this version of the library",
            got="a mismatch",
            fix="leave the file out: a new one is made and kept",
        )
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return [f"the timing cache {job.cache.name} was dropped: the library does not take it"]


def _save_cache(config: Any, job: Job) -> bool:
    if job.cache is None:
        return False
    cache = config.get_timing_cache()
    if cache is None:
        return False
    partial = job.cache.with_name(f"{job.cache.name}.{os.getpid()}.partial")
    partial.write_bytes(bytes(memoryview(cache.serialize())))
    partial.replace(job.cache)
    return True


def _built(builder: Any, network: Any, config: Any) -> Any:
    from polygraphy.backend.trt import EngineBytesFromNetwork

    return EngineBytesFromNetwork((builder, network), config)()


def _layers(trt: Any, network: Any) -> dict[str, int]:
    """How many layers of the typed network give each type; what the builder fuses of them is its own affair."""
    skipped = [getattr(trt.LayerType, name) for name in _NOT_COMPUTED]
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return dict(
        Counter(_dtype(layer.get_output(0)) for layer in layers if layer.num_outputs and layer.type not in skipped)
    )


def _tensors(network: Any, side: str) -> dict[str, Any]:
    found = [getattr(network, f"get_{side}")(index) for index in range(getattr(network, f"num_{side}s"))]
    return {tensor.name: {"dtype": _dtype(tensor), "shape": list(tensor.shape)} for tensor in found}


def _dtype(tensor: Any) -> str:
    name = str(tensor.dtype).rpartition(".")[2].lower()
    return _DTYPES.get(name, name)


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it is killed."""
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
