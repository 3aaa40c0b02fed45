"""Why perf_analyzer gave no measurement: its words, translated once, with what to do about it."""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from perf.errors import AnalyzerCrashError, AnalyzerError
from serving.errors import ServerUnavailableError, TritonRepoError

if TYPE_CHECKING:
    from perf.analyzer import Load

NO_REQUESTS = "No valid requests recorded"
_SAID = re.compile(r"(?:Thread \[\d+\] had error: |[Ee]rror: )(.+)")

_CRASHES = ("SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE")
"""Signals that a program gets for what it did itself."""


def explain(
    load: Load, stdout: str, stderr: str, returncode: int | None, timeout_s: float | None = None
) -> TritonRepoError:
    """The error for a run without a measurement.

    Args:
        stdout, stderr: what perf_analyzer printed.
        returncode: its exit status, negative when a signal ended it.
        timeout_s: how long it was given, when it did not end by itself.
    """
    where = f"model {load.model} at {load.spelled}, {load.protocol}://{load.address}"
    stderr, _, help_text = stderr.partition("\nUsage: ")  # all of its help follows arguments it does not take
    said = _reason(stderr)
    if timeout_s is not None:
        return AnalyzerError(
            f"perf_analyzer did not end within {timeout_s:.0f} s and was stopped",
            where=where,
            got=said or "it waits for an answer that does not come",
            fix="see the server's log whether a request hangs; else fewer requests at once (--concurrency), or for "
            "a slow model a larger --seconds of bench-repo"
            if load.schedule is None
            else "a lower --rate: the server is so far behind that its queue would take this long to empty",
        )
    if help_text:
        return AnalyzerError(
            "perf_analyzer does not take these arguments",
            where=where,
            got=said,
            fix="this perf_analyzer may be too old: unset PERF_ANALYZER to have a tested one provided",
        )
    for pattern, make in _RULES:
        if match := re.search(pattern, stderr):
            return make(load, where, said, match)
    if returncode is not None and returncode < 0:
        name = signal.Signals(-returncode).name if -returncode in set(signal.Signals) else str(-returncode)
        return (AnalyzerCrashError if name in _CRASHES else AnalyzerError)(
            f"perf_analyzer was ended by {name}",
            where=where,
            got=said,
            fix="SIGKILL is mostly the kernel for want of memory: use smaller --seconds or --batch-size"
            if name == "SIGKILL"
            else "run it again with -v; a crash that stays is perf_analyzer's: set PERF_ANALYZER to another release",
        )
    return AnalyzerError(
        "perf_analyzer gave no measurement",
        where=where,
        expected="exit status 0 and its files",
        got=f"exit status {returncode}" + (f": {said}" if said else ""),
        fix="keep its files with --output DIR and see stderr.txt",
    )


def _reason(stderr: str) -> str:
    """The lines that say something, errors first; at most five."""
    if found := [match[1].strip() for match in _SAID.finditer(stderr)]:
        return "\n".join(dict.fromkeys(found[:5]))
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and "unsupported data type" not in line]
    return "\n".join(lines[-5:])


def in_words(status: int) -> str:
    """An exit status in words: ``ended by SIGKILL``, ``exit status 1``."""
    number = -status if status < 0 else status - 128 if status > 128 else 0
    if number in set(signal.Signals):
        return f"ended by {signal.Signals(number).name}"
    return f"exit status {status}"


def unwritable(exc: OSError, folder: Path) -> AnalyzerError:
    """A file of a measurement cannot be written: mostly a full disk."""
    return AnalyzerError(
        "the files of a measurement cannot be written",
        where=str(exc.filename or folder),
        expected="room for the requests and answers of one point",
        got=exc.strerror or str(exc),
        fix="free space, or set TMPDIR (without --output) or --output to a disk that has it",
    )


