"""Configurations for single servers: ``<model>/configs/NAME.pbtxt``, read by one with ``--model-config-name=NAME``.

Each names one version, like ``config.pbtxt`` itself, and is replaced just before that: each by a rename, so that every
server finds a configuration that is whole and a version that is in place, the old or the new one, whenever a process is
killed. A version's own copies are in its folder; that is how ours are told from others.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from builder.repository import durable
from builder.repository.published import ModelFolder

CONFIGS = "configs"
"""The folder's name, in the model's folder and in that of a version."""


def write_hosts(texts: dict[str, bytes], folder: Path) -> None:
    """Write the configurations into a folder's ``configs``, by their name without ``.pbtxt``; nothing where none is."""
    for name, text in texts.items():
        durable.make_folder(folder / CONFIGS)
        durable.write(folder / CONFIGS / f"{name}.pbtxt", text)
    if texts:
        durable.sync(folder / CONFIGS)
        (folder / CONFIGS).chmod(folder.stat().st_mode & 0o777)


def copies(version_dir: Path) -> dict[str, bytes]:
    """A version's own configurations for single servers, by file name."""
    return {path.name: path.read_bytes() for path in sorted((version_dir / CONFIGS).glob("*.pbtxt"))}


def serve_hosts(model: ModelFolder, version: int) -> list[str]:
    """Put a version's configurations for single servers in place, and take those of other versions out.

    Returns:
        Warnings: one that was edited by hand is kept beside it.
    """
    wanted, warnings = copies(model.folder(version)), []
    ours = [copies(model.folder(each)) for each in model.versions()]
    folder = model.path / CONFIGS
    if not wanted and not folder.is_dir():
        return []
    for name in sorted({*wanted, *(name for each in ours for name in each)}):
        target = folder / name
        current = target.read_bytes() if target.is_file() else None
        if current == wanted.get(name):
            continue
        if current is not None and current not in [each.get(name) for each in ours]:
            with contextlib.suppress(FileExistsError):
                durable.keep_copy(target, target.with_name(f"{name}.edited"))
            warnings.append(f"{model.name}/{CONFIGS}/{name} was edited by hand: it is kept as {name}.edited")
        if name not in wanted:
            durable.remove(target)
            continue
        durable.make_folder(folder)
        folder.chmod(model.folder(version).stat().st_mode & 0o777)
        waiting = model.next_config.with_name(f"{model.next_config.name}.{name}")
        durable.write(waiting, wanted[name])
        durable.replace(waiting, target)
    return warnings
