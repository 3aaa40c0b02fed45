"""What a repository holds, and what is done to it apart from publishing.

To list and to roll back is here; :func:`keep`, :func:`diff` and :func:`verify_hashes` have rooms of their own.

None of it needs a spec, runs anybody's code or imports torch. What is not ours is named, and left alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builder.artifact import sha256_of
from builder.errors import ManifestError, RepositoryError
from builder.repository import durable
from builder.repository.comparison import Diff, diff
from builder.repository.durable import explained
from builder.repository.integrity import HashReport, Mismatch, verify_hashes
from builder.repository.locks import publish_lock
from builder.repository.pruning import Pruned, keep
from builder.repository.publish import activate_locked
from builder.repository.published import CONFIG, ModelFolder, models_of, require_folder, require_model
from builder.repository.served import served_versions, versions_under
from serving.errors import UsageError

__all__ = [
    "Diff",
    "HashReport",
    "Listing",
    "Mismatch",
    "Pruned",
    "RolledBack",
    "VersionRow",
    "diff",
    "keep",
    "list_models",
    "rollback",
    "verify_hashes",
]


@dataclass(frozen=True)
class VersionRow:
    """One version of one model.

    Attributes:
        model, version: which.
        served: whether the configuration in place lets a server serve it; None where that cannot be said.
        variant, precision: what it is.
        accuracy: the user's metric on it; None where the spec has none.
        size_bytes: of what the server loads.
        published: when, ISO 8601.
        note: what is unusual about it.
    """

    model: str
    version: int
    served: bool | None
    variant: str = ""
    precision: str = ""
    accuracy: float | None = None
    size_bytes: int | None = None
    published: str = ""
    note: str = ""


@dataclass(frozen=True)
class Listing:
    """What a repository holds.

    Attributes:
        repository: which.
        versions: by model, newest first.
        others: folders that build-repo did not make (``name``, or ``model/7`` inside one of ours).
    """

    repository: Path
    versions: tuple[VersionRow, ...]
    others: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        return {
            "repository": str(self.repository),
            "versions": [asdict(row) for row in self.versions],
            "others": list(self.others),
        }


@dataclass(frozen=True)
class RolledBack:
    """What a rollback did.

    Attributes:
        model: which.
        before: the version that was served; None where that cannot be said.
        version: the one that is served now.
        warnings: what the user should know: versions that were passed over, a configuration that was edited.
    """

    model: str
    before: int | None
    version: int
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        return {**asdict(self), "warnings": list(self.warnings)}


def list_models(repository: Path) -> Listing:
    """Every version of every model of ours, and what else is there.

    Raises:
        UsageError: there is no such repository.
    """
    models, others = models_of(require_folder(repository))
    rows: list[VersionRow] = []
    for model in models:
        served, pending = served_versions(model), model.pending()
        for version in reversed(model.numbers()):
            if model.is_ours(version):
                rows.append(_row(model, version, served, pending))
            else:
                others.append(f"{model.name}/{version}")
    return Listing(repository, tuple(rows), tuple(sorted(others)))


def _row(model: ModelFolder, version: int, served: frozenset[int] | None, pending: int | None) -> VersionRow:
    is_served = None if served is None else version in served
    try:
        manifest = model.manifest(version)
    except ManifestError as error:
        return VersionRow(model.name, version, is_served, note=error.what)
    accuracy = manifest.verification.accuracy
    note = ""
    if version == pending:
        note = "waits to be served"
    elif served is None:
        note = f"{CONFIG} of the model is missing or not readable"
    return VersionRow(
        model.name,
        version,
        is_served,
        manifest.variant,
        manifest.precision,
        accuracy.value if accuracy else None,
        manifest.size_bytes,
        manifest.published or manifest.created,
        note,
    )


def rollback(repository: Path, model: str, version: int | None = None) -> RolledBack:
    """Serve another version, by one replacement of ``config.pbtxt``; a running server never sees anything in between.

    Args:
        repository: where the model is.
        model: its name.
        version: which version to serve, older or newer; None for the newest below the one that is served whose files
            are all as they were published.

    Raises:
        UsageError: there is no such repository, model or version.
        RepositoryError: that version cannot be served any more, or there is none to roll back to; says why.
        PublishError: the repository cannot be written.
    """
    folder = require_model(repository, model)
    with explained(model, repository, doing="rolled back"), publish_lock(repository):
        before = _current(folder)
        if version is None:
            target, passed = _version_below(folder, before)
        else:
            target, passed = _asked_for(folder, version), []
        if target == folder.served():
            durable.remove(folder.next_config)  # a version that waits to be served is not wanted any more
            return RolledBack(model, before, target, tuple(passed))
        return RolledBack(model, before, target, tuple(passed + activate_locked(folder, target)))


def _current(folder: ModelFolder) -> int | None:
    served = folder.served()
    return max(served_versions(folder) or (), default=None) if served is None else served


def _asked_for(folder: ModelFolder, version: int) -> int:
    if version not in folder.numbers():
        there = ", ".join(map(str, folder.numbers()))
        raise UsageError(
            f"{folder.name} has no version {version}",
            where=str(folder.path),
            expected=f"one of {there}",
            got=str(version),
            fix="build-repo --list shows every version; what is served is as it was",
        )
    why = why_not_servable(folder, version)
    if why:
        raise RepositoryError(
            f"version {version} of {folder.name} cannot be served",
            where=str(folder.folder(version)),
            expected="a version whose files are all as they were published",
            got=why,
            fix=f"build-repo --list shows the others; what is served is as it was: version {_current(folder)}",
        )
    return version


def _version_below(folder: ModelFolder, current: int | None) -> tuple[int, list[str]]:
    """The newest version below the one that is served that can be served, and what was passed over on the way."""
    reasons: list[str] = []
    for version in reversed(folder.numbers()):
        if current is None or version < current:
            why = why_not_servable(folder, version)
            if not why:
                return version, [f"version {reason} was passed over" for reason in reasons]
            reasons.append(f"{version} ({why})")
    raise RepositoryError(
        f"{folder.name} has no version to roll back to",
        where=str(folder.path),
        expected=f"an older version than {current}, as it was published"
        if current
        else "a version as it was published",
        got="; ".join(f"version {reason}" for reason in reasons) or "none",
        fix="build the spec as it was then: it becomes a new version",
    )


def why_not_servable(folder: ModelFolder, version: int) -> str:
    """What keeps a version from being served again, its files read for it; empty where nothing does."""
    if not folder.is_ours(version):
        return "build-repo did not publish it"
    try:
        manifest = folder.manifest(version)
    except ManifestError as error:
        return error.what
    config = folder.config(version)
    if manifest.schema_version == 1 or config is None:
        return f"it has no {CONFIG} of its own: an earlier release published it" if config is None else "it is too old"
    for name, entry in manifest.files.items():
        path = folder.folder(version) / name
        if not path.is_file():
            return f"{name} is missing"
        if sha256_of(path) != entry.sha256:
            return f"{name} is not what was published"
    then = versions_under(folder, config)
    if then is not None and max(then, default=None) != version:
        instead = f"version {max(then)}" if then else "none of its versions"
        return f"its configuration has a version_policy of the spec's, under which Triton would serve {instead}"
    return ""
