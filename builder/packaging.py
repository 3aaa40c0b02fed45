"""The stages of what is served as it is: a Python class with what it needs beside it; an ensemble of other models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from builder.artifact import Artifact, sha256_of
from builder.building import Build
from builder.config import parse
from builder.errors import EnsembleError
from builder.host import tool_versions
from builder.loaded import Composition, PythonClass
from builder.numerics import TOLERANCES
from builder.repository.published import CONFIG, ModelFolder
from builder.results import Result, made_result
from builder.spec.ensembles import target_of


def package(build: Build) -> Result:
    """The files of a Python class; of an ensemble, its graph and what it is made of: it has no files."""
    loaded = build.loaded
    if isinstance(loaded, Composition):
        return _ensemble(build, loaded)
    assert isinstance(loaded, PythonClass)
    return _class(build, loaded)


def _class(build: Build, loaded: PythonClass) -> Result:
    from builder.python_model import check_imports, collect, pack, server_pythons, write_version

    source, spec = build.subject.model.origin, build.subject.spec
    to = build.folder("package")
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    code = collect(loaded.step.reference, spec.folder, files={name: spec.folder / name for name in source.files})
    servers, packages = server_pythons(spec.server), None
    if source.requirements:
        packages = build.folder("requirements")
        shutil.rmtree(packages, ignore_errors=True)
        packages.mkdir(parents=True)
        pack(source.requirements, packages, servers)
    notes = check_imports(code, servers, packages)
    names = write_version(loaded.step, code, to, name=build.subject.name, packages=packages)
    made = Artifact(
        path=to / "model.py",
        format="python",
        precision="fp32",
        interface=loaded.interface,
        sha256={name: sha256_of(to / name) for name in sorted(names)},
        size_bytes=sum((to / name).stat().st_size for name in names),
        tools={"python": ", ".join(server.version for server in servers)},
        notes=notes,
    )
    return made_result(made, requirements=list(source.requirements))


def _ensemble(build: Build, loaded: Composition) -> Result:
    from builder.ensemble import config_tree

    steps, repository = {}, build.subject.spec.repository
    for model in dict.fromkeys(step.model_name for step in loaded.graph.steps):
        version = _version_of(build, model)
        manifest = ModelFolder(repository, model).manifest(version)
        steps[model] = {"version": version, "variant": manifest.variant, "precision": manifest.precision}
    coarsest = max((step["precision"] for step in steps.values()), key=lambda name: TOLERANCES[str(name)].relative)
    tree = config_tree(loaded.graph)
    made = Artifact(
        path=build.folder("package") / "no file",
        format="ensemble",
        precision=str(coarsest),
        interface=loaded.interface,
        sha256={},
        size_bytes=0,
        tools=tool_versions("tritonclient"),
        notes=(f"of {', '.join(steps)}",),
    )
    return made_result(made, tree=tree, steps=steps)


def _version_of(build: Build, model: str) -> int:
    """The version of a step that the ensemble will be served with.

    Raises:
        EnsembleError: there is none: the step failed, now or the last time.
    """
    folder = ModelFolder(build.subject.spec.repository, model)
    version = folder.to_serve()
    if version is None:
        raise EnsembleError(
            f"step {model} of the ensemble is not in the repository",
            where=str(folder.path),
            expected="a version that build-repo published",
            got=f"{model} edited by hand, or without a version of ours" if folder.path.exists() else "no such folder",
            fix=f"mend {model}: see what is said of it; the ensemble is built when it is there",
        )
    return version


def stage_steps(build: Build) -> None:
    """Let the verifying server find the models of the steps: links to what is published, with its configuration."""
    for model in _models_of(build):
        version = _version_of(build, model)
        published = ModelFolder(build.subject.spec.repository, model)
        staged = build.work.repository / model
        if staged.is_dir() and [entry.name for entry in staged.iterdir() if entry.is_dir()] == [str(version)]:
            continue
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        (staged / str(version)).symlink_to(published.folder(version), target_is_directory=True)
        (staged / CONFIG).write_bytes(published.config(version) or b"")


def _models_of(build: Build) -> list[str]:
    """Every model of the repository that the ensemble needs, those of ensembles among its steps included."""
    models, found = build.subject.spec.models, dict[str, None]()
    waiting = [step.model for step in _steps(build.subject.model)]
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found[name] = None
            target = target_of(models, name)
            waiting += [step.model for step in _steps(models[target[0]])] if target is not None else []
    return list(found)


def _steps(model: Any) -> tuple[Any, ...]:
    return tuple(model.ensemble.steps) if model.ensemble is not None else ()


def check_steps(build: Build) -> None:
    """Hold the ensemble's ``config.pbtxt`` against those of its steps, as the server will find them.

    Raises:
        EnsembleError: an edge does not fit.
    """
    from builder.ensemble import check, graph_of_config, step_model_of_config

    folder = build.work.repository
    configs = {name: _config(folder / name) for name in [build.subject.name, *_models_of(build)]}
    models = {
        name: step_model_of_config(config, versions=_versions(folder / name), served=_versions(folder / name))
        for name, config in configs.items()
    }
    graph = graph_of_config(configs[build.subject.name], models)
    wrong = [hit for rule, hit in check(graph) if rule.severity == "error"]
    if wrong:
        raise EnsembleError(
            wrong[0].message,
            where=f"models.{build.subject.name}.ensemble",
            expected="steps that take and give what the ensemble's config.pbtxt says",
            got="\n".join(hit.message for hit in wrong[1:]),
            fix=wrong[0].fix,
        )


def _config(folder: Path) -> Any:
    return parse((folder / CONFIG).read_text(encoding="utf-8"), folder.name)


def _versions(folder: Path) -> tuple[int, ...]:
    return tuple(sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdecimal()))
