"""Another version into a running server, while it answers: tried under another name, then put in the old one's place.

1. A model folder ``<model>.candidate`` with the new version alone is loaded beside the model that serves.
2. It is asked the version's golden requests; the answers must be those of the verification. Then it goes again.
3. ``config.pbtxt`` is replaced by the new version's, and the model is loaded: Triton brings the new version up beside
   the old one and drops the old one when the new one is ready (see :mod:`builder.live.server` for what was measured).
4. The golden requests are asked once more, of the model itself.

Whatever fails, the old configuration is in place again afterwards and the old version goes on answering; the error
says so. A version that is at fault itself (refused, wrong answers) is withdrawn: no later build serves it by itself.
Where the server is at fault (gone, not in explicit mode), the version goes on waiting for the next build.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builder.errors import ReloadError
from builder.live.candidate import candidate, remove_stale, stale_candidates
from builder.live.recheck import Answered, BadVersionError, ask, golden_of
from builder.live.server import LiveServer, open_server
from builder.repository import durable
from builder.repository.durable import explained
from builder.repository.locks import publish_lock
from builder.repository.publish import activate, withdraw
from builder.repository.published import CONFIG, ModelFolder
from builder.verify import Case
from serving.errors import InferenceError, ModelLoadError, ServerUnavailableError, TritonRepoError
from serving.progress import SILENT, Reporter

_NOT_FOUND = "failed to poll from model repository"


@dataclass(frozen=True)
class Reloaded:
    """A model that was brought to another version.

    Attributes:
        model: its name.
        version: the version that the server serves now.
        before: the versions that it served before; empty where it had not loaded the model.
        requests: golden requests that were asked and answered rightly, of the candidate and of the model.
        max_abs: the largest difference from the golden answers, of the output that came nearest to its limit.
        load_s: how long the candidate took to load; 0 where there was none.
        switch_s: how long the model took to load; the old version answered meanwhile.
        warnings: what the user should know.
    """

    model: str
    version: int
    before: tuple[int, ...]
    requests: int
    max_abs: float
    load_s: float
    switch_s: float
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--format json``."""
        return {**asdict(self), "before": list(self.before), "warnings": list(self.warnings)}


def reload(url: str, repository: Path, name: str, version: int, *, reporter: Reporter = SILENT) -> Reloaded:
    """Bring a running server to a version of a model that is in place; ``config.pbtxt`` follows.

    Args:
        url: the server, in explicit model control mode, over this repository: ``grpc://host:8001``.
        repository: the model repository.
        name: the model, one of ours.
        version: its version, newer or older than what is served.
        reporter: hears of every step.

    Raises:
        UsageError: ``url`` is no address.
        ReloadError: the server is not there, not in explicit mode, does not see the repository, refuses the version, or
            answers otherwise than it was verified; says which version serves now.
        PublishError: the repository cannot be written.
    """
    with open_server(url, reporter=reporter) as server:
        return reload_on(server, ModelFolder(repository, name), version, reporter=reporter)


def reload_on(
    server: LiveServer,
    model: ModelFolder,
    version: int,
    *,
    reporter: Reporter = SILENT,
    previous: bytes | None = None,
) -> Reloaded:
    """:func:`reload`, on a server that is connected already.

    Args:
        previous: the ``config.pbtxt`` to come back to if it fails; the one in place by default.
    """
    cases, precision = golden_of(model, version)
    _require_own_config(model, version)
    with _explained(server, model, version), _Undo(server, model, version, previous) as undo:
        _remove_stale(server, model.repository, reporter)
        before = server.versions(model.name)
        tried, load_s = None, 0.0
        if before and version not in before:
            with reporter.step(f"{model.name}: try version {version} beside {_numbers(before)}") as step:
                tried, load_s = _try(server, model, version, cases, precision)
                step.done("right", f"{tried.requests} golden requests")
        with reporter.step(f"{model.name}: switch to version {version}") as step:
            warnings = activate(model.repository, model.name, version)
            undo.to_load = before
            switch_s = server.load(model.name)
            _require_served(server, model, version)
            asked = ask(server.clients, model.name, version, cases, precision)
            step.done("serving", f"after {switch_s:.1f} s")
    return Reloaded(
        model=model.name,
        version=version,
        before=tuple(before),
        requests=asked.requests + (tried.requests if tried else 0),
        max_abs=asked.worst.max_abs,
        load_s=load_s,
        switch_s=switch_s,
        warnings=tuple(warnings),
    )


# -- the steps --------------------------------------------------------------------------------------------------------


def _try(
    server: LiveServer, model: ModelFolder, version: int, cases: Sequence[Case], precision: str
) -> tuple[Answered, float]:
    """Load the version under another name, ask it, unload it; what the model's clients get is not touched."""
    with candidate(model, version) as name:
        try:
            load_s = _load_candidate(server, model, name)
            return ask(server.clients, name, version, cases, precision), load_s
        finally:
            with contextlib.suppress(InferenceError):  # a server that is gone has unloaded everything
                server.unload(name)


