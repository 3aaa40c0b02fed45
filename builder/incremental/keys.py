"""What the result of each step depends on, by name: a step whose dependencies are all as before need not run.

Everything here is known before a step runs; what the user's code reads while it runs is seen by
:mod:`builder.incremental.tracing` and kept beside it. A key that is missing here is a stale artifact in somebody's
repository: each one has a test that changes it alone.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from builder.available import engine_facts, unavailable
from builder.errors import UnavailableError
from builder.host import cpu_model
from builder.incremental.cache import digest_of
from builder.incremental.fingerprint import FileMemory, Fingerprints, kind_at
from builder.incremental.packages import version_of
from builder.operations import libraries_of, name_of
from builder.releases import PINNED_RELEASE
from builder.repository.content import step_content
from builder.spec import ModelSpec, Spec
from builder.spec.ensembles import target_of
from builder.spec.files import files_of, is_variable
from builder.variants import VARIANTS

Inputs = dict[str, str]
_NO_MATTER = ("cli.py", "terminal.py")
_LONGEST_PATH = 4096
_SAMPLE_TOOLS = ("numpy", "torch")  # imported before the user's code, so not always seen when it uses them
_EXPORT_TOOLS = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy")

_SERVING = (
    *("batch", "instances", "sequence", "tensors", "versions", "warmup", "response_cache", "optimization", "decoupled"),
    *("parameters", "metric_tags", "metrics", "operations", "agents", "hosts", "labels", "config", "engine"),
)
"""The fields of a model's entry that become ``config.pbtxt``."""


@dataclass(frozen=True)
class Subject:
    """One model whose dependencies are asked for.

    Attributes:
        name: the model's name.
        spec: the spec it is in.
        model: what the spec says of it.
        now: fingerprints of what is here now.
        allow_drop: a variant that loses more accuracy than the spec allows is published all the same.
    """

    name: str
    spec: Spec
    model: ModelSpec
    now: Fingerprints
    allow_drop: bool = False

    @property
    def variants(self) -> tuple[str, ...]:
        """Those of the spec that can be built here."""
        return tuple(name for name in self.model.variants if name not in self.missing)

    @cached_property
    def missing(self) -> dict[str, UnavailableError]:
        """The variants that cannot be built here, and what is missing."""
        found = {name: unavailable(VARIANTS[name], self.spec.path.name, self.name) for name in self.model.variants}
        return {name: error for name, error in found.items() if error is not None}

    def said(self, *fields: str) -> Inputs:
        """These fields of the spec; ``batch.max`` is the field of a field."""
        found: Inputs = {}
        for name in fields:
            value: Any = self.model
            for part in name.split("."):
                value = getattr(value, part) if value is not None else None
            found[f"spec:{name}"] = json.dumps(_plain(value), sort_keys=True)
        return found

    def files(self, names: Iterable[str]) -> Inputs:
        """The content of these files (or of all that is in these folders)."""
        keys = {f"file:{name}" for name in names}
        return {key: self.now.of(key) for key in sorted(keys)}

    @cached_property
    def libraries(self) -> list[str]:
        """Libraries of operations that are files."""
        known = libraries_of(self.model.operations, self.spec.folder)
        return [text for text in self.model.operations if name_of(text) in known]

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


def _plain(value: Any) -> Any:
    """A part of the spec, or mappings and lists of such, as JSON has it; one that is alone in a list is without it."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        inner = [_plain(each) for each in value]
        return inner[0] if len(inner) == 1 and hasattr(value[0], "model_dump") else inner
    return value


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
    hashes = {str(path.relative_to(root)): memory.sha256(path) for path in files if path.name not in _NO_MATTER}
    return f"{version_of('triton-repo').partition('+')[0]}+{digest_of(hashes)[:12]}"


@lru_cache(maxsize=1)
def _host() -> Inputs:
    # Answers in floating point differ between processors in their last digits; files that are exported do not.
    return {"host:cpu": cpu_model(), "host:machine": platform.machine()}


def of_source(subject: Subject) -> Inputs:
    """Of loading the module: the code, the weights, the tensors it is to have."""
    needed = _of_needed(subject) if subject.model.needs else {}
    if subject.model.ensemble is not None:
        return subject.said("ensemble", "inputs", "outputs", "batch.max") | needed | subject.depends()
    source = subject.model.origin
    code = subject.code((text for _, text in source.references()), source.args)
    packages: tuple[str, ...] = ("onnx", "onnxruntime") if source.onnx else ("torch",)
    packages += {"huggingface": ("transformers", "safetensors"), "checkpoint": ("safetensors",)}.get(source.kind, ())
    files = subject.files(name for _, name in source.paths())
    said = subject.said("source", "inputs", "outputs")
    if subject.model.operations:
        files |= subject.files(subject.libraries)
    if source.python_model:  # what stands around the class leaves inputs out, and lets it yield
        said |= {"decoupled": str(subject.model.is_decoupled)} | subject.said("tensors")
    return said | files | code | subject.depends() | tools(*packages) | needed


def _of_needed(subject: Subject) -> Inputs:
    """Of the originals of all steps, or of all that a class calls, and of what is published of them."""
    found = of_steps(subject)
    for needed in subject.model.needs:
        target = target_of(subject.spec.models, needed)
        if target is not None:
            inner = of_source(replace(subject, name=target[0], model=subject.spec.models[target[0]]))
            found |= {key.replace("spec:", f"spec:models.{target[0]}.", 1): value for key, value in inner.items()}
    return found


def of_steps(subject: Subject) -> Inputs:
    """What is published of the models that it needs."""
    repository = subject.spec.repository
    return {f"published:{name}": step_content(repository, name) for name in subject.model.needs}


def of_package(subject: Subject) -> Inputs:
    """Of the files of a Python class; of the graph of an ensemble."""
    if subject.model.ensemble is not None:
        return of_steps(subject) | subject.said("ensemble", "batch.max") | tools("tritonclient")
    served_by = {"release": subject.spec.server or PINNED_RELEASE, "triton": _server()}  # packages are for its Python
    return of_source(subject) | subject.said("batch.max") | served_by


def of_fuse(subject: Subject) -> Inputs:
    """Of the one graph that the steps of an ensemble are put into."""
    return of_steps(subject) | tools("onnx", "onnxruntime")


def of_samples(subject: Subject) -> Inputs:
    """Of the samples."""
    samples = subject.model.samples
    code = subject.code([samples.python], samples.args) if samples else {}
    return subject.said("samples", "inputs") | code | subject.depends() | tools(*_SAMPLE_TOOLS)


def of_reference(subject: Subject) -> Inputs:
    """Of the original's answers."""
    return subject.said("batch.max", "sequence") | tools("numpy") | _host()


