"""The server that verifies the models of one place: started ahead, watched while a model is asked, replaced if it ends.

A server that dies or hangs in the middle of a model's requests is noticed here, by who owns it, and not by the
requests: those may rightly take long. A server that hangs is killed, which ends the requests that wait for it.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from pathlib import Path

from builder.verify.serve import Endpoint
from builder.workers import failures
from serving import Server
from serving.errors import InferenceError, ModelLoadError, ServerUnavailableError, TritonRepoError
from serving.server_log import tail

SILENT_S = 30.0
"""After how long without any answer a server hangs. It answers this question beside its work, however busy it is."""
_SILENT_TIMES = 3
_DEATH_S = 1.0  # how long after a request failed the server's death may become known
_EXIT_TIMEOUT_S = 1  # where build-repo is killed: nobody waits for the requests in flight


class VerifyingServer:
    """One server at a time, in explicit mode over a staging repository.

    Args:
        repository: what it reads.
        log: its log file.
    """

    def __init__(self, repository: Path, log: Path) -> None:
        self._repository = repository
        self._log = log
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._starting: Server | None = None
        self._ended = False
        self._heard_s = 0.0
        self._silences = 0
        self._hung = False

    def warm_up(self) -> None:
        """Start the server ahead of its first model; a failure shows when it is asked for."""
        with contextlib.suppress(TritonRepoError, OSError), self._lock:
            self._started()

    @property
    def is_there(self) -> bool:
        """True where one was started and not stopped; it may have died since."""
        return self._server is not None

    def endpoint(self) -> Endpoint:
        """A server that answers: the one that is there, or a new one where the model before took it down.

        Raises:
            TritonRepoError: it cannot be started.
            OSError: its log cannot be written.
        """
        with self._lock:
            if self._server is not None and not self._server.is_live():
                self._stop()
            server = self._started()
            self._heard_s, self._silences, self._hung = time.monotonic(), 0, False
        name = f"{server.runtime.kind} Triton {server.runtime.version}".strip()
        return Endpoint(server.http_url, server.grpc_url, name)

    def look(self) -> None:
        """To be called every second or so while a model is verified: end a server that hangs."""
        server = self._server
        if server is None or server.poll() is not None:
            return
        if server.is_live():
            self._heard_s, self._silences = time.monotonic(), 0
            return
        self._silences += 1
        if self._silences >= _SILENT_TIMES and time.monotonic() - self._heard_s > SILENT_S:
            self._hung = True
            with self._lock:
                self._stop()

    def explained(self, name: str, error: TritonRepoError) -> TritonRepoError:
        """The error of a model's verification; another one where it is the server that died or hung."""
        if not isinstance(error, (InferenceError, ModelLoadError)):
            return error
        if self._hung:
            return ServerUnavailableError(
                f"the server stopped answering while {name} was verified, and was killed",
                expected="a server that answers, whatever it is busy with",
                got=f"no answer for {SILENT_S:g} s; its log ends with:\n{self._said()}",
                fix="build it again; if it happens each time, it is this model that the server does not stand",
            )
        status = self._server.wait(_DEATH_S) if self._server is not None else None
        if status is None:
            return error
        how = signal.Signals(status - 128).name if status > 128 else f"exit status {status}"
        return ServerUnavailableError(
            f"the server died while {name} was verified",
            expected="a server that answers",
            got=f"{how}; its log ends with:\n{self._said()}",
            fix="build fewer models at a time (--jobs 1): it was killed, as the kernel does when memory runs out"
            if status == 128 + signal.SIGKILL
            else "build it again; if it happens each time, it is this model that the server does not stand",
        )

    def end(self) -> None:
        """Stop it at once, also where it is only just starting; no other is started."""
        self._ended = True
        starting = self._starting
        if starting is not None:
            starting.abandon()
        with self._lock:
            self._stop()

    def _started(self) -> Server:
        if self._server is None:
            # Our configurations are whole; completing them would cost a second process and a second for each model.
            whole = ["--disable-auto-complete-config"]
            self._starting = server = Server(
                self._repository,
                model_control_mode="explicit",
                log_path=self._log,
                exit_timeout_s=_EXIT_TIMEOUT_S,
                extra_args=whole,
            )
            try:
                if self._ended:  # asked after it can be seen that we start one: see end()
                    raise failures.interrupted()
                self._server = server.start()
            finally:
                self._starting = None
        return self._server

    def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop(at_once=True)  # it has no model and no request left, or nobody waits for them

    def _said(self) -> str:
        try:
            return tail(self._log.read_text(errors="replace"), lines=5) or "nothing"
        except OSError:
            return "(its log is gone)"
