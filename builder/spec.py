"""What a user may ask for: the pydantic models of ``models.yaml``, and all that is wrong with one, at once.

Nothing here imports torch or runs the user's code: reading a spec is cheap and safe.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from builder.errors import SpecError
from builder.spec_files import depends_text, missing_files
from builder.spec_problems import problems_of
from builder.tensors import BATCH, Interface, conflicting_ranges, parse_tensor
from builder.variants import VARIANTS
from builder.yaml_source import Document, read
from serving.errors import Problem

DEFAULT_MAX_BATCH = 8
_MODEL_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}$")
_REFERENCE = re.compile(r"^(?P<module>.+?):(?P<name>[A-Za-z_]\w*)$")


def _tensor_text(text: str) -> str:
    parse_tensor("", text)
    return text


def _reference_text(text: str) -> str:
    if not _REFERENCE.match(text):
        raise ValueError(f"{text!r} names no callable: write file.py:function or package.module:function")
    return text


def _variant_text(text: str) -> str:
    if text not in VARIANTS:
        raise ValueError(f"unknown variant {text!r}: one of {', '.join(VARIANTS)}")
    return text


TensorText = Annotated[str, AfterValidator(_tensor_text)]
Reference = Annotated[str, AfterValidator(_reference_text)]
VariantName = Annotated[str, AfterValidator(_variant_text)]
Dependency = Annotated[str, AfterValidator(depends_text)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Callable(_Strict):
    """A Python callable of the user's.

    Attributes:
        python: ``file.py:function`` (relative to the spec) or ``package.module:function``.
        args: keyword arguments it is called with.
    """

    python: Reference
    args: dict[str, Any] = {}

    @property
    def file(self) -> str | None:
        """The file, or None where an importable module is named."""
        module = self.python.rpartition(":")[0]
        return module if module.endswith(".py") else None


class Source(_Strict):
    """Where a module comes from: exactly one of ``python``, ``exported``, ``checkpoint``, ``huggingface``, ``onnx``.

    Attributes:
        python: a callable that returns a ``torch.nn.Module``; ``args`` are its keyword arguments.
        exported: a ``torch.export`` program (``.pt2``).
        checkpoint: a state dict (``.safetensors``, or ``.pt``/``.pth``/``.bin``), loaded into what ``factory`` returns.
        factory: a callable that returns the module for ``checkpoint``; ``args`` are its keyword arguments.
        allow_pickle: load a checkpoint that is a full pickle, which can run any code it likes.
        huggingface: a local folder with ``config.json`` and weights, loaded by transformers' ``class``.
        hf_class: the transformers class (``class`` in the file).
        onnx: an existing ``.onnx``, or a callable that returns its path.
    """

    python: Reference | None = None
    args: dict[str, Any] = {}
    exported: str | None = None
    checkpoint: str | None = None
    factory: Reference | None = None
    allow_pickle: bool = False
    huggingface: str | None = None
    hf_class: str = Field("AutoModel", alias="class")
    onnx: str | None = None

    @field_validator("onnx", mode="before")
    @classmethod
    def _onnx_callable(cls, value: Any) -> Any:
        # {python: "data.py:path"} is kept as the reference itself: a path never ends in `.py:name`.
        if isinstance(value, dict):
            return Callable.model_validate(value).python
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        given = [kind for kind in SOURCE_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            got = " and ".join(given) if given else "none of them"
            raise ValueError(f"a source is exactly one of {', '.join(SOURCE_KINDS)}; got {got}")
        if (self.checkpoint is None) != (self.factory is None):
            raise ValueError("`checkpoint` and `factory` belong together: the weights, and what builds the module")
        if self.args and self.python is None and self.factory is None:
            raise ValueError(f"`args` are for `python` or `factory`; `{given[0]}` takes none")
        return self

    @property
    def kind(self) -> str:
        """Which of the kinds it is; a key of ``builder.sources.LOADERS``."""
        return next(kind for kind in SOURCE_KINDS if getattr(self, kind) is not None)

    def references(self) -> Iterator[tuple[str, str]]:
        """``(key, reference)`` of every Python callable it names."""
        if self.python:
            yield "python", self.python
        if self.factory:
            yield "factory", self.factory
        if self.onnx and _REFERENCE.match(self.onnx):
            yield "onnx", self.onnx

    def files(self) -> Iterator[tuple[str, str]]:
        """``(key, path)`` of every file or folder it names."""
        for key in ("exported", "checkpoint", "huggingface", "onnx"):
            value = getattr(self, key)
            if value and not (key == "onnx" and _REFERENCE.match(value)):
                yield key, value


SOURCE_KINDS = ("python", "exported", "checkpoint", "huggingface", "onnx")


class Batch(_Strict):
    """Batching in the server.

    Attributes:
        max: ``max_batch_size``; 0 turns the server's batching off.
        preferred: ``preferred_batch_size`` of the dynamic batcher.
        max_queue_delay_microseconds: how long a request may wait for company.
        dynamic: whether requests are put together at all.
    """

    max: int = Field(DEFAULT_MAX_BATCH, ge=0, le=65536)
    preferred: tuple[int, ...] = ()
    max_queue_delay_microseconds: int = Field(0, ge=0)
    dynamic: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Batch:
        wrong = [size for size in self.preferred if not 1 <= size <= self.max]
        if wrong:
            raise ValueError(f"preferred batch size {wrong[0]} is outside 1..{self.max} (batch.max)")
        if not self.dynamic and (self.preferred or self.max_queue_delay_microseconds):
            raise ValueError("`preferred` and `max_queue_delay_microseconds` need `dynamic: true`")
        return self


class Evaluate(Callable):
    """The user's metric, ``f(predict) -> float``, higher is better.

    Attributes:
        max_drop: how much lower than PyTorch's an artifact's value may be.
    """

    max_drop: float = Field(0.0, ge=0)


class Instances(_Strict):
    """``instance_group``: how many copies run side by side, and where."""

    count: int = Field(1, ge=1, le=1024)
    kind: Literal["KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"] = "KIND_AUTO"
    gpus: tuple[int, ...] = ()


class Warmup(_Strict):
    """``model_warmup``: which batch sizes are run once before the model is called ready."""

    batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = (1,)


class Export(_Strict):
    """How ONNX is made.

    Attributes:
        exporter: ``auto`` tries dynamo, then TorchScript.
        opset: the ONNX opset; by default the newest that the exporter writes and the server's ONNX Runtime takes.
    """

    exporter: Literal["auto", "dynamo", "torchscript"] = "auto"
    opset: int | None = Field(None, ge=16, le=23)


class ModelSpec(_Strict):
    """One model of the spec. Where a key is left out, the default is what most users of Triton want.

    Attributes:
        depends: what else the result depends on, beyond the files that the spec names and the modules they import:
            globs relative to the spec's folder (``vocab.txt``, ``data/**/*.csv``; absolute and ``..`` allowed; a folder
            stands for every file below it; one that matches nothing is a problem), or ``$NAME`` for the value of an
            environment variable. A change of one of them makes the model be built again.
    """

    source: Source
    inputs: dict[str, TensorText] = {}
    outputs: dict[str, TensorText] = {}
    batch: Batch = Batch()
    samples: Callable | None = None
    evaluate: Evaluate | None = None
    variants: tuple[VariantName, ...] = Field(("onnx-fp32",), min_length=1)
    serve: VariantName | None = None
    labels: dict[str, str] = {}
    instances: Instances | None = None
    warmup: Warmup | None = None
    response_cache: bool = False
    export: Export = Export()
    depends: tuple[Dependency, ...] = ()
    config: dict[str, Any] = {}

    @property
    def declared(self) -> Interface:
        """The tensors as written; empty where they are to be taken from an existing ``.onnx``."""
        return Interface(
            tuple(parse_tensor(name, text) for name, text in self.inputs.items()),
            tuple(parse_tensor(name, text) for name, text in self.outputs.items()),
        )

    @property
    def served(self) -> str:
        """The variant that is published under the plain name."""
        return self.serve or self.variants[0]

    @field_validator("variants")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name in value if value.count(name) > 1]
        if twice:
            raise ValueError(f"variant {twice[0]!r} is listed twice")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        if self.serve is not None and self.serve not in self.variants:
            raise ValueError(f"serve: {self.serve!r} is none of the variants ({', '.join(self.variants)})")
        if self.source.onnx is None and not (self.inputs and self.outputs):
            missing = "inputs" if not self.inputs else "outputs"
            raise ValueError(f"`{missing}` is missing; only an `onnx` source brings its own")
        self._check_tensors()
        unlabelled = [name for name in self.labels if self.outputs and name not in self.outputs]
        if unlabelled:
            raise ValueError(f"labels for {unlabelled[0]!r}, which is none of the outputs ({', '.join(self.outputs)})")
        return self

    def _check_tensors(self) -> None:
        declared = self.declared
        tensors = declared.inputs + declared.outputs
        unsupported = [tensor for tensor in tensors if tensor.dtype.numpy is None]
        if unsupported:
            raise ValueError(
                f"{unsupported[0].name!r} is {unsupported[0].dtype.name}, which clients have no arrays for: "
                "take float32 at the border and cast inside the module"
            )
        both = sorted(set(self.inputs) & set(self.outputs))
        if both:
            raise ValueError(f"{both[0]!r} is an input and an output: give one of them another name")
        batched = [tensor.name for tensor in tensors if tensor.is_batched]
        rest = [tensor.name for tensor in tensors if not tensor.is_batched]
        if batched and rest and self.batch.max > 0:
            raise ValueError(
                f"{batched[0]!r} begins with `{BATCH}` and {rest[0]!r} does not: with batching every tensor does; "
                "without it write `batch: {max: 0}`"
            )
        if tensors and not batched and self.batch.max > 0 and "batch" in self.model_fields_set:
            raise ValueError(f"`batch.max` is {self.batch.max}, but no tensor begins with `{BATCH}`")
        conflicts = conflicting_ranges(tensors)
        if conflicts:
            raise ValueError(conflicts[0])


class _Root(_Strict):
    repository: str = "model_repository"
    server: str | None = None
    models: dict[str, ModelSpec] = Field(min_length=1)

    @field_validator("models")
    @classmethod
    def _names(cls, value: dict[str, ModelSpec]) -> dict[str, ModelSpec]:
        for name in value:
            if not _MODEL_NAME.match(name):
                raise ValueError(
                    f"{name!r} is no model name: letters, digits, `_`, `-`, `.`; no `.` or `-` first; at most 200"
                )
        return value


class Spec(BaseModel):
    """A whole ``models.yaml``, read and checked.

    Attributes:
        path: the file; relative paths in it are relative to its folder.
        repository: where models are published (absolute).
        server: the Triton release the repository is for (``26.09``); None for the one this version is tested with.
        models: by name, in the order of the file.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    path: Path
    repository: Path
    server: str | None
    models: dict[str, ModelSpec]

    @property
    def folder(self) -> Path:
        """The folder of the spec: where the user's files are."""
        return self.path.parent


def read_spec(path: str | Path) -> tuple[Spec, Document]:
    """Read a spec and report everything that is wrong with it at once.

    Returns:
        The spec, and the document behind it, which knows the line of every key.

    Raises:
        SpecError: with one problem per mistake.
    """
    path = Path(path).resolve()
    document = read(path)
    if not isinstance(document.data, dict):
        raise SpecError(
            [Problem("the spec is empty or no mapping", str(path), expected="`models:` with one entry per model")]
        )
    try:
        root = _Root.model_validate(document.data)
    except ValidationError as exc:
        raise SpecError(problems_of(exc, document, _Root)) from exc
    spec = Spec(path=path, repository=(path.parent / root.repository).resolve(), server=root.server, models=root.models)
    missing = list(missing_files(spec, document))
    if missing:
        raise SpecError(missing)
    return spec, document
