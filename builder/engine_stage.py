"""The stage that builds the engines of a variant: for the GPUs that are here, beside those that were built elsewhere.

TensorRT builds for the GPU that is there. An engine for each GPU is kept on a shelf in ``.build/engines``, by what it
was made of: the same build on a machine with another GPU, with the same ``.build``, puts its own beside them, and
publishes all of them as one version.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.artifact import Artifact, sha256_of
from builder.building import Build
from builder.engine import (
    Built,
    EngineOptions,
    describe_engine,
    engine_answers,
    engine_file,
    engine_from_onnx,
    library_version,
    profiles_of,
    resolve_targets,
)
from builder.engine.device import gpus
from builder.errors import EngineError
from builder.incremental.cache import digest_of
from builder.incremental.steps import name_of
from builder.releases import PINNED_RELEASE, check_engine_fits
from builder.results import Result, made_result
from builder.variant_stages import prepared_of
from builder.variants import VARIANTS, is_servable
from builder.verify import check_parity
from builder.verify.cases import as_asked
from serving.terminal import parse_size


@dataclass(frozen=True)
class Shelved:
    """An engine on the shelf: its file, and what :func:`builder.engine.describe_engine` says of it."""

    path: Path
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def engine(build: Build, of: str) -> Result:
    """Build the engines of a variant.

    Raises:
        EngineError, UnavailableError: as :func:`builder.engine.engine_from_onnx`, or the server could not load it.
    """
    variant, spec = VARIANTS[of], build.subject.spec
    source = build.made_by(name_of("precision", of)) if variant.precision != "fp32" else build.export
    graph = source.path if variant.precision != "fp32" else prepared_of(build)
    asked, kind, folder = build.subject.model.engine, variant.target, build.folder(f"engine {of}")
    options = _options(build, source)
    own = spec.folder / asked.timing_cache if asked.timing_cache else build.cache.folder / "timing"

    def made(capabilities: tuple[str, ...], to: Path) -> Shelved:
        chosen = EngineOptions(**{**vars(options), "gpus": capabilities})
        try:
            built = engine_from_onnx(graph, to, kind=kind, options=chosen, timing_cache=own)
        except EngineError as error:
            raise _with_kept_log(build, of, error, to.with_name(f"{to.name}.log"), graph) from error
        return Shelved(to, {**describe_engine(built), "parity": _parity(build, of, built)}, built.notes)

    notes: tuple[str, ...] = ()
    if is_servable(variant):
        version = library_version(kind) or "0"
        notes = check_engine_fits(
            spec.server or PINNED_RELEASE,
            kind,
            version,
            version_compatible=asked.version_compatible,
            tensorrt=asked.server_tensorrt,
            where=f"models.{build.subject.name}.engine",
        )
        what = digest_of([sha256_of(graph), options.as_dict(), version])
        wanted = resolve_targets(kind, asked.gpu, where=f"models.{build.subject.name}.engine.gpu")
        here = tuple(dict.fromkeys(gpu.capability for gpu in gpus()))
        shelf = build.cache.folder.parent / "engines"
        found, absent = collected(wanted or here[:1], here, shelf, what, made, folder)
        notes += tuple(_absent(capability) for capability in absent)
    else:
        found = {"": made(asked.gpu, folder / "model.plan")}
    return made_result(
        Artifact(
            path=next(iter(found.values())).path,
            format="plan",
            precision=variant.precision,
            interface=source.interface,
            sha256={each.path.name: sha256_of(each.path) for each in found.values()},
            size_bytes=sum(each.path.stat().st_size for each in found.values()),
            tools={**source.tools, kind: library_version(kind) or ""},
            notes=(*source.notes, *notes, *(note for each in found.values() for note in each.notes)),
        ),
        engine=next(iter(found.values())).facts
        if len(found) == 1
        else {"engines": {each.path.name: each.facts for each in found.values()}},
    )


def _parity(build: Build, of: str, built: Built) -> dict[str, Any] | None:
    """The engine itself against the original, where a GPU that it is for is here; None where nothing can run it.

    Raises:
        ParityError: an answer differs.
        EngineError: it does not load here.
    """
    gpu = next((gpu for gpu in gpus() if gpu.capability in built.capabilities), None)
    if gpu is None:
        return None
    variant = VARIANTS[of]
    source = build.made_by(name_of("precision", of)) if variant.precision != "fp32" else build.export
    cases = as_asked(build.answers.cases, source.interface)
    answers = iter(engine_answers(built.path, [case.inputs for case in cases], kind=built.kind, gpu=gpu))
    what, where = f"{build.subject.name} ({of})", f"{built.kind} {built.version} on {gpu.name}"
    return check_parity(lambda inputs: next(answers), cases, variant.precision, what=what, where=where).as_dict()


def _options(build: Build, source: Artifact) -> EngineOptions:
    asked, batch, subject = build.subject.model.engine, build.subject.model.batch, build.subject
    return EngineOptions(
        profiles=profiles_of(
            source.interface,
            max_batch=batch.max if source.interface.batches else 0,
            preferred=batch.preferred,
            explicit=[{name: shapes.model_dump() for name, shapes in each.items()} for each in asked.profiles],
            typical=build.kept["samples"].data["sizes"],
            where=f"models.{subject.name}.engine.profiles",
        ),
        workspace_bytes=parse_size(asked.workspace) if asked.workspace else None,
        optimization_level=asked.optimization_level,
        version_compatible=asked.version_compatible,
        hardware_compatibility=asked.hardware_compatibility,
        sparsity=asked.sparsity,
        refit=asked.refit,
        weight_streaming=asked.weight_streaming,
        plugins=tuple(str(subject.spec.folder / file) for file in asked.plugins),
        dla_core=asked.dla_core,
    )


def collected(
    wanted: Sequence[str],
    here: Sequence[str],
    shelf: Path,
    what: str,
    make: Callable[[tuple[str, ...], Path], Shelved],
    folder: Path,
) -> tuple[dict[str, Shelved], list[str]]:
    """The engines of a version: made for the GPUs that are here, taken from the shelf for the others.

    Args:
        wanted: compute capabilities.
        here: those of the GPUs of this machine.
        shelf: where engines are kept, whoever built them.
        what: digest of all that they are made of.
        make: builds one into a file.
        folder: where the files of the version go.

    Returns:
        The engines by compute capability, and the capabilities that have none yet.

    Raises:
        EngineError: there is none at all.
    """
    found: dict[str, Shelved] = {}
    absent: list[str] = []
    folder.mkdir(parents=True, exist_ok=True)
    shelf.mkdir(parents=True, exist_ok=True)
    for capability in wanted:
        file = folder / engine_file(capability)
        kept = shelf / f"{what}-{engine_file(capability)}"
        if capability in here:
            found[capability] = made = make((capability,), file)
            shutil.copyfile(file, kept)
            kept.with_suffix(".json").write_text(
                json.dumps({"sha256": sha256_of(file), "facts": made.facts, "notes": made.notes}), encoding="utf-8"
            )
        elif (taken := _from_shelf(kept, file)) is not None:
            found[capability] = taken
        else:
            absent.append(capability)
    if not found:
        raise EngineError(
            "there is no engine for any of the GPUs that are asked for",
            where="engine.gpu",
            expected=f"a GPU with compute capability {', '.join(absent) or 'of any kind'}",
            got=f"here: {', '.join(here) or 'no GPU that nvidia-smi knows'}; built elsewhere: none",
            fix="build on a machine with one of them, with this .build folder; or name the GPU that is here",
        )
    return found, absent


def _from_shelf(kept: Path, file: Path) -> Shelved | None:
    """An engine that another machine built, if it is whole."""
    try:
        facts = json.loads(kept.with_suffix(".json").read_text(encoding="utf-8"))
        shutil.copyfile(kept, file)
        whole = facts["sha256"] == sha256_of(file)
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        file.unlink(missing_ok=True)
        return None
    return Shelved(file, facts["facts"], tuple(facts["notes"]))


def _absent(capability: str) -> str:
    return (
        f"fallback: no engine for compute capability {capability} yet: run this build, with this .build folder, on a "
        "machine with such a GPU; until then it is served by an ONNX variant"
    )


def _with_kept_log(build: Build, of: str, error: EngineError, log: Path, graph: Path) -> EngineError:
    """The same with the library's log kept, and the graph named: what is in staging is gone when it is read."""
    where, fix = error.where.replace(str(graph), f"{build.subject.name}: {of}"), error.fix
    if log.is_file():
        kept = build.cache.folder.parent / "logs" / f"{build.name_of(of)}.log"
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, kept)
        fix = fix.replace(str(log), str(kept))
    return EngineError(error.what, where=where, expected=error.expected, got=error.got, fix=fix)
