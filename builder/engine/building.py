"""Building one engine: start the process, wait for it, and put into words whatever came of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import builder
from builder.artifact import sha256_of
from builder.engine import tensorrt
from builder.engine.device import Gpu, gpus
from builder.engine.library import LIBRARIES, available, check_version, library_version
from builder.engine.network import NOISE
from builder.engine.options import EngineOptions, Profile
from builder.engine.targets import as_pair, capability_of, resolve_targets, sm_name
from builder.engine.timing_cache import Origin, sign, timing_cache
from builder.errors import EngineError, UnavailableError

_CODE = (
    "import sys; sys.path = [place for place in sys.path if place] + [{root!r}]; "
    "from builder.engine.process import main; sys.exit(main(sys.argv[1]))"
)
_SHOWN = 8
_ERROR_MARKS = ("[E]", "[!]")


@dataclass(frozen=True)
class Built:
    """An engine that was just built.

    Attributes:
        path: the file.
        kind: ``tensorrt`` or ``tensorrt-rtx``.
        version: of the library, which is the only one that loads it unless it is version compatible.
        capabilities: compute capabilities it runs on, ``8.6``.
        options: how it was built.
        size_bytes, sha256: of the file.
        seconds: parsing and building.
        layers: how many layers of the typed network give each element type.
        inputs, outputs: by name, ``dtype`` and ``shape`` as the library has them; -1 where a dimension is free.
        log: everything the library said.
        notes: what the user should know.
        gpu: where it was built; None ahead of time.
    """

    path: Path
    kind: str
    version: str
    capabilities: tuple[str, ...]
    options: EngineOptions
    size_bytes: int
    sha256: str
    seconds: float
    layers: Mapping[str, int]
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    log: Path
    notes: tuple[str, ...] = field(default=())
    gpu: Gpu | None = None

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """The profiles it has."""
        return self.options.profiles


def engine_from_onnx(
    source: Path, to: Path, *, kind: str, options: EngineOptions, timing_cache: Path | None = None
) -> Built:
    """Build an engine in a process of its own.

    Args:
        source: the ONNX file; its external data lies beside it.
        to: where the engine goes; the library's log goes beside it, with ``.log`` at the end.
        kind: ``tensorrt`` (for the GPU that is here) or ``tensorrt-rtx`` (ahead of time).
        options: how.
        timing_cache: a folder that keeps one for each GPU, driver and version; or a file of the user's.

    Raises:
        EngineError: the options cannot be used, the library refuses the graph, or its builder died.
        UnavailableError: this machine lacks what it takes.
    """
    missing = available(kind)
    if missing is not None:
        raise missing.error(f"a {kind} engine")
    check_version(kind, library_version(kind) or "0")
    wanted = resolve_targets(kind, options.gpus)
    gpu = None if LIBRARIES[kind].ahead_of_time else fitting(wanted, _gpus_here(kind))
    capabilities = wanted if gpu is None else capabilities_here(wanted, gpu, options.hardware_compatibility)
    _check_plugins(options)
    cache, notes = _cache(kind, timing_cache, gpu)
    log = to.with_name(to.name + ".log")
    partial = to.with_name(to.name + ".partial")
    to.parent.mkdir(parents=True, exist_ok=True)
    job = {
        "kind": kind,
        "source": str(source.resolve()),
        "to": str(partial.resolve()),
        "options": replace(options, gpus=capabilities).as_dict(),
        "cache": str(cache.resolve()) if cache else None,
        "cache_is_users": bool(timing_cache and timing_cache.is_file()),
    }
    try:
        done = in_process(job, log, gpu)
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)
    if cache and done["cache_saved"] and gpu:
        sign(cache, _origin(kind, gpu))
    return Built(
        path=to,
        kind=kind,
        version=done["version"],
        capabilities=capabilities,
        options=replace(options, gpus=capabilities),
        size_bytes=to.stat().st_size,
        sha256=sha256_of(to),
        seconds=done["seconds"],
        layers=done["layers"],
        inputs=done["inputs"],
        outputs=done["outputs"],
        log=log,
        notes=(*notes, *done["notes"]),
        gpu=gpu,
    )


def in_process(job: Mapping[str, Any], log: Path, gpu: Gpu | None) -> dict[str, Any]:
    """A job in a process of its own, from its start to its result.

    Raises:
        EngineError, UnavailableError: as it says itself, or what it died of.
    """
    visible = {"CUDA_VISIBLE_DEVICES": gpu.uuid} if gpu and gpu.uuid else {}
    code = _CODE.format(root=str(Path(builder.__file__).parent.parent))
    with tempfile.TemporaryDirectory(prefix="triton-repo-engine-") as folder, log.open("wb") as stream:
        job_file, result_file = Path(folder, "job.json"), Path(folder, "result.json")
        job_file.write_text(json.dumps({**job, "result": str(result_file)}), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(job_file)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**visible, **os.environ, **tensorrt.environment(job["kind"])},
        )
        try:
            status = process.wait()
        finally:
            process.kill()
            process.wait()
        if not result_file.exists():
            raise _died(job["kind"], status, log)
        result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
    if "error" in result:
        raise _failed(job, result, log)
    return result


def _failed(job: Mapping[str, Any], result: Mapping[str, Any], log: Path) -> EngineError | UnavailableError:
    parts = dict(result["error"])
    if result["class"] == "UnavailableError":
        return UnavailableError(parts.pop("what"), **parts)
    said = "\n".join(line for line in error_lines(log) if line not in parts["got"])
    if result["class"] == "Foreign":
        title = LIBRARIES[job["kind"]].title
        return EngineError(
            f"{title} could not {job.get('do', 'build')} the engine",
            where=job["source"],
            expected=f"a GPU that the engine was built for, and {title}'s own libraries"
            if job.get("do") == "run"
            else f"a network that {title} has kernels for",
            got=said or parts["got"],
            fix=_advice(said) + f"the whole log: {log}",
        )
    parts["got"] = "\n".join(part for part in (parts["got"], said) if part)
    return EngineError(parts.pop("what"), **parts)


def _advice(said: str) -> str:
    if "Turing" in said:
        return "take sm75 out of `gpu`, or build a graph whose float32 part is fp16; "
    if "workspace" in said:
        return "raise `workspace` under `engine`, or take it out; "
    if "out of memory" in said.lower():
        return "use a GPU with more memory, a smaller `max` in the profile, or a smaller `workspace`; "
    return ""


def _died(kind: str, status: int, log: Path) -> EngineError:
    if status < 0:
        name = signal.Signals(-status).name
        got = f"ended by {name}" + (": probably out of memory" if name == "SIGKILL" else "")
    else:
        got = f"exit status {status}"
    lines = "\n".join(error_lines(log) or last_lines(log))
    return EngineError(
        f"the process that built the engine died: a crash in {LIBRARIES[kind].title}, or no memory left",
        where=str(log),
        expected="an engine, or a reason why there is none",
        got=f"{got}\n{lines}".strip(),
        fix="read the log; give it more memory, a smaller `max` in the profile, or a lower `optimization_level`",
    )


def error_lines(log: Path) -> list[str]:
    """The last lines of a log that the library marked as errors, each once, without those that say nothing."""
    found: dict[str, None] = {}
    for line in _read(log):
        if line.startswith(_ERROR_MARKS) and not any(noise in line for noise in NOISE):
            found[line[3:].strip()] = None
    return list(found)[-_SHOWN:]


def last_lines(log: Path) -> list[str]:
    """The last lines of a log."""
    return [line.rstrip() for line in _read(log)[-_SHOWN:]]


def _read(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()


def _gpus_here(kind: str) -> tuple[Gpu, ...]:
    found = gpus()
    if not found:
        raise UnavailableError(
            "`nvidia-smi` does not tell which GPU is here",
            where=f"a {kind} engine",
            expected="name, compute capability and driver of the GPU",
            got="no answer",
            fix="install the driver with nvidia-smi; in a container, run it with the GPU (docker: --gpus all)",
        )
    return found


def fitting(wanted: tuple[str, ...], found: tuple[Gpu, ...]) -> Gpu:
    """The first GPU that is one of those wanted; the first of all where none is, or nothing is asked for."""
    return next((gpu for gpu in found if gpu.capability in wanted), found[0])


def capabilities_here(wanted: tuple[str, ...], gpu: Gpu, compatibility: str) -> tuple[str, ...]:
    """The compute capabilities of ``wanted``, if an engine that is built on ``gpu`` runs on all of them.

    Raises:
        EngineError: it does not.
    """
    own = capability_of(gpu.capability, where=gpu.name)
    plus = compatibility == "ampere_plus" and as_pair(own) >= (8, 0)
    foreign = [name for name in wanted if name != own and not (plus and as_pair(name) >= (8, 0))]
    if foreign:
        raise EngineError(
            f"an engine for {', '.join(map(sm_name, foreign))} cannot be built on {gpu.name} ({sm_name(own)})",
            where="engine.gpu",
            expected=f"{sm_name(own)}, the GPU that is here",
            got=", ".join(map(sm_name, foreign)),
            fix=f"build it on a machine with {sm_name(foreign[0])}, or set `hardware_compatibility: ampere_plus`",
        )
    return wanted or (own,)


def _check_plugins(options: EngineOptions) -> None:
    for plugin in options.plugins:
        if not Path(plugin).is_file():
            raise EngineError(
                "a plugin is not there",
                where="engine.plugins",
                expected="a shared library with TensorRT plugins",
                got=plugin,
                fix="mend the path; it is relative to the spec's folder",
            )


def _cache(kind: str, place: Path | None, gpu: Gpu | None) -> tuple[Path | None, tuple[str, ...]]:
    if place is None:
        return None, ()
    if gpu is None:
        why = "built ahead of time: nothing is timed, so the timing cache was not used"
        return None, (why,) if place.is_file() else ()
    found = timing_cache(place, _origin(kind, gpu))
    return found.path, found.notes


def _origin(kind: str, gpu: Gpu) -> Origin:
    return Origin(kind, library_version(kind) or "unknown", gpu.capability, gpu.name, gpu.driver)
