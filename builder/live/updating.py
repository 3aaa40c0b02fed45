"""``build-repo --reload``: what was built, or rolled back to, is brought to a running server, model by model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from builder.live.reload import Reloaded, reload_on
from builder.live.server import LiveServer, open_server
from builder.repository.managing import RolledBack, rollback
from builder.repository.published import ModelFolder
from serving.errors import TritonRepoError
from serving.progress import SILENT, Reporter

if TYPE_CHECKING:
    from builder.outcome import BuildReport

Status = Literal["reloaded", "serving already", "failed"]


@dataclass(frozen=True)
class ModelUpdate:
    """What became of one model on the server.

    Attributes:
        model: its name.
        status: ``reloaded``, ``serving already`` or ``failed``.
        version: the version that the server was to serve.
        seconds: how long it took.
        reloaded: what was done, where it was.
        error: why it failed; the version that served before serves on.
        note: what the user should know.
    """

    model: str
    status: Status
    version: int | None
    seconds: float = 0.0
    reloaded: Reloaded | None = None
    error: TritonRepoError | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        reloaded = self.reloaded.as_dict() if self.reloaded else None
        return {**vars(self), "reloaded": reloaded, "error": self.error.as_dict() if self.error else None}


@dataclass(frozen=True)
class UpdateReport:
    """What became of a build on the server.

    Attributes:
        url: the server.
        models: one update per model that did not fail to build.
        error: why the server could not be asked at all; what was built waits for the next time.
    """

    url: str
    models: tuple[ModelUpdate, ...] = ()
    error: TritonRepoError | None = None

    @property
    def ok(self) -> bool:
        """True when no model failed."""
        return self.error is None and all(update.status != "failed" for update in self.models)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        error = self.error.as_dict() if self.error else None
        return {"url": self.url, "ok": self.ok, "models": [m.as_dict() for m in self.models], "error": error}

    def errors(self) -> list[str]:
        """Every failure, as text."""
        failed = [f"{update.model} failed on the server: {update.error}" for update in self.models if update.error]
        return ([str(self.error)] if self.error else []) + failed


def check_server(url: str, *, reporter: Reporter = SILENT) -> None:
    """Find out before a long build whether there is a server to reload.

    Raises:
        UsageError, ReloadError: as for :func:`builder.live.reload.reload`.
    """
    with open_server(url, reporter=reporter):
        pass


def reload_published(reports: Sequence[BuildReport], url: str, *, reporter: Reporter = SILENT) -> UpdateReport:
    """Bring the server to what was built.

    A new version is served if it does there as it did when it was verified. A model that is up to date is reloaded too
    where the server serves another version than ``config.pbtxt`` names; a version that was rolled back stays so.

    Args:
        reports: what :func:`builder.api.build_all` gave, with ``Options(activate=False)``.
        url: the server.
        reporter: hears of every step.

    Returns:
        What became of each; a model that fails on the server is part of it, not an exception.
    """
    models = [
        ModelFolder(report.repository, result.model)
        for report in reports
        for result in report.models
        if result.version is not None  # neither failed, nor an engine beside the repository
    ]
    if not models:
        return UpdateReport(url)
    try:
        with open_server(url, reporter=reporter) as server:
            return UpdateReport(url, tuple(_update(server, model, reporter) for model in models))
    except TritonRepoError as error:  # it was there before the build
        return UpdateReport(url, error=error)


def rollback_on(
    url: str, repository: Path, name: str, version: int | None = None, *, reporter: Reporter = SILENT
) -> tuple[RolledBack, Reloaded]:
    """Roll a model back, in the repository and on the server, or in neither.

    Args:
        url: the server.
        repository, name, version: as for :func:`builder.repository.managing.rollback`.
        reporter: hears of every step.

    Raises:
        UsageError, RepositoryError, ReloadError, PublishError: it stays as it was; says which version serves.
    """
    with open_server(url, reporter=reporter) as server:
        model = ModelFolder(repository, name)
        previous = model.config()
        done = rollback(repository, name, version)
        return done, reload_on(server, model, done.version, reporter=reporter, previous=previous)


def update_text(report: UpdateReport) -> str:
    """One line for each model that the server was brought to."""
    lines = [f"{report.url}:"] if report.models else []
    for update in report.models:
        if update.reloaded is not None:
            lines.append(f"  {reloaded_text(update.reloaded)}")
        elif update.status != "failed":
            lines.append(f"  {update.model}: version {update.version} serves already")
    return "\n".join(lines) if len(lines) > 1 else ""


def reloaded_text(done: Reloaded) -> str:
    """What serves now, instead of what, and how that was found good."""
    before = ", ".join(map(str, done.before))
    instead = f" instead of {before}" if before and done.before != (done.version,) else ""
    return (
        f"{done.model}: version {done.version} serves{instead}: {done.requests} golden requests right "
        f"(largest difference {done.max_abs:.2g}), loaded in {done.switch_s:.1f} s"
    )


def _update(server: LiveServer, model: ModelFolder, reporter: Reporter) -> ModelUpdate:
    pending, served, newest = model.pending(), model.served(), model.newest()
    wanted = served if pending is None else pending
    if wanted is None:
        return ModelUpdate(model.name, "serving already", None, note="its config.pbtxt is not ours: it was left alone")
    note = ""
    if wanted != newest:
        note = (
            f"version {wanted} is served, not the newest, {newest}: it was rolled back to, or the newest failed on a "
            f"server; build-repo --rollback {model.name} {newest} --reload URL serves the newest"
        )
    update = ModelUpdate(model.name, "serving already", wanted, note=note)
    started = time.perf_counter()
    try:
        if pending is None and wanted in server.versions(model.name):
            return update
        reloaded = reload_on(server, model, wanted, reporter=reporter)
    except TritonRepoError as error:
        return replace(update, status="failed", seconds=time.perf_counter() - started, error=error)
    return replace(update, status="reloaded", seconds=time.perf_counter() - started, reloaded=reloaded)
