"""Progress of long work: what, how long so far, built or cached. Libraries report, only the terminal decides how.

Code that works takes a :class:`Reporter` (default :data:`SILENT`) and wraps its steps; a command passes a
:class:`Progress`. Both are cheap, so every step may be wrapped.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

WORTH_SAYING_S = 1.0
_COLOURS = {"failed": "red", "cached": "dim", "built": "green"}


class Step(Protocol):
    """One piece of work that is under way."""

    def update(self, detail: str) -> None:
        """Say what is being done just now (shown on a terminal only); further lines stand below the step's."""

    def done(self, status: str = "done", detail: str = "") -> None:
        """Say how it ended (``built``, ``cached``, ``failed``, ...); the step still ends with its ``with`` block."""


class Reporter(Protocol):
    """Where a library says what it is doing."""

    def step(self, title: str) -> AbstractContextManager[Step]:
        """A step, for a ``with`` block; one that raises is reported as failed."""

    def info(self, message: str) -> None:
        """One line worth knowing."""

    def warn(self, message: str) -> None:
        """One line the user should act on."""

    def output(self, text: str, *, of: str = "") -> None:
        """What a user's own code printed, whole; ``of`` says whose it is where there are several."""


class _SilentStep:
    def update(self, detail: str) -> None:
        pass

    def done(self, status: str = "done", detail: str = "") -> None:
        pass


class _Silent:
    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Step]:
        yield _SilentStep()

    def info(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        pass

    def output(self, text: str, *, of: str = "") -> None:
        pass


SILENT: Reporter = _Silent()
"""Reports nothing: the default of every library function."""


class _LiveStep:
    """State of one step; ``detail`` and ``status`` change while it runs."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.detail = ""
        self.status = ""
        self.started_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s

    def update(self, detail: str) -> None:
        self.detail = detail

    def done(self, status: str = "done", detail: str = "") -> None:
        self.status, self.detail = status, detail

    def line(self) -> str:
        parts = [self.title, self.status or "done", f"{self.elapsed_s:.1f} s"]
        return "  ".join(parts) + (f"  {self.detail}" if self.detail else "")


class Progress:
    """A :class:`Reporter` on stderr: live lines on a terminal, plain ones elsewhere, nothing with ``quiet``.

    Plain lines are for logs: a step that is still running after a second says so once, and once more when it ends;
    shorter ones say nothing unless ``verbose``. Thread-safe; steps may nest.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._verbose = verbose
        self._lock = threading.RLock()
        self._steps: list[_LiveStep] = []
        self._live: Live | None = None
        self._console: Console | None = None
        if not quiet and self._stream.isatty():
            from rich.console import Console

            console = Console(file=self._stream, highlight=False)
            self._console = None if console.is_dumb_terminal else console

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show a step while the block runs, and how it ended."""
        step = _LiveStep(title)
        if self._quiet:
            yield step
            return
        timer = threading.Timer(WORTH_SAYING_S, self._plain, [f"{title} ..."]) if self._console is None else None
        self._begin(step, timer)
        try:
            yield step
        except BaseException as error:
            if step.status != "failed":
                interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
                step.done("failed", "interrupted" if interrupted else type(error).__name__)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            self._end(step)

    def info(self, message: str) -> None:
        """One line, unless quiet."""
        if not self._quiet:
            self._say(message)

    def warn(self, message: str) -> None:
        """One line that begins with ``warning:``, unless quiet."""
        if not self._quiet:
            self._say(f"warning: {message}", "yellow")

    def output(self, text: str, *, of: str = "") -> None:
        """The lines as they are, each after ``of: `` where that is given; said also when quiet."""
        lines = [f"{of}: {line}" if of else line for line in text.splitlines()]
        if lines:
            self._say("\n".join(lines))

    def _begin(self, step: _LiveStep, timer: threading.Timer | None) -> None:
        if timer is not None:
            timer.daemon = True
            timer.start()
            return
        with self._lock:
            self._steps.append(step)
            if self._live is None:
                from rich.live import Live

                # stdout is for results: it must not be redirected through this console.
                self._live = Live(
                    get_renderable=self._render,
                    console=self._console,
                    transient=True,
                    redirect_stdout=False,
                    refresh_per_second=8,
                )
                self._live.start()

    def _end(self, step: _LiveStep) -> None:
        with self._lock:
            if step in self._steps:
                self._steps.remove(step)
            if self._live is not None and not self._steps:
                self._live.stop()
                self._live = None
        on_terminal = self._console is not None
        if (
            step.elapsed_s >= WORTH_SAYING_S
            or self._verbose
            or step.status == "failed"
            or (on_terminal and step.status)
        ):
            self._say(step.line(), _COLOURS.get(step.status, ""))

    def _say(self, message: str, style: str = "") -> None:
        if self._console is None:
            self._plain(message)
        else:
            self._console.print(message, style=style, markup=False, soft_wrap=True)

    def _plain(self, message: str) -> None:
        with self._lock, contextlib.suppress(ValueError):  # a stream that was closed meanwhile
            self._stream.write(message + "\n")
            self._stream.flush()

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        with self._lock:
            steps = list(self._steps)
        lines = []
        for depth, step in enumerate(steps):
            line = Text(no_wrap=True, overflow="ellipsis")
            line.append("  " * depth + step.title, style="bold")
            line.append(f"  {step.elapsed_s:.1f} s", style="cyan")
            first, *below = step.detail.split("\n")
            line.append(f"  {first}" if first else "", style="dim")
            lines.append(line)
            lines += [Text("  " * (depth + 1) + text, no_wrap=True, overflow="ellipsis") for text in below]
        return Group(*lines)
