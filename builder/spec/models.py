"""What a user may ask for: the pydantic models of ``models.yaml``, and all that is wrong with one, at once.

Nothing here imports torch or runs the user's code: reading a spec is cheap and safe. The ``Attributes`` of each class
are the reference: ``docs/generate.py`` makes the page and the JSON schema of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from builder.errors import SpecError
from builder.findings import Finding, Findings, did_you_mean, refuse
from builder.names import label_files, tensor_name
from builder.releases import ORT_OF_RELEASE, newest_opset, opset_of_server
from builder.spec.checks import checks
from builder.spec.ensemble_parts import Ensemble, EnsembleStep
from builder.spec.ensembles import ensemble_findings
from builder.spec.overrides import apply_overrides
from builder.spec.parts import (
    SOURCE_KINDS,
    Callable,
    Dependency,
    Evaluate,
    Export,
    FileText,
    Part,
    ServedName,
    Source,
    TensorText,
    VariantName,
)
from builder.spec.problems import in_order, spelled, validated
from builder.spec.sequence_parts import Sequence
from builder.spec.serving_checks import serving_findings
from builder.spec.serving_parts import Agents, Batch, Buckets, Groups, HostName, Instances, Text, Versions, Warmup
from builder.spec.tuning_parts import Optimization, TensorOptions
from builder.spec.variant_parts import Agreement, Engine, Load, Precision, engine_findings, recipe_findings
from builder.spec.yaml_source import Document, read
from builder.tensors import Interface, contradictions, parse_tensor
from builder.variants import ASKED, ENSEMBLE, FASTEST, FUSED, PYTHON, VARIANTS, is_servable
from serving.errors import Problem

__all__ = [
    "SOURCE_KINDS",
    "Agreement",
    "Batch",
    "Callable",
    "Engine",
    "Ensemble",
    "EnsembleStep",
    "Evaluate",
    "Export",
    "Instances",
    "Load",
    "ModelSpec",
    "Precision",
    "Root",
    "Source",
    "Spec",
    "Warmup",
    "read_spec",
]

TensorName = Annotated[str, AfterValidator(tensor_name)]
OPENVINO_OPSET = 20
"""What OpenVINO 2025.4, that of onnxruntime-openvino 1.24, knows whole: the Attention of opset 23 it does not."""
_NEED_SAMPLES = ("int8", "int8-weights", "int4-weights")


def _release(text: str) -> str:
    if text not in ORT_OF_RELEASE:
        first, *_, last = ORT_OF_RELEASE
        expected = f"one of {first} to {last}, as in the name of NVIDIA's image"
        raise refuse(f"unknown Triton release {text!r}", expected=expected, fix=f'server: "{last}"')
    return text


class ModelSpec(Part):
    """One model. Where a key is left out, the default is what most users of Triton want.

    Attributes:
        source: where the module, the ONNX file, or the Python class comes from.
        ensemble: in place of `source`: other models of the spec, put together.
        inputs: name: tensor, such as `float32[batch, 3, seq: 1..512]`. For an `onnx` source taken from the file.
        outputs: likewise.
        batch: batching in the server. Without a tensor that begins with `batch` there is none.
        samples: gives real inputs: a list (or generator) of mappings of input name to array, without the batch
            dimension. Seeded random ones stand in where it is left out.
        evaluate: the metric that an artifact must not lose.
        variants: what to build. Several are published side by side, each under the model's name with the variant's
            (`digits_onnx_int8`), and the one that `serve` names under the plain name as well.
        required: variants that have to be there: where this machine cannot build one, the build has failed. Those that
            are not listed, and not served, are left out then, with a warning.
        serve: the variant that is served under the plain name, by default the first; or `fastest`: the fastest of those
            that hold their accuracy, measured in the server.
        load: what `serve: fastest` measures under.
        agreement: how well a variant has to agree with fp32.
        precision: how variants in fp16, bf16 and int8 are made.
        engine: how TensorRT engines are built.
        labels: output: a text file with one label a line, which is copied, and `label_filename` set.
        instances: how many copies run side by side; by default Triton decides. One mapping, or a list of them.
        sequence: requests belong to sequences, each of which stays with one instance; replaces dynamic batching.
        tensors: name: what Triton is to know of it beside its type and shape.
        versions: `latest`, `latest N`, `all`, or a list of numbers; by default the version that is published last, or
            rolled back to, alone.
        warmup: what is run before the model is called ready; by default nothing.
        response_cache: answer equal requests from the cache, where the server has one.
        optimization: what the backend does to run it faster.
        decoupled: a request may have any number of answers, or none.
        parameters: name: text, for the backend.
        metric_tags: name: text, labels that the model's metrics get.
        metrics: family: the buckets of its histogram, such as `nv_inference_first_response_histogram_ms: [1, 10, 100]`.
        operations: libraries with operations that ONNX Runtime does not have: files beside the spec, which are copied
            into the version folder; paths from the root; or what only the server's backend finds.
        agents: repository agents, `checksum` or a list of names or `{name, parameters}`.
        hosts: name: fields as under `config`, for servers that are started with `--model-config-name=NAME`; written as
            `configs/NAME.pbtxt`, a whole configuration.
        export: how ONNX is made.
        depends: what else the result depends on, beyond the files that the spec names and the modules they import:
            globs relative to the spec's folder (`vocab.txt`, `data/**/*.csv`; absolute and `..` allowed; a folder
            stands for every file below it; one that matches nothing is a problem), or `$NAME` for the value of an
            environment variable. A change of one of them makes the model be built again.
        config: any field of Triton's `ModelConfig` by its protobuf name, to any depth; blocks are merged with what is
            decided here, lists replace it, `input` and `output` are merged by `name`.
    """

    source: Source | None = None
    ensemble: Ensemble | None = None
    inputs: dict[TensorName, TensorText] = Field({})
    outputs: dict[TensorName, TensorText] = Field({})
    batch: Batch = Batch()
    samples: Callable | None = None
    evaluate: Evaluate | None = None
    variants: tuple[VariantName, ...] = ("onnx-fp32",)
    required: tuple[VariantName, ...] = ()
    serve: ServedName | None = None
    load: Load = Load()
    agreement: Agreement = Agreement()
    precision: Precision = Precision()
    engine: Engine = Engine()
    labels: dict[str, FileText] = Field({})
    instances: Groups = ()
    sequence: Sequence | None = None
    tensors: dict[Text, TensorOptions] = Field({})
    versions: Versions | None = None
    warmup: Warmup | None = None
    response_cache: StrictBool = False
    optimization: Optimization | None = None
    decoupled: StrictBool = False
    parameters: dict[Text, str] = Field({})
    metric_tags: dict[Text, str] = Field({})
    metrics: dict[Text, Buckets] = Field({})
    operations: tuple[Text, ...] = ()
    agents: Agents = ()
    hosts: dict[HostName, dict[str, Any]] = Field({})
    export: Export = Export()
    depends: tuple[Dependency, ...] = ()
    config: dict[str, Any] = Field({})

    @property
    def kind(self) -> str:
        """What it is made of: a kind of source, or ``ensemble``."""
        return "ensemble" if self.source is None else self.source.kind

    @property
    def origin(self) -> Source:
        """Where it comes from; to be asked of what is no ensemble."""
        assert self.source is not None
        return self.source

    @property
    def needs(self) -> tuple[str, ...]:
        """Names in the repository of the models that it asks while it answers: an ensemble's steps, a class's calls."""
        if self.ensemble is not None:
            return tuple(dict.fromkeys(step.model for step in self.ensemble.steps))
        return self.origin.calls if self.source is not None else ()

    @property
    def is_decoupled(self) -> bool:
        """Whether a request may have any number of answers: by the short form, or under ``config``."""
        policy = self.config.get("model_transaction_policy")
        return self.decoupled or (isinstance(policy, dict) and policy.get("decoupled") is True)

    @property
    def declared(self) -> Interface:
        """The tensors as written; empty where they are to be taken from an existing ``.onnx``."""
        return Interface(
            tuple(parse_tensor(name, text) for name, text in self.inputs.items()),
            tuple(parse_tensor(name, text) for name, text in self.outputs.items()),
        )

    @property
    def served(self) -> str:
        """The variant that is published under the plain name; :data:`FASTEST` where that is to be measured."""
        return self.serve or next(name for name in self.variants if is_servable(VARIANTS[name]))

    def opset_of(self, release: str | None, exporter: str) -> int:
        """The ONNX opset to export: the one that was asked for, or the newest that all variants take.

        Raises:
            KeyError: as :func:`builder.releases.newest_opset`.
        """
        if self.export.opset is not None:
            return self.export.opset
        newest = newest_opset(release, exporter)
        return min(newest, self.opset_limit or newest)

    @property
    def opset_limit(self) -> int | None:
        """The newest opset that every variant takes, where one of them does not take every one."""
        return OPENVINO_OPSET if any(VARIANTS[name].target == "openvino" for name in self.variants) else None

    @property
    def is_alone(self) -> bool:
        """True where the plain name is all that is published: one variant that Triton can serve."""
        return sum(is_servable(VARIANTS[name]) for name in self.variants) == 1

    @model_validator(mode="before")
    @classmethod
    def _one_way(cls, data: Any) -> Any:
        """A Python class and an ensemble are built in one way; that is no choice of the user's."""
        if not isinstance(data, dict) or "variants" in data:
            return data
        source = data.get("source")
        if "ensemble" in data and source is None:
            ensemble = data["ensemble"]
            fuse = ensemble.get("fuse", False) if isinstance(ensemble, dict) else False
            if fuse == "auto":
                return {**data, "variants": (ENSEMBLE.name, FUSED.name), "serve": data.get("serve", FASTEST)}
            return {**data, "variants": (FUSED.name if fuse is True else ENSEMBLE.name,)}
        if isinstance(source, dict) and "python_model" in source:
            return {**data, "variants": (PYTHON.name,)}
        return data

    @field_validator("variants")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise refuse("`variants` is empty", expected="at least one", fix="leave it out for onnx-fp32")
        twice = [name for name in value if value.count(name) > 1]
        if twice:
            raise refuse(f"variant {twice[0]!r} is listed twice", fix="keep one of them")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        if (self.source is None) == (self.ensemble is None):
            what = "a model has a `source`, or is an `ensemble`: not both"
            what = what if self.source else "`source` is missing; an ensemble has `ensemble` in its place"
            fix = "keep one of them" if self.source else 'for example source: {python: "model.py:load"}'
            raise Findings([Finding(what, "exactly one of `source` and `ensemble`", fix=fix)])
        found = [*self._kind_findings(), *self._completeness(), *self._tensor_findings(), *serving_findings(self)]
        found += [Finding(f.what, f.expected, f.got, f.fix, ("labels", *f.path)) for f in label_files(self.labels)]
        if found:
            raise Findings(found)
        return self

    def _completeness(self) -> list[Finding]:
        found = []
        found += self._variant_findings()
        if self.kind not in ("onnx", "ensemble"):
            for key, example in (("inputs", "image: float32[batch, 3, 224, 224]"), ("outputs", "y: float32[batch, 2]")):
                if not getattr(self, key):
                    what = f"`{key}` is missing; only an `onnx` source brings its own"
                    name, _, text = example.partition(": ")
                    found.append(Finding(what, f'{key}: {{{name}: "{text}"}}', path=(key,)))
        for name in self.labels:
            if self.outputs and name not in self.outputs:
                what = f"labels for {name!r}, which is none of the outputs"
                fix = did_you_mean(name, self.outputs)
                found.append(Finding(what, ", ".join(self.outputs), fix=fix, path=("labels", name)))
        for key in ("input", "output"):
            entries, known = self.config.get(key), getattr(self, f"{key}s")
            for index, entry in enumerate(entries if isinstance(entries, list) and known else []):
                tensor = entry.get("name") if isinstance(entry, dict) else None
                if tensor not in known:
                    what = f"config.{key} names {tensor!r}, which the model does not have"
                    fix = did_you_mean(str(tensor), known) or "give each entry the `name` of one of them"
                    found.append(Finding(what, ", ".join(known), fix=fix, path=("config", key, index)))
        return found

    def _kind_findings(self) -> Iterator[Finding]:
        """What is asked of an ensemble or of a Python class and is for models that are converted."""
        given = self.model_fields_set - ({"variants"} if not set(self.variants) & set(ASKED) else set())
        if self.kind not in ("ensemble", "python_model"):
            for index, name in enumerate(self.variants):
                if name not in ASKED:
                    fix = "leave `variants` out: a Python class, or an ensemble, is built in one way"
                    yield Finding(f"{name!r} cannot be asked for", ", ".join(ASKED), fix=fix, path=("variants", index))
            return
        what_it_is = "an ensemble" if self.kind == "ensemble" else "a Python class"
        keys = {"variants", "required", "serve", "precision", "engine", "export", "load", "instances", "warmup"}
        if self.kind == "python_model" or FUSED.name in self.variants:
            keys -= {"instances", "warmup"}
        if len(self.variants) > 1:
            keys -= {"serve", "load"}
        for key in sorted(keys):
            if key in given:
                fix = f"take it out, or write it at a step: {what_it_is} is served as it is"
                yield Finding(f"`{key}` is not for {what_it_is}", fix=fix, path=(key,))

    def _variant_findings(self) -> list[Finding]:
        servable = [name for name in self.variants if is_servable(VARIANTS[name])]
        found = recipe_findings(self.precision, self.variants)
        kinds = {VARIANTS[name].target for name in self.variants if VARIANTS[name].format == "plan"}
        found += engine_findings(self.engine, kinds, self.declared, self.batch)
        if not servable:
            what = "none of the variants can be served: Triton has no backend for TensorRT-RTX engines"
            found.append(Finding(what, "at least one other", fix="add onnx-fp32", path=("variants",)))
        elif self.serve not in (None, FASTEST, *servable):
            what = f"serve: {self.serve!r} is none of the variants"
            if self.serve in self.variants:
                what = f"serve: {self.serve!r} cannot be served: Triton has no backend for TensorRT-RTX engines"
            found.append(Finding(what, ", ".join([*servable, FASTEST]), path=("serve",)))
        for index, name in enumerate(self.required):
            if name not in self.variants:
                what = f"required: {name!r} is none of the variants"
                found.append(Finding(what, ", ".join(self.variants), path=("required", index)))
        for index, name in enumerate(self.variants):
            if VARIANTS[name].precision in _NEED_SAMPLES and self.samples is None:
                what = f"{name} needs real samples: random ones say nothing about the ranges of its values"
                fix = "give `samples`: a callable that returns real inputs"
                found.append(Finding(what, 'samples: {python: "data.py:samples"}', fix=fix, path=("variants", index)))
        return found

    def _tensor_findings(self) -> list[Finding]:
        declared = self.declared
        given = "max" in self.batch.model_fields_set
        found = contradictions(declared, max_batch=self.batch.max, batch_given=given)
        if self.kind not in ("onnx", "python_model", "ensemble"):
            sides = (("inputs", declared.inputs), ("outputs", declared.outputs))
            for side, name in [(side, t.name) for side, tensors in sides for t in tensors if t.dtype.torch is None]:
                what = f"{name!r} is text, and torch has no tensors of text"
                fix = "turn text into numbers in a step before the model: a `python_model`, or an `onnx` source"
                found.append(Finding(what, fix=fix, path=(side, name)))
        return found


