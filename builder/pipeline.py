"""The order of the stages, on one page. Each takes the build so far and gives a result; none knows the next.

A stage runs for what all variants share, for one variant, or for one model that is served; which ones a model has, and
in which order, says :func:`builder.incremental.keys.steps_of`. A stage fails by raising.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder import export, golden
from builder.artifact import sha256_of
from builder.building import Build, Stage, seed
from builder.config import decide
from builder.config.judged import require_sound
from builder.config_files import checksums_of, warmup_of
from builder.incremental.answers import Answers
from builder.incremental.cache import digest_of
from builder.loaded import Composition, OnnxFile, PythonClass, TorchModule
from builder.numerics import TOLERANCES
from builder.reference import OnnxRunner
from builder.repository import publish
from builder.results import Result, made_result, plain_interface
from builder.variants import FUSED, VARIANTS
from builder.verify import cases_of, check_contract, check_parity, check_served, measure, measure_accuracy
from builder.verify.cases import Case, as_asked, single_cases
from builder.verify.client_view import as_seen, of_sequences
from builder.verify.serve import CONCURRENT_REQUESTS

_HERE = "ONNX Runtime"
_KINDS = {TorchModule: "torch", OnnxFile: "onnx", PythonClass: "python", Composition: "ensemble"}


def _source(build: Build, of: str) -> Result:
    loaded = build.loaded
    kind = _KINDS[type(loaded)]
    return Result({"interface": plain_interface(loaded.interface), "kind": kind})


def _samples(build: Build, of: str) -> Result:
    samples = build.samples
    facts = {"origin": samples.origin, "count": len(samples.rows), "real": samples.are_real, "sizes": samples.sizes()}
    return Result(facts, digest=samples.digest())


def _reference(build: Build, of: str) -> Result:
    sequence, samples, max_batch = build.subject.model.sequence, build.samples, build.max_batch
    if sequence is not None:  # whose requests have a single sample each
        samples, max_batch = of_sequences(samples, sequence), min(max_batch, 1)
    cases = cases_of(samples, build.loaded.interface, max_batch, build.runner)
    single = single_cases(samples, golden.GOLDEN_REQUESTS, build.runner)
    alike = single_cases(samples, CONCURRENT_REQUESTS - len(single), build.runner, alike=True)
    file = build.keep_answers(Answers(cases, single, single + alike))
    return Result({"cases": [case.name for case in cases]}, {file.name: file}, sha256_of(file))


def _baseline(build: Build, of: str) -> Result:
    seed(build.subject.model)
    return Result({"value": measure(build.subject.spec, build.subject.model, build.runner)})


def _export(build: Build, of: str) -> Result:
    to, subject = build.folder("export") / "model.onnx", build.subject
    to.parent.mkdir(parents=True, exist_ok=True)
    build.release_runner()  # it was asked all there is to ask
    if isinstance(build.loaded, OnnxFile):
        made = export.onnx_from_file(build.loaded, build.samples, to=to)
    else:
        assert isinstance(build.loaded, TorchModule)
        made = export.onnx_from_torch(
            build.loaded,
            build.samples,
            options=subject.model.export,
            release=subject.spec.server,
            opset_limit=subject.model.opset_limit,
            folder=subject.spec.folder,
            to=to,
        )
    return made_result(made)


def _package(build: Build, of: str) -> Result:
    from builder.packaging import package

    return package(build)


def _fuse(build: Build, of: str) -> Result:
    from builder.fusing import fuse

    return fuse(build)


def _parity(build: Build, of: str) -> Result:
    """The exported graph, or a variant's, against the original; as far as this machine's ONNX Runtime can run it."""
    from builder.variant_stages import runner_of

    if not of:
        runner, precision, served = OnnxRunner(build.export.path), "fp32", "onnx-fp32"
        parity = check_parity(
            runner, build.answers.cases, precision, what=f"{build.subject.name} ({served})", where=_HERE
        )
        return Result(parity.as_dict())
    variant = VARIANTS[of]
    with runner_of(build, variant) as found:
        parity = check_parity(
            found, build.answers.cases, variant.precision, what=f"{build.subject.name} ({of})", where=_HERE
        )
    return Result(parity.as_dict())


def _accuracy(build: Build, of: str) -> Result:
    if build.subject.model.needs:
        from builder.packaging import accuracy_of_steps

        return accuracy_of_steps(build)
    if of:
        from builder.variant_stages import accuracy

        return accuracy(build, of)
    runner = OnnxRunner(build.export.path)
    reference = float(build.kept["baseline"].data["value"])
    seed(build.subject.model)  # a metric that draws lots draws the same as in `baseline`
    allow = build.subject.allow_drop
    found = measure_accuracy(build.subject.spec, build.subject.model, reference, runner, allow=allow)
    return Result(found.as_dict())


def _precision(build: Build, of: str) -> Result:
    from builder.variant_stages import precision

    return precision(build, of)


def _engine(build: Build, of: str) -> Result:
    from builder.engine_stage import engine

    return engine(build, of)


def _config(build: Build, of: str) -> Result:
    subject, variant = build.subject, build.variant_of(of)
    artifact = build.artifact(variant)
    rows, made = warmup_of(build, of, artifact)
    config = decide(
        build.name_of(of),
        subject.model,
        artifact.interface,
        fmt=variant.format,
        fields=build.fields(variant),
        sizes=build.kept["samples"].data["sizes"],
        folder=subject.spec.folder,
        rows=rows,
        checksums=checksums_of(build, artifact, made),
    )
    if artifact.format != "ensemble":  # whose graph is checked across its steps
        require_sound(config, subject.model, subject.name, subject.spec.server)
    files = {name: sha256_of(file) for name, file in {**config.copies, **made}.items()}
    identity = publish.config_identity(config, build.header)
    data = {"config": config.as_dict(subject.spec.folder), "files": files, "identity": identity}
    return Result(data, {path.name: path for path in made.values()}, digest_of([identity, files]))


def _contract(build: Build, of: str) -> Result:
    build.stage_model(of)
    artifact = build.artifact(build.variant_of(of))
    if artifact.format == "ensemble":
        from builder.packaging import check_steps

        check_steps(build, of)
        return Result()
    known = None if artifact.format == "onnx" else artifact.interface
    check_contract(build.model_dir(of), build.version_of(of), known=known)
    return Result()


def _serve(build: Build, of: str) -> Result:
    build.stage_model(of)
    variant, answers = build.variant_of(of), build.answers
    artifact = build.artifact(variant)
    interface, precision = artifact.interface, artifact.precision
    if build.subject.model.needs and precision != "fp32":
        from builder.packaging import answers_of_steps

        # How far the steps are from their originals was judged. Here they are held against themselves, loosely all the
        # same: dynamic int8 takes its scale from whatever the server puts into one batch.
        answers = answers_of_steps(build)

    tree, sequence = build.config(of).tree, build.subject.model.sequence

    def asked(cases: Sequence[Case]) -> list[Case]:
        return as_seen(as_asked(cases, interface), tree, sequence)

    endpoint = build.endpoint()
    name = build.name_of(of)
    called = []
    if build.subject.model.needs and variant is not FUSED:
        from builder.packaging import loaded_before

        called = loaded_before(build)
    served = check_served(
        endpoint,
        name,
        asked(answers.cases),
        asked(answers.together),
        precision,
        called=called,
        decoupled=build.subject.model.is_decoupled,
    )
    return Result(served.as_dict())


def _choose(build: Build, of: str) -> Result:
    from builder.variant_stages import choose

    return choose(build)


STAGES: dict[str, Stage] = {
    "source": _source,
    "samples": _samples,
    "reference": _reference,
    "baseline": _baseline,
    "export": _export,
    "package": _package,
    "fuse": _fuse,
    "precision": _precision,
    "parity": _parity,
    "accuracy": _accuracy,
    "engine": _engine,
    "config": _config,
    "contract": _contract,
    "serve": _serve,
    "choose": _choose,
}
"""Every stage, by name, in the order in which a model first comes to it."""

assert set(TOLERANCES) >= {variant.precision for variant in VARIANTS.values()}
