"""``build-repo --reload``: what was built, or rolled back to, is brought to a running server, model by model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from builder.live import LiveServer, open_server
from builder.published import ModelFolder
from builder.reload import Reloaded, reload_on
from builder.repository import RolledBack, rollback
from serving.errors import TritonRepoError
from serving.progress import SILENT, Reporter

if TYPE_CHECKING:
    from builder.api import BuildReport

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
    """What became of a build on the server."""

    url: str
    models: tuple[ModelUpdate, ...]

    @property
    def ok(self) -> bool:
        """True when no model failed."""
        return all(update.status != "failed" for update in self.models)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        return {"url": self.url, "ok": self.ok, "models": [update.as_dict() for update in self.models]}


def check_server(url: str, *, reporter: Reporter = SILENT) -> None:
    """Find out before a long build whether there is a server to reload.

    Raises:
        UsageError, ReloadError: as for :func:`builder.reload.reload`.
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
        One update per model that did not fail to build; one that fails on the server is an update, not an exception.

    Raises:
        UsageError, ReloadError: there is no such server; nothing was changed.
    """
    with open_server(url, reporter=reporter) as server:
        models = [
            _update(server, ModelFolder(report.repository, result.model), reporter)
            for report in reports
            for result in report.models
            if result.status != "failed"
        ]
    return UpdateReport(url, tuple(models))


def rollback_on(
    url: str, repository: Path, name: str, version: int | None = None, *, reporter: Reporter = SILENT
) -> tuple[RolledBack, Reloaded]:
    """Roll a model back, in the repository and on the server, or in neither.

    Args:
        url: the server.
        repository, name, version: as for :func:`builder.repository.rollback`.
        reporter: hears of every step.

    Raises:
        UsageError, RepositoryError, ReloadError, PublishError: it stays as it was; says which version serves.
    """
    with open_server(url, reporter=reporter) as server:
        model = ModelFolder(repository, name)
        previous = model.config()
        done = rollback(repository, name, version)
        return done, reload_on(server, model, done.version, reporter=reporter, previous=previous)


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
