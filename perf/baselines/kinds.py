"""Which model can have which baseline, and why not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perf.about import MANIFEST
from perf.baselines.data import BaselineKind
from perf.errors import BaselineError
from perf.inputs import ModelSpec
from perf.target import Subject

ONNX_BACKENDS = ("onnxruntime", "onnxruntime_onnx")
NOT_IN_NUMPY = ("BF16",)
"""Types whose tensors numpy does not hold, so that neither onnxruntime nor FastAPI is given them as people do."""


def cannot_be(kind: BaselineKind, subject: Subject, repository: Path) -> BaselineError | None:
    """Why a model cannot have a baseline, by what it is; None where it can."""
    spec, config = subject.spec, subject.config
    assert spec is not None
    if what := _other_requests(spec, config):
        return _no(
            kind,
            spec,
            what,
            "a model that gives one answer to each request, requests that do not depend on each other",
            "measure it without --baseline",
        )
    if kind == "pytorch":
        return _no_module(kind, spec, manifest_of(repository, spec))
    backend = str(config.get("backend") or config.get("platform") or "")
    if backend not in ONNX_BACKENDS:
        fix = "--baseline pytorch, or name a variant that is an ONNX file with --model"
        return _no(kind, spec, f"it is served by the backend {backend or '(none)'}", "an ONNX file", fix)
    if reshaped := [
        tensor["name"] for tensor in (*config.get("input", ()), *config.get("output", ())) if "reshape" in tensor
    ]:
        what = (
            f"the server reshapes {', '.join(map(str, reshaped))}, and the file takes another shape than a client sends"
        )
        return _no(kind, spec, what, "a configuration without reshape", "measure it without --baseline")
    types = {tensor.dtype.triton for tensor in (*spec.inputs, *spec.outputs)}
    if strange := types & set(NOT_IN_NUMPY):
        fix = "measure a variant of fp32 with --model"
        return _no(kind, spec, f"it takes or gives {', '.join(strange)}", "tensors that numpy holds", fix)
    return None


def _other_requests(spec: ModelSpec, config: Mapping[str, Any]) -> str:
    if spec.steps:
        return f"it is an ensemble of {', '.join(spec.steps)}"
    if spec.decoupled:
        return "it answers in streams"
    return "its requests come in sequences" if spec.stateful else ""


def _no_module(kind: BaselineKind, spec: ModelSpec, manifest: Mapping[str, Any] | None) -> BaselineError | None:
    """Why there is no eager module: nothing says what it was built from, or that was none."""
    if manifest is None:
        fix = "build it with build-repo, which leaves a manifest.json beside the version"
        return _no(kind, spec, "nothing says what it was built from", "a version with a manifest.json", fix)
    asked = manifest.get("spec") if isinstance(manifest.get("spec"), dict) else {}
    model = asked.get("model") if isinstance(asked, dict) else None
    source = model.get("source") if isinstance(model, dict) else None
    if not isinstance(source, dict) or "onnx" in source or manifest.get("variant") in ("python", "ensemble", "fused"):
        what = "it was not built from a torch module"
        return _no(kind, spec, what, "source: python, exported, checkpoint or huggingface", "--baseline onnxruntime")
    return None


def manifest_of(repository: Path, spec: ModelSpec) -> dict[str, Any] | None:
    """A served version's manifest as it lies there; None where there is none."""
    path = manifest_file(repository, spec)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def manifest_file(repository: Path, spec: ModelSpec) -> Path:
    """Where it lies."""
    return repository / spec.name / spec.version / MANIFEST


def _no(kind: str, spec: ModelSpec, got: str, expected: str, fix: str) -> BaselineError:
    what = f"there is no {kind} baseline for this model"
    return BaselineError(what, where=spec.name, expected=expected, got=got, fix=fix)