def not_started(exc: OSError, folder: Path) -> AnalyzerError:
    """perf_analyzer, or a file that it prints into, could not be opened."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return unwritable(exc, folder)
    return AnalyzerError(
        "perf_analyzer cannot be started",
        where=str(exc.filename or folder),
        expected="a program that can be executed, and a folder to write into",
        got=exc.strerror or str(exc),
        fix="unset PERF_ANALYZER to have one provided; for want of memory or processes, end other programs",
    )


_Make = Callable[["Load", str, str, "re.Match[str]"], TritonRepoError]


def _unreachable(load: Load, where: str, said: str, match: re.Match[str]) -> TritonRepoError:
    other = "grpc" if load.protocol == "http" else "http"
    return ServerUnavailableError(
        "no server answers",
        where=f"{load.protocol}://{load.address}",
        got=said,
        fix=f"start one with serve-repo, or check the port: is it the one for {other}?",
    )


def _untrusted(load: Load, where: str, said: str, match: re.Match[str]) -> TritonRepoError:
    fix = "--ca-file with the certificate that signed the server's"
    return ServerUnavailableError("the encrypted connection failed", where=where, got=said, fix=fix)


def _unknown_model(load: Load, where: str, said: str, match: re.Match[str]) -> TritonRepoError:
    return AnalyzerError(
        "the server does not serve this model", where=where, got=said, fix="bench-repo without --model"
    )


def _dynamic(load: Load, where: str, said: str, match: re.Match[str]) -> TritonRepoError:
    fix = f"--shape {match[1]}:16,..."
    return AnalyzerError("an input needs a shape", where=where, got=said, fix=fix)


def _shape(load: Load, where: str, said: str, match: re.Match[str]) -> TritonRepoError:
    fix = "--shape NAME:sizes, without the batch dimension; if golden requests were used, build the model again"
    return AnalyzerError("the requests do not have the shape the model wants", where=where, got=said, fix=fix)


def _shared_memory(load: Load, where: str, said: str, match: re.Match[str]) -> TritonRepoError:
    fix = "--shared-memory none: client and server must be on one machine, with enough of /dev/shm (or of the GPU)"
    if load.shared_memory == "cuda":
        fix += "; for cuda also built for it: set PERF_ANALYZER to the one of NVIDIA's SDK container"
    return AnalyzerError("shared memory cannot be used with this server", where=where, got=said, fix=fix)


def _too_slow(load: Load, where: str, said: str, match: re.Match[str]) -> TritonRepoError:
    less = "concurrency" if load.schedule is None else "rate"
    return AnalyzerError(
        "no request was answered within a window",
        where=where,
        expected=f"at least one answer in {load.window_s:.1f} s",
        got=said,
        fix=f"--seconds {max(30, round(load.window_s * 30))}, or a lower --{less}",
    )


def _refused(load: Load, where: str, said: str, match: re.Match[str]) -> TritonRepoError:
    return AnalyzerError(
        "the server answered a request with an error, and perf_analyzer stops at the first",
        where=where,
        got=said,
        fix="if the made-up input is at fault, build the model with samples, so that there are golden requests",
    )


def _unwritable(load: Load, where: str, said: str, match: re.Match[str]) -> TritonRepoError:
    return AnalyzerError("perf_analyzer cannot write its files", where=where, got=said, fix="free space, or set TMPDIR")


def _library(load: Load, where: str, said: str, match: re.Match[str]) -> TritonRepoError:
    fix = "unset PERF_ANALYZER to have one provided with its libraries"
    return AnalyzerError("perf_analyzer lacks a library", where=where, got=match[0], fix=fix)


# In order: the first that fits is taken, so the particular comes before the general.
_RULES: tuple[tuple[str, _Make], ...] = (
    (r"error while loading shared libraries: .*", _library),
    (r"(?i)certificate|SSL|handshake", _untrusted),
    (r"(?i)Couldn't connect to server|failed to connect to all addresses|Connection refused", _unreachable),
    (r"(?i)Socket closed|Empty reply|Recv failure|connection reset|Server returned nothing", _unreachable),
    (r"Failure when receiving data|rewinding of the data stream|Send(ing)? fail|Failed sending data", _unreachable),
    (r"Request for unknown model|is not found|is not ready", _unknown_model),
    (r"input (\S+) contains dynamic shape", _dynamic),
    (r"(?i)shared memory", _shared_memory),
    (r"supplied shape|unexpected shape|can not batch tensors|missing tensor|Mismatch in the data", _shape),
    (r"had error: ", _refused),
    (NO_REQUESTS, _too_slow),
    (r"failed to open file|No space left", _unwritable),
)
