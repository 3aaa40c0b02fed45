"""Runs perf_analyzer: arguments as a list -> a process of its own -> raw files. Reads nothing but its failures.

perf_analyzer throws a measurement away (exit status 2, no files) when its windows disagree. So it is given a stability
limit that always holds and exactly :data:`WINDOWS` windows: it takes a known time, always leaves its files, and whether
the windows agree is judged from them (see ``stability.py``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from perf.binary import Binary
from perf.environment import usable_cores
from perf.failures import explain, not_started
from perf.punctual import punctual, wake_up_us
from perf.schedule import Schedule
from perf.usage import cpu_seconds
from serving.interrupts import uninterrupted
from serving.watchdog import die_with_parent

WINDOWS = 3
"""How many windows perf_analyzer compares; its figures are over these three together."""

WINDOW_STRETCH = 1.2
"""perf_analyzer measures this much longer than the interval it is given."""

CROWDED_PER_CORE = 8
"""Requests under way for each core of this machine from which on few threads send them all. With a thread for each (as
perf_analyzer has it) 48 on two cores kept it from ending its windows: now and then it did not end for minutes."""

INTERVALS = "intervals.txt"
CSV, EXPORT, INPUTS = "perf_analyzer.csv", "profile_with_tensors.json", "../inputs.json"
STDOUT, STDERR = "stdout.txt", "stderr.txt"
_ANY_SPREAD_PERCENT = 1_000_000
_BEGINS = b"Measurement Settings"
_GRACE_S = 1.0
_POLL_S = 0.03
_READ_BYTES = 1 << 18


@dataclass(frozen=True)
class Load:
    """One run of perf_analyzer.

    Attributes:
        address: ``host:port`` of the protocol that is used.
        concurrency: requests under way at once; None where a schedule says when each leaves.
        tls: the connection is encrypted.
        ca_file: certificates to trust then; None for those of the system.
        streaming: over a gRPC stream, for models that answer several times.
        sequence_length: requests in each sequence of a stateful model; None for as many as there are in the data.
        schedule: when each request is due; written beside the raw files as :data:`INTERVALS`.
        window_s: length of one window, as it is wanted in the end (see :data:`WINDOW_STRETCH`).
        windows: :data:`WINDOWS` for a measurement; fewer for a warm-up, after which perf_analyzer finds its result
            unstable and leaves no files.
        export: write every request's timestamps (and, unasked, tensors) to :data:`EXPORT`.
    """

    model: str
    address: str
    protocol: Literal["http", "grpc"]
    concurrency: int | None
    batch_size: int
    shared_memory: Literal["none", "system", "cuda"]
    window_s: float
    windows: int = WINDOWS
    export: bool = True
    schedule: Schedule | None = None
    tls: bool = False
    ca_file: Path | None = None
    streaming: bool = False
    sequence_length: int | None = None

    @property
    def is_warm_up(self) -> bool:
        """True when no result is expected."""
        return self.schedule is None and self.windows < WINDOWS

    @property
    def is_crowded(self) -> bool:
        """True where a thread for each request under way would leave perf_analyzer's own clock no processor time."""
        if self.schedule is not None or self.streaming or self.sequence_length is not None:
            return False
        return (self.concurrency or 0) > CROWDED_PER_CORE * usable_cores()

    @property
    def passes(self) -> int:
        """How many windows it prints: all requests of a schedule are one."""
        return 1 if self.schedule is not None else self.windows

    @property
    def spelled(self) -> str:
        """The load in words."""
        if self.schedule is not None:
            return f"{self.schedule.rate_per_s:g} requests/s ({self.schedule.distribution})"
        return f"concurrency {self.concurrency}"


@dataclass(frozen=True)
class Output:
    """What a run left: the command, the folder with its files, and what it printed.

    Attributes:
        client_s: processor time it had taken at the end of its last window.
        wake_up_us: how late even its most punctual request left, where a schedule said when.
    """

    command: tuple[str, ...]
    folder: Path
    stdout: str
    stderr: str
    duration_s: float
    client_s: float | None = None
    wake_up_us: float = 0.0


