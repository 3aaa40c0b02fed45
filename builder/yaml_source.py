"""YAML that remembers where it stood: plain data, and the line of every key path.

Only what a spec needs: mappings, sequences and scalars. Duplicate keys are problems (PyYAML would keep the last one
without a word), and so are aliases and merge keys, with which a few lines can grow to gigabytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from builder.errors import SpecError
from serving.errors import Problem

KeyPath = tuple[str | int, ...]
MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 40


@dataclass
class Document:
    """A parsed file.

    Attributes:
        path: the file.
        data: its content as plain Python data.
        lines: 1-based line of every key path, of the key where there is one.
    """

    path: Path
    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """``file:line, key.path`` of the nearest enclosing thing that has a line."""
        probe = path
        while probe and probe not in self.lines:
            probe = probe[:-1]
        line = f":{self.lines[probe]}" if probe in self.lines else ""
        return f"{self.path}{line}" + (f", {spell(path)}" if path else "")


def spell(path: KeyPath) -> str:
    """``models.digits.variants[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        SpecError: it cannot be read, is no YAML, is too large or too deep, repeats a key or uses aliases.
    """
    document = Document(path)
    text = _text(path)
    problems: list[Problem] = []
    try:
        aliases = [event for event in yaml.parse(text, Loader=yaml.CSafeLoader) if isinstance(event, yaml.AliasEvent)]
        if aliases:
            mark = aliases[0].start_mark
            line = mark.line + 1 if mark else 1
            raise SpecError(
                [
                    Problem(
                        f"alias *{aliases[0].anchor}",
                        f"{path}:{line}",
                        expected="plain YAML without anchors and aliases",
                        fix="write the value out",
                    )
                ]
            )
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
        if root is not None:
            document.data = _plain(root, (), document, problems)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line_text = f":{mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(exc, "problem", None) or str(exc).splitlines()[0]
        raise SpecError(
            [
                Problem(
                    f"not valid YAML: {what}",
                    f"{path}{line_text}",
                    fix="quote values that hold : # [ ] { } or start with @ * &",
                )
            ]
        ) from exc
    except RecursionError as exc:
        raise SpecError([Problem("nested too deeply", str(path), expected=f"at most {MAX_DEPTH} levels")]) from exc
    if problems:
        raise SpecError(problems)
    return document


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SpecError(
                [
                    Problem(
                        "the spec is too large", str(path), expected=f"at most {MAX_BYTES} bytes", got=f"{size} bytes"
                    )
                ]
            )
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        fix = "give the spec as an argument: build-repo path/to/models.yaml"
        raise SpecError([Problem("no such file", str(path), expected="a spec (models.yaml)", fix=fix)]) from exc
    except IsADirectoryError as exc:
        raise SpecError(
            [Problem("this is a folder", str(path), expected="a spec", fix=f"build-repo {path}/models.yaml")]
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise SpecError([Problem("cannot be read", str(path), got=str(exc), expected="a readable UTF-8 file")]) from exc


def _plain(node: yaml.Node, path: KeyPath, document: Document, problems: list[Problem]) -> Any:
    if len(path) > MAX_DEPTH:
        raise RecursionError
    document.lines.setdefault(path, node.start_mark.line + 1)
    if not isinstance(node, yaml.ScalarNode) and node.tag.rpartition(":")[2] not in ("map", "seq"):
        raise yaml.MarkedYAMLError(problem=f"tag {node.tag}", problem_mark=node.start_mark)
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            below = (*path, key)
            line = key_node.start_mark.line + 1
            if key in result:
                first = document.lines[below]
                problems.append(
                    Problem(
                        f"key {key!r} is here twice",
                        f"{document.path}:{line}, {spell(below)}",
                        got=f"first on line {first}, again on line {line}",
                        fix="keep one of them",
                    )
                )
                continue
            document.lines[below] = line
            result[key] = _plain(value_node, below, document, problems)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, index), document, problems) for index, item in enumerate(node.value)]
    return yaml.constructor.SafeConstructor().construct_object(node)
