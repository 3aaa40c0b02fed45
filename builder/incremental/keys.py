"""What the result of each step depends on, by name: a step whose dependencies are all as before need not run.

Everything here is known before a step runs; what the user's code reads while it runs is seen by
:mod:`builder.incremental.tracing` and kept beside it. A key that is missing here is a stale artifact in somebody's
repository: each one has a test that changes it alone.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from builder.host import cpu_model
from builder.incremental.fingerprint import FileMemory, Fingerprints, kind_at
from builder.incremental.packages import version_of
from builder.releases import PINNED_RELEASE, newest_opset
from builder.spec import ModelSpec, Spec
from builder.spec.files import files_of, is_variable

Inputs = dict[str, str]
_NO_MATTER = ("cli.py", "terminal.py")
_LONGEST_PATH = 4096
_SAMPLE_TOOLS = ("numpy", "torch")  # imported before the user's code, so not always seen when it uses them
_EXPORT_TOOLS = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Subject:
    """One model whose dependencies are asked for.

    Attributes:
        name: the model's name.
        spec: the spec it is in.
        model: what the spec says of it.
        now: fingerprints of what is here now.
    """

    name: str
    spec: Spec
    model: ModelSpec
    now: Fingerprints

    def said(self, *fields: str) -> Inputs:
        """These fields of the spec; ``batch.max`` is the field of a field."""
        found: Inputs = {}
        for name in fields:
            value: Any = self.model
            for part in name.split("."):
                value = getattr(value, part) if value is not None else None
            plain = value.model_dump(mode="json", by_alias=True) if hasattr(value, "model_dump") else value
            found[f"spec:{name}"] = json.dumps(plain, sort_keys=True)
        return found

    def files(self, names: Iterable[str]) -> Inputs:
        """The content of these files (or of all that is in these folders)."""
        keys = {f"file:{name}" for name in names}
        return {key: self.now.of(key) for key in sorted(keys)}

    def code(self, references: Iterable[str], *args: Any) -> Inputs:
        """The files of these callables, where their modules are found, and the files that their arguments name."""
        modules = [text.rpartition(":")[0] for text in references]
        found = self.files(module for module in modules if module.endswith(".py"))
        keys = {f"module:{module.split('.')[0]}" for module in modules if not module.endswith(".py")}
        named = (text for value in args for text in _texts(value) if self._is_named(text))
        return found | {key: self.now.of(key) for key in sorted(keys)} | self.files(named)

    def _is_named(self, text: str) -> bool:
        """True where an argument names a file, or a folder that is below the spec's: ``/`` and ``.`` are just texts."""
        kind = kind_at(self.spec.folder / text) if 0 < len(text) < _LONGEST_PATH else "absent"
        if kind != "folder":
            return kind == "file"
        path = (self.spec.folder / text).resolve()
        return self.spec.folder in path.parents and not self.now.is_ours(path)

    def depends(self) -> Inputs:
        """What the user's ``depends`` names."""
        found: Inputs = {}
        for text in self.model.depends:
            if is_variable(text):
                keys = [f"env:{text[1:]}"]
            elif kind_at(folder := self.spec.folder / text) == "folder":
                keys = [] if self.now.is_ours(folder.resolve()) else [f"file:{text}"]
            else:
                paths = files_of(text, self.spec.folder)
                keys = [self.now.named("file", path) for path in paths if not self.now.is_ours(path)]
            found |= {key: self.now.of(key) for key in keys}
        return found


def fingerprints_of(spec: Spec, memory: FileMemory | None = None) -> Fingerprints:
    """Fingerprints for the models of a spec: what builds write is none of their dependencies."""
    return Fingerprints(spec.folder, memory, ours=(spec.repository, spec.repository.parent / ".build"))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def tools(*names: str) -> Inputs:
    """Versions of distributions, of Python and of ourselves."""
    found = {f"tool:{name}": version_of(name) for name in names}
    return {"tool:python": platform.python_version(), "tool:triton-repo": own_version(), **found}


@lru_cache(maxsize=1)
def own_version() -> str:
    """Our version and a hash of our code: in a development tree the code changes under one version."""
    root = Path(__file__).parents[2]
    memory = FileMemory(None)
    files = [path for name in ("builder", "serving") for path in (root / name).rglob("*.py")]
    files += (root / "templates").glob("*.j2")
    from builder.incremental.cache import digest_of

    hashes = {str(path.relative_to(root)): memory.sha256(path) for path in files if path.name not in _NO_MATTER}
    return f"{version_of('triton-repo').partition('+')[0]}+{digest_of(hashes)[:12]}"


