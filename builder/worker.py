"""The other side of :mod:`builder.jobs`: a warm process that forks one child for every model.

The warm process has the frameworks imported and runs no code of the user's, so that a child starts at once, models do
not see each other, and one that crashes or is killed for its memory takes nothing else down.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any

from builder.errors import BuildError, WorkerError, describe
from serving.errors import TritonRepoError

PRELOAD = ("numpy", "jinja2", "google.protobuf.text_format", "tritonclient.grpc", "tritonclient.http")
_REAP_S = 0.2


@dataclass(frozen=True)
class Task:
    """One model to build.

    Attributes:
        spec: the spec it is in (``builder.spec.Spec``).
        name: its name.
        build_dir: the ``.build`` folder.
        staged: the model's folder in the repository of the verifying server.
        version: the version folder to make.
        threads: how many threads a framework may use.
        force: run every stage.
    """

    spec: Any
    name: str
    build_dir: Path
    staged: Path
    version: int
    threads: int
    force: bool = False


@dataclass(frozen=True)
class Built:
    """A model that is ready to be published.

    Attributes:
        staged: what to publish (``builder.publish.Staged``).
        records: the kept result of every step by name.
        cached: the steps that did not run.
    """

    staged: Any
    records: dict[str, Any]
    cached: tuple[str, ...]


def main(control_fd: int, preload: list[str]) -> None:
    """Run the warm process until the other end of its control socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that commands us
    sys.dont_write_bytecode = True  # nothing of ours in the user's folders; and no stale byte code
    for name in preload:
        with contextlib.suppress(ImportError):  # the stage that needs it says what is missing
            __import__(name)
    __import__("builder.pipeline")

    if "torch.onnx" in preload:
        _warm_up()
    baseline = frozenset(name.split(".")[0] for name in sys.modules)
    gc.collect()
    gc.freeze()  # the children share what is there now
    control = Connection(control_fd)
    children: dict[int, int] = {}
    while True:
        if wait([control], _REAP_S if children else None):
            try:
                number, task = control.recv()
            except EOFError:
                os.killpg(0, signal.SIGKILL)  # the command is gone: nothing of it may go on
            channel_fd, log_fd = recv_handle(control), recv_handle(control)
            pid = os.fork()
            if pid == 0:
                control.close()
                _child(task, Connection(channel_fd), log_fd, baseline)
            os.close(channel_fd)
            os.close(log_fd)
            children[pid] = number
        _reap(children, control)


def _warm_up() -> None:
    """Let the exporter build its tables once, for all children."""
    torch = sys.modules.get("torch")
    if torch is None:  # not installed
        return
    torch.set_num_threads(1)  # threads do not survive a fork; a child sets its own number
    from builder.exporters import warm_up
    from builder.releases import newest_opset

    with contextlib.suppress(Exception):  # then the first model pays, or says what is wrong
        warm_up(newest_opset(None, "dynamo"))


def _reap(children: dict[int, int], control: Connection) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid in children:
            with contextlib.suppress(OSError):
                control.send((children.pop(pid), os.waitstatus_to_exitcode(status)))


def _child(task: Task, channel: Connection, log_fd: int, baseline: frozenset[str]) -> None:
    """Build one model, say what became of it, and leave without the interpreter's farewell."""
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.close(log_fd)
    talk = _Channel(channel)
    try:
        answer = _answer(task, talk, baseline)
        sys.stdout.flush()
        sys.stderr.flush()
        talk.send(*answer)
    except BaseException:  # the other end is gone, or an answer that cannot be sent
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(0)


def _answer(task: Task, talk: _Channel, baseline: frozenset[str]) -> tuple[Any, ...]:
    from builder.cache import Cache
    from builder.fingerprint import Fingerprints
    from builder.keys import Subject
    from builder.pipeline import Build
    from builder.usercode import user_code

    _limit_threads(task.threads)
    cache = Cache(task.build_dir, task.spec.repository.name)
    subject = Subject(task.name, task.spec, task.spec.models[task.name], Fingerprints(task.spec.folder, cache.files))
    build = Build(subject, cache, task.staged, task.version, talk.endpoint, baseline=baseline, force=task.force)
    try:
        with user_code(task.spec.folder):
            build.run(talk)
            return "built", Built(build.to_publish(), build.kept, tuple(build.cached))
    except MemoryError as exc:
        return "failed", build.stage, out_of_memory(task.name, describe(exc))
    except BaseException as exc:
        full = _disk_full(exc)
        if full is not None:
            return "failed", build.stage, disk_full(full, task.staged)
        if isinstance(exc, TritonRepoError):
            return "failed", build.stage, exc
        return "failed", build.stage, _bug(exc)


def out_of_memory(name: str, got: str) -> WorkerError:
    """A model that needs more memory than there is."""
    return WorkerError(
        f"building {name} ran out of memory",
        expected="enough memory for the module, its export and one server beside it",
        got=got,
        fix="build fewer models at a time (--jobs 1), or on a larger machine",
    )


def _disk_full(exc: BaseException | None) -> OSError | None:
    while exc is not None:
        if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
            return exc
        exc = exc.__cause__ or exc.__context__
    return None


def disk_full(exc: OSError, place: Path) -> BuildError:
    """No room for what is being made."""
    return BuildError(
        "the disk is full",
        where=str(exc.filename or place),
        expected="room for the artifact in .build/cache, .build/staging and the repository",
        got=describe(exc),
        fix="free some space (build-repo --clean empties .build/), or give a smaller --cache-size; "
        "what was published is untouched",
    )


def _bug(exc: BaseException) -> BuildError:
    return BuildError(
        "something went wrong that should not have",
        expected="a build, or a reason that you can mend",
        got="".join(traceback.format_exception(exc)).rstrip(),
        fix="if it is not your own code that stopped the process, this is a mistake in triton-repo: please report it",
    )


def _limit_threads(threads: int) -> None:
    os.environ["TRITON_REPO_THREADS"] = str(threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


class _Channel:
    """What a child says to the process that commands it; a :class:`serving.progress.Reporter`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, *message: Any) -> None:
        with self._lock:
            self._connection.send(message)

    def endpoint(self) -> Any:
        """The running server; asked for when it is needed."""
        self.send("server?")
        kind, value = self._connection.recv()
        if kind == "error":
            raise value
        return value

    def step(self, title: str) -> AbstractContextManager[Any]:
        return self._step(title)

    @contextlib.contextmanager
    def _step(self, title: str) -> Iterator[_Step]:
        self.send("begin", title)
        step = _Step()
        try:
            yield step
        except BaseException as exc:
            self.send("end", "failed", type(exc).__name__)
            raise
        self.send("end", step.status, step.detail)

    def info(self, message: str) -> None:
        self.send("info", message)

    def warn(self, message: str) -> None:
        self.send("warn", message)

    def output(self, text: str, *, of: str = "") -> None:
        sys.stderr.write(text)


class _Step:
    def __init__(self) -> None:
        self.status = ""
        self.detail = ""

    def update(self, detail: str) -> None:
        self.detail = detail

    def done(self, status: str = "done", detail: str = "") -> None:
        self.status, self.detail = status, detail
