"""``manifest.json``: what a published version is, what it was built from, and how it was verified.

:class:`Manifest` is its description, version 2; a version-1 manifest (which knows neither the sizes of its files nor a
configuration of its own) is read into the same shape. Nothing heavy is imported here: a manifest is read to find out
that nothing is to be done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from builder.errors import ManifestError

if TYPE_CHECKING:
    from builder.artifact import Artifact
    from builder.spec import ModelSpec, Spec
    from builder.variants import Variant

NAME = "manifest.json"
SCHEMA_VERSION = 2
PINNED = "pinned"


class _Part(BaseModel):
    # A later release may add fields within the same schema version: they are kept, not refused.
    model_config = ConfigDict(extra="allow", frozen=True)


class FileEntry(_Part):
    """One file of the version folder."""

    sha256: str = Field(description="Hex digest of its content.")
    size_bytes: int | None = Field(None, description="Its size; null in manifests of schema version 1.")


class SpecPart(_Part):
    """The spec that the version was built from."""

    file: str = Field(description="Name of the spec's file.")
    sha256: str = Field(description="Hex digest of that file.")
    model: dict[str, Any] = Field(description="The model's entry in it, as far as it was written out.")


class Git(_Part):
    """The git work tree that the spec is in."""

    commit: str = Field(description="The commit that was checked out.")
    dirty: bool = Field(description="Whether anything in the spec's folder differed from it.")


class Provenance(_Part):
    """Where and with what the version was built."""

    git: Git | None = Field(None, description="Null where the spec is in no git work tree.")
    tools: dict[str, str] = Field({}, description="Versions of the Python packages that made the artifact.")
    host: dict[str, Any] = Field({}, description="Machine, system, Python, processor.")


class SamplesPart(_Part):
    """What the version was verified with."""

    origin: str = Field(description="The callable that gave the samples, or that they are random.")
    count: int = Field(description="How many there were.")
    real: bool = Field(description="False for random stand-ins.")


class OutputDifference(_Part):
    """How far one output was from PyTorch's, at worst."""

    output: str = Field(description="Its name.")
    ok: bool = Field(description="Within tolerance, with the dtype and shape of PyTorch's.")
    max_abs: float = Field(description="Largest absolute difference.")
    max_rel: float = Field(description="Largest relative difference.")
    cosine: float = Field(description="Smallest cosine of the flattened output.")
    excess: float = Field(description="Largest difference as a multiple of what is allowed.")


class ParityPart(_Part):
    """The artifact in ONNX Runtime, against PyTorch."""

    cases: list[str] = Field(description="What was asked: batch and sizes.")
    outputs: list[OutputDifference] = Field(description="Each output, over all cases.")


class AccuracyPart(_Part):
    """The user's metric; higher is better."""

    metric: str = Field(description="The callable, as in the spec's `evaluate`.")
    reference: float = Field(description="PyTorch's value.")
    value: float = Field(description="The artifact's.")
    max_drop: float = Field(description="How much lower it may be.")


class AgreementPart(_Part):
    """How well a variant agrees with fp32, on samples that it was not calibrated with."""

    scores: dict[str, float] = Field(description="By name; of several outputs, the worst.")
    limits: dict[str, float] = Field(description="Those that count: at least, and for `accuracy drop` at most.")
    failed: list[str] = Field(description="Limits that it does not hold; see `accuracy_drop_allowed`.")
    margin: float = Field(description="Distance to the nearest limit, as a share of what that allows.")


class ServePart(_Part):
    """The artifact in a running Triton, against PyTorch."""

    server: str = Field(description="Which Triton.")
    load_s: float = Field(description="How long the server took to load it.")
    cases: int = Field(description="Requests asked one at a time, over HTTP and over gRPC.")
    concurrent: int = Field(description="Requests asked at once, over HTTP and over gRPC.")
    mean_batch: float = Field(description="Requests per execution while they were.")
    outputs: list[OutputDifference] = Field(description="Each output, over all requests.")


class Verification(_Part):
    """What was checked before publishing; nothing that failed is published."""

    parity: ParityPart | None = Field(None, description="The artifact on its own, outside of a server.")
    accuracy: AccuracyPart | None = Field(None, description="Null where the spec has no `evaluate`.")
    agreement: AgreementPart | None = Field(None, description="Null for fp32.")
    serve: ServePart | None = Field(None, description="The artifact in a server.")


