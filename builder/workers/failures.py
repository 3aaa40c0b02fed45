"""Why a build can go on no further, apart from the reasons that its stages have: in our words."""

from __future__ import annotations

import errno
import signal
import traceback
from pathlib import Path

from builder.errors import BuildError, WorkerError, describe, user_line


def interrupted() -> WorkerError:
    """Ctrl-C, or its like: nobody will read this."""
    return WorkerError("the build was interrupted")


def out_of_memory(name: str, got: str, where: str = "") -> WorkerError:
    """A model that needs more memory than there is."""
    return WorkerError(
        f"building {name} ran out of memory",
        where=where,
        expected="enough memory for the module, its export and one server beside it",
        got=got,
        fix="build fewer models at a time (--jobs 1), or on a larger machine",
    )


def death(name: str, status: int | None, where: str) -> WorkerError:
    """A process that ended without a word; ``status`` as :func:`os.waitstatus_to_exitcode` gives it."""
    what = f"the process that built {name} "
    if status is not None and status < 0:
        return WorkerError(
            what + "crashed",
            where=where,
            expected="an answer",
            got=_how(status),
            fix="a crash like this comes from native code, the module's or a library's; what it printed is above",
        )
    return WorkerError(
        what + "ended before the build was done",
        expected="an answer",
        got=_how(status),
        fix="if the model's code calls os._exit, let it return or raise instead; what it printed is above",
    )


def no_warm_process(status: int | None) -> WorkerError:
    """The process that forks the others died, or does not come to life."""
    return WorkerError(
        "the process that starts the builds of models died",
        expected="a Python that can import numpy, onnxruntime and, for PyTorch models, torch",
        got=_how(status),
        fix="what it said is above; build-repo --jobs 1 needs the least memory",
    )


def _how(status: int | None) -> str:
    if status is None:
        return "it closed its connection to build-repo"
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def is_disk_full(exc: BaseException) -> bool:
    """Whether it is for want of space, or of quota."""
    return isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)


def of_staging(exc: OSError, place: Path) -> BuildError:
    """The place where a model is built cannot be written."""
    if is_disk_full(exc):
        return disk_full(exc, place)
    return BuildError(
        "the folder that models are built in cannot be used",
        where=str(exc.filename or place),
        expected="a folder beside the repository that can be written, and that nobody deletes meanwhile",
        got=describe(exc),
        fix="run build-repo again; what was published is untouched",
    )


def disk_full(exc: BaseException, place: Path) -> BuildError:
    """No room for what is being made."""
    return BuildError(
        "the disk is full",
        where=str(getattr(exc, "filename", None) or place),
        expected="room for the artifact in .build/cache, .build/staging and the repository",
        got=describe(exc),
        fix="free some space (build-repo --clean empties .build/), or give a smaller --cache-size; "
        "what was published is untouched",
    )


def staging_gone(exc: BaseException, name: str, place: Path) -> BuildError:
    """Somebody deleted ``.build`` while we worked in it."""
    return BuildError(
        f"the folder that {name} is built in was deleted",
        where=str(place),
        expected=".build/ left alone while a build is running",
        got=describe(exc),
        fix="run build-repo again; what was published is untouched",
    )


def stopped(exc: BaseException, name: str, folder: Path) -> BuildError:
    """SystemExit, KeyboardInterrupt and their like; Ctrl-C does not come here, so they are the user's code's own."""
    return BuildError(
        f"the code of {name} raised {type(exc).__name__}, which ends a program",
        where=user_line(exc, folder),
        expected="code that returns, or raises an error that says what is wrong",
        got=describe(exc),
        fix="mend the code at the line named above",
    )


def bug(exc: BaseException) -> BuildError:
    """What nobody thought of."""
    return BuildError(
        "something went wrong that should not have",
        expected="a build, or a reason that you can mend",
        got="".join(traceback.format_exception(exc)).rstrip(),
        fix="if it is not your own code that stopped the process, this is a mistake in triton-repo: please report it",
    )
