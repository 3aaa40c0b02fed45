"""The part of ``build-repo`` that asks for no build: what was asked, of which repositories, and the answer.

No spec is checked for it, and no code of the user's is run or imported: of a spec only the line `repository` is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.findings import did_you_mean
from builder.repository_text import blocks, diff_text, hashes_text, listing_text, pruned_text, rolled_back_text
from serving.errors import UsageError
from serving.terminal import OutputFormat, Progress, emit, warn

if TYPE_CHECKING:
    from builder.repository.managing import Listing, Pruned

DEFAULT_SPEC = Path("models.yaml")


@dataclass(frozen=True)
class Asked:
    """What was asked of a repository.

    Attributes:
        listing: ``--list``.
        rollback: the model to roll back.
        diff: a model and two of its versions.
        verify_hashes: ``--verify-hashes``.
        keep: how many versions to keep.
        only: names of models.
        repository: the one that is meant; None for those of the specs.
        reload: a running server to roll back as well.
        words: what stands without an option: specs, and with ``rollback`` a version.
    """

    listing: bool = False
    rollback: str | None = None
    diff: tuple[str, int, int] | None = None
    verify_hashes: bool = False
    keep: int | None = None
    only: Sequence[str] = ()
    repository: Path | None = None
    words: Sequence[Path] = ()
    reload: str | None = None

    @property
    def options(self) -> list[str]:
        """Those that were given of the options that ask for an answer instead of a build."""
        given = {
            "--list": self.listing,
            "--rollback": self.rollback is not None,
            "--diff": self.diff is not None,
            "--verify-hashes": self.verify_hashes,
        }
        return [option for option, is_given in given.items() if is_given]

    @property
    def version(self) -> int | None:
        """The version to roll back to, where one is given."""
        numbers = [int(word.name) for word in self.words if _is_version(word)] if self.rollback is not None else []
        if len(numbers) > 1:
            raise UsageError(
                "more than one version to roll back to",
                where="--rollback",
                expected="one version, or none for the one below the version that is served",
                got=", ".join(map(str, numbers)),
                fix=f"build-repo --rollback {self.rollback} {numbers[0]}",
            )
        return numbers[0] if numbers else None

    @property
    def specs(self) -> list[Path]:
        """The specs that were named."""
        return [word for word in self.words if self.rollback is None or not _is_version(word)]


def _is_version(word: Path) -> bool:
    return str(word).isascii() and str(word).isdigit()


def check(asked: Asked, *, building: Sequence[str]) -> None:
    """Refuse options that do not go together.

    Args:
        asked: what was asked of a repository.
        building: options given that are for a build, or ask for something else instead of one.

    Raises:
        UsageError: naming two of them.
    """
    options = asked.options
    given = [*options, *building]
    if len(options) > 1 or (options and building):
        raise UsageError(
            f"{given[0]} and {given[1]} do not go together",
            expected="one of them at a time",
            got=" ".join(given),
            fix=f"call build-repo once with {given[0]}, and once with {given[1]}",
        )
    if asked.keep is not None and any(option != "--list" for option in given):
        raise UsageError(
            f"--keep does not go with {given[0]}",
            expected="--keep N with a build, which then removes old versions, or with --list, which builds nothing",
            got=f"{given[0]} --keep {asked.keep}",
            fix=f"leave --keep out, and remove old versions by themselves: build-repo --list --keep {asked.keep}",
        )
    if asked.reload is not None and any(option != "--rollback" for option in given):
        raise UsageError(
            f"--reload does not go with {given[0]}",
            expected="--reload URL with a build, or with --rollback",
            got=f"{given[0]} --reload {asked.reload}",
            fix=f"leave --reload out: after {given[0]} a server has nothing new to load",
        )
    if asked.repository is not None and not options:
        raise UsageError(
            "--repository is for the options that need no spec",
            expected="it together with --list, --rollback, --diff or --verify-hashes",
            fix="a build publishes to the `repository` of the spec: write it there",
        )
    if asked.only and options and not asked.listing:
        raise UsageError(
            f"--only does not go with {options[0]}",
            expected="--only with a build, --plan or --list",
            got=" ".join([options[0], *(f"--only {name}" for name in asked.only)]),
            fix="leave --only out: "
            + ("--verify-hashes reads every model" if asked.verify_hashes else f"{options[0]} names its model itself"),
        )


def answer(asked: Asked, *, output: OutputFormat, quiet: bool = False) -> int:
    """Do what was asked and write the answer.

    Returns:
        The exit status: 1 where hashes do not match.

    Raises:
        TritonRepoError: what was asked cannot be done.
    """
    from builder.repository import managing as repository

    folders = repositories(asked)
    if asked.listing:
        pruned = prune(folders, asked.keep, asked.only or None) if asked.keep is not None else []
        listings = [_only(repository.list_models(folder), asked.only) for folder in folders]
        data = {"repositories": [listing.as_dict() for listing in listings]}
        emit(
            data | pruned_data(pruned),
            blocks([*map(pruned_text, pruned), *map(listing_text, listings)]),
            output=output,
        )
        return 0
    if asked.verify_hashes:
        reports = [repository.verify_hashes(folder) for folder in folders]
        ok = all(report.ok for report in reports)
        found = {"ok": ok, "repositories": [report.as_dict() for report in reports]}
        emit(found, blocks(map(hashes_text, reports)), output=output)
        return 0 if ok else 1
    if asked.diff is not None:
        model, a, b = asked.diff
        diff = repository.diff(_home(folders, model), model, a, b)
        emit(diff.as_dict(), diff_text(diff), output=output)
        return 0
    assert asked.rollback is not None
    home = _home(folders, asked.rollback)
    if asked.reload is not None:
        return _rollback_on(asked.reload, home, asked.rollback, asked.version, output=output, quiet=quiet)
    done = repository.rollback(home, asked.rollback, asked.version)
    for warning in done.warnings:
        warn(warning)
    emit(done.as_dict(), rolled_back_text(done), output=output)
    return 0


def _rollback_on(url: str, home: Path, model: str, version: int | None, *, output: OutputFormat, quiet: bool) -> int:
    from builder.live.updating import reloaded_text, rollback_on

    done, reloaded = rollback_on(url, home, model, version, reporter=Progress(quiet=quiet))
    for warning in [*done.warnings, *reloaded.warnings]:
        warn(warning)
    text = f"{rolled_back_text(done)}\n{url}:\n  {reloaded_text(reloaded)}"
    emit(done.as_dict() | {"reload": reloaded.as_dict()}, text, output=output)
    return 0


def prune(folders: Sequence[Path], count: int, models: Sequence[str] | None = None) -> list[Pruned]:
    """Keep the newest versions in each repository; warns of old ones that have to stay.

    Args:
        folders: the repositories.
        count: how many versions of each model.
        models: only these, where the repository has them.
    """
    from builder.repository import managing as repository
    from builder.repository.published import models_of

    done = []
    for folder in folders:
        there = [model.name for model in models_of(folder)[0]] if folder.is_dir() else []
        names = None if models is None else [name for name in there if name in models]
        done.append(repository.keep(folder, count, names))
        for model, version, why in done[-1].left:
            warn(f"{model} {version} stays: {why}")
    return done


def repositories(asked: Asked) -> list[Path]:
    """The repositories that are meant.

    Raises:
        SpecError: a spec cannot be read.
    """
    if asked.repository is not None:
        return [asked.repository.absolute()]
    found = []
    for path in asked.specs or [DEFAULT_SPEC]:
        found.append(_repository_of(path.resolve()))
    return list(dict.fromkeys(found))


def _repository_of(spec: Path) -> Path:
    from builder.spec.yaml_source import read

    data = read(spec).data
    named = data.get("repository") if isinstance(data, dict) else None
    return (spec.parent / (named if isinstance(named, str) else "model_repository")).resolve()


def _home(folders: Sequence[Path], model: str) -> Path:
    """The one repository that has the model; the first where none has, for the message."""
    homes = [folder for folder in folders if (folder / model).is_dir()]
    if len(homes) > 1:
        raise UsageError(
            f"several repositories have a model {model!r}",
            where="\n".join(map(str, homes)),
            fix="name one of them with --repository DIR",
        )
    return (homes or list(folders))[0]


def _only(listing: Listing, names: Sequence[str]) -> Listing:
    if not names:
        return listing
    from dataclasses import replace

    missing = [name for name in names if all(row.model != name for row in listing.versions)]
    if missing:
        there = list(dict.fromkeys(row.model for row in listing.versions))
        raise UsageError(
            f"the repository has no model {missing[0]!r}",
            where=str(listing.repository),
            expected=", ".join(there) or "a model that build-repo published",
            got=", ".join(missing),
            fix=did_you_mean(missing[0], there) or "build-repo --list, without --only, shows every model",
        )
    return replace(listing, versions=tuple(row for row in listing.versions if row.model in names))


def pruned_data(pruned: Sequence[Pruned]) -> dict[str, Any]:
    """What was removed, for ``--format json``."""
    return {"pruned": [each.as_dict() for each in pruned]} if pruned else {}
