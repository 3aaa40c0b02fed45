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
from typing import Literal

from serving import server_log, watchdog
from serving.errors import ModelLoadError, ServerStartError, TritonRepoError, UsageError
from serving.ports import can_bind, free_ports, listened_by, listeners
from serving.progress import SILENT, Reporter
from serving.runtime import Runtime, find_runtime
from serving.supervised import Supervised

ModelControlMode = Literal["none", "poll", "explicit"]

_POLL_S = 0.03
_HEALTH_TIMEOUT_S = 2.0
_OTHER_MODELS_S = 5.0  # after one model failed: how long the others may still take to say what is wrong with them
_PORT_RACES = 5
_PORT_NAMES = ("http_port", "grpc_port", "metrics_port")


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
        log_path: where the log goes (appended) and stays; by default a temporary file that is removed by a clean stop.
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
        self.repositories = [Path(folder).absolute() for folder in folders]
        self.host = host
        self.model_control_mode = model_control_mode
        self.failures: dict[str, str] = {}
        self._runtime = runtime
        self._wanted_ports = (http_port, grpc_port, metrics_port)
        self._ports: tuple[int, int, int] | None = None
        self._load = list(load)
        self._poll_interval_s = poll_interval_s
        self._cache_size_bytes = cache_size_bytes
        self._exit_on_error = exit_on_error
        self._chosen_log_path = log_path
        self._log_path = log_path
        self._kept_log = ""
        self._startup_timeout_s = startup_timeout_s
        self._exit_timeout_s = exit_timeout_s
        self._extra_args = list(extra_args)
        self._reporter = reporter
        self._process: Supervised | None = None
        self._exit_status: int | None = None
        self._check_arguments()

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def http_url(self) -> str:
        """``127.0.0.1:8000``; for :class:`serving.Client` as it is, for a browser with ``http://`` before it."""
        return self._url(0)

    @property
    def grpc_url(self) -> str:
        """``127.0.0.1:8001``, without a scheme, as tritonclient takes it."""
        return self._url(1)

    @property
    def metrics_url(self) -> str:
        """``http://127.0.0.1:8002/metrics``."""
        return f"http://{self._url(2)}/metrics"

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
        for attempt in range(1, _PORT_RACES + 1):
            self._choose_ports()
            try:
                with self._reporter.step("start Triton") as step:
                    self._launch(runtime)
                    self._await_ready()
                    step.done("ready", self.http_url)
                return self
            except BaseException as error:
                self._finish(at_once=True)
                self._keep_log(remove=self._chosen_log_path is None and not isinstance(error, TritonRepoError))
                lost_race = isinstance(error, ServerStartError) and server_log.port_taken(self._kept_log)
                if not lost_race or None not in self._wanted_ports or attempt == _PORT_RACES:
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

    # -- how ----------------------------------------------------------------------------------------------------

    def _check_arguments(self) -> None:
        if not self.repositories:
            raise UsageError("no model repository given")
        for folder in self.repositories:
            if not folder.is_dir():
                raise UsageError(
                    "the model repository is not a folder",
                    where=str(folder),
                    expected="a folder with one folder per model",
                    got="a file" if folder.exists() else "nothing there",
                )
        if self._load and self.model_control_mode != "explicit":
            raise UsageError(
                "models to load are named, but the model control mode loads all of them",
                expected='model_control_mode="explicit"',
                got=f'model_control_mode="{self.model_control_mode}" with load={self._load}',
            )
        if self.model_control_mode not in ("none", "poll", "explicit"):
            raise UsageError(
                "unknown model control mode", expected="none, poll or explicit", got=str(self.model_control_mode)
            )
        given = [port for port in self._wanted_ports if port is not None]
        if len(set(given)) != len(given) or any(not 0 < port < 65536 for port in given):
            raise UsageError(
                "the ports cannot be used", expected="different numbers from 1 to 65535", got=f"{self._wanted_ports}"
            )

    def _choose_ports(self) -> None:
        try:
            fresh = iter(free_ports(self.host, len(self._wanted_ports)))
        except OSError as exc:
            raise ServerStartError(
                "this machine cannot listen on that address",
                where=self.host,
                expected="an address of this machine (127.0.0.1), or 0.0.0.0 for all of them",
                got=exc.strerror or str(exc),
            ) from exc
        self._ports = tuple(next(fresh) if port is None else port for port in self._wanted_ports)  # type: ignore[assignment]
        for name, port in zip(_PORT_NAMES, self._wanted_ports, strict=True):
            if port is not None and not can_bind(self.host, port):
                raise self._port_error(name, port)

    def _port_error(self, name: str, port: int) -> ServerStartError:
        holders = ", ".join(f"{comm} (process {pid})" for pid, comm in listeners(port).items())
        return ServerStartError(
            f"port {port} is taken",
            where=f"{name} on {self.host}",
            got=f"held by {holders}" if holders else "held by a process of another user, or not allowed",
            fix="stop that process, or choose another port",
        )

    def _command(self, runtime: Runtime) -> list[str]:
        assert self._ports is not None
        http_port, grpc_port, metrics_port = self._ports
        command = [str(runtime.tritonserver)]
        command += [f"--model-repository={folder}" for folder in self.repositories]
        command += [f"--http-address={self.host}", f"--http-port={http_port}"]
        command += [f"--grpc-address={self.host}", f"--grpc-port={grpc_port}"]
        command += [f"--metrics-address={self.host}", f"--metrics-port={metrics_port}"]
        command += [f"--model-control-mode={self.model_control_mode}", f"--exit-on-error={_flag(self._exit_on_error)}"]
        command += [f"--exit-timeout-secs={self._exit_timeout_s}"]
        command += [f"--load-model={name}" for name in self._load]
        if self.model_control_mode == "poll":
            command.append(f"--repository-poll-secs={max(1, round(self._poll_interval_s))}")
        if runtime.backend_dir is not None:
            command.append(f"--backend-directory={runtime.backend_dir}")
        if self._cache_size_bytes:
            command.append(f"--cache-config=local,size={self._cache_size_bytes}")
            if runtime.cache_dir is not None:
                command.append(f"--cache-directory={runtime.cache_dir}")
        for backend in _python_based_backends(runtime):
            command.append(f"--backend-config={backend},shm-region-prefix-name={watchdog.PREFIX_HERE}")
        return command + self._extra_args

    def _launch(self, runtime: Runtime) -> None:
        assert self._ports is not None
        if self._chosen_log_path is None:
            handle, name = tempfile.mkstemp(prefix="triton-", suffix=".log")
            os.close(handle)
            self._log_path = Path(name)
        else:
            self._chosen_log_path.parent.mkdir(parents=True, exist_ok=True)
            self._chosen_log_path.write_bytes(b"")
        orders = watchdog.Orders(
            command=self._command(runtime),
            env=runtime.environment(),
            log=str(self.log_path),
            parent=os.getpid(),
            http_port=self._ports[0],
            exit_timeout_s=self._exit_timeout_s,
            quick=not any("trace" in argument for argument in self._extra_args),  # traces are written at the very end
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

    def _await_ready(self) -> None:
        deadline = time.monotonic() + self._startup_timeout_s
        failed_at: float | None = None
        while True:
            status = self.wait(_POLL_S)
            log = self.log()
            self.failures = server_log.load_failures(log)
            now = time.monotonic()
            if status is not None:
                raise self._death(status, log)
            if self.failures and self._exit_on_error:
                failed_at = failed_at or now
                if server_log.has_judged_all(log) or now > failed_at + _OTHER_MODELS_S:
                    raise self._load_error(log)
            elif self._is_ready():
                return
            if now > deadline:
                raise self._timeout(log)

    def _is_ready(self) -> bool:
        """Our own server listens on all three ports and says so; another one on the same port does not count."""
        assert self._ports is not None
        pids = watchdog.session_pids(self.pid)
        if not all(listened_by(pids, port) for port in self._ports):
            return False
        # With models that failed, "ready" stays false for good; "live" comes after loading.
        path = "/v2/health/ready" if self._exit_on_error else "/v2/health/live"
        host, _, port = self.http_url.rpartition(":")
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_HEALTH_TIMEOUT_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _death(self, status: int, log: str) -> ServerStartError | ModelLoadError:
        if taken := server_log.port_taken(log):
            port = int(taken.rpartition(":")[2])
            names = dict(zip(self._ports or (), _PORT_NAMES, strict=False))
            return self._port_error(names.get(port, "port"), port)
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

    def _url(self, index: int) -> str:
        if self._ports is None:
            raise ServerStartError("the server has no address yet", fix="call start(), or use it in a with block")
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"{host}:{self._ports[index]}"


def _python_based_backends(runtime: Runtime) -> list[str]:
    """``python`` and the backends written in it: each makes shared memory of its own."""
    folder = runtime.backend_dir
    if folder is None:
        return ["python"]
    others = [path.parent.name for path in folder.glob("*/model.py") if not list(path.parent.glob("libtriton_*.so"))]
    return ["python", *sorted(others)]


def _flag(value: bool) -> str:
    return "true" if value else "false"
