"""A search that is cut short says what is kept of it, and how it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from perf.target import Target
from perf.tune.journal import Journal
from serving.errors import ServerUnavailableError
from serving.progress import Reporter


@contextmanager
def resumable(journal: Journal, measurements: Callable[[], int], target: Target, reporter: Reporter) -> Iterator[None]:
    """Around a search.

    Args:
        measurements: how many the journal holds.

    Raises:
        ServerUnavailableError: that of the search, with how the server ended and how to go on.
    """
    try:
        yield
    except ServerUnavailableError as error:
        said = target.gone() or error
        fix = f"the same command with --resume goes on with all that was measured ({journal.path})"
        raise ServerUnavailableError(
            said.what,
            where=said.where,
            expected=said.expected,
            got=said.got,
            fix=fix if journal.path is not None else said.fix,
        ) from error
    except (KeyboardInterrupt, SystemExit):
        if journal.path is not None and (count := measurements()):
            many = f"{count} measurements are kept"
            reporter.warn(f"interrupted: {many}; the same command with --resume goes on with them ({journal.path})")
        raise
