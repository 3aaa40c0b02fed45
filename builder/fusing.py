"""The stage that puts the steps of an ensemble into one ONNX graph, and holds that against the steps."""

from __future__ import annotations

import shutil

from builder.artifact import artifact_of
from builder.building import Build
from builder.errors import EnsembleError
from builder.host import tool_versions
from builder.loaded import Composition
from builder.packaging import answers_of_steps, version_of
from builder.reference import OnnxRunner
from builder.repository.published import ModelFolder
from builder.results import Result, made_result
from builder.verify import check_parity


def fuse(build: Build) -> Result:
    """One graph of what is published of the steps, answering as they do one after another.

    Raises:
        EnsembleError: they cannot be one graph; with the reasons.
        ParityError: the one graph answers otherwise.
    """
    from builder.ensemble.fuse import Part, fuse_onnx
    from builder.ensemble.graph import in_order

    loaded, name = build.loaded, build.subject.name
    assert isinstance(loaded, Composition)
    graph, repository = loaded.graph, build.subject.spec.repository
    _check(build, loaded)
    parts = []
    for step in (graph.steps[index] for index in in_order(graph)):
        folder = ModelFolder(repository, step.model_name).folder(version_of(build, step.model_name))
        parts.append(Part(step.name, folder / "model.onnx", dict(step.inputs), dict(step.outputs)))
    to = build.folder("fuse") / "model.onnx"
    shutil.rmtree(to.parent, ignore_errors=True)
    to.parent.mkdir(parents=True)
    data = fuse_onnx(parts, [port.name for port in graph.inputs], [port.name for port in graph.outputs], to)
    package = build.made_by("package")
    with OnnxRunner(to) as runner:
        cases = answers_of_steps(build).cases
        parity = check_parity(runner, cases, package.precision, what=f"{name} (fused)", where="ONNX Runtime")
    made = artifact_of(
        to,
        precision=package.precision,
        interface=loaded.interface,
        tools=tool_versions("onnx", "onnxruntime"),
        data=data,
        notes=(f"one graph of {', '.join(step.name for step in graph.steps)}",),
    )
    return made_result(made, against_steps=parity.as_dict())


def _check(build: Build, loaded: Composition) -> None:
    from builder.ensemble.groups import why_not

    graph = loaded.graph
    reasons = why_not(graph, range(len(graph.steps)))
    if reasons:
        raise EnsembleError(
            "the steps of the ensemble cannot be one graph",
            where=f"models.{build.subject.name}.ensemble.fuse",
            expected="neighbouring ONNX models that batch alike",
            got="\n".join(reasons),
            fix="put the steps that can be one graph into an ensemble of their own, with `fuse: true`, and name that "
            "as a step here; or take `fuse` out",
        )
