"""The parts of a model's entry that decide its variants: what accuracy they hold, how precision and engines are made.

The ``Attributes`` of each class are the reference: ``docs/generate.py`` makes the page and the JSON schema of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, WithJsonSchema, model_validator

from builder.engine.profiles import profiles_of
from builder.engine.targets import capability_of, resolve_targets
from builder.errors import EngineError
from builder.findings import Finding, Findings, did_you_mean, refuse
from builder.spec.parts import Callable, FileText, Part, VariantName
from builder.spec.serving_parts import Batch
from builder.tensors import Interface
from serving.errors import UsageError
from serving.terminal import parse_size

Share = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False, strict=True)]
Extent = Annotated[int, Field(ge=0, strict=True)]


def _size(text: str) -> str:
    try:
        parse_size(text)
    except UsageError as exc:
        raise refuse(f"{text!r} is no size", expected="4GB, 500MB") from exc
    return text


def _gpu(text: str) -> str:
    try:
        capability_of(text)
    except EngineError as exc:
        raise refuse(exc.what, expected=exc.expected, fix=exc.fix) from exc
    return text


GpuName = Annotated[str, AfterValidator(_gpu)]
SizeText = Annotated[
    str, AfterValidator(_size), WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*[kKmMgGtT]?i?[bB]?$"})
]


class Agreement(Part):
    """Lower limits for how well a variant agrees with fp32 on samples that it was not calibrated with.

    Each holds for every output that has the score. Without `evaluate` and without limits here, a default cosine for
    each precision holds.

    Attributes:
        cosine: mean cosine of an output with fp32's, over all samples.
        top1: share of samples whose largest element is the same.
        top1_in_top5: share of samples where fp32's largest element is among the five largest.
        spearman: rank correlation of the similarities of all pairs of samples: for embeddings.
        recall_at_10: share of each sample's ten nearest neighbours that stay.
    """

    cosine: Share | None = None
    top1: Share | None = None
    top1_in_top5: Share | None = None
    spearman: Share | None = None
    recall_at_10: Share | None = None


class Precision(Part):
    """How variants in fp16, bf16 and int8 are made. By default a search finds what stays in float.

    Attributes:
        io: what fp16 and bf16 variants take and give: `fp32`, or `fp16`, which halves what is sent.
        calibration: gives samples for calibration, a generator that is gone through one by one and may be long; by
            default half of the `samples`.
        calibrator: how ranges are found: `minmax`, `entropy`, `percentile`; `auto` tries them.
        percentile: for `percentile`: how much of the values lies inside of the range.
        keep: nodes that stay in float whatever is found: names (globs such as `/encoder/layer.0/*`) or operator types.
        recipes: variant: a recipe file that `build-repo --recipes` wrote, which is replayed; nothing is searched.
    """

    io: Literal["fp32", "fp16"] = "fp32"
    calibration: Callable | None = None
    calibrator: Literal["auto", "minmax", "entropy", "percentile"] = "auto"
    percentile: float = Field(99.99, gt=50, le=100, allow_inf_nan=False)
    keep: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    recipes: dict[VariantName, FileText] = Field({})


class Shapes(Part):
    """One input in a profile: full shapes, with the batch dimension.

    Attributes:
        min: the smallest shape.
        opt: the shape that the engine is made fastest for.
        max: the largest shape.
    """

    min: tuple[Extent, ...]
    opt: tuple[Extent, ...]
    max: tuple[Extent, ...]

    @model_validator(mode="after")
    def _ordered(self) -> Shapes:
        if not len(self.min) == len(self.opt) == len(self.max):
            got = f"{len(self.min)}, {len(self.opt)} and {len(self.max)}"
            raise Findings([Finding("min, opt and max differ in their number of dimensions", got=got)])
        for axis, (low, mid, high) in enumerate(zip(self.min, self.opt, self.max, strict=True)):
            if not low <= mid <= high:
                what = f"dimension {axis} of the profile does not rise from min over opt to max"
                raise Findings([Finding(what, "min <= opt <= max", f"{low}, {mid}, {high}", path=("opt",))])
        return self


class Engine(Part):
    """How TensorRT engines are built.

    Attributes:
        gpu: what they are for: compute capabilities (`sm86`) or cards (`l4`, `h100`); by default the GPU that is here.
        profiles: shapes, one entry for each optimization profile: input: `{min, opt, max}`. By default one, made of
            the spec's ranges and `batch`.
        workspace: how much memory the builder may use: `4GB`.
        optimization_level: 0 to 5: how long the builder looks; by default the library's own.
        version_compatible: let later releases of the same major version load it.
        hardware_compatibility: `ampere_plus` or `same_compute_capability` lets other GPUs load it, at some cost.
        sparsity: use 2:4 sparse weights where they are.
        refit: let weights be replaced later.
        weight_streaming: let weights stay in host memory where the GPU has too little.
        plugins: libraries with plugins.
        dla_core: which DLA core runs what it can.
        server_tensorrt: the TensorRT that the server has (`10.13.3.9`): an engine of another is refused. The table of
            releases in this package knows it of no image, for lack of a public text that says it.
        timing_cache: a timing cache file of your own; by default one is kept in `.build`.
    """

    gpu: tuple[GpuName, ...] = ()
    profiles: tuple[dict[str, Shapes], ...] = ()
    workspace: SizeText | None = None
    optimization_level: int | None = Field(None, ge=0, le=5, strict=True)
    version_compatible: StrictBool = False
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = "none"
    sparsity: StrictBool = False
    refit: StrictBool = False
    weight_streaming: StrictBool = False
    plugins: tuple[FileText, ...] = ()
    dla_core: int | None = Field(None, ge=0, le=15, strict=True)
    server_tensorrt: Annotated[str, Field(pattern=r"^\d+\.\d+(\.\d+){0,2}$")] | None = None
    timing_cache: FileText | None = None


class Load(Part):
    """The load under which `serve: fastest` measures, and what must hold under it.

    Attributes:
        concurrency: requests under way at once.
        latency_limit_ms: the longest latency, in milliseconds, that 99 of 100 requests may have; by default there is no
            limit.
    """

    concurrency: int = Field(16, ge=1, le=4096, strict=True)
    latency_limit_ms: float | None = Field(None, gt=0, allow_inf_nan=False)


def engine_findings(engine: Engine, kinds: set[str], interface: Interface, batch: Batch) -> Iterator[Finding]:
    """What keeps engines from being built that is known before anything is searched or loaded.

    Args:
        engine: what the spec says of engines.
        kinds: ``tensorrt``, ``tensorrt-rtx``: those that the model has variants of.
        interface: the tensors of the spec; without inputs they are not known yet.
        batch: of the spec.
    """
    for kind in sorted(kinds):
        try:
            resolve_targets(kind, engine.gpu)
        except EngineError as exc:
            yield Finding(exc.what, exc.expected, exc.got, exc.fix, ("engine", "gpu"))
    if kinds and interface.inputs:
        try:
            profiles_of(
                interface,
                max_batch=batch.max if interface.batches else 0,
                preferred=batch.preferred,
                explicit=[{name: shapes.model_dump() for name, shapes in each.items()} for each in engine.profiles],
            )
        except EngineError as exc:
            path = ("engine", "profiles") if exc.where.startswith("engine") else ("inputs",)
            yield Finding(exc.what, exc.expected, exc.got, exc.fix, path)


def recipe_findings(precision: Precision, variants: tuple[str, ...]) -> list[Finding]:
    """Recipes for variants that the model does not have."""
    return [
        Finding(
            f"a recipe for {name!r}, which is none of the variants",
            ", ".join(variants),
            fix=did_you_mean(name, variants) or "take it out, or add the variant",
            path=("precision", "recipes", name),
        )
        for name in precision.recipes
        if name not in variants
    ]
