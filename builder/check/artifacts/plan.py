"""``model.plan``: what its first bytes, and the manifest beside it, tell of the TensorRT that built it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from builder.check.artifacts.ours import manifest_of
from builder.check.artifacts.reading import first_bytes, look, present, size_of
from builder.check.model import ModelOnDisk
from builder.errors import EngineError
from builder.releases import PINNED_RELEASE, asking, check_engine_fits, release_of
from builder.rules.rule import Hit, Rule

NO_PLAN = Rule(
    "plan-unreadable",
    "error",
    "the file is no TensorRT engine",
    'It does not begin as one: "Magic tag does not match". Mostly an ONNX file under another name, or a copy that was '
    "cut short.",
    "Build it with trtexec or build-repo.",
    bad="an ONNX file named model.plan",
    good="an engine",
)
OF_RTX = Rule(
    "plan-of-rtx",
    "error",
    "the engine is one of TensorRT-RTX",
    "Triton's TensorRT backend loads engines of TensorRT alone: the two formats differ from the first byte on.",
    "Build it with TensorRT, or load it in your own application.",
    bad="model.plan built by TensorRT-RTX",
    good="model.plan built by TensorRT",
)
UNMATCHED = Rule(
    "plan-other-server",
    "warning",
    "the engine and the server are not known to match",
    "An engine is loaded by exactly the version of TensorRT that built it, down to the last number, and on GPUs of the "
    'compute capability that it was built for: "Version tag does not match". A server of another release refuses it.',
    "Build it in the image that serves it: build-repo SPEC --in-container; or name the server with --server.",
    bad="an engine of TensorRT 10.3.0 and a server whose TensorRT is another one",
    good="an engine built in the server's own image",
)
BEYOND = Rule(
    "batch-beyond-engine",
    "error",
    "`max_batch_size` is larger than the engine was built for",
    '"configuration specified max-batch 64 but TensorRT engine only supports max-batch 32": the largest profile bounds '
    "it.",
    "Lower max_batch_size, or build the engine with a larger profile.",
    bad="max_batch_size: 64 for an engine with a profile up to 32",
    good="max_batch_size: 32",
)

_TENSORRT, _RTX, _OLDER = b"ftrt", b"vtrt", b"ptrt"  # the last one says its version nowhere that is known here
_HEADER_BYTES = 28


def plans(model: ModelOnDisk) -> Iterator[tuple[int, Path, bytes]]:
    """Every engine of each served version, with its first bytes: the default file, and those by compute capability."""
    if model.backend != "tensorrt" or model.config is None:
        return
    for version, path in present(model):
        yield version, path, first_bytes(path, _HEADER_BYTES)
    for version in model.served:
        for name in sorted(set(model.config.cc_model_filenames.values()) - {model.filename}):
            path = model.versions[version] / name.lstrip("/")
            if look(path) == "file" and size_of(path):
                yield version, path, first_bytes(path, _HEADER_BYTES)


def unreadable(model: ModelOnDisk) -> Iterator[Hit]:
    """What begins as no engine does."""
    for _, path, start in plans(model):
        name = model.relative(path)
        if start[:4] not in (_TENSORRT, _RTX, _OLDER):
            kind = "an ONNX file" if start[:1] == b"\x08" else "no engine of TensorRT"
            message = f"{name} is {kind}: it begins with {start[:4]!r}, and an engine with {_TENSORRT!r}"
            yield Hit(message, "build it: trtexec --onnx=... --saveEngine=model.plan", file=name)
        elif len(start) < _HEADER_BYTES:
            yield Hit(f"{name} was cut short: {size_of(path)} bytes", "copy it again", file=name)


def of_rtx(model: ModelOnDisk) -> Iterator[Hit]:
    """Engines of the other library."""
    for _, path, start in plans(model):
        if start[:4] == _RTX:
            name = model.relative(path)
            version = version_of(start)
            message = f"{name} is an engine of TensorRT-RTX {version}, which Triton has no backend for"
            yield Hit(message, "build it with TensorRT, or load it in your own application", file=name)


def unmatched(model: ModelOnDisk) -> Iterator[Hit]:
    """Engines of which it is not known that the server loads them."""
    for version, path, start in plans(model):
        if start[:4] != _TENSORRT or len(start) < _HEADER_BYTES:
            continue
        name, release = model.relative(path), model.release.name if model.release else PINNED_RELEASE
        engine = _engine(model, version)
        built = str(engine.get("version") or version_of(start))
        try:
            notes = check_engine_fits(
                release, "tensorrt", built, version_compatible=bool(_options(engine).get("version_compatible"))
            )
        except EngineError as error:
            yield Hit(
                f"{name}: {error.what}; it has {error.expected.removeprefix('an engine of ')}", error.fix, file=name
            )
            continue
        if notes:
            fix = asking(release) if release_of(release).tensorrt is None else notes[0]
            message = f"{name} was built by TensorRT {built}: the server has to have exactly this one"
            yield Hit(message, fix, file=name)


def beyond(model: ModelOnDisk) -> Iterator[Hit]:
    """Batches that no profile of the engine takes, as our manifest tells."""
    for version in sorted({version for version, _, _ in plans(model)}):
        largest = _largest_batch(_engine(model, version))
        size = model.config.max_batch_size
        if largest is not None and size > largest:
            message = f"max_batch_size is {size}, and the engine of version {version} takes {largest} at most"
            yield Hit(message, f"write max_batch_size: {largest}", ("max_batch_size",))


def version_of(start: bytes) -> str:
    """The version of TensorRT in an engine's header: what ``trtexec --getPlanVersionOnly`` reads."""
    return ".".join(map(str, start[24:28]))


def _engine(model: ModelOnDisk, version: int) -> dict[str, Any]:
    engine = manifest_of(model.versions[version]).get("engine")
    return engine if isinstance(engine, dict) else {}


def _options(engine: dict[str, Any]) -> dict[str, Any]:
    options = engine.get("options")
    return options if isinstance(options, dict) else {}


def _largest_batch(engine: dict[str, Any]) -> int | None:
    """Of all profiles the largest first dimension that every input takes."""
    sizes = []
    profiles = engine.get("profiles")
    for profile in profiles if isinstance(profiles, list) else ():
        shapes = profile.values() if isinstance(profile, dict) else ()
        firsts = [shape["max"][0] for shape in shapes if isinstance(shape, dict) and _is_shape(shape.get("max"))]
        sizes += [min(firsts)] if firsts else []
    return max(sizes, default=None)


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and bool(shape) and isinstance(shape[0], int)


PLAN_RULES = (
    (NO_PLAN, unreadable),
    (OF_RTX, of_rtx),
    (UNMATCHED, unmatched),
    (BEYOND, beyond),
)
