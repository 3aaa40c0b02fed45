"""A Triton server as a context manager: started on free ports, awaited with its log watched, stopped without a trace.

A :mod:`serving.watchdog` process stands between, so that neither the server, nor its backends' processes, nor their
shared memory survive this process, whether it stops them, dies, or is killed.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from serving import server_log, watchdog
from serving.errors import ModelLoadError, RuntimeUnavailableError, ServerStartError, TritonRepoError, UsageError
from serving.openvino import VARIABLE as OPENVINO_VARIABLE
from serving.openvino import asks_for_openvino, provide_openvino
from serving.options import ModelControlMode, Ports, ServerOptions
from serving.ports import can_bind, listened_by, listeners
from serving.progress import SILENT, Reporter
from serving.runtime import Runtime, find_runtime
from serving.supervised import Supervised

_POLL_S = 0.03
_HEALTH_TIMEOUT_S = 2.0
_OTHER_MODELS_S = 5.0  # after one model failed: how long the others may still take to say what is wrong with them
_PORT_RACES = 5


class Server:
    """A running Triton, for a ``with`` block; :meth:`start` and :meth:`stop` do the same by hand.

    Args:
        repository: one model repository, or several.
        runtime: which Triton; found, or provided on first use, by default.
        host: address to listen on.
        http_port: None for a free one; the same for ``grpc_port`` and ``metrics_port``.
        model_control_mode: ``none`` loads everything once, ``poll`` follows the folder, ``explicit`` loads on demand.
        load: with ``explicit``, the models to load at start.
        poll_interval_s: with ``poll``, how often to look; Triton takes whole seconds, at least one.
        cache_size_bytes: size of the response cache; 0 for none.
        exit_on_error: a model that fails to load fails the start; otherwise the rest is served, see :attr:`failures`.
        log_path: where the log goes (overwritten) and stays; by default a temporary file that a clean stop removes.
        startup_timeout_s: how long loading may take.
        exit_timeout_s: how long requests in flight may take to finish when the server is stopped.
        extra_args: further arguments for ``tritonserver``.
        reporter: told about provisioning and start-up.

    Raises:
        UsageError: arguments that contradict each other, or a repository that is not a folder.
    """

    def __init__(
        self,
        repository: str | Path | Sequence[str | Path],
        *,
        runtime: Runtime | None = None,
        host: str = "127.0.0.1",
        http_port: int | None = None,
        grpc_port: int | None = None,
        metrics_port: int | None = None,
        model_control_mode: ModelControlMode = "none",
        load: Sequence[str] = (),
        poll_interval_s: float = 1.0,
        cache_size_bytes: int = 0,
        exit_on_error: bool = True,
        log_path: Path | None = None,
        startup_timeout_s: float = 120.0,
        exit_timeout_s: int = 30,
        extra_args: Sequence[str] = (),
        reporter: Reporter = SILENT,
    ) -> None:
        folders = [repository] if isinstance(repository, (str, Path)) else list(repository)
        self._options = ServerOptions(
            repositories=[Path(folder).absolute() for folder in folders],
            host=host,
            ports=(http_port, grpc_port, metrics_port),
            model_control_mode=model_control_mode,
            load=list(load),
            poll_interval_s=poll_interval_s,
            cache_size_bytes=cache_size_bytes,
            exit_on_error=exit_on_error,
            exit_timeout_s=exit_timeout_s,
            extra_args=list(extra_args),
        )
        self.failures: dict[str, str] = {}
        self._runtime = runtime
        self._ports: Ports | None = None
        self._chosen_log_path = log_path
        self._log_path = log_path
        self._kept_log = ""
        self._startup_timeout_s = startup_timeout_s
        self._reporter = reporter
        self._process: Supervised | None = None
        self._exit_status: int | None = None
        self._abandoned = False

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def repositories(self) -> list[Path]:
        """The model repositories, as absolute paths."""
        return self._options.repositories

    @property
    def http_url(self) -> str:
        """``127.0.0.1:8000``; for :class:`serving.Client` as it is, for a browser with ``http://`` before it."""
        return self._url("http_port")

    @property
    def grpc_url(self) -> str:
        """``127.0.0.1:8001``, without a scheme, as tritonclient takes it."""
        return self._url("grpc_port")

    @property
    def metrics_url(self) -> str:
        """``http://127.0.0.1:8002/metrics``."""
        return f"http://{self._url('metrics_port')}/metrics"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        if self._process is None:
            raise ServerStartError("the server is not running", fix="call start(), or use it in a with block")
        return self._process.pid

    @property
    def runtime(self) -> Runtime:
        """Which Triton this is; found on first use."""
        if self._runtime is None:
            self._runtime = find_runtime(reporter=self._reporter)
        return self._runtime

    @property
    def log_path(self) -> Path:
        """The log file; gone after a clean stop unless you chose it, see :meth:`log`."""
        if self._log_path is None:
            raise ServerStartError("the server has no log yet", fix="call start(), or use it in a with block")
        return self._log_path

    def log(self) -> str:
        """Everything the server said, also after it stopped."""
        with contextlib.suppress(OSError):
            if self._log_path is not None:
                return self._log_path.read_text(errors="replace")
        return self._kept_log

    def poll(self) -> int | None:
        """The server's exit status, None while it runs."""
        return self.wait(0)

    def is_live(self) -> bool:
        """True where the server answers within two seconds; one that runs and does not, hangs or is very busy."""
        return self._process is not None and self._says("live")

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the server to end by itself; its exit status, or None after ``timeout_s``."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._process is not None and self._process.exit_status is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            self._process.hear(left)
            if left == 0:
                break
        return self._exit_status if self._process is None else self._process.exit_status

    # -- what it does -------------------------------------------------------------------------------------------

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> Server:
        """Start the server and wait until every model is ready.

        Raises:
            RuntimeUnavailableError: there is no Triton here and none could be provided.
            ServerStartError: a port is taken, the server died, or it took too long; carries the end of its log.
            ModelLoadError: models failed to load; carries the server's reason for each.
        """
        if self._process is not None:
            raise UsageError("the server is running already", where=self.http_url)
        runtime = self.runtime
        if runtime.kind == "url":
            raise UsageError(
                f"{runtime.describe()} is running already and cannot be started", fix="use serving.Client to talk to it"
            )
        if runtime.env.get(OPENVINO_VARIABLE) and asks_for_openvino(self.repositories):
            self._provide_openvino()
        for attempt in range(1, _PORT_RACES + 1):
            ports = self._ports = self._choose_ports()
            try:
                with self._reporter.step("start Triton") as step:
                    self._launch(runtime, ports)
                    self._await_ready(ports)
                    step.done("ready", self.http_url)
                return self
            except BaseException as error:
                self._finish(at_once=True)
                self._keep_log(remove=self._chosen_log_path is None and not isinstance(error, TritonRepoError))
                lost_race = isinstance(error, ServerStartError) and server_log.port_taken(self._kept_log)
                if not lost_race or None not in self._options.ports or attempt == _PORT_RACES:
                    raise
        raise AssertionError("unreachable")

    def stop(self, *, at_once: bool = False) -> None:
        """Stop the server; requests in flight finish first. Nothing of it is left afterwards.

        Args:
            at_once: kill it: requests in flight are lost and models' ``finalize`` is not called.
        """
        if self._process is None:
            return
        self._finish(at_once=at_once)
        self._keep_log(remove=self._chosen_log_path is None)

    def abandon(self) -> None:
        """From another thread: let a :meth:`start` that is under way, or the next, end at once with an error."""
        self._abandoned = True

    # -- how ----------------------------------------------------------------------------------------------------

    def _provide_openvino(self) -> None:
        """What the models' accelerator needs; without it they are served by the plain CPU provider, which says so."""
        try:
            provide_openvino(reporter=self._reporter)
        except RuntimeUnavailableError as error:
            self._reporter.warn(f"models that ask for openvino are served without: {error.what}; {error.got}")

    def _choose_ports(self) -> Ports:
        host = self._options.host
        try:
            ports = self._options.choose_ports()
        except OSError as exc:
            raise ServerStartError(
                "this machine cannot listen on that address",
                where=host,
                expected="an address of this machine (127.0.0.1), or 0.0.0.0 for all of them",
                got=exc.strerror or str(exc),
            ) from exc
        for port in self._options.ports:
            if port is not None and not can_bind(host, port):
                raise self._port_error(ports.name_of(port), port)
        return ports

    def _port_error(self, name: str, port: int) -> ServerStartError:
        holders = ", ".join(f"{comm} (process {pid})" for pid, comm in listeners(port).items())
        return ServerStartError(
            f"port {port} is taken",
            where=f"{name} on {self._options.host}",
            got=f"held by {holders}" if holders else "held by a process of another user, or not allowed",
            fix="stop that process, or choose another port",
        )

    def _launch(self, runtime: Runtime, ports: Ports) -> None:
        if self._chosen_log_path is None:
            handle, name = tempfile.mkstemp(prefix="triton-", suffix=".log")
            os.close(handle)
            self._log_path = Path(name)
        else:
            self._chosen_log_path.parent.mkdir(parents=True, exist_ok=True)
            self._chosen_log_path.write_bytes(b"")
        orders = watchdog.Orders(
            command=self._options.command(runtime, ports),
            env=runtime.environment(),
            log=str(self.log_path),
            parent=os.getpid(),
            http_port=ports.http_port,
            exit_timeout_s=self._options.exit_timeout_s,
            quick=not any(
                "trace" in argument for argument in self._options.extra_args
            ),  # traces are written at the very end
            only_stubs=runtime.kind == "embedded",
        )
        self._process = Supervised(orders)
        if self._process.error:
            raise ServerStartError(
                "the server program cannot be run",
                where=str(runtime.tritonserver),
                got=self._process.error,
                fix="serve-repo doctor",
            )

    def _await_ready(self, ports: Ports) -> None:
        deadline = time.monotonic() + self._startup_timeout_s
        failed_at: float | None = None
        while True:
            if self._abandoned:
                raise ServerStartError("the start of the server was given up", where=str(self.log_path))
            status = self.wait(_POLL_S)
            log = self.log()
            self.failures = server_log.load_failures(log)
            now = time.monotonic()
            if status is not None:
                raise self._death(status, log, ports)
            if self.failures and self._options.exit_on_error:
                failed_at = failed_at or now
                if server_log.has_judged_all(log) or now > failed_at + _OTHER_MODELS_S:
                    raise self._load_error(log)
            elif self._is_ready(ports):
                return
            if now > deadline:
                raise self._timeout(log)

    def _is_ready(self, ports: Ports) -> bool:
        """Our own server listens on all three ports and says so; another one on the same port does not count."""
        pids = watchdog.session_pids(self.pid)
        if not all(listened_by(pids, port) for port in ports):
            return False
        # With models that failed, "ready" stays false for good; "live" comes after loading.
        return self._says("ready" if self._options.exit_on_error else "live")

    def _says(self, what: str) -> bool:
        host, _, port = self.http_url.rpartition(":")
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_HEALTH_TIMEOUT_S)
        try:
            connection.request("GET", f"/v2/health/{what}")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _death(self, status: int, log: str, ports: Ports) -> ServerStartError | ModelLoadError:
        if taken := server_log.port_taken(log):
            port = int(taken.rpartition(":")[2])
            return self._port_error(ports.name_of(port), port)
        if self.failures:
            return self._load_error(log)
        reason = server_log.refusal(log)
        return ServerStartError(
            f"the server ended with status {status} before it was ready",
            where=str(self.log_path),
            got=reason or server_log.tail(log) or "it said nothing",
            fix="" if reason else "serve-repo doctor",
        )

    def _load_error(self, log: str) -> ModelLoadError:
        names = sorted(self.failures)
        what = f"model '{names[0]}' failed to load" if len(names) == 1 else f"{len(names)} models failed to load"
        return ModelLoadError(
            what,
            where=", ".join(map(str, self.repositories)),
            got="\n".join(f"{name}: {self.failures[name]}" for name in names),
            fix=f"the server's log is in {self.log_path}",
            failures=self.failures,
        )

    def _timeout(self, log: str) -> ServerStartError:
        pending = server_log.loading(log)
        return ServerStartError(
            f"the server was not ready after {self._startup_timeout_s:g} s",
            where=str(self.log_path),
            got=f"still loading {', '.join(pending)}" if pending else server_log.tail(log),
            fix="allow more time with startup_timeout_s, or look into the log",
        )

    def _finish(self, *, at_once: bool) -> None:
        process, self._process = self._process, None
        if process is not None:
            try:
                process.end(at_once=at_once)
            finally:
                self._exit_status = process.exit_status

    def _keep_log(self, *, remove: bool) -> None:
        self._kept_log = self.log()
        if remove and self._log_path is not None:
            self._log_path.unlink(missing_ok=True)

    def _url(self, name: str) -> str:
        if self._ports is None:
            raise ServerStartError("the server has no address yet", fix="call start(), or use it in a with block")
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._options.host, self._options.host)
        return f"{host}:{getattr(self._ports, name)}"