class Root(Part):
    """A whole file.

    Attributes:
        repository: the folder where models are published. Not the spec's own folder or one above it: Triton takes every
            folder of a repository for a model.
        server: the Triton release that the repository is for (`"26.09"`, in quotes); decides the newest ONNX opset. By
            default the release of `docker-compose.yml`.
        models: one entry per model; the key is its name in Triton.
    """

    repository: FileText = "model_repository"
    server: Annotated[str, AfterValidator(_release), WithJsonSchema({"enum": [*ORT_OF_RELEASE]})] | None = None
    models: dict[str, ModelSpec] = Field(min_length=1)

    @model_validator(mode="after")
    def _opsets(self) -> Root:
        found = [*self._name_findings(), *ensemble_findings(self.models)]
        for name, model in self.models.items():
            newest = opset_of_server(self.server, model.export.exporter)
            if model.export.opset is not None and model.export.opset > newest:
                what = f"opset {model.export.opset} is too new"
                expected = f"at most {newest}, which exporter {model.export.exporter!r} writes and the server takes"
                fix = "leave `opset` out: the newest that works is chosen"
                found.append(Finding(what, expected, fix=fix, path=("models", name, "export", "opset")))
        if found:
            raise Findings(found)
        return self

    def _name_findings(self) -> Iterator[Finding]:
        """Models whose names a variant of another model would take."""
        for name, model in self.models.items():
            for variant in () if model.is_alone else model.variants:
                taken = f"{name}_{VARIANTS[variant].suffix}"
                if taken in self.models:
                    what = f"{taken!r} is the name of {name!r}'s own variant {variant}"
                    yield Finding(what, "a name of its own", fix="rename one of the models", path=("models", taken))


