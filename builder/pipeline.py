"""The order of the stages, on one page. Each takes the build so far and gives a result; none knows the next.

A stage whose dependencies (:mod:`builder.incremental.keys`) are those of a result in the cache is not run; what it made
is taken from there when a later stage wants it. A stage fails by raising; ``api.py`` decides what that means for other
models.
"""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from builder import export, golden, sources
from builder.artifact import Artifact, sha256_of
from builder.config import ModelConfig, decide, render
from builder.incremental.answers import Answers
from builder.incremental.cache import Cache, Record, digest_of
from builder.incremental.keys import Step, Subject, inputs_of, steps_of
from builder.incremental.packages import installed
from builder.incremental.tracing import Trace, tracing
from builder.loaded import Loaded, OnnxFile
from builder.planning import find
from builder.reference import OnnxRunner, Runner, reference_runner
from builder.repository import publish
from builder.repository.manifest import manifest_of
from builder.repository.published import GOLDEN
from builder.samples import Samples, load_samples
from builder.spec import ModelSpec
from builder.tensors import Interface, parse_tensor
from builder.variants import VARIANTS
from builder.verify import cases_of, check_contract, check_parity, check_served, measure, measure_accuracy
from builder.verify.cases import single_cases
from builder.verify.serve import CONCURRENT_REQUESTS, Endpoint
from serving.progress import Reporter

_ANSWERS = "answers.npz"


@dataclass(frozen=True)
class Result:
    """What a stage made.

    Attributes:
        data: plain data.
        files: files to keep, by name.
        digest: what later stages depend on; where it is empty, they depend on all that this stage depended on.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    digest: str = ""


class Build:
    """One model on its way. What a stage needs is loaded, or fetched from the cache, when it is asked for.

    Args:
        subject: the model.
        cache: where results are kept.
        staged: the model's folder in the repository that the verifying server reads.
        version: the version folder to make in it.
        endpoint: gives the running server.
        baseline: top-level modules that were imported before any of the user's code.
        force: run every stage.
    """

    def __init__(
        self,
        subject: Subject,
        cache: Cache,
        staged: Path,
        version: int,
        endpoint: Callable[[], Endpoint],
        *,
        baseline: frozenset[str] = frozenset(),
        force: bool = False,
    ) -> None:
        self.subject = subject
        self.cache = cache
        self.staged = staged
        self.version = version
        self.endpoint = endpoint
        self.stage = ""
        self.kept: dict[str, Record] = {}
        self.cached: list[str] = []
        self._baseline = baseline
        self._force = force
        installed()  # before the user's folder is on sys.path: it may hold metadata of its own
        self._loaded: Loaded | None = None
        self._runner: Runner | None = None
        self._samples: Samples | None = None
        self._answers: Answers | None = None
        self._artifact: Artifact | None = None

    # -- what the stages work with ----------------------------------------------------------------------------------

    @property
    def version_dir(self) -> Path:
        """The version folder in staging."""
        return self.staged / str(self.version)

    @property
    def loaded(self) -> Loaded:
        """The module, or the ONNX file."""
        if self._loaded is None:
            _seed(self.subject.model)
            self._loaded = sources.load(self.subject.spec, self.subject.model)
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
            _seed(self.subject.model)
            self._samples = load_samples(self.subject.spec, self.subject.model, interface)
        return self._samples

    @property
    def answers(self) -> Answers:
        """What to ask, with the original's answers."""
        if self._answers is None:
            self._answers = Answers.load(self.answers_file)
            self.answers_file.unlink()
        return self._answers

    @property
    def answers_file(self) -> Path:
        """Where they lie."""
        return self.staged.parent.parent / f"{self.subject.name}.{_ANSWERS}"

    @property
    def artifact(self) -> Artifact:
        """The exported file, in the version folder."""
        if self._artifact is None:
            self._artifact = _artifact_from(self.kept["export"], self.version_dir)
        return self._artifact

    @property
    def config(self) -> ModelConfig:
        """The decided configuration."""
        return ModelConfig.from_dict(self.kept["config"].data["config"], self.subject.spec.folder)

    @property
    def header(self) -> tuple[str, ...]:
        """What stands above ``config.pbtxt``."""
        written = f"written by build-repo from {self.subject.spec.path.name}"
        return (f"{self.subject.name}: {written}; change that, not this file.",)

    def release(self) -> None:
        """Give the original's memory back: nothing after export needs it."""
        self._loaded = self._runner = None
        gc.collect()

    # -- running them -----------------------------------------------------------------------------------------------

    def run(self, reporter: Reporter) -> None:
        """Take the model through every stage; ``stage`` says where it is."""
        steps = {step.name: step for step in steps_of(self.subject.model)}
        for name, stage in STAGES:
            if name in steps:
                self.stage = name
                with reporter.step(f"{self.subject.name}: {name}") as shown:
                    changed: tuple[str, ...] = ()
                    found = self._kept_result(steps[name])
                    if found is None:
                        found, changed = self._made(steps[name], stage)
                    else:
                        self.cached.append(name)
                    self.kept[name] = found
                    shown.done("cached" if name in self.cached else "done")
                if changed:
                    what = f"{changed[0]} changed while it ran" + (
                        f", and {len(changed) - 1} more" * (len(changed) > 1)
                    )
                    reporter.warn(f"{self.subject.name}: {name}: {what}; its result is used, but not kept")
            if name == "export":
                self.release()
        self.stage = "publish"

    def _kept_result(self, step: Step) -> Record | None:
        """What is kept of a step that need not run, its files taken out of the cache and whole."""
        if self._force:
            return None
        records = self.cache.records(self.subject.name)
        found = find(step, self.subject, records, self._digests)
        if found is None or not self._fetched(step, found):
            return None
        self.cache.add(self.subject.name, step.name, found)  # the newest again, whichever it was
        return found

    def _fetched(self, step: Step, record: Record) -> bool:
        # At once, not when they are needed: what is damaged is made anew here, and what follows is held against that.
        folder = self.version_dir if step.name == "export" else self.answers_file.parent
        folder.mkdir(parents=True, exist_ok=True)
        names = {name: self.answers_file if name == _ANSWERS else folder / name for name in record.objects}
        return all(self.cache.fetch(digest, names[name]) for name, digest in record.objects.items())

    @property
    def _digests(self) -> dict[str, str]:
        return {name: record.digest for name, record in self.kept.items()}

    def _made(self, step: Step, stage: Callable[[Build], Result]) -> tuple[Record, tuple[str, ...]]:
        """Run a step and keep its result; and what changed meanwhile, for which it is not kept."""
        inputs = inputs_of(step, self.subject, self._digests)
        started = time.perf_counter()
        with self._traced(step) as trace:
            result = stage(self)
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

    def to_publish(self) -> publish.Staged:
        """The verified version, ready to be moved into the repository."""
        golden.write_golden(self.version_dir / GOLDEN, self.answers.golden)
        for name, file in self.config.labels.items():
            (self.version_dir / name).write_bytes(file.read_bytes())
        return publish.Staged(
            name=self.subject.name,
            folder=self.version_dir,
            config=self.config,
            header=self.header,
            manifest=manifest_of(self.subject.name, self.subject.spec, self.subject.model, self.artifact, self.kept),
        )


