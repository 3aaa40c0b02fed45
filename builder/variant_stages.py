"""The stages that only variants beyond fp32 have: precision, its judgement, and the choice of the fastest."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from builder.agreement import DROP, Verdict
from builder.artifact import EXTERNAL_DATA_SUFFIX, artifact_of
from builder.building import Build, seed
from builder.errors import AccuracyError, PrecisionError, RecipeError
from builder.host import tool_versions
from builder.incremental.cache import Record, digest_of
from builder.incremental.steps import artifact_step, name_of
from builder.judging import CastRunner, Judging, NetJudge
from builder.precision.recipe import Recipe, read_recipe
from builder.reference import OnnxRunner, Runner
from builder.results import Result, made_result
from builder.tensors import Interface, TensorSpec
from builder.variants import VARIANTS, Variant
from serving.dtypes import BY_NAME

_TOOLS = ("onnx", "onnx-ir", "onnxruntime", "numpy")
_QUICK_SAMPLES = 64
_TIMED_REQUESTS = 5
_TIMED_S = 0.05
_SECONDS_PER_VARIANT = 30.0


def judging_of(build: Build) -> Judging:
    """What the variants of a model are judged by."""
    model = build.subject.model
    value = float(build.kept["baseline"].data["value"]) if model.evaluate else None
    path = build.export.path
    return Judging(build.subject.spec, model, build.samples, lambda: OnnxRunner(path), value, lambda: seed(model))


def prepared_of(build: Build) -> Path:
    """The graph that recipes name nodes of; made once for all variants."""
    from builder.precision.prepare import prepared

    path = build.folder("prepared") / "model.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        prepared(build.export.path, path)
    return path


def precision(build: Build, of: str) -> Result:
    """Bring the exported graph to a variant's precision: by the recipe that the user names, or by a search.

    Raises:
        PrecisionError: no recipe holds the accuracy, and the user did not allow a drop.
        RecipeError: the user's recipe does not fit.
    """
    from builder.precision.apply import apply
    from builder.precision.ranges_half import keep_in_fp32

    variant, model = VARIANTS[of], build.subject.model
    to = build.folder(f"precision {of}") / "model.onnx"
    to.parent.mkdir(parents=True, exist_ok=True)
    judging, graph = judging_of(build), prepared_of(build)
    file = model.precision.recipes.get(of)
    if file is not None:
        recipe = _recipe(build.subject.spec.folder / file, variant)
        if recipe.options.get("io") == "fp16":
            keep_in_fp32(graph, judging.feeds, "fp16", io="fp16")  # refuses what overflows at the border
        apply(recipe, graph, to, feeds=judging.feeds)
        searched: dict[str, Any] = {"replayed": file}
    else:
        recipe, searched = _searched(build, variant, judging, graph, to)
    data = [to.name + EXTERNAL_DATA_SUFFIX] if to.with_name(to.name + EXTERNAL_DATA_SUFFIX).exists() else []
    made = artifact_of(
        to,
        precision=variant.precision,
        interface=_interface(build.export.interface, recipe),
        tools={**build.export.tools, **tool_versions(*_TOOLS)},
        data=data,
        notes=(*build.export.notes, *_notes(recipe, searched)),
    )
    return made_result(made, recipe=recipe.as_dict(), search=searched)


def _recipe(path: Path, variant: Variant) -> Recipe:
    recipe = read_recipe(path)
    if recipe.precision != variant.precision:
        raise RecipeError(
            f"the recipe is not for {variant.name}",
            where=str(path),
            expected=f"precision: {variant.precision}",
            got=f"precision: {recipe.precision}",
            fix="name it under the variant it was written for, in `precision.recipes`",
        )
    return recipe


def _searched(build: Build, variant: Variant, judging: Judging, graph: Path, to: Path) -> tuple[Recipe, dict[str, Any]]:
    from builder.precision.apply import apply
    from builder.precision.ranges_half import keep_in_fp32
    from builder.precision.search import search

    asked = build.subject.model.precision
    folder = build.cache.folder / "search" / build.subject.name / variant.name
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {}
    if variant.precision == "int8" and asked.calibrator != "auto":
        options["calibrator"] = asked.calibrator
        options |= {"percentile": asked.percentile} if asked.calibrator == "percentile" else {}
    cases, digest = build.answers.cases, build.kept["reference"].digest
    judge = NetJudge(judging.judge(variant.precision), cases, digest, variant.precision)
    if asked.io == "fp16" and variant.precision == "fp16":
        keep_in_fp32(graph, judging.feeds, "fp16", io="fp16")
    try:
        found = search(
            graph,
            to,
            precision=variant.precision,
            target=variant.target,
            feeds=judging.feeds,
            judge=judge,
            quick=judging.quick(variant.precision, _QUICK_SAMPLES),
            time_one=lambda path: _latency_us(build, path),
            minutes=build.work.search_minutes,
            folder=folder,
            reporter=build.reporter,
            keep=asked.keep,
            options=options,
        )
    except PrecisionError as error:
        best = getattr(error, "best", None)
        if best is None or not build.subject.allow_drop:
            raise
        found = best
    recipe = found.recipe
    if asked.io == "fp16" and variant.precision == "fp16":
        # What is rounded at the border is little; that nothing overflows there was made sure of before.
        recipe = dataclasses.replace(recipe, options={**recipe.options, "io": "fp16"})
        apply(recipe, graph, to, feeds=judging.feeds)
    return recipe, found.as_dict()


def _notes(recipe: Recipe, searched: dict[str, Any]) -> Iterator[str]:
    kept = f", {len(recipe.keep)} nodes in float" if recipe.keep else ""
    yield f"{recipe.precision} by {recipe.method}{kept}"
    if searched.get("complete") is False:
        yield "fallback: the search was out of time; more --search-minutes may find a faster recipe"


def _interface(interface: Interface, recipe: Recipe) -> Interface:
    """The tensors of what a recipe makes: those of the original, in half precision where that is asked for."""
    if recipe.options.get("io", "fp32") != "fp16":
        return interface
    half = BY_NAME["float16"]

    def halved(tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(dataclasses.replace(t, dtype=half) if t.dtype.name == "float32" else t for t in tensors)

    return Interface(halved(interface.inputs), halved(interface.outputs))


def _latency_us(build: Build, path: Path) -> float:
    """Median time of one request of one sample, on one thread."""
    request = build.samples.batch(1)
    times: list[float] = []
    with OnnxRunner(path, threads=1) as runner:
        runner(request)
        began = time.perf_counter()
        while len(times) < _TIMED_REQUESTS or time.perf_counter() - began < _TIMED_S:
            started = time.perf_counter()
            runner(request)
            times.append((time.perf_counter() - started) * 1e6)
    return float(np.median(times))


@contextlib.contextmanager
def runner_of(build: Build, variant: Variant) -> Iterator[Runner]:
    """A variant's graph in this machine's ONNX Runtime, asked and heard in fp32.

    A CPU has no arithmetic in half precision, and ONNX Runtime leaves out the rounding between nodes: what overflows on
    a GPU would not here. So such a graph is run in fp32 with every value rounded.
    """
    record = build.kept[f"precision {variant.name}"]
    artifact = build.made_by(f"precision {variant.name}")
    path = artifact.path
    if variant.precision in ("fp16", "bf16"):
        from builder.precision.half import emulated

        path = build.folder("emulated", variant.name) / "model.onnx"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            emulated(prepared_of(build), path, precision=variant.precision, keep=record.data["recipe"]["keep"])
    # What a GPU computes exactly, this CPU's integer kernels may not: 16 bits hold too little without VNNI.
    with OnnxRunner(path, lean=variant.target not in ("cpu", "openvino")) as runner:
        if path == artifact.path:
            yield CastRunner(runner, artifact.interface.inputs, build.export.interface.outputs)
        else:
            yield runner


def accuracy(build: Build, of: str) -> Result:
    """The gate: a variant that is out of its budget goes no further, unless the user allows it.

    Raises:
        AccuracyError: naming the metric, by how much, the nodes to blame, and what to try.
    """
    variant = VARIANTS[of]
    judge = judging_of(build).judge(variant.precision)
    with runner_of(build, variant) as runner:
        verdict = judge(runner)
    if verdict.failed and not build.subject.allow_drop:
        raise _refused(build, of, verdict)
    return judged(build, verdict)


def judged(build: Build, verdict: Verdict) -> Result:
    """A verdict, and what it says of the user's metric, as a result."""
    data: dict[str, Any] = {"agreement": verdict.as_dict(), "allowed": list(verdict.failed)}
    evaluate = build.subject.model.evaluate
    if evaluate is not None:
        reference = float(build.kept["baseline"].data["value"])
        value = reference - verdict.scores[DROP]
        data |= {"metric": evaluate.python, "reference": reference, "value": value, "max_drop": evaluate.max_drop}
    return Result(data)


