"""One model on its way: what its stages work with, and which of their results are taken from the cache.

A stage whose dependencies (:mod:`builder.incremental.keys`) are those of a result in the cache is not run; what it made
is taken from there. What goes wrong with one variant stops that variant alone; what all of them share stops the model.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builder import golden, operations
from builder.artifact import Artifact
from builder.config import ModelConfig, fields_of, render
from builder.config.warmup import FOLDER as WARMUP
from builder.errors import BuildError
from builder.incremental.answers import Answers
from builder.incremental.cache import Cache, Record, digest_of
from builder.incremental.keys import Subject
from builder.incremental.packages import installed
from builder.incremental.steps import (
    Step,
    artifact_step,
    inputs_of,
    model_name_of,
    name_of,
    published_names,
    records_of,
    served_variant,
    steps_of,
)
from builder.incremental.tracing import Trace, tracing
from builder.loaded import Composition, Loaded
from builder.operations import libraries_of
from builder.originals import batch_limit, load_original
from builder.outcome import Failure
from builder.planning import find
from builder.reference import Runner, reference_runner
from builder.repository import publish
from builder.repository.engines import Bundle, bundle_of
from builder.repository.manifest import manifest_of
from builder.repository.places import make_places
from builder.repository.published import GOLDEN
from builder.results import Result, artifact_from
from builder.samples import Samples, load_samples
from builder.spec import ModelSpec
from builder.spec.ensembles import with_steps
from builder.variants import FUSED, VARIANTS, Variant, is_servable
from builder.verify.client_view import as_seen
from builder.verify.serve import Endpoint
from serving.errors import TritonRepoError
from serving.progress import Reporter

ANSWERS = "answers.npz"
_SHARED = frozenset({"source", "samples", "reference", "baseline", "export", "parity", "accuracy"})
Stage = Callable[["Build", str], Result]


@dataclass(frozen=True)
class Work:
    """Where and how a model is built.

    Attributes:
        repository: what the verifying server reads.
        versions: the version folder to make, by the name of the model in the repository.
        force: run every stage.
        search_minutes: how long a search for a recipe may take.
    """

    repository: Path
    versions: Mapping[str, int]
    force: bool = False
    search_minutes: float = 10.0

    @property
    def mark(self) -> Path:
        """A file that is there as long as nobody deletes the folders that are worked in."""
        return self.repository.parent / ".in-use"


class Build:
    """One model on its way. What a stage needs is loaded when it is asked for.

    Args:
        subject: the model.
        cache: where results are kept.
        work: where and how.
        endpoint: gives the running server.
        baseline: top-level modules that were imported before any of the user's code.
    """

    def __init__(
        self,
        subject: Subject,
        cache: Cache,
        work: Work,
        endpoint: Callable[[], Endpoint],
        *,
        baseline: frozenset[str] = frozenset(),
    ) -> None:
        self.subject = subject
        self.cache = cache
        self.work = work
        self.endpoint = endpoint
        self.stage = ""
        self.reporter: Reporter
        self.kept: dict[str, Record] = {}
        self.cached: list[str] = []
        self.failed: dict[str, Failure] = {}
        self._baseline = baseline
        models = with_steps(subject.spec.models, [subject.name])
        needed = [libraries_of(subject.spec.models[name].operations, subject.spec.folder) for name in models]
        operations.use(path for libraries in needed for path in libraries.values())
        installed()  # before the user's folder is on sys.path: it may hold metadata of its own
        self._loaded: Loaded | None = None
        self._runner: Runner | None = None
        self._samples: Samples | None = None
        self._answers: Answers | None = None
        shutil.rmtree(self.folder(), ignore_errors=True)  # that of the model before this one
        work.mark.parent.mkdir(parents=True, exist_ok=True)
        work.mark.touch()

    # -- where things are -------------------------------------------------------------------------------------------

    def folder(self, *parts: str) -> Path:
        """A folder for files that go from one stage to the next; made by who writes there."""
        return self.work.repository.parent.joinpath("work", *parts)

    def name_of(self, of: str) -> str:
        """The name in the repository: a variant's own, or the plain one."""
        return model_name_of(self.subject.name, of)

    def variant_of(self, of: str) -> Variant:
        """The variant that is served under that name."""
        return served_variant(self.subject.model, of, self.kept)

    def model_dir(self, of: str) -> Path:
        """The folder of a model in the verifying server's repository."""
        return self.work.repository / self.name_of(of)

    def version_of(self, of: str) -> int:
        """The version to make."""
        return self.work.versions[self.name_of(of)]

    def version_dir(self, of: str) -> Path:
        """The version folder in it."""
        return self.model_dir(of) / str(self.version_of(of))

    @property
    def answers_file(self) -> Path:
        """Where the reference's answers lie."""
        return self.folder("reference") / ANSWERS

    # -- what the stages work with ----------------------------------------------------------------------------------

    @property
    def loaded(self) -> Loaded:
        """The module, or the ONNX file."""
        if self._loaded is None:
            seed(self.subject.model)
            self._loaded = load_original(self.subject.spec, self.subject.model, self.subject.name)
        return self._loaded

    @property
    def runner(self) -> Runner:
        """The original, to be asked."""
        if self._runner is None:
            self._runner = reference_runner(self.loaded, self.subject.spec.folder)
        return self._runner

    @property
    def samples(self) -> Samples:
        """The user's samples, or random ones."""
        if self._samples is None:
            declared = self.subject.model.declared
            interface = declared if declared.inputs else self.loaded.interface
            seed(self.subject.model)
            self._samples = load_samples(self.subject.spec, self.subject.model, interface)
        return self._samples

    @property
    def answers(self) -> Answers:
        """What to ask, with the original's answers."""
        if self._answers is None:
            self._answers = Answers.load(self.answers_file)
            self.answers_file.unlink()
        return self._answers

    def keep_answers(self, answers: Answers) -> Path:
        """They were just given; the file of them."""
        self._answers = answers
        self.answers_file.parent.mkdir(parents=True, exist_ok=True)
        answers.save(self.answers_file)
        return self.answers_file

    @property
    def max_batch(self) -> int:
        """Triton's ``max_batch_size``; 0 where the server does not batch."""
        if isinstance(self.loaded, Composition):
            return self.loaded.graph.max_batch_size
        return batch_limit(self.subject.model, self.loaded.interface)

    @property
    def export(self) -> Artifact:
        """The fp32 graph that every variant is made of."""
        return self.made_by("export")

    def artifact(self, variant: Variant) -> Artifact:
        """A variant's file, where its stage left it."""
        return self.made_by(artifact_step(variant.name))

    def made_by(self, step: str) -> Artifact:
        """The file that a stage made."""
        return artifact_from(self.kept[step], self.folder(step))

    def config(self, of: str) -> ModelConfig:
        """The decided configuration."""
        data = self.kept[name_of("config", of)].data["config"]
        return ModelConfig.from_dict(data, self.subject.spec.folder)

    def fields(self, variant: Variant) -> dict[str, Any]:
        """What ``config.pbtxt`` has beside what the spec says: the graph of an ensemble, what a variant needs."""
        if variant.format == "ensemble":
            without = dict.fromkeys(("backend", "dynamic_batching"))  # it has no backend, and its steps batch
            return {**without, **self.kept["package"].data["tree"]}
        if variant is FUSED:
            return {"max_batch_size": self.kept["package"].data["tree"]["max_batch_size"]}
        return fields_of(variant, self.subject.model, self.artifact(variant))

    @property
    def header(self) -> tuple[str, ...]:
        """What stands above ``config.pbtxt``."""
        written = f"written by build-repo from {self.subject.spec.path.name}"
        return (f"{self.subject.name}: {written}; change that, not this file.",)

    def release_runner(self) -> None:
        """Give back what holds the original ready to be asked: of an ONNX file, that is a second copy."""
        self._runner = None

    def release(self) -> None:
        """Give the original's memory back: nothing after export needs it."""
        self._loaded = self._runner = None
        gc.collect()

    # -- running them -----------------------------------------------------------------------------------------------

    def run(self, stages: Mapping[str, Stage], reporter: Reporter) -> None:
        """Take the model through every stage; ``stage`` says where it is.

        Raises:
            TritonRepoError: a stage that all variants share failed, or the only one that is to be published.
        """
        self.reporter = reporter
        for step in steps_of(self.subject):
            if self._is_over(step):
                continue
            self._still_there()
            self.stage = step.name
            try:
                self._step(step, stages[step.stage], reporter)
            except TritonRepoError as error:
                if self._shared(step) or not self.work.mark.exists():
                    raise
                self.failed[step.of] = Failure(step.stage, error)
            if step.name == "export":
                self.release()
        self._still_there()
        self.stage = "publish"

    def _still_there(self) -> None:
        """Stages make the folders they write to: what was deleted in the middle would be half there again."""
        if not self.work.mark.exists():
            raise BuildError("the folders of this build are gone", where=str(self.work.mark.parent))

    def _is_over(self, step: Step) -> bool:
        """Whether there is no sense in a step: its variant has failed, or the one that is to be served."""
        of_a_model = step.stage in ("config", "contract", "serve")
        if step.of in self.failed or (not step.of and of_a_model and self.subject.model.served in self.failed):
            return True
        absent = [name for name in step.after if name not in self.kept]
        if step.stage == "choose":
            return all(name in absent for name in step.after if name.startswith("serve "))
        return bool(absent) and not self._shared(step)

    def _shared(self, step: Step) -> bool:
        return not step.of and step.stage in _SHARED

    def _step(self, step: Step, stage: Stage, reporter: Reporter) -> None:
        with reporter.step(f"{self.subject.name}: {step.name}") as shown:
            changed: tuple[str, ...] = ()
            found = self._kept_result(step)
            if found is None:
                found, changed = self._made(step, stage)
            else:
                self.cached.append(step.name)
            self.kept[step.name] = found
            shown.done("cached" if step.name in self.cached else "done")
        if changed:
            more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
            what = f"{changed[0]} changed while it ran{more}"
            reporter.warn(f"{self.subject.name}: {step.name}: {what}; its result is used, but not kept")

    def _kept_result(self, step: Step) -> Record | None:
        """What is kept of a step that need not run, its files taken out of the cache and whole."""
        if self.work.force:
            return None
        records = self.cache.records(self.subject.name)
        found = find(step, self.subject, records, self._digests)
        if found is None or not self._fetched(step, found):
            return None
        if records[step.name][0] != found:
            self.cache.add(self.subject.name, step.name, found)  # the newest again
        return found

    def _fetched(self, step: Step, record: Record) -> bool:
        # At once, not when they are needed: what is damaged is made anew here, and what follows is held against that.
        folder = self.folder(step.name)
        for name in record.objects:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        return all(self.cache.fetch(digest, folder / name) for name, digest in record.objects.items())

    @property
    def _digests(self) -> dict[str, str]:
        return {name: record.digest for name, record in self.kept.items()}

    def _made(self, step: Step, stage: Stage) -> tuple[Record, tuple[str, ...]]:
        """Run a step and keep its result; and what changed meanwhile, for which it is not kept."""
        inputs = inputs_of(step, self.subject, self._digests)
        started = time.perf_counter()
        with self._traced(step) as trace:
            result = stage(self, step.of)
        record = Record(
            inputs=inputs,
            reads={key: value for key, value in trace.reads.items() if key not in inputs},
            digest=result.digest or digest_of([inputs, trace.reads, result.data]),
            objects={name: self.cache.put(path) for name, path in result.files.items()},
            data=result.data,
            seconds=time.perf_counter() - started,
        )
        changed = (*trace.changed, *(key.partition(":")[2] for key in inputs if not self.subject.now.holds(key)))
        if not changed:
            self.cache.add(self.subject.name, step.name, record)
        return record, changed

    def _traced(self, step: Step) -> AbstractContextManager[Trace]:
        if not step.runs_user_code:
            return nullcontext(Trace())
        repository = self.subject.spec.repository
        ours = (repository, publish.build_dir(repository))
        return tracing(self.subject.now, self.subject.spec.folder, ours, self._baseline)

    # -- what comes of them -----------------------------------------------------------------------------------------

    def stage_files(self, of: str) -> None:
        """Put the artifact and the files that the configuration names into the version folder."""
        folder = self.version_dir(of)
        folder.mkdir(parents=True, exist_ok=True)
        artifact = self.artifact(self.variant_of(of))
        for name in artifact.sha256:
            if not (folder / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(artifact.path.parent / name, folder / name)
        step = name_of("config", of)
        made = {f"{WARMUP}/{name}": self.folder(step) / name for name in self.kept[step].objects}
        for name, file in {**self.config(of).copies, **made}.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(file.read_bytes())

    def stage_model(self, of: str) -> None:
        """What the server reads: the configuration beside the version folder, and what is in that."""
        self.stage_files(of)
        make_places(self.model_dir(of), self.version_dir(of))
        if self.subject.model.needs and self.variant_of(of) is not FUSED:
            from builder.packaging import stage_steps

            stage_steps(self)
        text = render(self.config(of).at(self.version_of(of)), header=self.header)
        (self.model_dir(of) / publish.CONFIG).write_text(text, encoding="utf-8")

    def to_publish(self) -> dict[str, publish.Staged]:
        """The verified versions, ready to be moved into the repository, by variant; the plain name last."""
        return {of: self._staged(of) for of in self.published}

    def engines(self) -> dict[str, Bundle]:
        """Engines that Triton has no backend for, by variant."""
        found = {}
        for name in self.subject.variants:
            step = artifact_step(name)
            if not is_servable(VARIANTS[name]) and step in self.kept and name not in self.failed:
                found[name] = bundle_of(self.made_by(step), self.name_of(name), self.kept[step].data)
        return found

    @property
    def published(self) -> list[str]:
        """The variants that have a model of their own, and last the plain name; those that came to their end."""
        ended = [of for of in published_names(self.subject) if name_of("serve", of) in self.kept]
        return [of for of in ended if of not in self.failed]

    def _staged(self, of: str) -> publish.Staged:
        self.stage_files(of)
        for folder in [*self.version_dir(of).rglob("__pycache__")]:  # the server that verified it left that there
            shutil.rmtree(folder)
        seen = as_seen(self.answers.golden, self.config(of).tree, self.subject.model.sequence)
        golden.write_golden(self.version_dir(of) / GOLDEN, seen)
        variant = self.variant_of(of)
        artifact = self.artifact(variant)
        return publish.Staged(
            name=self.name_of(of),
            folder=self.version_dir(of),
            config=self.config(of),
            header=self.header,
            manifest=manifest_of(
                self.name_of(of),
                self.subject.spec,
                self.subject.model,
                variant,
                artifact,
                records_of(self.kept, of, variant),
            ),
        )


def _link_or_copy(source: Path, to: Path) -> None:
    # A file that is in two folders of the repository is two files: who edits one does not edit the other.
    if source.stat().st_nlink == 1:
        with contextlib.suppress(OSError):
            os.link(source, to)
            return
    shutil.copyfile(source, to)


def seed(model: ModelSpec) -> None:
    """Let code that draws lots without a seed of its own give the same every time: kept results must fit new ones."""
    random.seed(0)
    np.random.seed(0)
    if model.kind not in ("onnx", "python_model", "ensemble"):
        with contextlib.suppress(ImportError):  # the loader says so
            __import__("torch")  # it seeds itself by chance when it is imported
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
