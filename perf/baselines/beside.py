"""The baselines of a workload as rivals of its models: what each runs, and its processes while they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from perf.baselines.data import Baseline, BaselineKind, LeftOut
from perf.baselines.in_process import InProcess, Plan
from perf.baselines.kinds import cannot_be, manifest_file
from perf.baselines.over_http import OverHttp
from perf.rounds import Contender
from perf.runner import Run
from perf.target import Subject
from serving.openvino import VARIABLE

EAGER = "builder.eager:open_module"
"""Who offers the eager module: a name for the child process to import, no dependency."""

ONNX = "perf.baselines.onnx_session:open_sessions"


def name_of(model: str, kind: str) -> str:
    """What a baseline is called beside its model."""
    return f"{model}@{kind}"


@contextmanager
def baselines_of(run: Run, subjects: Sequence[Subject]) -> Iterator[tuple[list[Contender], tuple[LeftOut, ...]]]:
    """The models with the baselines that were asked for behind each; their processes end with the block."""
    contenders: list[Contender] = []
    left_out: list[LeftOut] = []
    repository = run.workload.repository
    with ExitStack() as stack:
        for subject in subjects:
            contenders.append(Contender(subject, run))
            if subject.spec is None or subject.data is None or repository is None:
                continue  # it is not measured itself
            for kind in run.workload.baselines:
                if (reason := cannot_be(kind, subject, repository)) is not None:
                    left_out.append(LeftOut(model=subject.name, kind=kind, reason=reason.as_dict()))
                    run.reporter.warn(f"{subject.name}: no {kind} baseline: {reason.got}")
                    continue
                contenders.append(_MAKERS[kind](stack, run, subject, repository.absolute()))
        yield contenders, tuple(left_out)


def instances_of(config: Any) -> tuple[int, str]:
    """How many instances a configuration has, and of which kind: ``CPU`` or ``GPU``."""
    groups = config.get("instance_group") or [{}]
    kinds = {str(group.get("kind", "")) for group in groups}
    count = sum(int(group.get("count") or 1) * max(1, len(group.get("gpus") or ())) for group in groups)
    return count, "GPU" if "KIND_GPU" in kinds else "CPU"


def onnx_arguments(run: Run, subject: Subject, repository: Path) -> dict[str, Any]:
    """What :func:`perf.baselines.onnx_session.open_sessions` is to open."""
    assert subject.spec is not None
    folder, kind = repository / subject.name / subject.spec.version, instances_of(subject.config)[1]
    openvino = run.target.env.get(VARIABLE, "")
    return {"config": dict(subject.config), "version_folder": str(folder), "kind": kind, "openvino": openvino}


def _as(subject: Subject, kind: str) -> Subject:
    assert subject.spec is not None
    name = name_of(subject.name, kind)
    return replace(subject, name=name, spec=replace(subject.spec, name=name), config={}, about={})


def _in_process(
    stack: ExitStack, run: Run, subject: Subject, kind: BaselineKind, plan: Plan, notes: tuple[str, ...]
) -> Contender:
    measurer = stack.enter_context(InProcess(run, plan, subject.name))

    def facts() -> Baseline:
        return Baseline(kind=kind, of=subject.name, instances=plan.instances, facts=dict(measurer.facts), notes=notes)

    return Contender(_as(subject, kind), measurer, facts)


def _onnxruntime(stack: ExitStack, run: Run, subject: Subject, repository: Path) -> Contender:
    instances, _ = instances_of(subject.config)
    plan = Plan(ONNX, onnx_arguments(run, subject, repository), instances, run.target.python)
    return _in_process(stack, run, subject, "onnxruntime", plan, ("each request is a call of its own: no batching",))


def _pytorch(stack: ExitStack, run: Run, subject: Subject, repository: Path) -> Contender:
    assert subject.spec is not None
    instances, kind = instances_of(subject.config)
    parameters = subject.config.get("parameters") or {}
    threads = (parameters.get("intra_op_thread_count") or {}).get("string_value") or "0"
    arguments = {
        "manifest": str(manifest_file(repository, subject.spec)),
        "spec": str(run.workload.spec.absolute()) if run.workload.spec is not None else "",
        "look_in": [str(Path.cwd()), str(repository.parent)],
        "threads": threads,
        "device": "cuda" if kind == "GPU" else "cpu",
    }
    notes = ("each request is a call of its own: no batching", "the module of the spec in its own precision")
    return _in_process(stack, run, subject, "pytorch", Plan(EAGER, arguments, instances, golden=True), notes)


def _fastapi(stack: ExitStack, run: Run, subject: Subject, repository: Path) -> Contender:
    instances, _ = instances_of(subject.config)
    arguments = onnx_arguments(run, subject, repository)
    measurer = stack.enter_context(OverHttp(run, subject.name, arguments, instances))
    notes = ["each request is a call of its own: no batching"]
    if run.workload.protocol != "http":
        notes.append("over HTTP: it has no gRPC")
    if run.workload.shared_memory != "none":
        notes.append("tensors in the request: it has no shared memory")

    def facts() -> Baseline:
        return Baseline(
            kind="fastapi", of=subject.name, instances=instances, facts=dict(measurer.facts), notes=tuple(notes)
        )

    return Contender(_as(subject, "fastapi"), measurer, facts)


_Maker = Callable[[ExitStack, Run, Subject, Path], Contender]
_MAKERS: dict[BaselineKind, _Maker] = {"onnxruntime": _onnxruntime, "pytorch": _pytorch, "fastapi": _fastapi}
