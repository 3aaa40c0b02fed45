"""Models built side by side: how many at once, each in a process of its own, with a server per place.

This side has the models built by children of a warm process (:mod:`builder.workers.warm`), runs the servers that verify
them (:mod:`builder.workers.verifying`), and reports. It imports no framework. An interruption ends all of it at once.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from builder.errors import WorkerError
from builder.host import available_memory_bytes
from builder.workers import crash, failures
from builder.workers.interrupts import held_back
from builder.workers.verifying import VerifyingServer
from builder.workers.warm import Warm
from builder.workers.worker import Built, Task
from serving.errors import TritonRepoError
from serving.progress import Reporter

JOB_BYTES = 1_500_000_000
"""What one small model may need: the frameworks, its export, a server. Two at once were seen to take 1.0 GB in all."""
ARTIFACT_FACTOR = 2.5
_SHARE = 0.8
_EXIT_S = 2.0
_LOOK_S = 0.5
_MOST_PRINTED_BYTES = 1 << 20


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
    warm = Warm(preload, threads)
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
        with held_back():
            _end(crew, warm, at_once=not finished)


def _end(crew: Sequence[_Place], warm: Warm, *, at_once: bool) -> None:
    """Nothing is left afterwards: no process, no server, no shared memory."""
    for place in crew:
        place.end()
    warm.kill()  # where all is done, nothing runs in it
    enders = [threading.Thread(target=place.stop_server) for place in crew]
    for thread in enders:
        thread.start()
    deadline = time.monotonic() + _EXIT_S
    for join in [each.join for each in enders] + [place.join for place in crew]:
        join(max(0.0, deadline - time.monotonic()) if at_once else None)


@dataclass
class _Place:
    """Where one model at a time is built: a thread that talks with its child, and a server that verifies it."""

    number: int
    staging: Path
    warm: Warm
    reporter: Reporter
    threads: int
    answers: queue.SimpleQueue[tuple[_Place, Done]]
    inbox: queue.SimpleQueue[Job | None] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self._server = VerifyingServer(self.repository, self.repository.parent / "server.log")
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def __hash__(self) -> int:
        return id(self)

    @property
    def repository(self) -> Path:
        """What its server reads."""
        return self.staging / f"{self.number}" / "repository"

    def end(self) -> None:
        """Let it stop, once its job is done."""
        self.inbox.put(None)

    def stop_server(self) -> None:
        """Kill its server."""
        self._server.end()

    def join(self, timeout_s: float | None) -> None:
        """Wait for it."""
        self._thread.join(timeout_s)

    def _work(self) -> None:
        try:
            while (job := self.inbox.get()) is not None:
                self.answers.put((self, self._build(job)))
        finally:
            self._server.end()

    def _build(self, job: Job) -> Done:
        started = time.perf_counter()
        log = self.repository.parent / "output.log"
        try:
            self.repository.mkdir(parents=True, exist_ok=True)
            task = job.make(self.repository, self.threads)
            number, channel = self.warm.fork(task, log)
            if not self._server.is_there:
                threading.Thread(target=self._server.warm_up, daemon=True).start()
            with channel:
                done = self._follow(job, task, channel, number)
        except TritonRepoError as error:
            done = Done(job, stage="source", error=error)
        except OSError as exc:
            done = Done(job, stage="source", error=failures.of_staging(exc, self.repository))
        except Exception as exc:  # whatever it is, the other models are built
            done = Done(job, stage="source", error=failures.bug(exc))
        return replace(done, output=_printed(log), seconds=time.perf_counter() - started)

    def _follow(self, job: Job, task: Task, channel: Connection, number: int) -> Done:
        """Hear what the child says until it is done."""
        with contextlib.ExitStack() as shown:
            step: Any = None
            stage, asks_server = "source", False
            while True:
                try:
                    while not channel.poll(_LOOK_S):
                        if asks_server:
                            self._server.look()
                        if self.warm.has_ended(number) and not channel.poll(0):
                            raise EOFError  # something that it started holds its end of the channel open
                    kind, *rest = channel.recv()
                except (EOFError, OSError):
                    if step is not None:
                        step.done("failed", "interrupted" if self.warm.killed else "the process died")
                    return Done(job, stage=stage, error=self._death(task, number))
                if kind == "begin":
                    stage = rest[0].rpartition(": ")[2]
                    step = shown.enter_context(self.reporter.step(rest[0]))
                elif kind == "end":
                    step.done(*rest)
                    shown.close()
                elif kind == "server?":
                    asks_server = True
                    with contextlib.suppress(OSError):  # it died while it waited: that is heard next
                        channel.send(self._endpoint())
                elif kind in ("info", "warn"):
                    getattr(self.reporter, kind)(*rest)
                elif kind == "built":
                    return Done(job, self._explained(task, rest[0]))
                else:
                    stage, error = rest
                    return Done(job, stage=stage, error=self._server.explained(task.name, error))

    def _explained(self, task: Task, built: Built) -> Built:
        """With what the server's end explains."""
        failed = {
            of: replace(each, error=self._server.explained(task.name, each.error)) for of, each in built.failed.items()
        }
        return replace(built, failed=failed)

    def _death(self, task: Task, number: int) -> WorkerError:
        status = self.warm.exit_status(number)
        if self.warm.killed:
            return failures.interrupted()
        if status == -signal.SIGKILL:
            killed = "the process was killed (SIGKILL), as the kernel does when memory runs out"
            return failures.out_of_memory(task.name, killed)
        if self.warm.was_orphaned(number):
            return failures.no_warm_process(status)
        where = crash.place(task.crash_log, task.spec.folder)
        return failures.death(task.name, status, where)

    def _endpoint(self) -> tuple[str, Any]:
        try:
            return "server", self._server.endpoint()
        except TritonRepoError as error:
            return "error", error
        except OSError as exc:  # its log cannot be written
            return "error", failures.of_staging(exc, self.repository)


def _printed(log: Path) -> str:
    """What the user's code printed, the middle left out where it is very much."""
    try:
        with log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            if size <= _MOST_PRINTED_BYTES:
                return stream.read().decode(errors="replace")
            head = stream.read(_MOST_PRINTED_BYTES // 2).decode(errors="replace")
            stream.seek(-(_MOST_PRINTED_BYTES // 2), os.SEEK_END)
            tail = stream.read().decode(errors="replace")
    except OSError:  # it was deleted, and is missed by nobody
        return ""
    return f"{head}\n[... {size - _MOST_PRINTED_BYTES} bytes left out ...]\n{tail}"
