"""What a build will do, as data: nothing is loaded, run or written to find out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from builder.publish import next_version
from builder.releases import PINNED_RELEASE, newest_opset
from builder.spec import ModelSpec, Spec


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes:
        model: for which model.
        stage: a stage of ``pipeline.STAGES``.
        what: in words.
    """

    model: str
    stage: str
    what: str


@dataclass(frozen=True)
class Plan:
    """The steps of a build, in order."""

    steps: tuple[Step, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        return {"steps": [asdict(step) for step in self.steps]}


def plan(spec: Spec, only: Sequence[str] = ()) -> Plan:
    """What :func:`builder.build` will do.

    Args:
        spec: the spec.
        only: names of the models to build; all of them when empty.
    """
    steps: list[Step] = []
    for name, model in spec.models.items():
        if not only or name in only:
            steps += [Step(name, stage, what) for stage, what in _steps(name, model, spec)]
    return Plan(tuple(steps))


def _steps(name: str, model: ModelSpec, spec: Spec) -> list[tuple[str, str]]:
    version = next_version(spec.repository / name)
    release = spec.server or PINNED_RELEASE
    source = str(getattr(model.source, model.source.kind))
    steps = [
        ("source", f"load {source} ({model.source.kind})"),
        ("samples", f"take samples from {model.samples.python}" if model.samples else "make random samples"),
        ("reference", "ask the original module for the right answers"),
    ]
    if model.source.kind == "onnx":
        steps.append(("export", "take the ONNX file as it is"))
    else:
        exporter = "dynamo" if model.export.exporter == "auto" else model.export.exporter
        opset = model.export.opset or newest_opset(spec.server, exporter)
        steps.append(("export", f"torch.onnx.export by {exporter}, opset {opset}, for Triton {release}"))
    steps += [
        ("config", "decide and write config.pbtxt"),
        ("contract", "hold config.pbtxt against the artifact"),
        ("parity", "hold the artifact's answers against the original's"),
    ]
    if model.evaluate:
        steps.append(("accuracy", f"{model.evaluate.python}, a drop of at most {model.evaluate.max_drop:g}"))
    steps += [
        ("serve", "load it in Triton, ask over HTTP and gRPC, one at a time and many at once"),
        ("publish", f"to {spec.repository / name / str(version)}, unless it is what is there already"),
    ]
    return steps