def _seed(model: ModelSpec) -> None:
    """Let code that draws lots without a seed of its own give the same every time: kept results must fit new ones."""
    random.seed(0)
    np.random.seed(0)
    if model.source.kind != "onnx":
        with contextlib.suppress(ImportError):  # the loader says so
            __import__("torch")  # it seeds itself by chance when it is imported
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


def _source(build: Build) -> Result:
    loaded = build.loaded
    return Result({"interface": _plain(loaded.interface), "kind": "onnx" if isinstance(loaded, OnnxFile) else "torch"})


def _samples(build: Build) -> Result:
    samples = build.samples
    facts = {"origin": samples.origin, "count": len(samples.rows), "real": samples.are_real, "sizes": samples.sizes()}
    return Result(facts, digest=samples.digest())


def _reference(build: Build) -> Result:
    interface = build.loaded.interface
    max_batch = build.subject.model.batch.max if interface.batches else 0
    cases = cases_of(build.samples, interface, max_batch, build.runner)
    single = single_cases(build.samples, golden.GOLDEN_REQUESTS, build.runner)
    alike = single_cases(build.samples, CONCURRENT_REQUESTS - len(single), build.runner, alike=True)
    build._answers = Answers(cases, single, single + alike)
    build._answers.save(build.answers_file)
    names = [case.name for case in cases]
    return Result({"cases": names}, {_ANSWERS: build.answers_file}, sha256_of(build.answers_file))