def command_for(binary: Binary, load: Load) -> list[str]:
    """The arguments; files are named relative to the folder it runs in, beside which :data:`INPUTS` must lie."""
    address = f"https://{load.address}" if load.tls and load.protocol == "http" else load.address
    command = [str(binary.path), "-m", load.model, "-u", address, "-i", load.protocol, "--service-kind", "triton"]
    if load.tls:
        command += _tls(load)
    command += ["-b", str(load.batch_size)]
    if load.schedule is not None:
        # Asynchronous: otherwise each of its threads waits for an answer before it sends again, and is late.
        command += ["--request-intervals", INTERVALS, "--request-count", str(len(load.schedule.due_us))]
        command += ["--async", "--max-threads", str(load.schedule.threads)]
    else:
        command += ["--concurrency-range", f"{load.concurrency}:{load.concurrency}"]
        if load.is_crowded:
            command += ["--async", "--max-threads", str(max(1, usable_cores() // 2))]
        command += ["--measurement-mode", "time_windows"]
        command += ["--measurement-interval", str(max(1, round(load.window_s * 1000 / WINDOW_STRETCH)))]
        command += ["--max-trials", str(load.windows)]
    command += ["--stability-percentage", str(_ANY_SPREAD_PERCENT)]
    command += ["--shared-memory", load.shared_memory, "--input-data", INPUTS, "-v"]
    if load.streaming:
        command += ["--streaming"] if load.schedule is not None else ["--streaming", "--async"]
    if load.sequence_length is not None:
        command += ["--sequence-length", str(load.sequence_length), "--sequence-length-variation", "0"]
    if not load.is_warm_up:
        command += ["-f", CSV]
    if load.export and not load.is_warm_up:
        command += ["--profile-export-file", EXPORT]
    return command


def _tls(load: Load) -> list[str]:
    """The server's certificate is checked, against the given certificates or the system's."""
    trusted = load.ca_file or ssl.get_default_verify_paths().cafile
    if load.protocol == "grpc":
        return ["--ssl-grpc-use-ssl", *(["--ssl-grpc-root-certifications-file", str(trusted)] if trusted else [])]
    return ["--ssl-https-ca-certificates-file", str(trusted)] if trusted else []


def analyze(
    binary: Binary,
    load: Load,
    folder: Path,
    *,
    timeout_s: float,
    at_start: Callable[[], None] = lambda: None,
    at_end: Callable[[], None] = lambda: None,
) -> Output:
    """Run perf_analyzer in ``folder`` and wait for it; it is ended with everything it started, however we leave.

    Args:
        at_start: called when the load begins.
        at_end: called as soon as the last window is over. perf_analyzer keeps its load up while it writes its files,
            for seconds when tensors are large, and competes with it for the processor: that is not to be counted.

    Raises:
        AnalyzerError, ServerUnavailableError: it gave no measurement, with the reason and what to do.
    """
    command = command_for(binary, load)
    late_us = wake_up_us() if load.schedule is not None else 0.0
    started_s = time.monotonic()
    timed_out, client_s = False, None
    try:
        with (folder / STDOUT).open("wb") as stdout, (folder / STDERR).open("wb") as stderr:
            process = None
            try:
                with uninterrupted():
                    process = _start(command, folder, binary.environment(), stdout, stderr)
                client_s = _wait(process, folder / STDOUT, load.passes, started_s + timeout_s, at_start, at_end)
            except subprocess.TimeoutExpired:
                timed_out = True
            finally:
                if process is not None:
                    _end(process)
    except OSError as exc:
        raise not_started(exc, folder) from exc
    assert process is not None
    output = Output(
        tuple(command),
        folder,
        _text(folder / STDOUT),
        _text(folder / STDERR),
        time.monotonic() - started_s,
        client_s,
        late_us,
    )
    expected = [] if load.is_warm_up else [CSV, EXPORT] if load.export else [CSV]
    complete = all((folder / name).is_file() for name in expected)
    if load.is_warm_up:
        # Fewer windows are never stable in its eyes: that is how a warm-up ends well.
        complete = "Failed to obtain stable measurement" in output.stderr and "Pass [1]" in output.stdout
    if timed_out or not complete or (process.returncode != 0 and not load.is_warm_up):
        raise explain(load, output.stdout, output.stderr, process.returncode, timeout_s if timed_out else None)
    return output


def _start(
    command: list[str], folder: Path, environment: dict[str, str], stdout: BinaryIO, stderr: BinaryIO
) -> subprocess.Popen[bytes]:
    """Start it in a group of its own: ended as a whole, not by the terminal's Ctrl-C, and with us if we are killed."""
    with punctual():
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
        )


def _wait(
    process: subprocess.Popen[bytes],
    stdout: Path,
    windows: int,
    deadline_s: float,
    at_start: Callable[[], None],
    at_end: Callable[[], None],
) -> float | None:
    """Wait for the process, and on the way for what it prints as the load begins and as the last window ends.

    Returns:
        The processor time it had taken then, None where it ended before that was seen.
    """
    last, begun, client_s = f"Pass [{windows}]".encode(), False, None
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)
        said = stdout.read_bytes()[:_READ_BYTES]
        if not begun and _BEGINS in said:
            begun = True
            at_start()
        if last in said:
            client_s = cpu_seconds(process.pid)
            at_end()
            process.wait(max(0.0, deadline_s - time.monotonic()))
        elif time.monotonic() > deadline_s:
            raise subprocess.TimeoutExpired(process.args, 0)
    return client_s


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop, and after a moment make it; shared memory it then leaves in the system is removed for it."""
    segments: set[Path] = set()
    try:
        if process.poll() is None:
            _signal(process, signal.SIGINT)
            segments = _segments(process.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()
        for segment in segments:
            segment.unlink(missing_ok=True)


def _segments(pid: int) -> set[Path]:
    """The shared memory a process has mapped by name."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return set()
    fields = (line.split(maxsplit=5) for line in maps.splitlines())
    return {Path(parts[5]) for parts in fields if len(parts) == 6 and parts[5].startswith("/dev/shm/")}


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _text(path: Path) -> str:
    """What was printed; repeated lines once, since some types are warned of at every request."""
    with path.open("rb") as handle:
        head = handle.read(_READ_BYTES)
        size = path.stat().st_size
        if size > 2 * _READ_BYTES:
            handle.seek(size - _READ_BYTES)
        data = head + handle.read()
    lines = data.decode("utf-8", errors="replace").splitlines()
    unique = [line for number, line in enumerate(lines) if number == 0 or line != lines[number - 1]]
    text = "\n".join(unique)
    path.write_text(text + "\n" if text else "")
    return text
