"""The parts of a model's entry in ``models.yaml``: its source, samples, metric, export; what all parts have in common.

The ``Attributes`` of each class are the reference: ``docs/generate.py`` makes the page and the JSON schema of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from builder.findings import Finding, Findings, did_you_mean, refuse
from builder.spec.files import depends_text
from builder.tensors import parse_tensor
from builder.variants import ASKED, FASTEST, VARIANTS
from serving.dtypes import DTYPES

SOURCE_KINDS = ("python", "exported", "checkpoint", "huggingface", "onnx", "python_model")
_REFERENCE = re.compile(r"(?P<module>[^\x00-\x1f]+?):(?P<name>[A-Za-z_]\w*)")


def is_reference(text: str) -> bool:
    """True for ``file.py:function`` and ``package.module:function``."""
    return bool(_REFERENCE.fullmatch(text))


def _tensor_text(text: str) -> str:
    parse_tensor("", text)
    return text


def _reference_text(text: str) -> str:
    if not is_reference(text):
        fix = f"{text}:FUNCTION" if text.endswith(".py") else ""
        raise refuse(f"{text!r} names no callable", expected="file.py:function or package.module:function", fix=fix)
    return text


def _variant_text(text: str) -> str:
    if text not in VARIANTS:
        raise refuse(f"unknown variant {text!r}", expected=", ".join(ASKED), fix=did_you_mean(text, ASKED))
    return text


def _served_text(text: str) -> str:
    if text == FASTEST:
        return text
    if text not in ASKED:
        fix = did_you_mean(text, [FASTEST, *ASKED])
        raise refuse(f"unknown variant {text!r}", expected=f"one of `variants`, or {FASTEST}", fix=fix)
    return text


def _file_text(text: str) -> str:
    if not text or "\0" in text:
        raise refuse(f"{text!r} is no path", expected="a path, relative to the spec's folder")
    return text


def no_boolean(value: Any) -> Any:
    """Refuses what pydantic would take for 0 and 1."""
    if isinstance(value, bool):
        raise refuse("true and false are no numbers", expected="a number")
    return value


TENSOR_PATTERN = rf"^\s*({'|'.join(dtype.name for dtype in DTYPES if dtype.numpy)})\s*\[.*\]\s*$"
REFERENCE_PATTERN = r"^.+:[A-Za-z_]\w*$"
TensorText = Annotated[str, AfterValidator(_tensor_text), WithJsonSchema({"type": "string", "pattern": TENSOR_PATTERN})]
Reference = Annotated[
    str, AfterValidator(_reference_text), WithJsonSchema({"type": "string", "pattern": REFERENCE_PATTERN})
]
VariantName = Annotated[str, AfterValidator(_variant_text), WithJsonSchema({"enum": list(ASKED)})]
ServedName = Annotated[str, AfterValidator(_served_text), WithJsonSchema({"enum": [FASTEST, *ASKED]})]
FileText = Annotated[str, AfterValidator(_file_text)]
Dependency = Annotated[str, AfterValidator(depends_text)]


_ONNX_CALLABLE = {"python": {"type": "string", "pattern": REFERENCE_PATTERN}}
_ONNX_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "properties": _ONNX_CALLABLE, "required": ["python"], "additionalProperties": False},
    ]
}


class OneOrMore:
    """For the JSON schema of a list: one entry alone stands for a list of it.

    Args:
        text: whether a name alone stands for an entry with that name.
    """

    def __init__(self, *, text: bool = False) -> None:
        self._text = text

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Called by pydantic."""
        found = dict(handler(core_schema))
        one = [*([{"type": "string"}] if self._text else []), found["items"]]
        return {"anyOf": [*one, {**found, "items": {"anyOf": one} if self._text else found["items"]}]}