class SignaturePart(_Part):
    """The signature over every other file of the version folder, this manifest included."""

    file: str = Field(description="Its file in the version folder.")


class Manifest(_Part):
    """One published version of one model."""

    schema_version: int = Field(description="Of this file's layout.")
    model: str = Field(description="The model's name: that of its folder.")
    version: int = Field(description="The version: the name of its folder.")
    variant: str = Field(description="As in the spec's `variants`.")
    format: str = Field(description="Of the artifact: `onnx`, `plan`.")
    precision: str = Field(description="What its arithmetic is done in: `fp32`, `fp16`, `int8`, ...")
    created: str = Field(description="When it was built: ISO 8601, UTC.")
    published: str | None = Field(None, description="When it was put into the repository: ISO 8601, UTC.")
    files: dict[str, FileEntry] = Field(description="Every file of the version folder but this one and the signature.")
    size_bytes: int = Field(description="Of the artifact: what the server loads.")
    config_sha256: str = Field(description="Hex digest of config.pbtxt as it is when this version is served.")
    config_identity: str | None = Field(
        None, description="Hex digest of the configuration with its version numbers taken out of account."
    )
    version_policy: str | dict[str, Any] | None = Field(
        None, description="`pinned` where config.pbtxt names this version alone, else the policy of the user's spec."
    )
    inputs: dict[str, str] = Field(description="Name and tensor, as the spec writes it.")
    outputs: dict[str, str] = Field(description="Likewise.")
    notes: list[str] = Field([], description="How it was made, and what a user should know.")
    spec: SpecPart = Field(description="What was asked for.")
    provenance: Provenance = Field(description="Where, and with what.")
    samples: SamplesPart | None = Field(None, description="What it was verified with.")
    verification: Verification = Field(description="What came of that.")
    seconds: dict[str, float] = Field({}, description="How long each stage took, in seconds.")
    recipe: dict[str, Any] | None = Field(None, description="How the precision was made; null for fp32.")
    search: dict[str, Any] | None = Field(
        None, description="How the recipe was found: what was tried (accuracy, size, latency), and where most is lost."
    )
    engine: dict[str, Any] | None = Field(None, description="Of TensorRT engines: library, GPUs, profiles, options.")
    choice: dict[str, Any] | None = Field(
        None, description="Of `serve: fastest`: what was measured of each variant, and why this one."
    )
    accuracy_drop_allowed: list[str] = Field(
        [], description="What is out of the accuracy budget and was published with --allow-accuracy-drop."
    )
    signature: SignaturePart | None = Field(None, description="Null where the version was not signed.")
    digest: str | None = Field(None, description="sha256 over the rest of this file: it tells an edit by hand.")


class Kept(Protocol):
    """What is kept of a stage: what it found, and how long it took."""

    @property
    def data(self) -> Mapping[str, Any]:
        """What it found, as plain data."""

    @property
    def seconds(self) -> float:
        """How long it took when it ran."""


def manifest_of(
    name: str, spec: Spec, model: ModelSpec, variant: Variant, artifact: Artifact, kept: Mapping[str, Kept]
) -> dict[str, Any]:
    """What is known before publishing, as plain data; every number in it comes from the stage that measured it.

    The version, its files, its configuration and its signature are added by ``publish``, see :func:`completed`.

    Args:
        name: the Triton model's name.
        spec: what it was built from.
        model: its entry there.
        variant: which of its variants.
        artifact: what is served.
        kept: what is kept of each stage, by the stage's name.
    """
    from builder.artifact import sha256_of
    from builder.host import host_facts
    from builder.repository.provenance import git_state

    git = git_state(spec.folder, without=[spec.repository, spec.repository.parent / ".build"])
    found = {stage: dict(kept[stage].data) if stage in kept else None for stage in ("parity", "accuracy", "serve")}
    judged = found["accuracy"] or {}
    found |= {"accuracy": judged if "metric" in judged else None, "agreement": judged.pop("agreement", None)}
    made = {stage: kept[stage].data if stage in kept else {} for stage in ("precision", "engine", "choose")}
    samples = kept["samples"].data
    return {
        "model": name,
        "variant": variant.name,
        "format": artifact.format,
        "precision": artifact.precision,
        "created": now(),
        "size_bytes": artifact.size_bytes,
        "inputs": {tensor.name: str(tensor) for tensor in artifact.interface.inputs},
        "outputs": {tensor.name: str(tensor) for tensor in artifact.interface.outputs},
        "notes": list(artifact.notes),
        "spec": {
            "file": spec.path.name,
            "sha256": sha256_of(spec.path),
            "model": model.model_dump(mode="json", by_alias=True, exclude_unset=True),
        },
        "provenance": {"git": vars(git) if git else None, "tools": dict(artifact.tools), "host": host_facts()},
        "samples": {key: samples[key] for key in ("origin", "count", "real")},
        "recipe": made["precision"].get("recipe"),
        "search": made["precision"].get("search"),
        "engine": made["engine"].get("engine"),
        "choice": {key: value for key, value in made["choose"].items() if key != "table"} or None,
        "accuracy_drop_allowed": list(judged.get("allowed", ())),
        "verification": found,
        "seconds": {stage: round(record.seconds, 3) for stage, record in kept.items()},
    }


