"""What a module's source names: the modules it imports, wherever it does, and the files, where they are there.

Used for what cannot be seen while it runs: an import of something that was imported before, and a file that a C library
opens by itself.
"""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from builder.incremental.file_memory import Facts, facts_of

_MAX_BYTES = 1_000_000
_MAX_NAME = 255
_IMPORTS = ("import_module", "__import__")
_JOINS = ("join", "joinpath", "Path")


@dataclass(frozen=True)
class Mentions:
    """What one source file names.

    Attributes:
        imports: top-level modules.
        paths: texts that may be paths; ``HERE / "data" / "x.bin"`` gives ``data/x.bin``.
    """

    imports: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()

    def files(self, *folders: Path) -> Iterator[Path]:
        """The paths that are files, seen from one of these folders."""
        for folder in folders:
            for text in self.paths:
                if facts_of(folder / text) is not None:
                    yield folder / text


def mentions_of(path: str) -> Mentions:
    """What a source file names; nothing where it cannot be read as Python."""
    facts = facts_of(path)
    if facts is None or not path.endswith(".py") or facts[0] > _MAX_BYTES:
        return Mentions()
    return _parsed(path, facts)


@lru_cache(maxsize=4096)
def _parsed(path: str, facts: Facts) -> Mentions:
    try:
        with tokenize.open(path) as stream:
            tree = ast.parse(stream.read())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return Mentions()
    imports: set[str] = set()
    paths: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            imports.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and _called(node) in _IMPORTS:
            imports |= {text.split(".")[0] for text in map(_text, node.args[:1]) if text}
        paths |= {text for text in _paths(node) if 0 < len(text) <= _MAX_NAME and "\n" not in text and "\0" not in text}
    return Mentions(frozenset(imports), frozenset(paths))


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _paths(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        yield _text(node)
    elif isinstance(node, ast.JoinedStr) and node.values:  # f"{HERE}/weights.bin"
        yield _text(node.values[-1]).lstrip("/")
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        yield "/".join(_trailing(_operands(node)))
    elif isinstance(node, ast.Call) and _called(node) in _JOINS:
        yield "/".join(_trailing(node.args))


def _operands(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return [*_operands(node.left), node.right]
    return [node]


def _trailing(nodes: list[ast.AST] | list[ast.expr]) -> list[str]:
    """The texts at the end of a list."""
    found: list[str] = []
    for node in reversed(nodes):
        text = _text(node)
        if not text:
            break
        found.insert(0, text)
    return found
