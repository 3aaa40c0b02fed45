"""The other side of :mod:`builder.workers.jobs`: a warm process that forks one child for every model.

The warm process has the frameworks imported and runs no code of the user's, so that a child starts at once, models do
not see each other, and one that crashes or is killed for its memory takes nothing else down.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any

from builder.errors import describe, user_line
from builder.workers import crash, failures
from builder.workers.keeper import keep
from serving.errors import TritonRepoError
from serving.watchdog import die_with_parent

PRELOAD = ("numpy", "jinja2", "google.protobuf.text_format", "tritonclient.grpc", "tritonclient.http")
_REAP_S = 0.2
# What torch and ONNX Runtime say where Python has MemoryError.
_NO_MEMORY = re.compile("can't allocate memory|std::bad_alloc|[Ff]ailed to allocate memory")


@dataclass(frozen=True)
class Task:
    """One model to build.

    Attributes:
        spec: the spec it is in (``builder.spec.Spec``).
        name: its name.
        build_dir: the ``.build`` folder.
        repository: what the verifying server reads.
        versions: the version folder to make, by the name of the model in the repository.
        threads: how many threads a framework may use.
        force: run every stage.
        search_minutes: how long a search for a recipe may take.
        allow_drop: let a variant lose more accuracy than the spec allows.
    """

    spec: Any
    name: str
    build_dir: Path
    repository: Path
    versions: dict[str, int]
    threads: int
    force: bool = False
    search_minutes: float = 10.0
    allow_drop: bool = False

    @property
    def place(self) -> Path:
        """The folder that everything of this build is in."""
        return self.repository.parent

    @property
    def crash_log(self) -> Path:
        """Where a crash leaves what was running."""
        return self.place / "crash.log"


@dataclass(frozen=True)
class Built:
    """A model whose variants are ready to be published, those that came to their end.

    Attributes:
        staged: what to publish (``builder.repository.publish.Staged``), by variant, and the plain name last: ``""``.
        engines: engines that Triton has no backend for, by variant (``builder.repository.engines.Bundle``).
        records: the kept result of every step by name.
        cached: the steps that did not run.
        failed: where a variant, or the plain name, went no further, and why (``builder.building.Failure``).
    """

    staged: dict[str, Any]
    engines: dict[str, Any]
    records: dict[str, Any]
    cached: tuple[str, ...]
    failed: dict[str, Any] = field(default_factory=dict)


def main(control_fd: int, preload: list[str], commander: int) -> None:
    """Run the warm process, below its keeper, until the other end of its control socket is closed.

    Args:
        control_fd: gives (number, task) followed by two descriptors, the child's channel and its output; (number,
            None) for a child that is to be killed. Takes (number, exit status).
        preload: modules to import.
        commander: process id of build-repo.
    """
    keep(commander, control_fd)
    sys.dont_write_bytecode = True  # nothing of ours in the user's folders; and no stale byte code
    for name in preload:
        with contextlib.suppress(ImportError):  # the stage that needs it says what is missing
            __import__(name)
    __import__("builder.pipeline")
    from builder.incremental.packages import distributions_of

    if "torch.onnx" in preload:
        _warm_up()
    distributions_of(("builder",))  # reads all of site-packages, once
    baseline = frozenset(name.split(".")[0] for name in sys.modules)
    gc.collect()
    gc.freeze()  # the children share what is there now
    control = Connection(control_fd)
    children: dict[int, int] = {}
    while True:
        if wait([control], _REAP_S if children else None):
            try:
                number, task = control.recv()
            except (EOFError, OSError):
                os._exit(0)  # the command is gone, and the keeper ends all that we started
            if task is None:
                _kill(number, children)
                continue
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
    from builder.export.exporters import warm_up
    from builder.releases import newest_opset

    with contextlib.suppress(Exception):  # then the first model pays, or says what is wrong
        warm_up(newest_opset(None, "dynamo"))


def _kill(number: int, children: dict[int, int]) -> None:
    for pid, known in children.items():
        if known == number:
            os.kill(pid, signal.SIGKILL)


def _reap(children: dict[int, int], control: Connection) -> None:
    while children:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(ended.si_pid, signal.SIGKILL)  # what it started and left behind; not yet reaped, it is still it
        _, status = os.waitpid(ended.si_pid, 0)
        if (number := children.pop(ended.si_pid, None)) is not None:
            with contextlib.suppress(OSError):
                control.send((number, os.waitstatus_to_exitcode(status)))


def _child(task: Task, channel: Connection, log_fd: int, baseline: frozenset[str]) -> None:
    """Build one model, say what became of it, and leave without the interpreter's farewell."""
    me = os.getpid()
    os.setpgid(0, 0)  # what the user's code starts is ended with us
    die_with_parent()
    output = _Output(log_fd)
    crash.watch(task.crash_log)
    for fd in (channel.fileno(), log_fd):
        os.set_inheritable(fd, False)
    talk = _Channel(channel, output)
    os.register_at_fork(after_in_child=channel.close)  # a process that the user's code forks has no part in this
    try:
        answer = _answer(task, talk, baseline)
        output.flush()
        try:
            talk.send(*answer)
        except OSError:
            raise
        except Exception as exc:  # something in it that cannot be sent
            talk.send("failed", "publish", failures.bug(exc))
    except BaseException:
        if os.getpid() == me:  # the other end is gone
            traceback.print_exc()
            output.flush()
    finally:
        os._exit(0)


