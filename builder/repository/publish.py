"""From the staging folder into the repository: nothing half there, nothing overwritten, nothing of others touched.

The version folder is renamed into the model's folder; the configuration in place names another version still, so that
nothing changes for a running server. Then ``config.pbtxt`` is replaced: that rename is the moment of publishing, and
:func:`activate` does nothing else. A new model is renamed into the repository as one whole folder.

Before the version folder arrives, the configuration that will follow lies ready in a file of the repository. A process
that is killed in between leaves it there, which tells a version that was never served from one that was rolled back:
the next build serves the first and leaves the second alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.artifact import sha256_of
from builder.errors import ManifestError, PublishError
from builder.repository import durable
from builder.repository.content import Content, config_identity, host_texts, newest_content
from builder.repository.hosts import CONFIGS, copies, serve_hosts, write_hosts
from builder.repository.locks import publish_lock
from builder.repository.manifest import NAME as MANIFEST
from builder.repository.manifest import PINNED, completed
from builder.repository.places import make_places
from builder.repository.published import CONFIG, GOLDEN, ModelFolder, next_version, require_ours, versions_of
from builder.repository.served import versions_under

if TYPE_CHECKING:
    from builder.config import ModelConfig

__all__ = [
    "CONFIG",
    "Content",
    "Published",
    "Staged",
    "activate",
    "build_dir",
    "config_identity",
    "newest_content",
    "next_version",
    "publish",
    "versions_of",
    "withdraw",
]

SIGNATURE = "model.sig"


@dataclass(frozen=True)
class Staged:
    """What a build hands over.

    Attributes:
        name: the Triton model's name.
        folder: a folder on the repository's filesystem with the version's files: artifact, golden.npz, label files.
            It is renamed into the repository.
        config: as it was decided, without a version.
        header: lines to put above ``config.pbtxt``.
        manifest: what ``manifest_of`` gave.
    """

    name: str
    folder: Path
    config: ModelConfig
    header: tuple[str, ...]
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class Published:
    """Where a model stands after publishing.

    Attributes:
        version: the version with this content: new, or the newest, which had it already.
        fresh: False where it had.
        path: its version folder.
        served: the version that ``config.pbtxt`` names now; after a rollback that is not the newest.
        pending: the version is in place and waits for :func:`activate`.
        warnings: what the user should know.
    """

    version: int
    fresh: bool
    path: Path
    served: int | None
    pending: bool = False
    warnings: tuple[str, ...] = ()


def build_dir(repository: Path) -> Path:
    """Where everything lies that may be deleted: cache, staging, trash."""
    return repository.parent / ".build"


def publish(staged: Staged, repository: Path, *, sign_key: Path | None = None, activate: bool = True) -> Published:
    """Move a verified version into the repository and serve it, unless the newest version is the same.

    Args:
        staged: what to publish.
        repository: where to; made if it is not there.
        sign_key: the private key to sign the version with.
        activate: False leaves ``config.pbtxt`` as it is, unless the model is new: the version waits for
            :func:`activate`.

    Raises:
        PublishError: the model's folder is not ours, the repository cannot be written, or has no space; the
            repository is as it was.
        ConfigError: the configuration cannot be rendered.
    """
    with durable.explained(staged.name, repository):
        durable.make_folder(repository)
        hashes = _settle(staged.folder, repository)
        with publish_lock(repository):
            model = ModelFolder(repository, staged.name)
            newest = require_ours(model)
            identity = config_identity(staged.config, staged.header)
            # The golden requests are evidence, not content: their last digits differ with the number of threads.
            wanted = Content(None, {name: digest for name, digest in hashes.items() if name != GOLDEN}, identity)
            same, warnings = _is_same(model, newest, wanted, signed=sign_key is not None)
            if same and newest is not None:
                return _as_it_is(model, newest, serve=activate)
            version = next_version(model.path)
            _complete(staged, version, hashes, identity, sign_key)
            if newest is None:
                _add_model(staged, model, version)
            else:
                warnings += _add_version(staged, model, version, serve=activate)
            if not staged.config.is_pinned:
                warnings += _not_served(model, version)
            served = model.served()
            pending = served != version and model.pending() == version
            return Published(version, True, model.folder(version), served, pending, tuple(warnings))


def activate(repository: Path, name: str, version: int) -> list[str]:
    """Serve a version that is in place: ``config.pbtxt`` becomes the version's own copy of it, at once.

    Returns:
        Warnings: a configuration that was edited by hand is kept beside it.

    Raises:
        PublishError: the version is not there, has no configuration of its own, or the repository cannot be written.
    """
    with durable.explained(name, repository), publish_lock(repository):
        return activate_locked(ModelFolder(repository, name), version)


def withdraw(repository: Path, name: str) -> None:
    """Let a version that waits for :func:`activate` wait no longer: later builds leave what is served alone."""
    with durable.explained(name, repository), publish_lock(repository):
        durable.remove(ModelFolder(repository, name).next_config)


def activate_locked(model: ModelFolder, version: int) -> list[str]:
    """:func:`activate`, for who holds the publish lock."""
    config = model.config(version) if model.is_ours(version) else None
    if config is None:
        raise PublishError(
            f"version {version} of {model.name} has no {CONFIG} of its own",
            where=str(model.folder(version)),
            expected=f"a version that this release of build-repo published, with its {CONFIG}",
            fix="build it again: it becomes a new version",
        )
    make_places(model.path, model.folder(version))
    durable.write(model.next_config, config)
    durable.sync(model.repository)
    return _swap(model, version)


_OURS = (CONFIG, MANIFEST, SIGNATURE)


def _is_same(model: ModelFolder, newest: int | None, wanted: Content, *, signed: bool) -> tuple[bool, list[str]]:
    """Whether the newest version has this content, its files read again; and what is wrong with it if not."""
    if newest is None:
        return False, []
    try:
        manifest = model.manifest(newest)
    except ManifestError as error:
        return False, [f"version {newest}: {error.what}; it is left as it is, and a new version is published"]
    known = {name: entry.sha256 for name, entry in manifest.files.items()}
    if not Content(newest, known, manifest.config_identity).same_as(wanted):
        return False, []
    damaged = [name for name, digest in known.items() if _digest(model.folder(newest) / name) != digest]
    if damaged:
        what = f"version {newest}: {damaged[0]} is not what was published"
        return False, [f"{what}; it is left as it is, and a new version is published"]
    return not signed or manifest.signature is not None, []


def _settle(folder: Path, repository: Path) -> dict[str, str]:
    """Bring what was staged to the disk, readable for whoever may read the repository; sha256 by name."""
    # What is staged is often private, as temporary files are: the server may be another user.
    mode = repository.stat().st_mode & 0o775
    for path in [folder, *folder.rglob("*")]:
        path.chmod(mode | 0o700 if path.is_dir() else (mode & 0o664) | 0o600)
    durable.sync_tree(folder)
    files = {path.relative_to(folder).as_posix(): path for path in durable.files_below(folder)}
    return {name: sha256_of(path) for name, path in files.items() if name not in _OURS}


def _digest(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None


def _as_it_is(model: ModelFolder, newest: int, *, serve: bool) -> Published:
    """The newest version has the content already: served only if a build before this one was to, or nothing is."""
    served, warnings = model.served(), []
    waiting = model.pending() == newest
    if served is None or (waiting and serve):
        warnings = activate_locked(model, newest)
        served, waiting = newest, False
    return Published(newest, False, model.folder(newest), served, waiting, tuple(warnings))


def _not_served(model: ModelFolder, version: int) -> list[str]:
    """A policy of the user's own may leave the new version out: said, because it was built to be served."""
    served = versions_under(model, model.config(version) or b"")
    if served is None or version in served:
        return []
    instead = ", ".join(map(str, sorted(served))) or "none"
    return [f"version {version} is not served: the spec's version_policy serves {instead}"]


