"""The order of the stages, on one page. Each takes the build so far and adds what it made; none knows the next.

A stage fails by raising; ``api.py`` above decides what that means for the other models.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from builder import export, golden, manifest, publish, sources
from builder.artifact import Artifact, sha256_of
from builder.config import ModelConfig, decide, render
from builder.loaded import Loaded, OnnxFile
from builder.reference import OnnxRunner, Runner, reference_runner
from builder.samples import Samples, load_samples
from builder.spec import ModelSpec, Spec
from builder.variants import VARIANTS
from builder.verify import (
    Accuracy,
    Case,
    Parity,
    ServeBench,
    Served,
    cases_of,
    check_contract,
    check_parity,
    measure_accuracy,
)
from builder.verify.cases import single_cases
from builder.verify.serve import CONCURRENT_REQUESTS
from serving.progress import Reporter


@dataclass
class Build:
    """One model on its way; every stage adds what it made."""

    name: str
    spec: Spec
    model: ModelSpec
    staging: Path
    bench: ServeBench
    loaded: Loaded = field(init=False)
    samples: Samples = field(init=False)
    reference: Runner = field(init=False)
    cases: list[Case] = field(init=False)
    golden: list[Case] = field(init=False)
    together: list[Case] = field(init=False)
    artifact: Artifact = field(init=False)
    config: ModelConfig = field(init=False)
    config_text: str = field(init=False)
    parity: Parity = field(init=False)
    accuracy: Accuracy | None = field(init=False)
    served: Served = field(init=False)
    published: publish.Published = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)
    stage: str = ""

    @property
    def target(self) -> Path:
        """The model's folder in the repository."""
        return self.spec.repository / self.name

    @property
    def version(self) -> int:
        """The version this build will be."""
        return publish.next_version(self.target)

    @property
    def staged(self) -> Path:
        """The model's folder in staging."""
        return self.staging / self.name

    @property
    def version_dir(self) -> Path:
        """The version folder in staging."""
        return self.staged / str(self.version)


def _source(build: Build) -> None:
    build.loaded = sources.load(build.spec, build.model)


def _samples(build: Build) -> None:
    build.samples = load_samples(build.spec, build.model, build.loaded.interface)


def _reference(build: Build) -> None:
    build.reference = reference_runner(build.loaded, build.spec.folder)
    interface = build.loaded.interface
    max_batch = build.model.batch.max if interface.batches else 0
    build.cases = cases_of(build.samples, interface, max_batch, build.reference)
    build.golden = single_cases(build.samples, golden.GOLDEN_REQUESTS, build.reference)
    alike = single_cases(build.samples, CONCURRENT_REQUESTS - len(build.golden), build.reference, alike=True)
    build.together = build.golden + alike


def _export(build: Build) -> None:
    build.version_dir.mkdir(parents=True, exist_ok=True)
    to = build.version_dir / "model.onnx"
    if isinstance(build.loaded, OnnxFile):
        build.artifact = export.onnx_from_file(build.loaded, build.samples, to=to)
        return
    build.artifact = export.onnx_from_torch(
        build.loaded,
        build.samples,
        options=build.model.export,
        release=build.spec.server,
        folder=build.spec.folder,
        to=to,
    )


def _config(build: Build) -> None:
    build.config = decide(
        build.name,
        build.model,
        build.artifact.interface,
        fmt=VARIANTS[build.model.served].format,
        sizes=build.samples.sizes(),
        folder=build.spec.folder,
    )
    header = (f"{build.name}: written by build-repo from {build.spec.path.name}; change that, not this file.",)
    build.config_text = render(build.config, header=header)
    (build.staged / publish.CONFIG).write_text(build.config_text, encoding="utf-8")
    for name, file in build.config.labels.items():
        (build.staged / name).write_bytes(file.read_bytes())


def _contract(build: Build) -> None:
    check_contract(build.staged, build.version)


def _parity(build: Build) -> None:
    runner = OnnxRunner(build.artifact.path)
    what = f"{build.name} ({build.model.served})"
    build.parity = check_parity(runner, build.cases, build.artifact.precision, what=what, where="ONNX Runtime")


def _accuracy(build: Build) -> None:
    runner = OnnxRunner(build.artifact.path)
    build.accuracy = measure_accuracy(build.spec, build.model, build.reference, runner)


def _serve(build: Build) -> None:
    build.served = build.bench.check(build.name, build.cases, build.together, build.artifact.precision)


def _publish(build: Build) -> None:
    same = publish.unchanged(build.target, build.artifact, build.config_text)
    if same is not None:
        build.published = publish.Published(same, False, build.target / str(same))
        return
    golden.write_golden(build.version_dir / "golden.npz", build.golden)
    files = {file.name: sha256_of(file) for file in sorted(build.version_dir.iterdir())}
    text = manifest.dump(
        manifest.manifest_of(
            name=build.name,
            version=build.version,
            spec=build.spec,
            model=build.model,
            artifact=build.artifact,
            config_text=build.config_text,
            files=files,
            samples=build.samples,
            parity=build.parity,
            accuracy=build.accuracy,
            served=build.served,
            seconds=build.seconds,
        )
    )
    (build.version_dir / manifest.NAME).write_text(text, encoding="utf-8")
    build.published = publish.publish(build.staged, build.spec.repository, build.version)


STAGES: tuple[tuple[str, Callable[[Build], None]], ...] = (
    ("source", _source),
    ("samples", _samples),
    ("reference", _reference),
    ("export", _export),
    ("config", _config),
    ("contract", _contract),
    ("parity", _parity),
    ("accuracy", _accuracy),
    ("serve", _serve),
    ("publish", _publish),
)


def run(build: Build, reporter: Reporter) -> None:
    """Take a model through every stage; ``build.stage`` says where it is."""
    for name, stage in STAGES:
        build.stage = name
        started = time.perf_counter()
        with reporter.step(f"{build.name}: {name}"):
            stage(build)
        build.seconds[name] = time.perf_counter() - started
