"""Fields of ``config.pbtxt`` for what runs an ONNX file other than ONNX Runtime's CPU provider.

Spellings are those of NVIDIA's ONNX Runtime backend, which refuses a TensorRT parameter that it does not know; those
written here have been known to it since April 2024. ``precision_mode`` is not among them on purpose: without it ONNX
Runtime makes a strongly typed network, and the precision is the graph's own, casts and Q/DQ as they were verified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from builder.errors import ConfigError, UnavailableError

Profile = Mapping[str, Mapping[str, Sequence[int]]]
"""``{image: {min: [1, 3, 224, 224], opt: [...], max: [...]}}``, every input, the batch dimension included."""

BOUNDS = ("min", "opt", "max")
PRECISIONS: dict[str, tuple[str, ...]] = {
    "cuda": ("fp32", "fp16", "bf16", "int8"),
    "tensorrt": ("fp32", "fp16", "bf16", "int8"),
    "openvino": ("fp32", "fp16", "int8"),
}
"""What each target runs; its keys are the targets that need fields at all."""

CACHE = "/tmp/tensorrt-cache"
"""Beginning of the folder's name in which TensorRT keeps the engines it builds: one that every server can write."""


def accelerator_fields(
    target: str,
    precision: str,
    profiles: Sequence[Profile] = (),
    *,
    key: str = "",
    instance_groups: Sequence[Mapping[str, Any]] = (),
    workspace_bytes: int | None = None,
    optimization_level: int | None = None,
    sparsity: bool = False,
) -> dict[str, Any]:
    """Fields of Triton's ``ModelConfig`` as plain data.

    Args:
        target: ``cuda``, ``tensorrt`` or ``openvino``.
        precision: of the graph; nothing is written for it, but a target that cannot run it is an error.
        profiles: for ``tensorrt``: the shapes its engine is built for. Without them it is built for the first shapes
            that come, and again whenever others do.
        key: for ``tensorrt``: a digest of the file. Engines are kept in a folder with this name, because ONNX Runtime
            itself tells graphs apart by names and not by weights: a retrained model would be answered by the old
            engine. Without a key no engine is kept.
        instance_groups: what the spec says of instances; their kind is decided here, the rest is kept.
        workspace_bytes: for ``tensorrt``: what an engine may use beside its weights.
        optimization_level: for ``tensorrt``: 0 to 5.
        sparsity: for ``tensorrt``: 2:4 sparse weights are made use of.

    Raises:
        ConfigError: the target cannot run the precision, or a profile is not one.
    """
    if precision not in PRECISIONS.get(target, ()):
        known = PRECISIONS.get(target)
        raise ConfigError(
            f"{target} does not run {precision}" if known else f"no accelerator is called {target!r}",
            expected=", ".join(known or PRECISIONS),
            got=precision if known else target,
        )
    if target == "openvino":
        # On the CPU also where the server has a GPU: a GPU instance would be run by the CUDA provider.
        accelerators = {"cpu_execution_accelerator": [{"name": "openvino"}]}
        groups = _groups(instance_groups, "KIND_CPU")
        return {"instance_group": groups, "optimization": {"execution_accelerators": accelerators}}
    groups = _groups(instance_groups, "KIND_GPU")
    if target == "cuda":  # the provider of every GPU instance: the kind says it all
        return {"instance_group": groups}
    parameters = _shapes(profiles)
    if key:
        folder = f"{CACHE}-{key}"
        parameters |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
        parameters |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}
    if workspace_bytes is not None:
        parameters["max_workspace_size_bytes"] = str(workspace_bytes)
    if optimization_level is not None:
        parameters["trt_builder_optimization_level"] = str(optimization_level)
    if sparsity:
        parameters["trt_sparsity_enable"] = "1"
    accelerator: dict[str, Any] = {"name": "tensorrt"} | ({"parameters": parameters} if parameters else {})
    return {
        "instance_group": groups,
        "optimization": {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}},
    }


def _groups(given: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    left_out = {"gpus"} if kind == "KIND_CPU" else set()
    groups = [{name: value for name, value in group.items() if name not in left_out} for group in given]
    return [{**group, "kind": kind} for group in groups or [{}]]


def _shapes(profiles: Sequence[Profile]) -> dict[str, str]:
    """``{trt_profile_min_shapes: "ids:1x1,mask:1x1", ...}``; several profiles follow each other in one text."""
    if not profiles:
        return {}
    names = list(profiles[0])
    for index, profile in enumerate(profiles):
        where = f"engine.profiles[{index}]"
        if set(profile) != set(names):
            raise ConfigError(
                "the profiles name different inputs", where=where, expected=", ".join(names), got=", ".join(profile)
            )
        for name in names:
            _check(profile[name], f"{where}.{name}")
    return {
        f"trt_profile_{bound}_shapes": ",".join(
            f"{name}:{'x'.join(str(size) for size in profile[name][bound])}" for profile in profiles for name in names
        )
        for bound in BOUNDS
    }


def _check(shapes: Mapping[str, Sequence[int]], where: str) -> None:
    got = ", ".join(f"{bound}: {list(sizes)}" for bound, sizes in shapes.items())
    if set(shapes) != set(BOUNDS) or len({len(sizes) for sizes in shapes.values()}) != 1:
        fix = "give all three, each with every dimension, the batch included"
        raise ConfigError(
            "the profile is not complete", where=where, expected="min, opt and max of one length", got=got, fix=fix
        )
    ordered = all(
        1 <= low <= usual <= high for low, usual, high in zip(*(shapes[bound] for bound in BOUNDS), strict=True)
    )
    if not ordered:
        raise ConfigError(
            "the profile's shapes are out of order", where=where, expected="1 <= min <= opt <= max", got=got
        )


@lru_cache(maxsize=1)
def _openvino_problem() -> tuple[str, str, str, str] | None:
    from serving.errors import RuntimeUnavailableError
    from serving.openvino import provide_openvino
    from serving.runtime import local_tritonserver

    if program := local_tritonserver():
        expected = "the embedded server, which has a provider for it"
        return expected, f"{program}, whose ONNX Runtime is its own", "unset TRITONSERVER, or take the variant out", ""
    try:
        provide_openvino()
    except RuntimeUnavailableError as error:
        return error.expected, f"{error.what}: {error.got}", error.fix, error.where
    return None


def openvino_missing(variant: str) -> UnavailableError | None:
    """What keeps the embedded server from running OpenVINO here; None where nothing does.

    What it needs is fetched when it is asked for the first time (85 MB, once per machine).
    """
    problem = _openvino_problem()
    if problem is None:
        return None
    expected, got, fix, where = problem
    return UnavailableError(
        f"{variant} cannot be run on this machine", where=where, expected=expected, got=got, fix=fix
    )