def _complete(staged: Staged, version: int, hashes: Mapping[str, str], identity: str, sign_key: Path | None) -> None:
    """Make the staged folder the version: its configuration, its manifest, its signature; all of it on the disk."""
    from builder.config import render

    placed = staged.config.at(version)
    config = render(placed, header=staged.header).encode()
    durable.write(staged.folder / CONFIG, config)
    hosts = {name: text.encode() for name, text in host_texts(placed, staged.header).items()}
    write_hosts(hosts, staged.folder)
    written = {CONFIG: config, **{f"{CONFIGS}/{name}.pbtxt": text for name, text in hosts.items()}}
    digests = dict(hashes) | {name: hashlib.sha256(text).hexdigest() for name, text in written.items()}
    files = {
        name: {"sha256": digest, "size_bytes": (staged.folder / name).stat().st_size}
        for name, digest in digests.items()
    }
    manifest = completed(
        staged.manifest,
        version=version,
        files=dict(sorted(files.items())),
        config_sha256=files[CONFIG]["sha256"],
        config_identity=identity,
        version_policy=PINNED if staged.config.is_pinned else staged.config.tree["version_policy"],
        signature={"file": SIGNATURE} if sign_key else None,
    )
    durable.write(staged.folder / MANIFEST, manifest)
    if sign_key is not None:
        from serving.signatures import sign_version

        durable.sync(sign_version(staged.folder, sign_key))
    durable.sync(staged.folder)


