"""A YAML file of a user (a workload, a gate) as plain data that knows the line of each key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from perf.errors import WorkloadError
from serving.errors import Problem, ProblemsError

KeyPath = tuple[str | int, ...]


def spell(path: KeyPath) -> str:
    """A key as people write it: ``shapes.ids[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


class Document:
    """A YAML file as plain data that knows the line of each key and item; keys given twice are problems.

    Args:
        path: the file; a mapping.
        noun: what it is, for messages.
        error: raised when it cannot be read at all.
        fix: what to do then.
    """

    def __init__(
        self,
        path: Path,
        noun: str = "workload",
        error: type[ProblemsError] = WorkloadError,
        fix: str = "bench-repo WORKLOAD.yaml, or flags only: bench-repo --repository DIR",
    ) -> None:
        self.path = path
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[Problem] = []
        try:
            root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
            raise error([Problem(f"the {noun} cannot be read", where=str(path), got=reason, fix=fix)]) from exc
        except yaml.YAMLError as exc:
            mark = getattr(exc, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            got = str(getattr(exc, "problem", None) or exc)
            expected = "keys and values: `key: value`, indented alike"
            raise error([Problem("not valid YAML", f"{path}{line}", expected, got, "mend this line")]) from exc
        if root is not None and not isinstance(root, yaml.MappingNode):
            got = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
            expected = "a mapping (key: value)"
            raise error([Problem(f"not a {noun}", str(path), expected, got, "write `key: value` on each line")])
        self.data: dict[str, Any] = self._plain(root, ()) if root is not None else {}

    def where(self, path: KeyPath) -> str:
        """``file:line, key`` of the nearest key that has a line."""
        probe = path
        while probe and probe not in self.lines:
            probe = probe[:-1]
        line = f":{self.lines[probe]}" if probe in self.lines else ""
        return f"{self.path}{line}" + (f", {spell(path)}" if path else "")

    def _plain(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                below = (*path, str(key_node.value))
                line = key_node.start_mark.line + 1
                if below in self.lines:
                    got = f"first on line {self.lines[below]}, again on line {line}"
                    self.problems.append(
                        Problem(
                            f"key {spell(below)} is here twice", where=f"{self.path}:{line}", got=got, fix="keep one"
                        )
                    )
                    continue
                self.lines[below] = line
                result[str(key_node.value)] = self._plain(value_node, below)
            return result
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                below = (*path, index)
                self.lines[below] = item.start_mark.line + 1
            return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
        return yaml.constructor.SafeConstructor().construct_object(node)