def _answer(task: Task, talk: _Channel, baseline: frozenset[str]) -> tuple[Any, ...]:
    from builder.building import Build, Work
    from builder.incremental.cache import Cache
    from builder.incremental.keys import Subject, fingerprints_of
    from builder.outcome import Failure
    from builder.pipeline import STAGES
    from builder.usercode import user_code

    _limit_threads(task.threads)
    cache = Cache(task.build_dir, task.spec.repository.name)
    now = fingerprints_of(task.spec, cache.files)
    subject = Subject(task.name, task.spec, task.spec.models[task.name], now, task.allow_drop)
    work = Work(task.repository, task.versions, task.force, task.search_minutes)
    build = Build(subject, cache, work, talk.endpoint, baseline=baseline)
    try:
        with user_code(task.spec.folder):
            build.run(STAGES, talk)
            staged, engines = build.to_publish(), build.engines()
    except BaseException as exc:
        return "failed", build.stage, _explained(exc, task)
    failed = {of: Failure(each.stage, _explained(each.error, task)) for of, each in build.failed.items()}
    return "built", Built(staged, engines, build.kept, tuple(build.cached), failed)


def _explained(exc: BaseException, task: Task) -> TritonRepoError:
    """What went wrong, in our words: what lies behind it, where that is the machine's trouble."""
    for cause in _causes(exc):
        if failures.is_disk_full(cause):
            return failures.disk_full(cause, task.repository)
        if isinstance(cause, MemoryError) or _NO_MEMORY.search(str(cause)):
            return failures.out_of_memory(task.name, describe(cause), user_line(cause, task.spec.folder))
    from builder.building import Work

    if not Work(task.repository, task.versions).mark.exists():
        return failures.staging_gone(exc, task.name, task.place)
    if isinstance(exc, TritonRepoError):
        return exc
    if not isinstance(exc, Exception):
        return failures.stopped(exc, task.name, task.spec.folder)
    return failures.bug(exc)


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def _limit_threads(threads: int) -> None:
    os.environ["TRITON_REPO_THREADS"] = str(threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


class _Channel:
    """What a child says to the process that commands it; a :class:`serving.progress.Reporter`."""

    def __init__(self, connection: Connection, output: _Output) -> None:
        self._connection = connection
        self._output = output
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
        finally:
            self._output.mend()
        self.send("end", step.status, step.detail)

    def info(self, message: str) -> None:
        self.send("info", message)

    def warn(self, message: str) -> None:
        self.send("warn", message)

    def output(self, text: str, *, of: str = "") -> None:
        sys.stderr.write(text)


class _Output:
    """The child's standard output and error: one file, also where the user's code closes them."""

    def __init__(self, log_fd: int) -> None:
        self._log_fd = log_fd
        for fd in (1, 2):
            os.dup2(log_fd, fd)

    def mend(self) -> None:
        """Open again what was closed: the next file that is opened would take its number, and what is printed."""
        for fd in (1, 2):
            try:
                os.fstat(fd)
            except OSError:
                os.dup2(self._log_fd, fd)

    def flush(self) -> None:
        self.mend()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # whatever the user's code made of them
                stream.flush()


class _Step:
    def __init__(self) -> None:
        self.status = ""
        self.detail = ""

    def update(self, detail: str) -> None:
        self.detail = detail

    def done(self, status: str = "done", detail: str = "") -> None:
        self.status, self.detail = status, detail
