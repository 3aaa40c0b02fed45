"""From a model that is built into the repository: each variant by itself, the plain name last, engines beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from builder.incremental.cache import Record
from builder.incremental.keys import Subject
from builder.incremental.steps import artifact_step, model_name_of, name_of, published_names, records_of, served_variant
from builder.options import Options
from builder.outcome import ModelResult, Status, engine_result, left_out, not_published, result_of, served_note
from builder.planning import Wanted
from builder.precision.recipe import Recipe
from builder.repository import publish
from builder.repository.engines import has_engine, put_engine
from builder.variants import VARIANTS, is_servable
from serving.errors import TritonRepoError, UsageError
from serving.progress import Reporter

if TYPE_CHECKING:
    from builder.workers.jobs import Done
    from builder.workers.worker import Built


def publish_done(subject: Subject, done: Done, how: Options, reporter: Reporter) -> list[ModelResult]:
    """Put what was verified into the repository; one result for each model there, and for each variant without one."""
    if done.built is None:
        variant = subject.model.served
        failed = ModelResult(subject.name, variant, "failed", None, done.seconds, done.stage, done.error)
        return [failed, *left_out(subject)]
    built = done.built
    if how.recipes_dir is not None:
        write_recipes(subject, built.records, how.recipes_dir)
    results = []
    for of in published_names(subject):
        if of in built.staged:
            results.append(_publish_one(subject, of, done, how, reporter))
        else:
            results.append(not_published(subject, of, built.failed, done.seconds))
    for name in subject.variants:
        if not is_servable(VARIANTS[name]):
            results.append(_put_engine(subject, name, built, done.seconds))
    return [*results, *left_out(subject)]


def _publish_one(subject: Subject, of: str, done: Done, how: Options, reporter: Reporter) -> ModelResult:
    assert done.built is not None
    name, records = model_name_of(subject.name, of), done.built.records
    variant = served_variant(subject.model, of, records)
    try:
        with reporter.step(f"{name}: publish") as step:
            published = publish.publish(
                done.built.staged[of], subject.spec.repository, sign_key=how.sign_key, activate=how.activate
            )
            step.done("built" if published.fresh else "up to date", f"version {published.version}")
    except TritonRepoError as error:
        return ModelResult(name, variant.name, "failed", None, done.seconds, "publish", error)
    for note in published.warnings:
        reporter.warn(f"{name}: {note}")
    status: Status = "built" if published.fresh else "up to date"
    served = () if published.pending else served_note(name, published.version, published.served)
    wanted = Wanted(name, variant.name, publish.Content(None, {}, None), records_of(records, of, variant))
    return result_of(wanted, status, published.version, done.seconds, done.built.cached, served)


def _put_engine(subject: Subject, variant: str, built: Built, seconds: float) -> ModelResult:
    name, repository = model_name_of(subject.name, variant), subject.spec.repository
    failure = built.failed.get(variant)
    if failure is not None:
        return ModelResult(name, variant, "failed", None, seconds, failure.stage, failure.error)
    record = built.records[artifact_step(variant)]
    if has_engine(repository, name, record.objects):
        return engine_result(name, variant, "up to date", record, repository, seconds)
    try:
        put_engine(built.engines[variant], repository)
    except TritonRepoError as error:
        return ModelResult(name, variant, "failed", None, seconds, "publish", error)
    return engine_result(name, variant, "built", record, repository, seconds)


def write_recipes(subject: Subject, records: Mapping[str, Record], folder: Path) -> None:
    """Write the recipes that were used, to be committed and replayed.

    Args:
        subject: the model.
        records: what is kept of its steps.
        folder: where to; made if it is not there.

    Raises:
        UsageError: it cannot be written.
    """
    for variant in subject.variants:
        record = records.get(name_of("precision", variant))
        if record is None:
            continue
        recipe = Recipe.from_dict(record.data["recipe"], variant)
        path = folder / f"{subject.name}.{variant}.yaml"
        name = os.path.relpath(path, subject.spec.folder)
        replay = f"precision: {{recipes: {{{variant}: {name}}}}}"
        comment = f"{variant} of {subject.name}, as build-repo made it. To replay it without a search:\n    {replay}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(recipe.text(comment), encoding="utf-8")
        except OSError as exc:
            raise UsageError(
                "the recipe cannot be written",
                where=str(path),
                expected="a folder that can be written",
                got=exc.strerror or str(exc),
                fix="give another folder to --recipes",
            ) from exc
