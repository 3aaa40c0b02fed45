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
from typing import Any

from builder.engine.library import LIBRARIES, check_version
from builder.engine.network import check_profiles, layers, parsed, tensors
from builder.engine.options import Job
from builder.engine.refusals import check_options
from builder.engine.targets import as_pair
from builder.errors import EngineError, UnavailableError, describe


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
    check_options(trt, job)
    began = time.monotonic()
    _load_plugins(job.options.plugins)
    builder, network, parser = parsed(trt, job)
    check_profiles(network, job)
    config = _configured(trt, job, builder, network)
    notes = _use_cache(config, job)
    plan = _built(builder, network, config)
    with job.to.open("wb") as stream:
        stream.write(memoryview(plan))
    del parser
    return {
        "version": str(trt.__version__),
        "seconds": time.monotonic() - began,
        "layers": layers(trt, network),
        "inputs": tensors(network, "input"),
        "outputs": tensors(network, "output"),
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


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it is killed."""
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