def _refused(build: Build, of: str, verdict: Verdict) -> AccuracyError:
    search = build.kept[f"precision {of}"].data["search"]
    blamed = ", ".join(f"{node} ({cost:.3g})" for node, cost in search.get("blamed", [])[:5])
    limits = ", ".join(f"{name} {limit:.9g}" for name, limit in verdict.limits.items())
    scores = ", ".join(f"{name} {verdict.scores[name]:.6g}" for name in verdict.limits)
    return AccuracyError(
        f"{of} does not hold its accuracy: {'; '.join(verdict.failed)}",
        expected=f"{limits} on samples that it was not calibrated with",
        got=scores + (f"; most is lost at {blamed}" if blamed else ""),
        fix="take the recipe out of `precision.recipes` to search again, add `precision.keep`, more samples, or raise "
        "the limit; --allow-accuracy-drop publishes it as it is",
    )


def _closeness(accuracy: Record | None) -> float:
    """How near a variant is to fp32, which is 1: its cosine (or share of equal elements), less what the metric lost."""
    if accuracy is None:
        return 1.0
    scores = accuracy.data["agreement"]["scores"]
    near = [scores[name] for name in ("cosine", "equal") if name in scores]
    return float(min(near, default=1.0) - max(scores.get(DROP, 0.0), 0.0))


def choose(build: Build) -> Result:
    """Measure the variants that were verified, and choose the fastest; the evidence goes into the manifest.

    Raises:
        BuildError: none could be measured.
    """
    from builder.choice import Entrant
    from builder.choose import choose as fastest
    from builder.choose import table

    entrants, model = [], build.subject.model
    for name in build.published:
        if not name:
            continue
        build.stage_model(name)  # where nothing had to be asked, the server has not seen it yet
        variant = VARIANTS[name]
        score = _closeness(build.kept.get(name_of("accuracy", name)))
        entrants.append(Entrant(name, build.name_of(name), score, build.artifact(variant).size_bytes))
    limit = model.load.latency_limit_ms
    choice = fastest(
        build.endpoint(),
        entrants,
        inputs=[case.inputs for case in build.answers.together],
        latency_limit_us=round(limit * 1000) if limit is not None else None,
        concurrency=model.load.concurrency,
        folder=build.folder("choose"),
        reporter=build.reporter,
        seconds_per_variant=_SECONDS_PER_VARIANT,
    )
    chosen = build.kept[artifact_step(choice.variant)]
    return Result({**choice.as_dict(), "table": table(choice)}, digest=digest_of([choice.variant, chosen.digest]))
