"""The stages of what is served as it is: a Python class with what it needs beside it; an ensemble of other models.

Both may need other models: an ensemble its steps, a class those that it calls."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from builder.artifact import Artifact, sha256_of
from builder.building import Build, seed
from builder.config import parse
from builder.errors import AccuracyError, EnsembleError
from builder.graphs.onnx_tensors import interface_of_onnx
from builder.host import tool_versions
from builder.incremental.answers import Answers
from builder.judging import CastRunner, Judging
from builder.loaded import Composition, Loaded, PythonClass
from builder.numerics import TOLERANCES
from builder.originals import calling
from builder.reference import OnnxRunner, Runner
from builder.repository.published import CONFIG, ModelFolder
from builder.results import Result, made_result
from builder.spec.ensembles import target_of
from builder.variant_stages import judged
from builder.verify.cases import Case
from builder.verify.streamed import Joining


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
        pack(source.requirements, packages, servers, dependencies=source.dependencies)
    notes = check_imports(code, servers, packages)
    names = write_version(loaded.step, code, to, name=build.subject.name, packages=packages)
    needed = _published(build)
    made = Artifact(
        path=to / "model.py",
        format="python",
        precision=_coarsest(needed),
        interface=loaded.interface,
        sha256={name: sha256_of(to / name) for name in sorted(names)},
        size_bytes=sum((to / name).stat().st_size for name in names),
        tools={"python": ", ".join(server.version for server in servers)},
        notes=notes,
    )
    return made_result(made, requirements=list(source.requirements), steps=needed)


def _ensemble(build: Build, loaded: Composition) -> Result:
    from builder.ensemble.adapters import config_tree

    steps = _published(build)
    tree = config_tree(loaded.graph)
    del tree["name"]  # under which name it is served, the variant says
    made = Artifact(
        path=build.folder("package") / "no file",
        format="ensemble",
        precision=_coarsest(steps),
        interface=loaded.interface,
        sha256={},
        size_bytes=0,
        tools=tool_versions("tritonclient"),
        notes=(f"of {', '.join(steps)}",),
    )
    return made_result(made, tree=tree, steps=steps)


def _published(build: Build) -> dict[str, dict[str, Any]]:
    """What is published of the models that it needs, by name."""
    found = {}
    for model in build.subject.model.needs:
        version = version_of(build, model)
        manifest = ModelFolder(build.subject.spec.repository, model).manifest(version)
        found[model] = {"version": version, "variant": manifest.variant, "precision": manifest.precision}
    return found


def _coarsest(needed: Mapping[str, Mapping[str, Any]]) -> str:
    """The precision that something can have at best that is made of these."""
    names = [str(row["precision"]) for row in needed.values()]
    return max(names, key=lambda name: TOLERANCES[name].relative, default="fp32")


def _runner(build: Build, loaded: Loaded, model: str) -> Runner:
    """What is published under a name, to be asked in this process.

    Raises:
        EnsembleError: it is an engine, which this process cannot run.
    """
    from builder.ensemble.compose import EnsembleRunner

    if isinstance(loaded, Composition):
        names = {step.name: step.model_name for step in loaded.graph.steps}
        return EnsembleRunner(loaded.graph, {k: _runner(build, loaded.parts[k], names[k]) for k in names})
    if isinstance(loaded, PythonClass):
        if not loaded.parts:
            return loaded.runner
        from builder.python_model import PythonRunner

        asked = {name: _runner(build, part, name) for name, part in loaded.parts.items()}
        runner = PythonRunner(loaded.step, build.subject.spec.folder, call=calling(asked))
        return Joining(runner.responses) if loaded.step.decoupled else runner
    folder = ModelFolder(build.subject.spec.repository, model).folder(version_of(build, model))
    if not (folder / "model.onnx").exists():
        raise EnsembleError(
            f"step {model} is an engine, and what it loses cannot be measured in this process",
            where=str(folder),
            expected="an ONNX variant of it",
            fix="name an ONNX variant in `steps`, or in `calls`",
        )
    given = loaded.interface
    return CastRunner(OnnxRunner(folder / "model.onnx"), interface_of_onnx(folder / "model.onnx").inputs, given.outputs)


def accuracy_of_steps(build: Build) -> Result:
    """Hold what is published of the models that it needs, put together, against their originals: losses add up.

    Raises:
        AccuracyError: naming the metric, and by how much.
    """
    loaded, model, precision = build.loaded, build.subject.model, build.made_by("package").precision
    value = float(build.kept["baseline"].data["value"]) if model.evaluate else None
    judging = Judging(
        build.subject.spec, model, build.samples, lambda: nullcontext(build.runner), value, lambda: seed(model)
    )
    verdict = judging.judge(precision)(_runner(build, loaded, build.subject.name))
    if verdict.failed and not build.subject.allow_drop:
        limits = ", ".join(f"{name} {limit:.9g}" for name, limit in verdict.limits.items())
        raise AccuracyError(
            f"{build.subject.name} does not hold its accuracy: {'; '.join(verdict.failed)}",
            expected=f"{limits} on held-out samples",
            got=", ".join(f"{name} {verdict.scores[name]:.6g}" for name in verdict.limits),
            fix=f"name a more accurate variant in `{_where(build)}`, or raise the limit in `agreement` or "
            "`evaluate.max_drop`; --allow-accuracy-drop publishes it as it is",
        )
    return judged(build, verdict)


def answers_of_steps(build: Build) -> Answers:
    """The requests that verify it, with the answers that what is published of the models that it needs gives."""
    runner, known = _runner(build, build.loaded, build.subject.name), build.answers

    def anew(cases: Sequence[Case]) -> list[Case]:
        return [replace(case, expected=runner(case.inputs)) for case in cases]

    return Answers(anew(known.cases), anew(known.golden), anew(known.together))


def version_of(build: Build, model: str) -> int:
    """The version of a model that another will be served with.

    Raises:
        EnsembleError: there is none: the step failed, now or the last time.
    """
    folder = ModelFolder(build.subject.spec.repository, model)
    version = folder.to_serve()
    if version is None:
        raise EnsembleError(
            f"{model}, which {build.subject.name} needs, is not in the repository",
            where=str(folder.path),
            expected="a version that build-repo published",
            got=f"{model} edited by hand, or without a version of ours" if folder.path.exists() else "no such folder",
            fix=f"mend {model}: see what is said of it; {build.subject.name} is built when it is there",
        )
    return version


def stage_steps(build: Build) -> None:
    """Let the verifying server find the models that it needs: links to what is published, with its configuration."""
    for model in models_of(build):
        version = version_of(build, model)
        published = ModelFolder(build.subject.spec.repository, model)
        staged = build.work.repository / model
        if staged.is_dir() and [entry.name for entry in staged.iterdir() if entry.is_dir()] == [str(version)]:
            continue
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        (staged / str(version)).symlink_to(published.folder(version), target_is_directory=True)
        (staged / CONFIG).write_bytes(published.config(version) or b"")


def models_of(build: Build) -> list[str]:
    """Every model of the repository that it needs, with what those need; each after what it needs itself."""
    models, found = build.subject.spec.models, dict[str, None]()

    def add(names: Sequence[str]) -> None:
        for name in names:
            target = target_of(models, name)
            if name not in found and target is not None:
                add(models[target[0]].needs)
                found[name] = None

    add(build.subject.model.needs)
    return list(found)


def loaded_before(build: Build) -> list[str]:
    """The models that the verifying server has to be told of: what a class calls; an ensemble's steps it finds."""
    models, names = build.subject.spec.models, models_of(build)
    targets = [target_of(models, name) for name in names]
    all_of_it = [build.subject.model, *(models[target[0]] for target in targets if target is not None)]
    return names if any(model.kind == "python_model" and model.needs for model in all_of_it) else []


def _where(build: Build) -> str:
    return "steps" if build.subject.model.ensemble is not None else "calls"


def check_steps(build: Build, of: str) -> None:
    """Hold the ensemble's ``config.pbtxt`` against those of its steps, as the server will find them.

    Raises:
        EnsembleError: an edge does not fit.
    """
    from builder.ensemble.adapters import graph_of_config, step_model_of_config
    from builder.ensemble.checks import check

    folder = build.work.repository
    configs = {name: _config(folder / name) for name in [build.name_of(of), *models_of(build)]}
    models = {
        name: step_model_of_config(config, versions=_versions(folder / name), served=_versions(folder / name))
        for name, config in configs.items()
    }
    graph = graph_of_config(configs[build.name_of(of)], models)
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