def _baseline(build: Build) -> Result:
    _seed(build.subject.model)
    return Result({"value": measure(build.subject.spec, build.subject.model, build.runner)})


def _export(build: Build) -> Result:
    build.version_dir.mkdir(parents=True, exist_ok=True)
    to, subject = build.version_dir / "model.onnx", build.subject
    build._runner = None  # it was asked all there is to ask; of an ONNX file it holds a second copy
    if isinstance(build.loaded, OnnxFile):
        made = export.onnx_from_file(build.loaded, build.samples, to=to)
    else:
        made = export.onnx_from_torch(
            build.loaded,
            build.samples,
            options=subject.model.export,
            release=subject.spec.server,
            folder=subject.spec.folder,
            to=to,
        )
    build._artifact = made
    data = {
        "format": made.format,
        "precision": made.precision,
        "interface": _plain(made.interface),
        "size_bytes": made.size_bytes,
        "tools": dict(made.tools),
        "notes": list(made.notes),
    }
    files = {name: made.path.with_name(name) for name in made.sha256}
    return Result(data, files, digest_of([data["precision"], data["interface"], dict(made.sha256)]))


def _config(build: Build) -> Result:
    record, subject = build.kept["export"], build.subject
    config = decide(
        subject.name,
        subject.model,
        _interface(record.data["interface"]),
        fmt=VARIANTS[subject.model.served].format,
        sizes=build.kept["samples"].data["sizes"],
        folder=subject.spec.folder,
    )
    labels = {name: sha256_of(file) for name, file in config.labels.items()}
    identity = publish.config_identity(config, build.header)
    data = {"config": config.as_dict(subject.spec.folder), "labels": labels, "identity": identity}
    return Result(data, digest=digest_of([identity, labels]))


def _contract(build: Build) -> Result:
    _stage_config(build)
    check_contract(build.staged, build.version)
    return Result()


def _stage_config(build: Build) -> None:
    """What the server reads beside the artifact."""
    text = render(build.config.at(build.version), header=build.header)
    (build.staged / publish.CONFIG).write_text(text, encoding="utf-8")
    for name, file in build.config.labels.items():
        (build.version_dir / name).write_bytes(file.read_bytes())


def _parity(build: Build) -> Result:
    runner = OnnxRunner(build.artifact.path)
    what = f"{build.subject.name} ({build.subject.model.served})"
    parity = check_parity(runner, build.answers.cases, build.artifact.precision, what=what, where="ONNX Runtime")
    return Result(parity.as_dict())


def _accuracy(build: Build) -> Result:
    runner = OnnxRunner(build.artifact.path)
    reference = float(build.kept["baseline"].data["value"])
    _seed(build.subject.model)  # a metric that draws lots draws the same as in `baseline`
    return Result(measure_accuracy(build.subject.spec, build.subject.model, reference, runner).as_dict())


def _serve(build: Build) -> Result:
    _stage_config(build)
    endpoint = build.endpoint()
    answers = build.answers
    served = check_served(endpoint, build.subject.name, answers.cases, answers.together, build.artifact.precision)
    return Result(served.as_dict())


def _plain(interface: Interface) -> dict[str, dict[str, str]]:
    return {
        "inputs": {tensor.name: str(tensor) for tensor in interface.inputs},
        "outputs": {tensor.name: str(tensor) for tensor in interface.outputs},
    }


def _interface(plain: Mapping[str, Mapping[str, str]]) -> Interface:
    inputs, outputs = (
        tuple(parse_tensor(name, text) for name, text in plain[side].items()) for side in ("inputs", "outputs")
    )
    return Interface(inputs, outputs)


def _artifact_from(record: Record, folder: Path) -> Artifact:
    data = record.data
    return Artifact(
        path=folder / "model.onnx",
        format=data["format"],
        precision=data["precision"],
        interface=_interface(data["interface"]),
        sha256=dict(record.objects),
        size_bytes=data["size_bytes"],
        tools=data["tools"],
        notes=tuple(data["notes"]),
    )


STAGES: tuple[tuple[str, Callable[[Build], Result]], ...] = (
    ("source", _source),
    ("samples", _samples),
    ("reference", _reference),
    ("baseline", _baseline),
    ("export", _export),
    ("config", _config),
    ("contract", _contract),
    ("parity", _parity),
    ("accuracy", _accuracy),
    ("serve", _serve),
)
