"""The parent's end of :mod:`perf.baselines.worker`: starts the process, orders loads, ends it however we leave."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from perf.errors import BaselineError
from perf.inputs import ModelSpec, RequestData
from serving.pipes import readable

ROOT = Path(__file__).parents[2]
_GRACE_S = 2.0
_OPEN_S = 600.0
_TAIL_CHARACTERS = 1500
# Our own Python: this copy of the package comes first, as it does here. Another one: its own packages come first.
_OURS = "import sys; sys.path[0] = {root!r}; from {module} import main; sys.exit(main())"
_THEIRS = "import sys; sys.path.append({root!r}); from {module} import main; sys.exit(main())"


def python_command(module: str, python: Path | None = None) -> list[str]:
    """The arguments that run ``main()`` of a module of ours.

    Args:
        python: an interpreter with other packages than ours; ours by default.
    """
    if python is None:
        return [sys.executable, "-c", _OURS.format(root=str(ROOT), module=module)]
    return [str(python), "-I", "-c", _THEIRS.format(root=str(ROOT), module=module)]


def write_requests(spec: ModelSpec, data: RequestData, batch_size: int, path: Path) -> int:
    """Write requests as a client would send them, whole; gives how many there are.

    A batch holds a request and those after it, as perf_analyzer's do.
    """
    arrays: dict[str, Any] = {}
    count = len(data.requests)
    for number in range(count):
        for tensor in spec.inputs:
            rows = [data.requests[(number + place) % count][tensor.name] for place in range(batch_size)]
            whole = np.stack(rows) if spec.max_batch_size else rows[0]
            arrays[f"{number}/{tensor.name}"] = _as_text(whole) if whole.dtype.kind in "OS" else whole
    np.savez(path, **arrays)
    return count


def _as_text(array: Any) -> Any:
    flat = [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in array.ravel()]
    return np.array(flat, dtype=str).reshape(array.shape)


class Child:
    """One process that says JSON lines, as a context manager.

    Args:
        command: its arguments.
        log: a file for what it prints to stderr.
        what: it is, for messages.
    """

    def __init__(self, command: Sequence[str], log: Path, what: str) -> None:
        self.command = tuple(command)
        self._log, self._what = log, what
        self._said, self._lines = b"", deque[str]()
        self._gone: BaselineError | None = None
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                start_new_session=True,  # Ctrl-C in the terminal is for us alone; we end it
            )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self, grace_s: float = _GRACE_S) -> None:
        """Let it go, and make it go."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(OSError):
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace_s)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def order(self, message: Mapping[str, Any]) -> None:
        """Say a line to it."""
        assert self._process.stdin is not None
        if self._gone is not None:
            return
        with contextlib.suppress(BrokenPipeError):  # it is gone: what it said last, or its log, says why
            data = memoryview(json.dumps(message).encode() + b"\n")
            while data:
                data = data[os.write(self._process.stdin.fileno(), data) :]

    def hear(self, timeout_s: float = _OPEN_S) -> dict[str, Any]:
        """The next line.

        Raises:
            BaselineError: it says that something failed, ended, or said nothing for so long.
        """
        message = self._next(timeout_s)
        if (error := message.get("error")) is not None:
            raise self._failure(error)
        return message

    def until(self, key: str, timeout_s: float, at: Mapping[str, Callable[[], None]] | None = None) -> Any:
        """Wait for the line with a key; on the way call what is to be done at others."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            message = self.hear(max(0.0, deadline_s - time.monotonic()))
            for name in message:
                if at is not None and name in at:
                    at[name]()
            if key in message:
                return message[key]

    def _next(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline_s = time.monotonic() + timeout_s
        while not self._lines:
            if self._gone is not None:
                raise self._gone
            handle = self._process.stdout.fileno()
            if not readable(handle, max(0.0, deadline_s - time.monotonic())):
                got = f"nothing within {timeout_s:.0f} s"
                fix = "run it again on a quieter machine, or leave this baseline out"
                what = f"{self._what} did not answer and was ended"
                self._gone = BaselineError(what, where=self._what, expected="an answer", got=got, fix=fix)
                self.end(0.0)  # what it would say later is no answer to what is asked later
                continue
            chunk = os.read(handle, 1 << 16)
            if not chunk:
                self._gone = self._ended()
                continue
            *lines, self._said = (self._said + chunk).split(b"\n")
            self._lines.extend(line.decode("utf-8", "replace") for line in lines)
        found: dict[str, Any] = json.loads(self._lines.popleft())
        return found

    def _failure(self, error: Mapping[str, Any]) -> BaselineError:
        if "missing" in error:
            return missing(str(error["missing"]), self._what)
        parts = {key: str(error[key]) for key in ("expected", "got", "fix") if error.get(key)}
        return BaselineError(str(error["what"]), where=str(error.get("where") or self._what), **parts)

    def _ended(self) -> BaselineError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        said = self._log.read_text(errors="replace").strip()[-_TAIL_CHARACTERS:] if self._log.exists() else ""
        status = self._process.returncode
        fix = "SIGKILL is mostly the kernel for want of memory: smaller --batch-size, or without --baseline"
        return BaselineError(
            "the process of the baseline ended",
            where=self._what,
            got=f"exit status {status}" + (f"; it said: {said}" if said else ""),
            fix=fix if status == -9 else "run it again with --output DIR and see stderr.txt beside its raw files",
        )


def missing(package: str, what: str) -> BaselineError:
    """A package that a baseline needs is not there."""
    return BaselineError(
        f"{package} is not installed",
        where=what,
        expected=f"{package}, which this baseline runs",
        got=f"no module named {package}",
        fix="pip install 'triton-repo[torch]'" if package in _TORCH else "pip install 'triton-repo[baseline]'",
    )


_TORCH = ("torch", "safetensors", "transformers")