def _add_model(staged: Staged, model: ModelFolder, version: int) -> None:
    """A new model: one rename of a whole folder."""
    whole = staged.folder.with_name(f"{staged.folder.name}-{secrets.token_hex(4)}")
    whole.mkdir()
    try:
        whole.chmod(staged.folder.stat().st_mode)
        durable.write(whole / CONFIG, (staged.folder / CONFIG).read_bytes())
        make_places(whole, staged.folder)
        write_hosts({Path(name).stem: text for name, text in copies(staged.folder).items()}, whole)
        staged.folder.rename(whole / str(version))
        durable.sync(whole)
        durable.move(whole, model.path)
    except OSError:
        with contextlib.suppress(OSError):  # nothing is published: what was staged is where it was
            (whole / str(version)).rename(staged.folder)
        durable.remove_tree(whole)
        raise


def _add_version(staged: Staged, model: ModelFolder, version: int, *, serve: bool) -> list[str]:
    """A new version of a model: the folder first, the configuration last, which lies ready before."""
    try:
        make_places(model.path, staged.folder)
        durable.write(model.next_config, (staged.folder / CONFIG).read_bytes())
        durable.sync(model.repository)
        durable.move(staged.folder, model.folder(version))
    except OSError:
        if staged.folder.exists():  # it did not come to the rename
            with contextlib.suppress(OSError):
                durable.remove(model.next_config)
        raise
    return _swap(model, version) if serve else []


def _swap(model: ModelFolder, version: int) -> list[str]:
    """The moment of publishing: what lies ready becomes ``config.pbtxt``."""
    warnings = serve_hosts(model, version)
    current = model.config()
    if current is not None and model.served() is None:
        kept = _keep_edited(model, current)
        warnings += [
            f"{model.name}/{CONFIG} was edited by hand: it is kept as {kept.name}; the spec's `config` is the place"
        ]
    durable.replace(model.next_config, model.path / CONFIG)
    return warnings


def _keep_edited(model: ModelFolder, current: bytes) -> Path:
    """Keep a configuration that is not ours under the first name that is free, or has it already."""
    number = 1
    while True:
        kept = model.path / (f"{CONFIG}.edited" if number == 1 else f"{CONFIG}.edited.{number}")
        with contextlib.suppress(FileExistsError):
            durable.keep_copy(model.path / CONFIG, kept)
            return kept
        with contextlib.suppress(OSError):
            if kept.read_bytes() == current:
                return kept
        number += 1
