"""The harness's branch of the error tree."""

from __future__ import annotations

from serving.errors import ProblemsError, TritonRepoError


class WorkloadError(ProblemsError):
    """The workload cannot be run as asked; carries every problem that was found, not only the first."""

    subject = "workload"


class AnalyzerUnavailableError(TritonRepoError):
    """perf_analyzer is not here, could not be provided, or does not run on this machine."""


class AnalyzerError(TritonRepoError):
    """perf_analyzer ran and gave no measurement; carries the reason in its own words and ours."""


class AnalyzerCrashError(AnalyzerError):
    """perf_analyzer ended itself (SIGABRT, SIGSEGV, ...); it may not do so again."""


class RawFileError(TritonRepoError):
    """A file that perf_analyzer wrote is not what it should be."""


class BaselineError(TritonRepoError):
    """A baseline (the same model without this server) could not be measured; the reason, and how to get it."""
