"""What is wrong with the folders of a repository; the rules are in ``folder_rules.py``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from builder.check import folder_rules as rules
from builder.check.reading import CONFIG, Entry, Reading, version_of
from builder.rules.rule import Hit, Rule

_KNOWN = ("warmup", "initial_state", "configs")
_MOST_SHOWN = 5


def repository_hits(entries: Sequence[Entry]) -> Iterator[tuple[Rule, Hit]]:
    """Of a repository's own folder."""
    for entry in entries:
        if entry.is_dir is None:
            fix = "remove the link, or mend where it leads: because of it the server reads no model at all"
            yield rules.LINK, Hit(f"`{entry.name}` is a link that leads nowhere", fix, file=entry.name)
    files = [entry.name for entry in entries if entry.is_dir is False]
    numbers = [entry.name for entry in entries if entry.is_dir and version_of(entry.name) is not None]
    if CONFIG in files and numbers:
        message = f"this folder is a model: it holds {CONFIG} and the version {numbers[0]}"
        yield rules.IS_A_MODEL, Hit(message, "name the folder above it", file=CONFIG)


def is_no_model(reading: Reading) -> bool:
    """True for a folder with neither a configuration nor a version."""
    if reading.model is None or reading.model.has_config:
        return False
    return not reading.model.versions and "." not in reading.name.lstrip(".")


def model_hits(reading: Reading) -> Iterator[tuple[Rule, Hit]]:
    """Of a model's folder."""
    model = reading.model
    if model is None:
        return
    if is_no_model(reading):
        held = ", ".join(entry.name for entry in reading.entries[:_MOST_SHOWN]) or "nothing"
        message = f"neither {CONFIG} nor a version is in this folder, it holds {held}"
        yield rules.NOT_A_MODEL, Hit(message, "move it out of the repository", file="")
        return
    if model.config is not None:
        yield from _versions(reading)
    for entry in reading.entries:
        if not entry.is_dir or entry.name in _KNOWN:
            continue
        number = version_of(entry.name)
        if number is not None and not -(2**63) <= number < 2**63:
            fix = "name it by a smaller number: because of it the server ends"
            yield rules.VERSION_HUGE, Hit(f"the version `{entry.name}` is larger than any number", fix, file=entry.name)
        elif number is None and model.versions:
            fix = "name a version by a number without leading zeros, move other folders elsewhere"
            yield rules.IGNORED, Hit(f"the server passes over the folder `{entry.name}`", fix, file=entry.name)
        elif number is not None and number < 0 and model.config is not None and model.config.platform != "ensemble":
            fix = "name it by a number of 1 or more"
            yield (
                rules.VERSION_NAME,
                Hit(f"the server looks for another folder than `{entry.name}`", fix, file=entry.name),
            )
        elif number is not None and number in model.served and model.versions[number].name != str(number):
            fix = f"rename it to {number}"
            message = f"the server reads the folder `{entry.name}` as version {number}, and looks for `{number}`"
            yield rules.VERSION_NAME, Hit(message, fix, file=entry.name)


def _versions(reading: Reading) -> Iterator[tuple[Rule, Hit]]:
    model = reading.model
    assert model is not None
    wanted = list(model.config.version_policy.specific.versions)
    path = ("version_policy", "specific", "versions")
    if model.served:
        for index, number in enumerate(wanted):
            if number not in model.versions:
                fix = "add the version's folder, or take the number out"
                yield rules.MISSING_VERSION, Hit(f"there is no version {number}", fix, (*path, index))
    elif model.versions and wanted:
        there = ", ".join(map(str, model.versions))
        asked = ", ".join(map(str, wanted))
        fix = f"write versions: [{max(model.versions)}]"
        yield rules.NO_VERSION, Hit(f"the version policy serves {asked}, the folder holds {there}", fix, path)
    elif not model.versions:
        folders = [entry.name for entry in reading.entries if entry.is_dir and entry.name not in _KNOWN]
        held = f"; there are only {', '.join(folders[:_MOST_SHOWN])}" if folders else ""
        fix = "make the folder `1`" + (", empty" if model.config.platform == "ensemble" else " with the model's file")
        yield rules.NO_VERSION, Hit(f"there is no version's folder{held}", fix, file="")


def duplicate_hits(readings: Iterable[Reading]) -> Iterator[tuple[Reading, Rule, Hit]]:
    """Models that more than one repository holds, each place."""
    unique: dict[Path, Reading] = {}
    for reading in readings:
        if reading.file in (CONFIG, ""):
            unique.setdefault(reading.folder, reading)
    names = Counter(reading.name for reading in unique.values())
    for reading in unique.values():
        if names[reading.name] > 1:
            others = [str(other.folder) for other in unique.values() if other.name == reading.name]
            others.remove(str(reading.folder))
            fix = "rename one of both, or serve one repository only"
            hit = Hit(f"the model is in {' and in '.join(others)} as well: the server loads neither", fix, file="")
            yield reading, rules.DUPLICATE, hit