def completed(known: Mapping[str, Any], **rest: Any) -> bytes:
    """The content of ``manifest.json``: what was known before publishing, what publishing adds, and the digest.

    Raises:
        ManifestError: this is no manifest; a mistake of the caller's.
    """
    first = {"schema_version": SCHEMA_VERSION, "model": known.get("model"), "version": rest.get("version")}
    data: dict[str, Any] = json.loads(json.dumps({**first, **known, **rest, "published": now()}))
    data.pop("digest", None)
    data["digest"] = digest_of(data)
    parse(data, NAME)
    try:
        return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # the name of a file that is no text: escaped, it is
        return (json.dumps(data, indent=2) + "\n").encode()


def digest_of(data: Mapping[str, Any]) -> str:
    """sha256 over a manifest's content but its digest, whatever the order and the white space."""
    rest = {key: value for key, value in data.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def read_manifest(version_dir: Path) -> dict[str, Any] | None:
    """The manifest of a version as it lies there, unchecked; None where there is none that can be read."""
    try:
        data = json.loads((version_dir / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def load(version_dir: Path) -> Manifest:
    """The manifest of a version, of schema version 2 or 1, as it was written by us.

    Raises:
        ManifestError: it is missing, no JSON, of a later release, lacks something, or was edited by hand.
    """
    path = version_dir / NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        got = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise ManifestError(
            f"{NAME} cannot be read",
            where=str(path),
            expected="JSON, as build-repo wrote it",
            got=got or "",
            fix="bring back the file as it was published, from a copy of the repository",
        ) from exc
    return parse(data, str(path))


def parse(data: Any, where: str) -> Manifest:
    """A manifest from its data; see :func:`load`."""
    schema = data.get("schema_version") if isinstance(data, dict) else None
    if schema not in (1, SCHEMA_VERSION):
        raise ManifestError(
            f"{NAME} is of a layout that this release does not know",
            where=where,
            expected=f'"schema_version": {SCHEMA_VERSION}, or 1',
            got=f'"schema_version": {json.dumps(schema)}',
            fix="use the release of triton-repo that wrote it, or a later one",
        )
    if schema == SCHEMA_VERSION and data.get("digest") != digest_of(data):
        raise ManifestError(
            f"{NAME} was edited by hand",
            where=where,
            expected=f"the content whose digest it carries, {str(data.get('digest'))[:12]}...",
            got=f"content with the digest {digest_of(data)[:12]}...",
            fix="bring back the file as it was published; `build-repo` publishes a new version beside this one",
        )
    try:
        return Manifest.model_validate(data if schema == SCHEMA_VERSION else _from_version_1(data))
    except ValidationError as exc:
        first = exc.errors()[0]
        raise ManifestError(
            f"{NAME} is not what build-repo writes",
            where=f"{where}, {'.'.join(map(str, first['loc']))}",
            expected=f"every field of a {NAME}, with a value of its type",
            got=first["msg"],
            fix="bring back the file as it was published; `build-repo` publishes a new version beside this one",
        ) from exc


def _from_version_1(data: Mapping[str, Any]) -> dict[str, Any]:
    files = data.get("files")
    provenance = {"tools": data.get("tools", {}), "host": data.get("host", {})}
    entries = {name: {"sha256": digest} for name, digest in files.items()} if isinstance(files, dict) else files
    return {**data, "files": entries, "provenance": provenance}


def now() -> str:
    """The time, as the manifest writes it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
