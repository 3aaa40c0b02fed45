"""Running the user's Python: their module, samples and metric, each from the folder of their spec.

Files are loaded under private names with the spec's folder on ``sys.path``, so that ``from data import samples`` finds
the sibling; what was imported from that folder is forgotten afterwards, because the next spec has a ``data.py`` too.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from builder.errors import SourceError, user_code_error
from serving.errors import TritonRepoError


@contextlib.contextmanager
def user_code(folder: Path) -> Iterator[None]:
    """Let the user's files import their siblings while the block runs; afterwards forget those modules."""
    entry = str(folder)
    before = set(sys.modules)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(entry)
        for name in set(sys.modules) - before:
            if _is_below(sys.modules[name], folder):
                del sys.modules[name]


def _is_below(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    # A virtual environment may well be inside the folder: installed packages stay.
    return bool(file) and Path(str(file)).is_relative_to(folder) and "site-packages" not in str(file)


def resolve(reference: str, folder: Path, *, kind: type[TritonRepoError] = SourceError) -> Callable[..., Any]:
    """``file.py:name`` or ``package.module:name`` -> the callable. To be used inside :func:`user_code`.

    Raises:
        kind: the file raised while it was imported, or has no callable of that name.
    """
    module_text, _, name = reference.rpartition(":")
    try:
        if module_text.endswith(".py"):
            module = _from_file((folder / module_text).resolve())
        else:
            module = importlib.import_module(module_text)
    except ModuleNotFoundError as exc:
        what = f"{module_text} needs the package {exc.name}, which is not installed"
        raise user_code_error(kind, what, exc, folder=folder, fix=f"pip install {exc.name}") from exc
    except Exception as exc:
        raise user_code_error(kind, f"importing {module_text} raised", exc, folder=folder) from exc
    found = getattr(module, name, None)
    if not callable(found):
        functions = sorted(
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", "") == module.__name__
        )
        raise kind(
            f"{module_text} has no callable {name!r}",
            where=str(getattr(module, "__file__", module_text)),
            expected=f"def {name}(...)",
            got=f"it defines {', '.join(functions)}" if functions else "it defines none",
            fix="name one of them, or write it",
        )
    return found  # type: ignore[no-any-return]


def _from_file(path: Path) -> ModuleType:
    name = f"_triton_repo_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def call(
    reference: str, args: dict[str, Any], folder: Path, *, what: str, kind: type[TritonRepoError] = SourceError
) -> Any:
    """Resolve a callable and call it with keyword arguments.

    Args:
        reference: ``file.py:name`` or ``package.module:name``.
        args: keyword arguments.
        folder: the spec's folder.
        what: the role it plays (``source``, ``samples``), for the message.
        kind: class of the error to raise.

    Raises:
        kind: it cannot be found, or raised.
    """
    function = resolve(reference, folder, kind=kind)
    try:
        return function(**args)
    except Exception as exc:
        raise user_code_error(kind, f"{what} {reference} raised", exc, folder=folder) from exc
