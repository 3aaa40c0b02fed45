"""The root of the one error tree, and the errors of talking to a server.

Every error a user can cause is a :class:`TritonRepoError` with the same four parts: where, what was expected, what was
got, and how to mend it. ``builder`` and ``perf`` derive theirs from here, because they may import ``serving`` and not
the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class TritonRepoError(Exception):
    """A problem that the user can understand and mend.

    Args:
        what: one sentence, without a full stop.
        where: file and line, key path, model name, URL: whatever leads to the place.
        expected: what would have been right.
        got: what was there instead.
        fix: what to do about it, a command where there is one.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", expected: str = "", got: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.expected = expected
        self.got = got
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        for label in ("where", "expected", "got", "fix"):
            value = getattr(self, label)
            if value:
                first, *rest = str(value).splitlines() or [""]
                lines.append(f"  {label + ':':<10}{first}")
                lines.extend(" " * 12 + line for line in rest)
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses have constructors of their own; an error crosses processes as what it holds.
        return _restored, (type(self), self.args), self.__dict__

    def as_dict(self) -> dict[str, Any]:
        """The error as plain data, for ``--format json``."""
        parts = {key: getattr(self, key) for key in ("where", "expected", "got", "fix")}
        return {"error": type(self).__name__, "what": self.what, **{k: v for k, v in parts.items() if v}}


def _restored(kind: type[TritonRepoError], args: tuple[Any, ...]) -> TritonRepoError:
    error = kind.__new__(kind)
    error.args = args
    return error


class UsageError(TritonRepoError):
    """The arguments cannot be used: exit status 2."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One of several things that are wrong; the parts are those of :class:`TritonRepoError`."""

    what: str
    where: str = ""
    expected: str = ""
    got: str = ""
    fix: str = ""

    def as_error(self) -> TritonRepoError:
        """The same as an error, for its layout and its plain data."""
        return TritonRepoError(self.what, where=self.where, expected=self.expected, got=self.got, fix=self.fix)


class ProblemsError(UsageError):
    """What was given cannot be used; carries every problem that was found, not only the first.

    Attributes:
        subject: what it is that has the problems.
        problems: at least one.
    """

    subject = "arguments"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(first.what, where=first.where, expected=first.expected, got=first.got, fix=first.fix)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return super().__str__()
        blocks = [f"{len(self.problems)} problems in the {self.subject}"]
        return "\n".join(blocks + [str(problem.as_error()) for problem in self.problems])

    def as_dict(self) -> dict[str, Any]:
        """As for every error, with the first problem's parts, and ``problems``: all of them."""
        problems = [problem.as_error().as_dict() | {"error": "Problem"} for problem in self.problems]
        return {**super().as_dict(), "problems": problems}


class MissingDependencyError(TritonRepoError):
    """A Python package that this step needs is not installed."""

    def __init__(self, package: str, extra: str, *, needed_for: str) -> None:
        super().__init__(
            f"{package} is not installed",
            expected=f"{package}, which is needed {needed_for}",
            got=f"no module named {package}",
            fix=f"pip install 'triton-repo[{extra}]'",
        )


class RuntimeUnavailableError(TritonRepoError):
    """No Triton server could be found or provisioned on this machine."""


class ServerStartError(TritonRepoError):
    """The server did not become ready: it died, hung, or its port was taken."""


class ModelLoadError(TritonRepoError):
    """The server refused a model; carries the server's own reason.

    Attributes:
        failures: the server's reason by model; every model that failed, where several were to be loaded.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        expected: str = "",
        got: str = "",
        fix: str = "",
        failures: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(what, where=where, expected=expected, got=got, fix=fix)
        self.failures = dict(failures or {})

    def as_dict(self) -> dict[str, Any]:
        """As for every error, and ``failures``."""
        return {**super().as_dict(), "failures": self.failures}


class InferenceError(TritonRepoError):
    """The server answered a request with an error, or not at all; carries the server's own message."""


class ServerUnavailableError(InferenceError):
    """No server answers at this address (yet, or any more)."""


class SignatureError(TritonRepoError):
    """A version could not be signed, or its signature does not vouch for what lies there."""


class SignaturesError(ProblemsError):
    """What a repository holds is not all signed; names everything that is not. Exit status 1."""

    subject = "signatures"
    exit_code = 1
