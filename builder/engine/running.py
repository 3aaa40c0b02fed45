"""An engine asked on the GPU that is here: in a process of its own, as it is built."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builder.engine.building import in_process
from builder.engine.device import Gpu
from builder.numerics import Array


def engine_answers(
    plan: Path, requests: Sequence[Mapping[str, Array]], *, kind: str, gpu: Gpu | None = None
) -> list[dict[str, Array]]:
    """What an engine answers to each request.

    Args:
        plan: the engine.
        requests: full tensors, within the shapes of one of its profiles.
        kind: ``tensorrt`` or ``tensorrt-rtx``.
        gpu: the GPU to run it on; by default CUDA's first.

    Raises:
        EngineError: the library does not load it here, or a request fits no profile.
        UnavailableError: the library is not here.
    """
    with tempfile.TemporaryDirectory(prefix="triton-repo-engine-run-") as folder:
        asked, answered = Path(folder, "requests.npz"), Path(folder, "answers.npz")
        named: dict[str, Any] = {f"{k}/{n}": array for k, each in enumerate(requests) for n, array in each.items()}
        np.savez(asked, **named)
        job = {"do": "run", "kind": kind, "source": str(plan.resolve()), "requests": str(asked), "to": str(answered)}
        in_process(job, plan.with_name(f"{plan.name}.run.log"), gpu)
        with np.load(answered) as arrays:
            return _by_request(arrays, len(requests))


def run(kind: str, plan: Path, asked: Path, answered: Path) -> dict[str, Any]:
    """The part that runs in the process: load the engine, ask it, write its answers.

    Raises:
        EngineError: a request fits no profile.
        UnavailableError: the library cannot be imported.
    """
    from builder.engine.tensorrt import import_library

    import_library(kind)
    from polygraphy.backend.common import BytesFromPath
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner

    with np.load(asked) as arrays:
        requests = _by_request(arrays, len({key.partition("/")[0] for key in arrays.files}))
    answers: dict[str, Any] = {}
    engine = EngineFromBytes(BytesFromPath(str(plan)))()
    with TrtRunner(engine) as runner:
        for number, request in enumerate(requests):
            if engine.num_optimization_profiles > 1:
                runner.set_profile(_fitting(engine, request))
            given = runner.infer(dict(request))
            answers |= {f"{number}/{name}": np.array(array) for name, array in given.items()}
    np.savez(answered, **answers)
    return {"answers": len(requests)}


def _fitting(engine: Any, request: Mapping[str, Array]) -> int:
    """The first profile whose shapes take a request."""
    from builder.errors import EngineError

    for profile in range(engine.num_optimization_profiles):
        bounds = {name: engine.get_tensor_profile_shape(name, profile) for name in request}
        fits = (
            len(array.shape) == len(bounds[name][0])
            and all(a <= size <= b for a, size, b in zip(bounds[name][0], array.shape, bounds[name][2], strict=True))
            for name, array in request.items()
        )
        if all(fits):
            return profile
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in request.items())
    raise EngineError(
        "a request fits none of the engine's profiles",
        where="engine.profiles",
        expected="a profile that takes every size of the spec",
        got=shapes,
        fix="widen one of the profiles, or narrow the ranges in `inputs`",
    )


def _by_request(arrays: Mapping[str, Any], count: int) -> list[dict[str, Array]]:
    found: list[dict[str, Array]] = [{} for _ in range(count)]
    for key in arrays:
        number, _, name = key.partition("/")
        found[int(number)][name] = arrays[key]
    return found
