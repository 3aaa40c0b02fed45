"""Running the user's Python: their module, samples and metric, each from the folder of their spec.

Files are loaded under private names with the spec's folder on ``sys.path``, so that ``from data import samples`` finds
the sibling; what was imported from that folder is forgotten afterwards, because the next spec has a ``data.py`` too.
Names that torch and we need are not taken from there: see :mod:`builder.shadowing`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from builder.errors import SourceError, user_code_error
from builder.shadowing import OURS, Guard, taken_name
from serving.errors import TritonRepoError


@contextlib.contextmanager
def user_code(folder: Path) -> Iterator[None]:
    """Let the user's files import their siblings while the block runs; afterwards forget those modules."""
    entry = str(folder)
    before = set(sys.modules)
    guard = Guard(folder)
    sys.path.insert(0, entry)
    sys.meta_path.insert(0, guard)
    hook = _from_source(folder)
    sys.path_hooks.insert(0, hook)
    _forget_finders(entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path_hooks.remove(hook)
        _forget_finders(entry)
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(guard)
        with contextlib.suppress(ValueError):
            sys.path.remove(entry)
        for name in set(sys.modules) - before:
            if _is_below(sys.modules[name], folder):
                del sys.modules[name]


class _SourceLoader(SourceFileLoader):
    """Takes no byte code: Python trusts it by size and second, and their last change may have been in the same one."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _from_source(folder: Path) -> Callable[[str], Any]:
    """A hook of the import system, for the user's folder and what is below it."""
    hook = FileFinder.path_hook((ExtensionFileLoader, EXTENSION_SUFFIXES), (_SourceLoader, SOURCE_SUFFIXES))

    def finder(path: str) -> Any:
        if not Path(path).is_relative_to(folder) or "site-packages" in path:
            raise ImportError(path)  # somebody else's
        return hook(path)

    return finder


def _forget_finders(entry: str) -> None:
    for path in list(sys.path_importer_cache):
        if path == entry or path.startswith(f"{entry}/"):
            del sys.path_importer_cache[path]


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
    except (Exception, SystemExit) as exc:
        raise _import_error(kind, module_text, exc, folder) from exc
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


def _import_error(
    kind: type[TritonRepoError], module_text: str, exc: Exception | SystemExit, folder: Path
) -> TritonRepoError:
    what, fix, where = f"importing {module_text} raised", "", ""
    taken = taken_name(str(exc), folder) if isinstance(exc, (ImportError, AttributeError)) else ""
    if taken:
        what = f"{module_text} cannot import the {taken!r} of its own folder: the name is taken"
        owner = "triton-repo has" if taken in OURS else "torch and its kin have"
        fix = f"rename {folder / taken}: {owner} a package of that name, which is imported instead"
    elif isinstance(exc, ModuleNotFoundError):
        what = f"{module_text} needs the package {exc.name}, which is not installed"
        fix = f"pip install {exc.name}"
    elif isinstance(exc, SyntaxError) and not exc.filename:
        where = str(folder / module_text)
    return user_code_error(kind, what, exc, folder=folder, fix=fix, where=where)


def _from_file(path: Path) -> ModuleType:
    name = f"_triton_repo_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, loader=_SourceLoader(name, str(path)))
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
    check_arguments(function, args, reference, kind)
    try:
        return function(**args)
    except (Exception, SystemExit) as exc:
        raise user_code_error(kind, f"{what} {reference} raised", exc, folder=folder) from exc


def check_arguments(
    function: Callable[..., Any], args: dict[str, Any], reference: str, kind: type[TritonRepoError], *first: str
) -> None:
    """Whether a callable takes what it is about to be called with.

    Args:
        function: the callable.
        args: keyword arguments.
        reference: how the spec names it.
        kind: class of the error to raise.
        first: names of what it is given by position before them.

    Raises:
        kind: it does not.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C: only a call can tell
        return
    try:
        signature.bind(*first, **args)
    except TypeError as exc:
        code = getattr(inspect.unwrap(function), "__code__", None)
        raise kind(
            f"{reference} does not take what it is called with",
            where=f"{code.co_filename}:{code.co_firstlineno}" if code else reference,
            expected=f"({', '.join([*first, *(f'{name}=...' for name in args)])})",
            got=f"{signature}: {exc}",
            fix="give its arguments in `args`, or defaults to those that are missing",
        ) from exc