class Part(BaseModel):
    """What every part has in common: unknown keys are refused, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Callable(Part):
    """A Python callable of the user's.

    Attributes:
        python: `file.py:function` (relative to the spec's folder) or `package.module:function`.
        args: keyword arguments it is called with.
    """

    python: Reference
    args: dict[str, Any] = {}

    @property
    def file(self) -> str | None:
        """The file, or None where an importable module is named."""
        module = self.python.rpartition(":")[0]
        return module if module.endswith(".py") else None


class Source(Part):
    """Where a model comes from: one of `python`, `exported`, `checkpoint`, `huggingface`, `onnx`, `python_model`.

    Attributes:
        python: a callable in a file (`model.py:load`) or in an importable module (`package.module:load`) that returns a
            `torch.nn.Module`.
        args: keyword arguments of `python`, `factory` or `python_model`.
        exported: a file that `torch.export.save` wrote (`.pt2`).
        checkpoint: a state dict for what `factory` returns: `.safetensors`, or `.pt`, `.pth`, `.bin` with tensors only.
        factory: a callable that returns the module for `checkpoint`.
        allow_pickle: load a checkpoint that is a full pickle, which can run any code it likes.
        huggingface: a local folder with `config.json` and weights; nothing is downloaded, no remote code is run.
        class: the class of transformers that loads the `huggingface` folder.
        onnx: an existing `.onnx` file, taken as it is; or `{python: "data.py:path"}`, a callable that returns its path.
        python_model: a class (`tokenizer.py:Tokenizer`) that is served as it is, by Triton's Python backend: its
            `execute` takes arrays by input name, and returns arrays by output name.
        requirements: of `python_model`: packages, with their versions (`tokenizers==0.22.1`), that are put beside it.
        dependencies: of `python_model`: whether the packages that the `requirements` say they need are put there too.
        files: of `python_model`: further files that it reads, relative to the spec's folder; they are put beside it.
        calls: of `python_model`: models of this spec, or variants of them by the name in the repository, that it asks
            while it answers; its `__init__` takes `call`.
    """

    python: Reference | None = None
    args: dict[str, Any] = {}
    exported: FileText | None = None
    checkpoint: FileText | None = None
    factory: Reference | None = None
    allow_pickle: StrictBool = False
    huggingface: FileText | None = None
    hf_class: str = Field("AutoModel", alias="class")
    onnx: Annotated[FileText | None, WithJsonSchema(_ONNX_SCHEMA)] = None
    python_model: Reference | None = None
    requirements: tuple[str, ...] = ()
    dependencies: StrictBool = True
    files: tuple[FileText, ...] = ()
    calls: tuple[str, ...] = ()

    @field_validator("onnx", mode="before")
    @classmethod
    def _onnx_callable(cls, value: Any) -> Any:
        # {python: "data.py:path"} is kept as the reference itself: a path never ends in `.py:name`.
        if not isinstance(value, dict):
            return value
        reference = value.get("python")
        if list(value) != ["python"] or not isinstance(reference, str):
            raise refuse("`onnx` is neither a file nor a callable", expected='onnx: {python: "data.py:path"}')
        return _reference_text(reference)

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        given = [kind for kind in SOURCE_KINDS if getattr(self, kind) is not None]
        found = []
        if len(given) != 1:
            fix = f"keep one of {' and '.join(given)}" if given else 'for example {python: "model.py:load"}'
            got = " and ".join(given) if given else "none of them"
            found.append(Finding("a source is exactly one kind", ", ".join(SOURCE_KINDS), got, fix))
        if (self.checkpoint is None) != (self.factory is None):
            have, lack = ("checkpoint", "factory") if self.factory is None else ("factory", "checkpoint")
            what = f"`checkpoint` and `factory` belong together: `{lack}` is missing"
            found.append(Finding(what, "the weights, and a callable that builds the module for them", path=(have,)))
        if self.args and given and not (self.python or self.factory or self.python_model):
            takers = "`python`, `factory` or `python_model`"
            found.append(Finding(f"`args` are for {takers}; `{given[0]}` takes none", path=("args",)))
        for key in ("requirements", "dependencies", "files", "calls"):
            if key in self.model_fields_set and self.python_model is None:
                found.append(Finding(f"`{key}` are for `python_model`", path=(key,)))
        if "hf_class" in self.model_fields_set and self.huggingface is None:
            found.append(Finding("`class` is for `huggingface`", path=("class",)))
        if self.allow_pickle and self.checkpoint is None:
            found.append(Finding("`allow_pickle` is for `checkpoint`", path=("allow_pickle",)))
        if found:
            raise Findings(found)
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
        if self.onnx and is_reference(self.onnx):
            yield "onnx", self.onnx
        if self.python_model:
            yield "python_model", self.python_model

    def paths(self) -> Iterator[tuple[str, str]]:
        """``(key, path)`` of every file or folder it names."""
        for key in ("exported", "checkpoint", "huggingface", "onnx"):
            value = getattr(self, key)
            if value and not (key == "onnx" and is_reference(value)):
                yield key, value
        yield from (("files", file) for file in self.files)


class Evaluate(Callable):
    """The user's metric, `f(predict) -> float`, higher is better; `predict` takes and gives mappings of batched arrays.

    Attributes:
        max_drop: how much lower than PyTorch's an artifact's value may be.
    """

    max_drop: Annotated[float, BeforeValidator(no_boolean)] = Field(0.0, ge=0, allow_inf_nan=False)


class Export(Part):
    """How ONNX is made.

    Attributes:
        exporter: `auto` tries dynamo, then TorchScript.
        opset: the ONNX opset; by default the newest that the exporter writes and the server's ONNX Runtime takes.
    """

    exporter: Literal["auto", "dynamo", "torchscript"] = "auto"
    opset: int | None = Field(None, ge=16, le=23, strict=True)
