"""Repositories are judged: read, held against every rule, and all that was found put in one order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.check import folder_rules as own
from builder.check.artifacts import ARTIFACT_RULES
from builder.check.folders import duplicate_hits, is_no_model, model_hits, repository_hits
from builder.check.found import Found
from builder.check.parsing import RULES as PARSING_RULES
from builder.check.pbtxt import Node, line_of, tree_of
from builder.check.reading import CONFIG, Reading, Target, entries_of, read_models
from builder.check.repository_rules import REPOSITORY_RULES
from builder.check.target import ANY, Server
from builder.rules.rule import Hit, Rule
from builder.rules.table import CONFIG_RULES

_ORDER = {"error": 0, "warning": 1, "info": 2}
Judged = tuple[Reading, Rule, Hit]


@dataclass(frozen=True)
class Judgement:
    """What came of a check.

    Attributes:
        found: by repository and model, in each the errors first, then by line.
        models: how many folders were judged.
    """

    found: tuple[Found, ...]
    models: int


def groups() -> tuple[tuple[str, tuple[Rule, ...]], ...]:
    """Every rule there is, each once, under the headings of the page."""
    across: list[Rule] = [rule for rules, _ in REPOSITORY_RULES for rule in rules]
    groups = (
        ("The text of config.pbtxt", PARSING_RULES),
        ("Folders and versions", own.RULES),
        ("The configuration", tuple(rule for rule, _ in CONFIG_RULES)),
        ("The model's files", tuple(rule for rule, _ in ARTIFACT_RULES)),
        ("Ensembles and their models", tuple(across)),
    )
    seen: set[str] = set()
    made = []
    for title, rules in groups:
        made.append((title, tuple({rule.id: rule for rule in rules if rule.id not in seen}.values())))
        seen.update(rule.id for rule in rules)
    return tuple(made)


def all_rules() -> tuple[Rule, ...]:
    """Every rule there is, in the order of the page."""
    return tuple(rule for _, rules in groups() for rule in rules)


def check_repositories(
    folders: Sequence[Path],
    *,
    config_only: bool = False,
    server: Server = ANY,
    ignore: Collection[str] = (),
) -> Judgement:
    """Everything that is wrong with repositories that one server serves.

    Args:
        folders: the repositories.
        config_only: judge the ``config.pbtxt`` files alone, as if each model's files were there.
        server: that is to serve them; any Triton by default.
        ignore: ids of rules that are not to be reported.

    Raises:
        MissingDependencyError: tritonclient is not installed.
    """
    found: list[Found] = []
    readings: list[Reading] = []
    for folder in folders:
        at: list[Found] = []
        try:
            if not config_only:
                at = [
                    _found(folder, "", hit.file, rule, hit, None) for rule, hit in repository_hits(entries_of(folder))
                ]
            mine = list(read_models(folder, Target(server, config_only)))
        except OSError as error:
            hit = Hit(f"the folder cannot be read: {error.strerror}", "give the server the right to read it", file="")
            found.append(_found(folder, "", "", own.FOLDER, hit, None))
            continue
        found += at
        if not any(one.rule == own.IS_A_MODEL.id for one in at):
            readings += mine
    judged: list[Judged] = []
    for reading in readings:
        judged += _judged(reading, config_only=config_only)
    judged += _across(readings, config_only=config_only)
    places = {id(reading): index for index, reading in enumerate(readings)}
    trees: dict[int, Node] = {}
    made = []
    for reading, rule, hit in judged:
        if rule.id not in ignore:
            made.append((places[id(reading)], _placed(reading, rule, hit, trees)))
    made.sort(key=lambda pair: (pair[0], _ORDER[pair[1].severity], pair[1].file, pair[1].line or 0))
    found = [one for one in found if one.rule not in ignore]
    models = len({reading.folder for reading in readings})
    return Judgement(tuple(dict.fromkeys([*found, *(one for _, one in made)])), models)


def _judged(reading: Reading, *, config_only: bool) -> Iterator[Judged]:
    """One model against all rules that look at one model."""
    yield from ((reading, rule, hit) for rule, hit in reading.problems)
    if not config_only and reading.file in (CONFIG, ""):
        try:
            yield from [(reading, rule, hit) for rule, hit in model_hits(reading)]
        except Exception as error:
            yield reading, *_failed("folders", error)
        if is_no_model(reading):
            return
    for rule, look in CONFIG_RULES:
        if reading.subject is not None:
            yield from ((reading, *pair) for pair in _hits(rule, look, reading.subject))
    if not config_only and reading.model is not None and reading.file == CONFIG:
        for rule, examine in ARTIFACT_RULES:
            yield from ((reading, *pair) for pair in _hits(rule, examine, reading.model))


def _hits(rule: Rule, look: Callable[[Any], Iterable[Hit]], subject: Any) -> list[tuple[Rule, Hit]]:
    """What a rule finds; a rule that fails is a finding itself, never the end of the check."""
    found: list[tuple[Rule, Hit]] = []
    try:
        for hit in look(subject):
            found.append((rule, hit))  # one by one: what was found before it failed stays
    except Exception as error:
        found.append(_failed(rule.id, error))
    return found


def _failed(name: str, error: Exception) -> tuple[Rule, Hit]:
    what = f"the rule `{name}` failed: {type(error).__name__}: {error}"[:300]
    return own.INTERNAL, Hit(what, "report it, with the file that it is about")


def _across(readings: Sequence[Reading], *, config_only: bool) -> Iterator[Judged]:
    """Rules that see all models."""
    yield from duplicate_hits(readings)
    main = [reading for reading in readings if reading.file == CONFIG and reading.model is not None]
    by_name = {reading.name: reading for reading in main}
    models = [reading.model for reading in main if reading.model is not None and not is_no_model(reading)]
    for rules, look in REPOSITORY_RULES:
        named = rules[0].id if rules else "repository"
        try:
            for name, rule, hit in look(models, config_only):
                if name in by_name:
                    yield by_name[name], rule, hit
        except Exception as error:
            yield from ((reading, *_failed(named, error)) for reading in main[:1])


def _placed(reading: Reading, rule: Rule, hit: Hit, trees: dict[int, Node]) -> Found:
    """A hit with its file and line."""
    line, file = hit.line, hit.file
    if file == CONFIG:
        file = reading.file or ""
    model = reading.model
    if file == reading.file and model is not None and not model.has_config:
        file, line = "", None
    elif line is None and hit.path and model is not None and model.text:
        if id(reading) not in trees:
            trees[id(reading)] = tree_of(model.text)
        line = line_of(trees[id(reading)], hit.path)
    return _found(reading.folder, reading.name, file, rule, hit, line)


def _found(folder: Path, model: str, file: str, rule: Rule, hit: Hit, line: int | None) -> Found:
    path = folder / file if file else folder
    return Found(model, rule.id, rule.severity, hit.message, hit.fix or rule.fix, str(path), line)