def _load_candidate(server: LiveServer, model: ModelFolder, name: str) -> float:
    try:
        return server.load(name)
    except ModelLoadError as exc:
        if _NOT_FOUND not in exc.got or server.lists(name):
            raise
        raise ReloadError(
            "the server does not see this repository",
            where=str(model.repository),
            expected=f"the folder {name}, which was put there just now, among the models of {server.url}",
            got=f"the server does not list it, and says: {exc.got}",
            fix="give --reload the server that serves this repository, or let it serve this one",
        ) from exc


def _require_own_config(model: ModelFolder, version: int) -> None:
    if model.config(version) is None:
        raise ReloadError(
            f"version {version} of {model.name} has no {CONFIG} of its own",
            where=str(model.folder(version)),
            expected=f"a version that this release of build-repo published, with its {CONFIG}",
            fix="build it again: it becomes a new version; nothing was changed",
        )


def _require_served(server: LiveServer, model: ModelFolder, version: int) -> None:
    versions = server.versions(model.name)
    if version not in versions:
        raise BadVersionError(
            f"the server loaded {model.name}, but not its version {version}",
            where=str(model.path),
            expected=f"a version_policy in its {CONFIG} that serves version {version}",
            got=f"it serves {_numbers(versions)}",
            fix="mend `config.version_policy` in the spec, or leave it out",
        )


class _Undo:
    """The way back, taken when the block is left by an exception: the repository, and the server if it was told.

    Attributes:
        to_load: None while the server was told nothing; then the versions that it served before.
    """

    def __init__(self, server: LiveServer, model: ModelFolder, version: int, previous: bytes | None) -> None:
        self.to_load: Sequence[int] | None = None
        self._server = server
        self._model = model
        self._version = version
        self._previous = model.config() if previous is None else previous
        self._was_pending = model.pending() == version

    def __enter__(self) -> _Undo:
        return self

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if exc is None:
            return
        self._put_back()
        if self.to_load is not None:
            with contextlib.suppress(InferenceError, ModelLoadError):
                (self._server.load if self.to_load else self._server.unload)(self._model.name)

    def _put_back(self) -> None:
        model = self._model
        if self._previous is None or self._previous == model.config():
            return
        with explained(model.name, model.repository), publish_lock(model.repository):
            durable.write(model.next_config, self._previous)
            durable.replace(model.next_config, model.path / CONFIG)
            own = model.config(self._version)
            if self._was_pending and own is not None:
                durable.write(model.next_config, own)


# -- what goes wrong --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _explained(server: LiveServer, model: ModelFolder, version: int) -> Iterator[None]:
    """Every failure as a :class:`ReloadError` that says what serves now; a version that is at fault is withdrawn."""
    try:
        yield
    except ServerUnavailableError as exc:
        served = model.served()
        raise ReloadError(
            f"the server was lost while {model.name} was brought to version {version}",
            where=server.url,
            expected="a server that answers until it is done",
            got=exc.got or exc.what,
            fix=f"its log says why it ended; {CONFIG} names version {served}: a server that is started now serves that",
        ) from exc
    except ModelLoadError as exc:
        _give_up(model, version)
        raise ReloadError(
            f"the server refuses version {version} of {model.name}; {_serving(server, model)}",
            where=str(model.folder(version)),
            expected="a version that loads",
            got=exc.got or exc.what,
            fix=f"mend what the server's reason above says and build again; {_again(model, version)}",
        ) from exc
    except InferenceError as exc:
        _give_up(model, version)
        raise ReloadError(
            f"version {version} of {model.name} fails on the server; {_serving(server, model)}",
            where=exc.where,
            expected="answers to its golden requests",
            got=exc.got or exc.what,
            fix=f"mend what the server's reason above says and build again; {_again(model, version)}",
        ) from exc
    except ReloadError as exc:
        at_fault = isinstance(exc, BadVersionError)
        if at_fault:
            _give_up(model, version)
        what = f"{exc.what}; {_serving(server, model)}"
        fix = f"{exc.fix}; {_again(model, version)}" if at_fault else exc.fix
        raise ReloadError(what, where=exc.where, expected=exc.expected, got=exc.got, fix=fix) from exc


def _give_up(model: ModelFolder, version: int) -> None:
    """A version that is at fault itself is served by no later build, unless somebody asks for it."""
    if model.pending() == version:
        withdraw(model.repository, model.name)


def _serving(server: LiveServer, model: ModelFolder) -> str:
    """``version 4 keeps serving``, as the server itself says."""
    try:
        versions = server.versions(model.name)
    except TritonRepoError:
        return "the server answers no more"
    return f"{_numbers(versions)} keeps serving" if versions else f"nothing of {model.name} is served"


def _again(model: ModelFolder, version: int) -> str:
    return f"to try this one again: build-repo --rollback {model.name} {version} --reload URL"


def _numbers(versions: Sequence[int]) -> str:
    if not versions:
        return "none"
    return ("version " if len(versions) == 1 else "versions ") + ", ".join(map(str, versions))


def _remove_stale(server: LiveServer, repository: Path, reporter: Reporter) -> None:
    """What a reload that was killed left in the repository, and perhaps in the server."""
    for name in stale_candidates(repository):
        if server.versions(name):
            server.unload(name)
        remove_stale(repository, name)
        reporter.warn(f"{name} was left by a reload that was killed; it is removed")
