"""Libraries of operations that ONNX Runtime does not have: files of the spec, known to every session of this process.

A process builds one model at a time, and a graph does not say which library it needs: so they are registered with all.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

_IN_USE: list[Path] = []


def libraries_of(operations: Iterable[str], folder: Path) -> dict[str, Path]:
    """Those that are files, by the name they are configured by; what is none, only the server can find.

    Args:
        operations: as the spec names them.
        folder: the spec's.
    """
    found = {name_of(text): folder / text for text in operations}
    return {name: path for name, path in found.items() if path.is_file()}


def copied(operations: Iterable[str], folder: Path) -> dict[str, Path]:
    """Those that lie beside the spec and are put into the version folder, by their name there."""
    return {name: path for name, path in libraries_of(operations, folder).items() if not Path(name).is_absolute()}


def name_of(text: str) -> str:
    """What ``op_library_filename`` says: a path from the root as it is, else the name of the file alone."""
    return text if Path(text).is_absolute() else Path(text).name


def use(libraries: Iterable[Path]) -> None:
    """Register these, and no others, with every session that is made from now on."""
    _IN_USE[:] = dict.fromkeys(libraries)


def session_options() -> Any:
    """``onnxruntime.SessionOptions`` with the libraries registered; one that does not load is said by the session.

    Raises:
        ValueError: a library cannot be loaded; with the reason.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    for path in _IN_USE:
        try:
            options.register_custom_ops_library(str(path))
        except Exception as exc:  # onnxruntime raises classes of its own, without a common base
            raise ValueError(f"{path.name} cannot be loaded: {exc}") from exc
    return options