@lru_cache(maxsize=1)
def _host() -> Inputs:
    # Answers in floating point differ between processors in their last digits; files that are exported do not.
    return {"host:cpu": cpu_model(), "host:machine": platform.machine()}


def _source(subject: Subject) -> Inputs:
    source = subject.model.source
    code = subject.code((text for _, text in source.references()), source.args)
    packages: tuple[str, ...] = ("onnx", "onnxruntime") if source.onnx else ("torch",)
    packages += {"huggingface": ("transformers", "safetensors"), "checkpoint": ("safetensors",)}.get(source.kind, ())
    files = subject.files(name for _, name in source.files())
    return subject.said("source", "inputs", "outputs") | files | code | subject.depends() | tools(*packages)


def _samples(subject: Subject) -> Inputs:
    samples = subject.model.samples
    code = subject.code([samples.python], samples.args) if samples else {}
    return subject.said("samples", "inputs") | code | subject.depends() | tools(*_SAMPLE_TOOLS)


def _reference(subject: Subject) -> Inputs:
    return subject.said("batch.max") | tools("numpy") | _host()


def _baseline(subject: Subject) -> Inputs:
    evaluate = subject.model.evaluate
    code = subject.code([evaluate.python], evaluate.args) if evaluate else {}
    said = subject.said("evaluate.python", "evaluate.args")
    return said | code | subject.depends() | tools(*_SAMPLE_TOOLS) | _host()


def _export(subject: Subject) -> Inputs:
    release = subject.spec.server or PINNED_RELEASE
    exporters = ("dynamo", "torchscript")
    opsets = {name: subject.model.export.opset or newest_opset(release, name) for name in exporters}
    chosen = {"opset": ", ".join(f"{opset} ({name})" for name, opset in opsets.items())}
    return subject.said("export", "variants", "serve") | chosen | tools(*_EXPORT_TOOLS)


def _config(subject: Subject) -> Inputs:
    labels = subject.files(subject.model.labels.values())
    fields = ("batch", "instances", "warmup", "response_cache", "labels", "config")
    names = {"name": subject.name, "spec file": subject.spec.path.name}  # both are written into config.pbtxt
    return names | subject.said(*fields) | labels | tools("jinja2", "protobuf", "tritonclient")


def _contract(subject: Subject) -> Inputs:
    return tools("onnx", "protobuf", "tritonclient")


def _parity(subject: Subject) -> Inputs:
    return tools("onnxruntime", "numpy") | _host()


def _accuracy(subject: Subject) -> Inputs:
    return _baseline(subject) | subject.said("evaluate") | tools("onnxruntime")


def _serve(subject: Subject) -> Inputs:
    triton = _triton(os.environ.get("TRITONSERVER"), os.environ.get("PATH"))
    return {"triton": triton} | tools("tritonclient", "numpy") | _host()


@lru_cache(maxsize=4)
def _triton(*places: str | None) -> str:
    from serving.runtime import identity

    return identity()


@dataclass(frozen=True)
class Step:
    """One step whose result is kept.

    Attributes:
        name: as in ``pipeline.STAGES``.
        inputs: what it depends on besides the steps before it.
        after: the steps whose results it uses.
        runs_user_code: what that code reads while it runs counts as well.
    """

    name: str
    inputs: Callable[[Subject], Inputs]
    after: tuple[str, ...] = ()
    runs_user_code: bool = False


STEPS: tuple[Step, ...] = (
    Step("source", _source, (), True),
    Step("samples", _samples, ("source",), True),
    Step("reference", _reference, ("source", "samples"), True),
    Step("baseline", _baseline, ("source",), True),
    Step("export", _export, ("source", "samples"), True),
    Step("config", _config, ("export", "samples")),
    Step("contract", _contract, ("export", "config")),
    Step("parity", _parity, ("export", "reference")),
    Step("accuracy", _accuracy, ("export", "baseline"), True),
    Step("serve", _serve, ("export", "config", "reference")),
)


def steps_of(model: ModelSpec) -> tuple[Step, ...]:
    """The steps that this model has: without a metric there is none to measure."""
    wanted = STEPS
    if model.evaluate is None:
        wanted = tuple(step for step in wanted if step.name not in ("baseline", "accuracy"))
    if model.inputs:  # samples are made for the tensors that are written in the spec, whatever the source is
        wanted = tuple(replace(step, after=()) if step.name == "samples" else step for step in wanted)
    return wanted


def inputs_of(step: Step, subject: Subject, digests: Mapping[str, str]) -> Inputs:
    """All that a step depends on and is known before it runs.

    Args:
        step: the step.
        subject: the model.
        digests: of the results of the steps before it.
    """
    return {**step.inputs(subject), **{f"step:{name}": digests[name] for name in step.after}}
