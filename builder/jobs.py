"""Models built side by side: how many at once, each in a process of its own, with a server per place.

This side starts the warm process (:mod:`builder.worker`), hands it models, runs the servers that verify them, and
reports. It imports no framework. All that the warm process ever starts is in one process group, so that an
interruption ends it at once.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Any

from builder.errors import WorkerError
from builder.host import available_memory_bytes
from builder.verify.serve import Endpoint
from builder.worker import Built, Task, out_of_memory
from serving import Client, Server
from serving.errors import TritonRepoError
from serving.progress import Reporter

JOB_BYTES = 1_500_000_000
"""What one small model needs at once: the frameworks, its export, and a server with one model (measured: 1.1 GB)."""
ARTIFACT_FACTOR = 2.5
_SHARE = 0.8
_BOOT = "import sys; sys.path[:] = {path!r}; from builder.worker import main; main({fd}, {preload!r})"
_EXIT_S = 2.0


@dataclass(frozen=True)
class Job:
    """A model to build and what it will need.

    Attributes:
        key: the caller's own name for it.
        make: gives what the child is told, for the repository of a place and a number of threads.
        need_bytes: how much memory it may take.
    """

    key: Any
    make: Callable[[Path, int], Task]
    need_bytes: int


@dataclass(frozen=True)
class Done:
    """What became of a job: ``built``, or ``error`` at ``stage``; what it printed, and how long it took."""

    job: Job
    built: Built | None = None
    stage: str = ""
    error: TritonRepoError | None = None
    output: str = ""
    seconds: float = 0.0


def default_jobs(jobs: Sequence[Job]) -> int:
    """As many as there are processors, as fit into memory, as there are models."""
    processors = len(os.sched_getaffinity(0))
    memory = max(1, int(available_memory_bytes() * _SHARE // JOB_BYTES))
    return max(1, min(processors, memory, len(jobs)))


def run_jobs(
    jobs: Sequence[Job], *, places: int, preload: Sequence[str], staging: Path, reporter: Reporter
) -> Generator[Done, None, None]:
    """Build models side by side; each is given back when it is done, its staging there until the next is asked for.

    Args:
        jobs: what to build, begun in this order as memory allows.
        places: how many at once.
        preload: modules that the warm process imports.
        staging: an empty folder.
        reporter: hears of every step; called from several threads.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // places)
    answers: queue.SimpleQueue[tuple[_Place, Done]] = queue.SimpleQueue()
    warm = _Warm(preload, threads)
    crew = [_Place(number, staging, warm, reporter, threads, answers) for number in range(places)]
    budget = available_memory_bytes() * _SHARE
    waiting, free, running = list(jobs), list(crew), dict[_Place, Job]()
    finished = False
    try:
        while waiting or running:
            while waiting and free:
                left = budget - sum(job.need_bytes for job in running.values())
                fitting = [job for job in waiting if job.need_bytes <= left or not running]
                if not fitting:
                    break
                place = free.pop(0)
                running[place] = fitting[0]
                waiting.remove(fitting[0])
                place.inbox.put(fitting[0])
            place, done = answers.get()
            del running[place]
            yield done
            free.insert(0, place)  # the place that has a server already
        finished = True
    finally:
        if not finished:
            warm.kill()
        for place in crew:
            place.end(at_once=not finished)
        for place in crew:
            place.join()
        warm.kill()


