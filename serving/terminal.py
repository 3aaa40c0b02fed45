"""The ground all commands stand on: one look, one way to fail, one way to say the versions.

A ``cli.py`` makes its app with :func:`create_app`, takes the shared options (:data:`FormatOption`, :data:`QuietOption`,
:data:`VerboseOption`, :data:`VersionOption`), and its ``main`` is ``sys.exit(run(app))``. Results go to stdout, all
else to stderr. :class:`Progress` and :class:`Reporter` live in :mod:`serving.progress` and are named here too.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import json
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from enum import Enum
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from serving.errors import TritonRepoError, UsageError
from serving.progress import SILENT, Progress, Reporter, Step
from serving.runtime import TRITON, local_tritonserver

__all__ = [
    "SILENT",
    "FormatOption",
    "OutputFormat",
    "Progress",
    "QuietOption",
    "Reporter",
    "Step",
    "VerboseOption",
    "VersionOption",
    "configure_logging",
    "create_app",
    "emit",
    "epilog",
    "parse_size",
    "report",
    "run",
    "versions",
    "warn",
]

EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_TERMINATED = 143  # 128 + SIGTERM

_DISTRIBUTIONS = ("triton-repo", "torch", "onnx", "onnxruntime", "tensorrt", "tritonclient")
_wants_json = False


class OutputFormat(str, Enum):
    """How a command writes its result to stdout."""

    TEXT = "text"
    JSON = "json"

    @property
    def is_json(self) -> bool:
        """True when a program reads the answer."""
        return self is OutputFormat.JSON


def create_app(
    name: str, *, help: str, examples: Sequence[str] = (), cls: type[TyperGroup] | None = None
) -> typer.Typer:
    """A typer app with the family's settings.

    Args:
        name: the command as typed (``serve-repo``).
        help: first line of ``--help``.
        examples: command lines shown under ``--help``; for a single-command app pass them to :func:`epilog` too.
        cls: of a group, where typer's own will not do (:mod:`serving.default_command`).
    """
    return typer.Typer(
        name=name,
        cls=cls,
        help=help,
        epilog=epilog(examples),
        add_completion=False,
        no_args_is_help=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def epilog(examples: Sequence[str]) -> str | None:
    """The examples as the last block of ``--help``: ``@app.command(epilog=epilog([...]))``."""
    if not examples:
        return None
    # Each example is a paragraph of its own, or the help would flow them into one; brackets are not rich's markup here.
    return "Examples:\n\n" + "\n\n".join(example.replace("[", "\\[") for example in examples)


def versions() -> dict[str, str | None]:
    """Versions of everything that decides an answer, None for what is not installed; imports none of it."""
    found: dict[str, str | None] = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    own = local_tritonserver()
    found["tritonserver"] = f"as {own} says" if own else f"{TRITON} (embedded)"
    found["python"] = sys.version.split()[0]
    return found


def _print_versions(value: bool) -> None:
    if not value:
        return
    found = versions()
    if _wants_json:
        typer.echo(json.dumps(found))
    else:
        width = max(map(len, found))
        for name, version in found.items():
            typer.echo(f"{name:<{width}}  {version or 'not installed'}")
    raise typer.Exit


FormatOption = Annotated[
    OutputFormat, typer.Option("--format", help="What to write to stdout: text for people, json for programs.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.")]
VerboseOption = Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say more; twice for debugging.")]
VersionOption = Annotated[
    bool,
    typer.Option("--version", is_eager=True, callback=_print_versions, help="Show the versions that matter and exit."),
]


def configure_logging(verbose: int, *, quiet: bool = False) -> None:
    """Send our packages' log records to stderr: warnings, with ``-v`` info, with ``-vv`` debug, with ``-q`` errors."""
    level = logging.ERROR if quiet else {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    for name in ("serving", "perf", "builder"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False


def emit(data: Any, text: str = "", *, output: OutputFormat = OutputFormat.TEXT) -> None:
    """Write a result to stdout: ``text``, or with ``--format json`` the same as one JSON document."""
    if output.is_json:
        typer.echo(json.dumps(data, default=str))
    elif text:
        typer.echo(text)


def warn(message: str) -> None:
    """Write ``warning: message`` to stderr."""
    typer.secho(f"warning: {message}", err=True, fg="yellow")


def run(app: typer.Typer, argv: Sequence[str] | None = None) -> int:
    """Run a command and give its exit status; a user's mistake is a message, never a traceback.

    Args:
        app: the command.
        argv: arguments without the program name; those of the process by default.

    Returns:
        0 or what the command returned; the error's ``exit_code``; 2 for wrong arguments; 130 after Ctrl-C; 143 after
        SIGTERM (context managers are left in order in both cases).
    """
    global _wants_json
    args = list(sys.argv[1:] if argv is None else argv)
    _wants_json = _asks_for_json(args)
    try:
        with _sigterm_unwinds():
            result = app(args=args, prog_name=app.info.name, standalone_mode=False)
        if result == EXIT_INTERRUPTED:  # typer since 0.26 swallows the KeyboardInterrupt itself
            raise KeyboardInterrupt
        return result if isinstance(result, int) and not isinstance(result, bool) else 0
    except TritonRepoError as error:
        return report(error)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `serve-repo ... | head`: the reader left, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_TERMINATED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        # typer's usage errors, by their shape: the class moved between typer's releases.
        if not hasattr(error, "format_message"):
            raise
        return report(_usage_error(error))


def parse_size(text: str, *, where: str = "") -> int:
    """``64MB``, ``1GiB``, ``4096``: bytes.

    Args:
        text: what was given.
        where: the option it was given to, for the message.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if match is None:
        raise UsageError(
            "not a size",
            where=where,
            expected="64MB, 1GiB or a number of bytes",
            got=repr(text),
            fix="write a number and its unit, or bytes alone: " + f"{where} 64MB".strip(),
        )
    unit: int = (1024 if match[3] else 1000) ** " kmgt".index(match[2] or " ")
    return round(float(match[1]) * float(unit))


def report(error: TritonRepoError) -> int:
    """Say an error (stderr, or a JSON object on stdout with ``--format json``) and give its exit status."""
    if _wants_json:
        typer.echo(json.dumps(error.as_dict()))
    else:
        typer.secho("error: ", err=True, fg="red", nl=False)
        typer.echo(str(error), err=True)
    return error.exit_code


def _usage_error(error: Any) -> UsageError:
    context = getattr(error, "ctx", None)
    what = error.format_message().replace("Value error, ", "").rstrip(".")
    return UsageError(what, fix=f"{context.command_path} --help" if context is not None else "")


def _asks_for_json(args: Sequence[str]) -> bool:
    """Known before parsing, so that wrong arguments are reported in the format that was asked for."""
    own = args[: args.index("--")] if "--" in args else args
    return "--format=json" in own or any(a == "--format" and b == "json" for a, b in itertools.pairwise(own))


@contextlib.contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Let SIGTERM leave through context managers, as Ctrl-C does, so that servers and locks are given back."""

    def leave(signum: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: a second one must not cut the clean-up short
        raise SystemExit(EXIT_TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
