"""The builder's branch of the error tree, and the one place where foreign errors are put into our words."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import TritonRepoError, UsageError


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a spec.

    Attributes:
        where: ``models.yaml:12, models.digits.batch.max``.
        what: one sentence.
        expected, got, fix: as in :class:`serving.errors.TritonRepoError`; empty where the sentence says it all.
    """

    where: str
    what: str
    expected: str = ""
    got: str = ""
    fix: str = ""

    def as_error(self) -> TritonRepoError:
        """The same as an error, for its layout and its plain data."""
        return TritonRepoError(self.what, where=self.where, expected=self.expected, got=self.got, fix=self.fix)


class SpecError(UsageError):
    """The spec cannot be used; carries every problem that was found, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(first.what, where=first.where, expected=first.expected, got=first.got, fix=first.fix)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return super().__str__()
        blocks = [f"{len(self.problems)} problems in the spec"]
        blocks += [str(problem.as_error()) for problem in self.problems]
        return "\n".join(blocks)

    def as_dict(self) -> dict[str, Any]:
        """All problems as plain data."""
        return {
            "error": "SpecError",
            "what": f"{len(self.problems)} problem(s) in the spec",
            "problems": [problem.as_error().as_dict() | {"error": "Problem"} for problem in self.problems],
        }


class SourceError(TritonRepoError):
    """A model's source gave no usable module: it raised, is missing, or is of the wrong kind."""


class SampleError(TritonRepoError):
    """The samples do not fit the spec, or could not be made."""


class ExportError(TritonRepoError):
    """The module could not be turned into ONNX, or into one that keeps the spec's promises."""


class InterfaceError(TritonRepoError):
    """What the module takes or gives differs from the spec."""


class ConfigError(TritonRepoError):
    """``config.pbtxt`` could not be made from the spec, or does not fit the artifact."""


class ParityError(TritonRepoError):
    """An artifact's answers differ from PyTorch's beyond the tolerance."""


class AccuracyError(TritonRepoError):
    """An artifact loses more accuracy than the spec allows."""


class PublishError(TritonRepoError):
    """The repository could not be written."""


def user_code_error(
    kind: type[TritonRepoError], what: str, exc: BaseException, *, folder: Path, fix: str = ""
) -> TritonRepoError:
    """An exception out of the user's own code, with the line of that code where it was raised.

    Args:
        kind: the class of error to make.
        what: what we were doing, as a sentence.
        exc: the exception that came out.
        folder: the folder of the user's code; the innermost frame below it is the place that is named.
        fix: what to do about it.
    """
    return kind(
        what, where=user_line(exc, folder), got=describe(exc), fix=fix or "mend the code at the line named above"
    )


def user_line(exc: BaseException, folder: Path) -> str:
    """``file:line, in function`` of the innermost frame below ``folder``; of the innermost of all if there is none."""
    frames = traceback.extract_tb(exc.__traceback__)
    root = str(folder.resolve())
    own = [frame for frame in frames if str(Path(frame.filename).resolve()).startswith(root + "/")]
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{exc.filename}:{exc.lineno}"
    if not frames:
        return str(folder)
    frame = (own or frames)[-1]
    return f"{frame.filename}:{frame.lineno}, in {frame.name}"


def describe(exc: BaseException, *, limit: int = 600) -> str:
    """``Type: message`` of an exception, cut to ``limit`` characters."""
    text = f"{type(exc).__name__}: {exc}".strip().rstrip(":")
    return text if len(text) <= limit else text[: limit - 3] + "..."