class _Warm:
    """The warm process, started when the first model is built."""

    def __init__(self, preload: Sequence[str], threads: int) -> None:
        self._preload = list(preload)
        self._threads = threads
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Connection | None = None
        self._count = 0
        self._killed = False
        self._exits: dict[int, int] = {}
        self._exited = threading.Condition()

    def fork(self, task: Task, log: Path) -> tuple[int, Connection]:
        """Begin a model in a child; its number and the connection to it."""
        ours, theirs = socket.socketpair()
        with self._lock, theirs, log.open("wb") as output:
            control = self._started()
            self._count += 1
            try:
                control.send((self._count, task))
                assert self._process is not None
                send_handle(control, theirs.fileno(), self._process.pid)
                send_handle(control, output.fileno(), self._process.pid)
            except OSError as exc:
                ours.close()
                raise WorkerError("the process that builds models is gone", got=str(exc)) from exc
            return self._count, Connection(ours.detach())

    def _started(self) -> Connection:
        if self._killed:
            raise WorkerError("the build was interrupted")
        if self._control is None:
            ours, theirs = socket.socketpair()
            code = _BOOT.format(path=sys.path, fd=theirs.fileno(), preload=self._preload)
            environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TRITON_REPO_THREADS": str(self._threads)}
            environment.setdefault("OMP_NUM_THREADS", str(self._threads))
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=sys.stderr if _has_fileno(sys.stderr) else subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,
                )
            self._control = Connection(ours.detach())
            threading.Thread(target=self._hear_exits, args=[self._control], daemon=True).start()
        return self._control

    def _hear_exits(self, control: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                number, status = control.recv()
                with self._exited:
                    self._exits[number] = status
                    self._exited.notify_all()

    def exit_status(self, number: int) -> int | None:
        """How a child ended; None where that is not known."""
        with self._exited:
            self._exited.wait_for(lambda: number in self._exits, timeout=_EXIT_S)
            return self._exits.get(number)

    def kill(self) -> None:
        """End the warm process and all its children, at once."""
        self._killed = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _has_fileno(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True


@dataclass
class _Place:
    """Where one model at a time is built: a thread that talks with its child, and a server that verifies it."""

    number: int
    staging: Path
    warm: _Warm
    reporter: Reporter
    threads: int
    answers: queue.SimpleQueue[tuple[_Place, Done]]
    inbox: queue.SimpleQueue[Job | None] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self._server: Server | None = None
        self._serving = threading.Lock()
        self._at_once = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def __hash__(self) -> int:
        return id(self)

    @property
    def repository(self) -> Path:
        """What its server reads."""
        return self.staging / f"{self.number}" / "repository"

    def end(self, *, at_once: bool) -> None:
        """Let it stop its server; ``at_once`` kills it."""
        self._at_once = at_once
        self.inbox.put(None)
        if at_once:
            self._stop_server()

    def join(self) -> None:
        """Wait for it."""
        self._thread.join(_EXIT_S if self._at_once else None)

    def _work(self) -> None:
        try:
            while (job := self.inbox.get()) is not None:
                self.answers.put((self, self._build(job)))
        finally:
            self._stop_server()

    def _build(self, job: Job) -> Done:
        started = time.perf_counter()
        try:
            self.repository.mkdir(parents=True, exist_ok=True)
            task = job.make(self.repository, self.threads)
            log = self.repository.parent / "output.log"
            number, channel = self.warm.fork(task, log)
            if self._server is None:
                threading.Thread(target=self._warm_up, daemon=True).start()
            with channel:
                done = self._follow(job, task, channel, number)
            return replace(done, output=log.read_text(errors="replace"), seconds=time.perf_counter() - started)
        except TritonRepoError as error:
            return Done(job, stage="source", error=error)
        except OSError as exc:
            reason = WorkerError("the build could not be begun", where=str(self.repository), got=str(exc))
            return Done(job, stage="source", error=reason)

    def _follow(self, job: Job, task: Task, channel: Connection, number: int) -> Done:
        """Hear what the child says until it is done."""
        with contextlib.ExitStack() as shown:
            step: Any = None
            stage = "source"
            while True:
                try:
                    kind, *rest = channel.recv()
                except (EOFError, OSError):
                    if step is not None:
                        step.done("failed", "the process died")
                    return Done(job, stage=stage, error=self._death(task, self.warm.exit_status(number)))
                if kind == "begin":
                    stage = rest[0].rpartition(": ")[2]
                    step = shown.enter_context(self.reporter.step(rest[0]))
                elif kind == "end":
                    step.done(*rest)
                    shown.close()
                elif kind == "server?":
                    channel.send(self._endpoint())
                elif kind in ("info", "warn"):
                    getattr(self.reporter, kind)(*rest)
                elif kind == "built":
                    return Done(job, rest[0])
                else:
                    return Done(job, stage=rest[0], error=rest[1])

    def _death(self, task: Task, status: int | None) -> WorkerError:
        if status == -signal.SIGKILL:
            return out_of_memory(task.name, "the process was killed (SIGKILL), as the kernel does when memory runs out")
        name = signal.Signals(-status).name if status is not None and status < 0 else f"exit status {status}"
        return WorkerError(
            f"the process that built {task.name} died",
            expected="an answer",
            got=name,
            fix="what it printed last is above; a crash like this comes from native code: the module's, or a library's",
        )

    def _endpoint(self) -> tuple[str, Any]:
        """The place's server, started when it is first needed or when the model before took it down."""
        try:
            server = self._server
            if server is not None and not Client(f"http://{server.http_url}").is_live():
                self._stop_server()
            with self._serving:
                server = self._started()
            name = f"{server.runtime.kind} Triton {server.runtime.version}".strip()
            return "server", Endpoint(server.http_url, server.grpc_url, name)
        except TritonRepoError as error:
            return "error", error

    def _started(self) -> Server:
        if self._server is None:
            log = self.repository.parent / "server.log"
            # Our configurations are whole; completing them would cost a second process and a second for each model.
            whole = ["--disable-auto-complete-config"]
            server = Server(self.repository, model_control_mode="explicit", log_path=log, extra_args=whole)
            server.start()
            self._server = server
        return self._server

    def _warm_up(self) -> None:
        """Start the server while the model is loaded and exported; a failure shows when it is asked for."""
        with contextlib.suppress(TritonRepoError), self._serving:
            self._started()

    def _stop_server(self) -> None:
        with self._serving:
            server, self._server = self._server, None
        if server is not None:
            server.stop(at_once=True)  # it has no model and no request left, or nobody waits for them
