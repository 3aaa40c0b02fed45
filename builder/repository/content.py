"""What a version consists of, to find out whether anything is to be published: read cheaply, nothing heavy imported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.repository.published import CONFIG, GOLDEN, ModelFolder

if TYPE_CHECKING:
    from builder.config import ModelConfig


@dataclass(frozen=True)
class Content:
    """What makes a version what it is.

    Attributes:
        version: which; None for one that is not published.
        files: sha256 of its files, by name.
        config_identity: see :func:`config_identity`.
        served: the version that is served, where this one is published.
        signed: whether it has a signature.
    """

    version: int | None
    files: Mapping[str, str]
    config_identity: str | None
    served: int | None = None
    signed: bool = False

    def same_as(self, wanted: Content) -> bool:
        """Whether it has every file of ``wanted``, and its configuration."""
        same_files = all(self.files.get(name) == digest for name, digest in wanted.files.items())
        return same_files and self.config_identity == wanted.config_identity


def config_identity(config: ModelConfig, header: tuple[str, ...]) -> str:
    """A digest of a configuration that is the same for every version it may become."""
    from builder.config import render

    placed = config.at(1)
    texts = [render(placed, header=header), *(f"{host}\n{text}" for host, text in host_texts(placed, header).items())]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def host_texts(config: ModelConfig, header: tuple[str, ...]) -> dict[str, str]:
    """The configurations for single servers, by name; of one that was written for a version."""
    from builder.config import render

    return {host: render(config.on(host), header=header) for host in config.hosts}


def step_content(repository: Path, name: str) -> str:
    """A digest of what an ensemble gets as a step: the same for two versions that consist of the same."""
    from builder.incremental.cache import digest_of

    model = ModelFolder(repository, name)
    version = model.to_serve()
    manifest = model.whole(version) if version is not None else None
    if manifest is None:
        return "absent"
    files = {name: entry.sha256 for name, entry in manifest.files.items() if name not in (CONFIG, GOLDEN)}
    return digest_of([files, manifest.config_identity])


def newest_content(repository: Path, name: str) -> Content | None:
    """The content of the newest version, where all is as publishing left it.

    Reads a manifest and the sizes of files: cheap enough for hundreds of models.

    Returns:
        None where there is no version, files of it (or of the version that is served) are missing or have another
        size, its manifest or the model's ``config.pbtxt`` was edited, or publishing it was cut short.
    """
    model = ModelFolder(repository, name)
    newest = model.newest()
    served = model.served()
    if newest is None or served is None or model.pending() is not None:
        return None
    manifest = model.whole(newest)
    if manifest is None or (served != newest and model.whole(served) is None):
        return None
    files = {name: entry.sha256 for name, entry in manifest.files.items()}
    return Content(newest, files, manifest.config_identity, served, manifest.signature is not None)