def of_baseline(subject: Subject) -> Inputs:
    """Of the user's metric on the original."""
    evaluate = subject.model.evaluate
    code = subject.code([evaluate.python], evaluate.args) if evaluate else {}
    said = subject.said("evaluate.python", "evaluate.args")
    return said | code | subject.depends() | tools(*_SAMPLE_TOOLS) | _host()


def of_export(subject: Subject) -> Inputs:
    """Of the ONNX file."""
    release = subject.spec.server or PINNED_RELEASE
    exporters = ("dynamo", "torchscript")
    opsets = {name: subject.model.opset_of(release, name) for name in exporters}
    chosen = {"opset": ", ".join(f"{opset} ({name})" for name, opset in opsets.items())}
    return subject.said("export") | chosen | tools(*_EXPORT_TOOLS)


def of_parity(subject: Subject) -> Inputs:
    """Of a graph's answers in this machine's ONNX Runtime."""
    return tools("onnxruntime", "numpy") | _host()


def of_accuracy(subject: Subject) -> Inputs:
    """Of the user's metric on the exported graph."""
    return of_baseline(subject) | subject.said("evaluate") | tools("onnxruntime") | _allowed(subject)


def _allowed(subject: Subject) -> Inputs:
    return {"--allow-accuracy-drop": "given"} if subject.allow_drop else {}


def of_precision(subject: Subject, variant: str) -> Inputs:
    """Of a graph in another precision: what is asked of it, and what it is calibrated with."""
    model = subject.model
    recipe, calibration = model.precision.recipes.get(variant), model.precision.calibration
    found = subject.files([recipe]) if recipe else subject.said("agreement", "evaluate.max_drop")
    found |= subject.code([calibration.python], calibration.args) if calibration else {}
    found |= of_baseline(subject) if model.evaluate and not recipe else subject.depends()
    said = subject.said("precision")
    plain = json.loads(said["spec:precision"])
    plain["recipes"] = {variant: recipe} if recipe else {}
    said["spec:precision"] = json.dumps(plain, sort_keys=True)
    return found | said | tools("onnx", "onnxruntime", "numpy") | _host() | _allowed(subject)


def of_agreement(subject: Subject) -> Inputs:
    """Of the judgement of a variant."""
    metric = of_accuracy(subject) if subject.model.evaluate else {}
    return metric | subject.said("agreement") | tools("onnxruntime", "numpy") | _host() | _allowed(subject)


def of_engine(subject: Subject, variant: str) -> Inputs:
    """Of an engine."""
    engine = subject.model.engine
    files = subject.files([*engine.plugins, *([engine.timing_cache] if engine.timing_cache else [])])
    found = engine_facts(VARIANTS[variant].target)
    return subject.said("engine", "batch.max", "batch.preferred") | files | found | tools("polygraphy")


def of_config(subject: Subject, variant: str) -> Inputs:
    """Of ``config.pbtxt``."""
    states = subject.model.sequence.state if subject.model.sequence else ()
    copied = [*subject.model.labels.values(), *(state.file for state in states if state.file)]
    copied += subject.libraries
    names = {"name": subject.name, "spec file": subject.spec.path.name}  # both are written into config.pbtxt
    if variant:
        names["variant"] = variant
    if subject.spec.server and not subject.model.inputs:  # which fields it takes; else known when the spec is read
        names["server"] = subject.spec.server
    return names | subject.said(*_SERVING) | subject.files(copied) | tools("jinja2", "protobuf", "tritonclient")


def of_contract(subject: Subject) -> Inputs:
    """Of holding that against the artifact."""
    return tools("onnx", "protobuf", "tritonclient")


def of_serve(subject: Subject) -> Inputs:
    """Of what a server answers."""
    return {"triton": _server()} | tools("tritonclient", "numpy") | _host()


def _server() -> str:
    return _triton(os.environ.get("TRITONSERVER"), os.environ.get("PATH"))


def of_choose(subject: Subject) -> Inputs:
    """Of the choice of the fastest."""
    return subject.said("load") | of_serve(subject)


@lru_cache(maxsize=4)
def _triton(*places: str | None) -> str:
    from serving.runtime import identity

    return identity()
