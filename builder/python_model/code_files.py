"""Which files a user's class needs: its own, the modules of the same folder that it imports, and those it names.

Found in the source, not by running it: what is not found is missing in the server alone, so that a module that is
imported by a name made up while running has to be named under ``files``.
"""

from __future__ import annotations

import ast
import sys
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.errors import PythonModelError
from builder.shadowing import GUARDED

BOILERPLATE = "triton_repo_step"
"""Module name that :mod:`builder.python_model.served` has in the server."""
_TRITON = "triton_python_backend_utils"
_TAKEN = GUARDED | {BOILERPLATE, _TRITON}
_CATCHES = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


@dataclass(frozen=True)
class CodeFiles:
    """What is copied into a version folder.

    Attributes:
        root: the folder that the modules are imported from.
        files: place below the copy -> the file; sorted.
        imports: packages that are not in the folder, neither of Python's own, with the first line that needs each.
    """

    root: Path
    files: Mapping[str, Path]
    imports: Mapping[str, str]


@dataclass(frozen=True)
class _Import:
    module: str
    line: int
    optional: bool


def collect(reference: str, folder: Path, *, files: Mapping[str, Path] | None = None) -> CodeFiles:
    """The files of a class.

    Args:
        reference: ``file.py:Class`` or ``package.module:Class``.
        folder: the spec's.
        files: place below the copy -> file or folder: what the code opens, and modules that it imports by other means.

    Raises:
        PythonModelError: a file is missing or outside the folder, does not parse, or has a name that is taken.
    """
    place = reference.rpartition(":")[0]
    start = [folder / place] if place.endswith(".py") else list(_modules(place, folder))
    if not start and place.endswith(".py"):
        raise _missing(place, folder)
    imports: dict[str, str] = {} if start else {place.split(".")[0]: reference}
    found: dict[str, Path] = {}
    waiting = [*start, *(path for path in (files or {}).values() if path.suffix == ".py")]
    while waiting:
        path = waiting.pop(0)
        relative = _relative(path, folder)
        if relative in found:
            continue
        found[relative] = path
        for wanted in _imports_of(path, folder):
            local = list(_modules(wanted.module, folder))
            top = wanted.module.split(".")[0]
            if local:
                waiting += local
            elif not (wanted.optional or _is_known(wanted.module, folder)):
                imports.setdefault(top, f"{relative}:{wanted.line}")
    _check_names(found, folder)
    data = dict(_data(files or {}))
    return CodeFiles(folder, dict(sorted((found | data).items())), dict(sorted(imports.items())))


def _is_known(module: str, folder: Path) -> bool:
    """Python's own, what the boilerplate brings, or a folder of the user's without an ``__init__.py``."""
    top = module.split(".")[0]
    return top in sys.stdlib_module_names or top == "numpy" or (top not in _TAKEN and (folder / top).is_dir())


def _relative(path: Path, folder: Path) -> str:
    absolute = Path(path)
    if not absolute.is_file():
        raise _missing(str(path), folder)
    try:
        return absolute.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError as exc:
        raise PythonModelError(
            f"{path} is outside the folder of the spec",
            where=str(folder),
            expected="modules in the folder of models.yaml, or below it",
            got=str(absolute.resolve()),
            fix="move it there, or make it a package and name that under `requirements`",
        ) from exc


def _missing(path: str, folder: Path) -> PythonModelError:
    fix = "mend the path: it is seen from the folder of models.yaml"
    return PythonModelError(f"{path} is not there", where=str(folder), expected="a file", fix=fix)


def _data(files: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    for target, source in files.items():
        parts = Path(target).parts
        if not parts or Path(target).is_absolute() or ".." in parts:
            raise PythonModelError(
                f"{target!r} leads out of the model's folder",
                expected="a place below it: vocab.txt, data/vocab.txt",
                fix="name it as it is to be called beside the class",
            )
        if source.is_dir():
            inner = sorted(path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
            yield from ((f"{Path(target).as_posix()}/{path.relative_to(source).as_posix()}", path) for path in inner)
        elif source.is_file():
            yield Path(target).as_posix(), source
        else:
            raise _missing(str(source), source.parent)


def _check_names(found: Mapping[str, Path], folder: Path) -> None:
    """The copy stands first on ``sys.path``: nothing in it may stand in the way of what others import."""
    for relative in found:
        name = relative.partition("/")[0].removesuffix(".py")
        if name in _TAKEN or name in sys.stdlib_module_names:
            owner = "Python itself has" if name in sys.stdlib_module_names else "a package has"
            raise PythonModelError(
                f"{relative} has a name that is taken: in the server it would be imported by others instead of theirs",
                where=str(folder / relative),
                expected=f"another name: {owner} a module {name}",
                fix=f"rename it, for example my_{name}",
            )


def _modules(module: str, folder: Path) -> Iterator[Path]:
    """The files of the folder that importing a module runs: the ``__init__.py`` of its packages, and its own."""
    parts = module.split(".")
    if parts[0] in _TAKEN:
        return
    for depth in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:depth])
        if (place / "__init__.py").is_file():
            yield place / "__init__.py"
        elif place.with_name(f"{place.name}.py").is_file():
            yield place.with_name(f"{place.name}.py")
            return
        elif not place.is_dir():
            return


def _imports_of(path: Path, folder: Path) -> Iterator[_Import]:
    try:
        with tokenize.open(path) as stream:
            tree = ast.parse(stream.read(), filename=str(path))
    except (SyntaxError, ValueError, UnicodeDecodeError) as exc:
        raise PythonModelError(
            f"{path.name} is no Python that can be read",
            where=f"{path}:{getattr(exc, 'lineno', None) or 1}",
            expected="Python source",
            got=f"{type(exc).__name__}: {getattr(exc, 'msg', None) or exc}",
            fix="mend the line",
        ) from exc
    package = path.parent.resolve().relative_to(folder.resolve()).parts
    for wanted in _walk(tree, package, optional=False):
        if wanted.module == _TRITON:
            raise PythonModelError(
                f"{path.name} imports {_TRITON}, which only the server has",
                where=f"{path}:{wanted.line}",
                expected="a class without Triton in it: arrays in, arrays out",
                fix="take `call` in __init__ to ask other models, raise an exception for an error, yield for several "
                "responses; or serve a model.py of your own as it is",
            )
        yield wanted


def _walk(node: ast.AST, package: tuple[str, ...], *, optional: bool) -> Iterator[_Import]:
    """Imports below a node; those that are only for type checkers left out."""
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for otherwise in node.orelse:
            yield from _walk(otherwise, package, optional=optional)
        return
    yield from _named(node, package, optional)
    guarded = optional or (isinstance(node, ast.Try) and any(_catches(handler) for handler in node.handlers))
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, package, optional=guarded)


def _catches(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(ast.unparse(kind) in _CATCHES for kind in kinds)


def _named(node: ast.AST, package: tuple[str, ...], optional: bool) -> Iterator[_Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield _Import(alias.name, node.lineno, optional)
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else ()
        module = ".".join([*base, *([node.module] if node.module else [])])
        if module:
            yield _Import(module, node.lineno, optional)
        for alias in node.names:  # the name may be a module of its own; where it is none, only its package counts
            yield _Import(f"{module}.{alias.name}".lstrip("."), node.lineno, optional or not module)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
        named = node.args[0]
        if isinstance(named, ast.Constant) and isinstance(named.value, str) and not named.value.startswith("."):
            yield _Import(named.value, node.lineno, optional)
