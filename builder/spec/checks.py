"""What is checked of a spec beside its structure, whether that is sound or not: names, files, Triton's own fields.

Each check takes the data as it was read, so that a mistake elsewhere in the file does not hide what it finds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from builder.findings import Finding, KeyPath
from builder.names import model_name, same_but_for_case
from builder.spec.files import file_findings
from builder.spec.yaml_source import Document
from builder.triton_fields import field_findings
from serving.errors import MissingDependencyError, Problem


def checks(document: Document, *, found_any: bool) -> Iterator[Problem]:
    """Everything that is wrong with names, files and Triton's fields.

    Args:
        document: its data is a mapping.
        found_any: whether the spec has problems already: then a missing tritonclient is not the first thing to mend.

    Raises:
        MissingDependencyError: nothing else is wrong, but ``config`` cannot be checked without tritonclient.
    """
    problems = [_problem(found, (), document) for found in _repository(document)]
    models = document.data.get("models")
    entries: dict[str, Any] = models if isinstance(models, dict) else {}
    clashes = same_but_for_case(entries)
    for name, entry in entries.items():
        at: KeyPath = ("models", name)
        wrong = model_name(name)
        if wrong is not None:
            problems.append(_problem(wrong, at, document))
        if name in clashes:
            problems.append(_problem(_case_clash(name, clashes[name]), at, document))
        if isinstance(entry, dict):
            problems += [_problem(found, at, document) for found in file_findings(entry, document.path.parent)]
    yield from problems
    try:
        yield from [problem for name, entry in entries.items() for problem in _config(name, entry, document)]
    except MissingDependencyError:
        if not (problems or found_any or document.problems):
            raise


def _problem(found: Finding, at: KeyPath, document: Document) -> Problem:
    return Problem(found.what, document.where((*at, *found.path)), found.expected, found.got, found.fix)


def _config(name: str, entry: Any, document: Document) -> list[Problem]:
    problems = []
    for path, config in _configs(entry):
        found = field_findings(config)
        problems += [_problem(each, ("models", name, *path), document) for each in found]
    return problems


def _configs(entry: Any) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Every mapping of an entry whose keys are fields of Triton's."""
    config, hosts = (entry.get(key) if isinstance(entry, dict) else None for key in ("config", "hosts"))
    if isinstance(config, dict) and config:
        yield ("config",), config
    for host, fields in hosts.items() if isinstance(hosts, dict) else ():
        if isinstance(fields, dict) and fields:
            yield ("hosts", host), fields


def _case_clash(name: str, first: str) -> Finding:
    return Finding(
        f"{name!r} and {first!r} differ in case only",
        "names that are two on any file system: the repository may be copied to one that ignores case",
        fix="give one of them another name",
    )


def _repository(document: Document) -> Iterator[Finding]:
    """The repository: a folder of its own, that is there or can be made."""
    text = document.data.get("repository")
    if not isinstance(text, str) or not text or "\0" in text:
        return
    folder = document.path.parent
    full = Path(os.path.realpath(folder / text))
    if Path(os.path.realpath(folder)).is_relative_to(full):
        yield Finding(
            "the repository is the spec's own folder, or one above it",
            "a folder of its own: Triton takes every folder of a repository for a model",
            str(full),
            "repository: model_repository",
            ("repository",),
        )
    elif full.exists() and not full.is_dir():
        yield Finding(f"the repository {text} is no folder", "a folder", "a file", path=("repository",))
