"""What a server is asked to be: checked once, then turned into Triton's command line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from serving.errors import UsageError
from serving.ports import free_ports
from serving.runtime import Runtime
from serving.watchdog import PREFIX_HERE

ModelControlMode = Literal["none", "poll", "explicit"]
PORT_NAMES = ("http_port", "grpc_port", "metrics_port")


@dataclass(frozen=True)
class Ports:
    """Where a server listens; a field is named as the argument of :class:`serving.Server` that sets it."""

    http_port: int
    grpc_port: int
    metrics_port: int

    def __iter__(self) -> Iterator[int]:
        return iter((self.http_port, self.grpc_port, self.metrics_port))

    def name_of(self, port: int) -> str:
        """The argument that would choose another one."""
        return dict(zip(self, PORT_NAMES, strict=True)).get(port, "port")


@dataclass(frozen=True)
class ServerOptions:
    """The arguments of :class:`serving.Server` that reach the server; see there.

    Raises:
        UsageError: arguments that contradict each other, or a repository that is not a folder.
    """

    repositories: list[Path]
    host: str = "127.0.0.1"
    ports: tuple[int | None, int | None, int | None] = (None, None, None)
    model_control_mode: ModelControlMode = "none"
    load: list[str] = field(default_factory=list)
    poll_interval_s: float = 1.0
    cache_size_bytes: int = 0
    exit_on_error: bool = True
    exit_timeout_s: int = 30
    extra_args: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
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
        if self.model_control_mode not in ("none", "poll", "explicit"):
            raise UsageError(
                "unknown model control mode", expected="none, poll or explicit", got=str(self.model_control_mode)
            )
        if self.load and self.model_control_mode != "explicit":
            raise UsageError(
                "models to load are named, but the model control mode loads all of them",
                expected='model_control_mode="explicit"',
                got=f'model_control_mode="{self.model_control_mode}" with load={self.load}',
            )
        given = [port for port in self.ports if port is not None]
        if len(set(given)) != len(given) or any(not 0 < port < 65536 for port in given):
            raise UsageError(
                "the ports cannot be used", expected="different numbers from 1 to 65535", got=str(self.ports)
            )

    def choose_ports(self) -> Ports:
        """The ports that were asked for, and free ones for the rest; :class:`OSError` if the host is not here."""
        fresh = free_ports(self.host, len(self.ports))
        return Ports(*(new if wanted is None else wanted for wanted, new in zip(self.ports, fresh, strict=True)))

    def command(self, runtime: Runtime, ports: Ports) -> list[str]:
        """Triton's argv; the watchdog fills in the prefix for shared memory."""
        command = [str(runtime.tritonserver)]
        command += [f"--model-repository={folder}" for folder in self.repositories]
        command += [f"--http-address={self.host}", f"--http-port={ports.http_port}"]
        command += [f"--grpc-address={self.host}", f"--grpc-port={ports.grpc_port}"]
        command += [f"--metrics-address={self.host}", f"--metrics-port={ports.metrics_port}"]
        command += [f"--model-control-mode={self.model_control_mode}"]
        command += [f"--exit-on-error={'true' if self.exit_on_error else 'false'}"]
        command += [f"--exit-timeout-secs={self.exit_timeout_s}"]
        command += [f"--load-model={name}" for name in self.load]
        if self.model_control_mode == "poll":
            command.append(f"--repository-poll-secs={max(1, round(self.poll_interval_s))}")
        if self.model_control_mode != "none":
            # Or the server calls itself unready while a version loads beside the one that serves, or is being unloaded,
            # and a load balancer takes it out. Whether a model is ready is asked for by its name.
            command.append("--strict-readiness=false")
        if runtime.backend_dir is not None:
            command.append(f"--backend-directory={runtime.backend_dir}")
        if self.cache_size_bytes:
            command.append(f"--cache-config=local,size={self.cache_size_bytes}")
            if runtime.cache_dir is not None:
                command.append(f"--cache-directory={runtime.cache_dir}")
        for backend in _python_based_backends(runtime):
            command.append(f"--backend-config={backend},shm-region-prefix-name={PREFIX_HERE}")
        return command + self.extra_args


def _python_based_backends(runtime: Runtime) -> list[str]:
    """``python`` and the backends written in it: each makes shared memory of its own."""
    folder = runtime.backend_dir
    if folder is None:
        return ["python"]
    others = [path.parent.name for path in folder.glob("*/model.py") if not list(path.parent.glob("libtriton_*.so"))]
    return ["python", *sorted(others)]