class Spec(BaseModel):
    """A whole ``models.yaml``, read and checked.

    Attributes:
        path: the file; relative paths in it are relative to its folder.
        repository: where models are published (absolute).
        server: the Triton release the repository is for (``26.09``); None for the one this version is tested with.
        models: by name, in the order of the file.
        overridden: names of those over which an ``overrides.yaml`` was laid.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    path: Path
    repository: Path
    server: str | None
    models: dict[str, ModelSpec]
    overridden: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the spec: where the user's files are."""
        return self.path.parent


def read_spec(path: str | Path) -> tuple[Spec, Document]:
    """Read a spec, with the overrides beside it, and report everything that is wrong with it at once.

    Returns:
        The spec, and the document behind it, which knows the line of every key.

    Raises:
        SpecError: with one problem per mistake, in the order of the file.
        MissingDependencyError: nothing else is wrong, but ``config`` cannot be checked without tritonclient.
    """
    try:
        path = Path(os.path.realpath(path))
    except ValueError as exc:
        raise SpecError([Problem(f"{str(path)!r} is no path", expected="a spec", got=str(exc))]) from exc
    document = read(path)
    if not isinstance(document.data, dict):
        got = spelled(document.data)
        fix = 'models: {NAME: {source: {python: "model.py:load"}, inputs: ..., outputs: ...}}'
        raise SpecError(
            [Problem("the spec is empty or no mapping", str(path), "`models:` with one entry per model", got, fix)]
        )
    overridden = apply_overrides(document)
    root, problems = validated(Root, document)
    problems += checks(document, found_any=bool(problems))
    odd = {problem.where for problem in document.problems}  # whose value nobody can judge
    problems = in_order([*document.problems, *(problem for problem in problems if problem.where not in odd)], path)
    if problems or root is None:
        raise SpecError(problems)
    repository = Path(os.path.realpath(path.parent / root.repository))
    return Spec(
        path=path, repository=repository, server=root.server, models=root.models, overridden=overridden
    ), document
