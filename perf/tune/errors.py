"""What can go wrong with tuning and is not the server's or perf_analyzer's."""

from __future__ import annotations

from serving.errors import ProblemsError, TritonRepoError


class TuneUsageError(ProblemsError):
    """It cannot be tuned as asked; carries every problem that was found. Exit status 2."""

    subject = "arguments"


class TuneError(TritonRepoError):
    """The search could not go on."""
