"""The harness's branch of the error tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.errors import TritonRepoError, UsageError


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a workload; the parts are those of :class:`serving.errors.TritonRepoError`."""

    what: str
    where: str = ""
    expected: str = ""
    got: str = ""
    fix: str = ""

    def as_error(self) -> TritonRepoError:
        """The same as an error, for its layout and its plain data."""
        return TritonRepoError(self.what, where=self.where, expected=self.expected, got=self.got, fix=self.fix)


class WorkloadError(UsageError):
    """The workload cannot be run as asked; carries every problem that was found, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(first.what, where=first.where, expected=first.expected, got=first.got, fix=first.fix)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return super().__str__()
        blocks = [f"{len(self.problems)} problems in the workload"]
        blocks += [str(problem.as_error()) for problem in self.problems]
        return "\n".join(blocks)

    def as_dict(self) -> dict[str, Any]:
        """All problems as plain data."""
        if len(self.problems) == 1:
            return super().as_dict()
        return {
            "error": "WorkloadError",
            "what": f"{len(self.problems)} problems in the workload",
            "problems": [problem.as_error().as_dict() | {"error": "Problem"} for problem in self.problems],
        }


class AnalyzerUnavailableError(TritonRepoError):
    """perf_analyzer is not here, could not be provided, or does not run on this machine."""


class AnalyzerError(TritonRepoError):
    """perf_analyzer ran and gave no measurement; carries the reason in its own words and ours."""


class RawFileError(TritonRepoError):
    """A file that perf_analyzer wrote is not what it should be."""
