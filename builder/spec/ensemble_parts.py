"""The part of a model's entry that makes it an ensemble: its steps, and how their tensors are wired."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from builder.findings import Finding, Findings
from builder.spec.parts import Part

_NEWEST = -1


def _step_text(value: Any) -> Any:
    """A step that is only named."""
    return {"model": value} if isinstance(value, str) else value


def _fuse(value: Any) -> Any:
    return {True: "always", False: "never"}[value] if isinstance(value, bool) else value


class EnsembleStep(Part):
    """One step of an ensemble; where all of its wiring is obvious, the name of the model alone will do.

    Attributes:
        model: a model of this spec, or one of its variants by the name in the repository (`minilm_onnx_int8`).
        name: what other steps call it; the model's name where it is left out, which only one step of the model can.
        version: the version of the model; -1 is the one that is served.
        inputs: input of the step: where its tensor is from, `STEP.OUTPUT` or an input of the ensemble. What is left out
            is wired by name.
        outputs: output of the step: an output of the ensemble that it is given as.
    """

    model: str
    name: str | None = None
    version: int = Field(_NEWEST, ge=_NEWEST, strict=True)
    inputs: dict[str, str] = Field({})
    outputs: dict[str, str] = Field({})

    @property
    def label(self) -> str:
        """What other steps call it."""
        return self.name or self.model


Step = Annotated[
    EnsembleStep,
    BeforeValidator(_step_text),
    WithJsonSchema({"anyOf": [{"type": "string"}, EnsembleStep.model_json_schema()]}),
]


class Ensemble(Part):
    """Models that are run one after another, and side by side, in the server: one request, one answer.

    Attributes:
        steps: the models, in any order.
        fuse: put its steps, which are ONNX then, into one graph: `true`, `false`, or `auto`: both are published, and
            the faster one is served. Where others are among them, put those that are ONNX into one of their own.
    """

    steps: tuple[Step, ...] = Field(min_length=1)
    fuse: Annotated[
        Literal["always", "never", "auto"],
        BeforeValidator(_fuse),
        WithJsonSchema({"enum": [True, False, "auto"]}),
    ] = "never"

    @model_validator(mode="after")
    def _names(self) -> Ensemble:
        seen: dict[str, int] = {}
        found = []
        for index, step in enumerate(self.steps):
            if seen.setdefault(step.label, index) != index:
                what = f"two steps are called {step.label!r}"
                fix = f"give one of them a `name`: {{name: {step.label}_2, model: {step.model}}}"
                found.append(Finding(what, "a name of its own for each", fix=fix, path=("steps", index)))
        if found:
            raise Findings(found)
        return self
