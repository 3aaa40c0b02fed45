"""``serve-repo``: run a real Triton on a model repository, in the foreground, and say how to call it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from serving import server_log, terminal
from serving.errors import InferenceError, ServerStartError, ServerUnavailableError, UsageError
from serving.server import Server
from serving.status import Status, read_model, read_status
from serving.terminal import (
    FormatOption,
    OutputFormat,
    Progress,
    QuietOption,
    VerboseOption,
    VersionOption,
    parse_size,
)
from serving.usage import how_to_call
from serving.wire import parse_url

_TICK_S = 1.0
_PLAIN_STATUS_S = 60.0  # how often a line goes to a log when only counts changed
_DOCTOR = "doctor"

app = terminal.create_app("serve-repo", help="Run a real Triton on a model repository.")
doctor_app = terminal.create_app(
    "serve-repo doctor", help="Say what a server needs here, and what mends what is missing."
)


class ControlMode(str, Enum):
    """Triton's model control modes."""

    NONE = "none"
    POLL = "poll"
    EXPLICIT = "explicit"


@app.command(
    epilog=terminal.epilog(
        [
            "serve-repo",
            "serve-repo models --http-port 9000 --cache-size 64MB",
            "serve-repo models --model-control-mode explicit --load digits",
            "serve-repo models --require-signature signing.pub",
            "serve-repo --url http://gpu-box:8000",
            "serve-repo doctor",
        ]
    )
)
def serve(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="The model repository, or 'doctor' (a folder of that name: ./doctor)."),
    ] = Path("model_repository"),
    bind: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one.")] = 8002,
    cache_size: Annotated[str, typer.Option(metavar="SIZE", help="Response cache: 64MB, 1GiB.")] = "0",
    model_control_mode: Annotated[
        ControlMode, typer.Option(help="none: load all once; poll: follow the folder; explicit: load on demand.")
    ] = ControlMode.NONE,
    load: Annotated[list[str] | None, typer.Option(help="With explicit: a model to load at start; repeatable.")] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Serve the other models when one fails to load.")
    ] = False,
    require_signature: Annotated[
        Path | None, typer.Option(metavar="PUBLIC_KEY", help="Serve only what was signed with this key's private half.")
    ] = None,
    url: Annotated[str, typer.Option(help="Start nothing: watch the server at this address.")] = "",
    log: Annotated[Path | None, typer.Option(help="Keep the server's log in this file.")] = None,
    startup_timeout: Annotated[float, typer.Option(min=1, help="Seconds that loading may take.")] = 120.0,
    server_arg: Annotated[list[str] | None, typer.Option(help="Handed to tritonserver as it is; repeatable.")] = None,
    output: FormatOption = OutputFormat.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
    version: VersionOption = False,
) -> int:
    """Run a real Triton on a model repository, say how to call each model, and show what it does until Ctrl-C.

    The server is the machine's own (TRITONSERVER, or tritonserver on PATH), else an embedded one, fetched on first use.
    The exit status is the server's. With --format json, one line with the addresses is written when it is ready.
    """
    terminal.configure_logging(verbose, quiet=quiet)
    if str(directory) == _DOCTOR:
        return examine(output=output, quiet=quiet)
    voice = _Voice(output=output, quiet=quiet, verbose=verbose)
    if url:
        if require_signature is not None:
            raise UsageError(
                "signatures are checked before a server starts, and --url starts none",
                where="--url",
                expected="--require-signature KEY with a repository to serve",
                got="--url with --require-signature",
                fix="leave --require-signature out here; give it to the serve-repo that starts the server",
            )
        return _watch_url(url, voice)
    repository = _repository(directory, empty_is_fine=model_control_mode is not ControlMode.NONE)
    if require_signature is not None:
        _require_signatures(repository, require_signature, model_control_mode, voice)
    server = Server(
        repository,
        host=bind,
        http_port=http_port or None,
        grpc_port=grpc_port or None,
        metrics_port=metrics_port or None,
        model_control_mode=model_control_mode.value,
        load=load or (),
        cache_size_bytes=parse_size(cache_size, where="--cache-size"),
        exit_on_error=not keep_going,
        log_path=log,
        startup_timeout_s=startup_timeout,
        extra_args=server_arg or (),
        reporter=Progress(quiet=quiet, verbose=bool(verbose)),
    )
    return _run(server, voice)


@doctor_app.command(epilog=terminal.epilog(["serve-repo doctor", "serve-repo doctor --provide --format json"]))
def examine(
    provide: Annotated[bool, typer.Option(help="Fetch the embedded server now if it is not here.")] = False,
    output: FormatOption = OutputFormat.TEXT,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
    version: VersionOption = False,
) -> int:
    """Look at everything a server needs here; exit status 0 if it will work, 1 if something is missing."""
    from serving import doctor

    checks = doctor.examine(reporter=Progress(quiet=quiet, verbose=bool(verbose)), provide=provide)
    healthy = all(check.status != "missing" for check in checks)
    if output.is_json:
        terminal.emit({"ok": healthy, "checks": [check.as_dict() for check in checks]}, output=output)
        return int(not healthy)
    colours = {"ok": "green", "warning": "yellow", "missing": "red"}
    for check in checks:
        if quiet and check.status == "ok":
            continue
        typer.secho(f"{check.status:<8}", fg=colours[check.status], nl=False)
        first, *rest = check.found.splitlines() or [""]
        typer.echo("\n".join([f"{check.name}: {first}", *(" " * 10 + line for line in rest)]))
        if check.fix:
            typer.echo(f"{'':<8}  fix: {check.fix}")
    return int(not healthy)


class _Voice:
    """What is said while a server runs: results to stdout, everything else to stderr."""

    def __init__(self, *, output: OutputFormat, quiet: bool, verbose: int) -> None:
        self.output = output
        self.quiet = quiet
        self.verbose = verbose
        self._last: Status | None = None
        self._last_plain_s = 0.0

    def ready(self, facts: dict[str, Any], usage: Sequence[str]) -> None:
        """The server takes requests."""
        addresses = "  ".join(f"{key} {facts[key]}" for key in ("http", "grpc", "metrics") if facts.get(key))
        text = "\n\n".join([f"ready: {addresses}", *usage])
        terminal.emit(facts, text, output=self.output)
        sys.stdout.flush()

    @contextlib.contextmanager
    def status_line(self, get_line: Any) -> Iterator[None]:
        """A live line on a terminal; elsewhere nothing, see :meth:`tick`."""
        if self.quiet or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        with Live(
            get_renderable=lambda: Text(get_line(), no_wrap=True, overflow="ellipsis"),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
            refresh_per_second=2,
        ):
            yield

    def tick(self, status: Status) -> None:
        """Plain lines: at once when models come or go, else when counts changed, once a minute."""
        before, self._last = self._last, status
        if self.quiet or sys.stderr.isatty():
            return
        now = time.monotonic()
        changed = before is not None and (before.ready, before.names) != (status.ready, status.names)
        counted = before is None or before.requests != status.requests
        if before is None or changed or (counted and now > self._last_plain_s + _PLAIN_STATUS_S):
            self._last_plain_s = now
            self.say(status.line())

    def server_says(self, text: str) -> None:
        """The server's own lines: all with ``-v``, else its warnings and errors."""
        for line in text.splitlines():
            if self.verbose or (not self.quiet and server_log.is_alarming(line)):
                self.say(line)

    def say(self, line: str) -> None:
        """One line to stderr."""
        typer.echo(line, err=True)


def _run(server: Server, voice: _Voice) -> int:
    """Start, watch, stop; the server's exit status."""
    server.start()
    try:
        _announce(server, voice)
        _watch(server, voice)
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM: the ordinary end of a server
        _stop(server, voice)
        return server.wait() or 0
    finally:
        server.stop()
    status = server.wait() or 0
    if status:
        raise _ended(server, status)
    return 0


def _stop(server: Server, voice: _Voice) -> None:
    try:
        if not voice.quiet:
            voice.say("stopping: requests in flight finish first; Ctrl-C again ends it at once")
        server.stop()
    except KeyboardInterrupt:
        server.stop(at_once=True)
        raise


def _announce(server: Server, voice: _Voice) -> None:
    status = read_status(server.http_url)
    for name, reason in server.failures.items():
        terminal.warn(f"model '{name}' failed to load: {reason}")
    facts = {
        "ready": True,
        "http": f"http://{server.http_url}",
        "grpc": f"grpc://{server.grpc_url}",
        "metrics": server.metrics_url,
        "pid": server.pid,
        "log": str(server.log_path),
        "models": [vars(model) for model in status.models],
        "failures": server.failures,
    }
    usage = [] if voice.output.is_json or voice.quiet else _usage(server, status)
    voice.ready(facts, usage)


def _usage(server: Server, status: Status) -> list[str]:
    texts = []
    for name in status.ready:
        with contextlib.suppress(InferenceError):  # unloaded this very moment
            metadata, config = read_model(server.http_url, name)
            texts.append(
                how_to_call(
                    metadata,
                    config,
                    http_url=server.http_url,
                    grpc_url=server.grpc_url,
                    repositories=server.repositories,
                )
            )
    return texts


def _watch(server: Server, voice: _Voice) -> None:
    """Show what it does until it ends by itself."""
    line = ["starting"]
    log = server.log_path.open(errors="replace")  # read on from here, however long it grows
    log.seek(0, os.SEEK_END)
    with log, voice.status_line(lambda: line[0]):
        while True:
            with contextlib.suppress(ServerUnavailableError):  # busy, or just ending: the next tick knows
                status = read_status(server.http_url)
                voice.tick(status)
                line[0] = f"{status.line()}   http {server.http_url}  grpc {server.grpc_url}"
            voice.server_says(log.read())
            if server.wait(_TICK_S) is not None:
                return


def _ended(server: Server, status: int) -> ServerStartError:
    error = ServerStartError(
        f"the server ended with status {status}",
        where=str(server.log_path),
        got=server_log.tail(server.log()),
        fix="see its log, or run serve-repo doctor",
    )
    error.exit_code = status
    return error


def _watch_url(url: str, voice: _Voice) -> int:
    """Watch a server that is not ours until Ctrl-C, or until it is gone."""
    address = parse_url(url)
    if address.protocol != "http":
        raise UsageError("a server is watched over HTTP", expected="http://host:port", got=url)
    status = read_status(url)
    texts = []
    if not voice.output.is_json and not voice.quiet:
        grpc_url = f"{address.netloc.rpartition(':')[0]}:8001"
        texts = [
            how_to_call(*read_model(url, name), http_url=address.netloc, grpc_url=grpc_url) for name in status.ready
        ]
    voice.ready({"ready": True, "http": str(address), "models": [vars(model) for model in status.models]}, texts)
    line = [""]
    pause = threading.Event()
    with contextlib.suppress(KeyboardInterrupt, SystemExit), voice.status_line(lambda: line[0]):
        while True:
            status = read_status(url)
            voice.tick(status)
            line[0] = f"{status.line()}   {address}"
            pause.wait(_TICK_S)
    return 0


def _repository(directory: Path, *, empty_is_fine: bool) -> Path:
    """Refuse a folder without models before a server is started on it."""
    if not directory.is_dir():
        raise UsageError(
            "the model repository is not a folder",
            where=str(directory.absolute()),
            expected="a folder with one folder per model",
            got="a file" if directory.exists() else "nothing there",
            fix="build one with build-repo, or name another: serve-repo DIR",
        )
    if not empty_is_fine and not any(path.is_dir() for path in directory.iterdir()):
        raise UsageError(
            "the model repository holds no models",
            where=str(directory.absolute()),
            expected="one folder per model, with config.pbtxt and a version folder",
            fix="build one with build-repo, or wait for models with --model-control-mode poll",
        )
    return directory


def _require_signatures(repository: Path, public_key: Path, mode: ControlMode, voice: _Voice) -> None:
    """Refuse to start on anything the key does not vouch for."""
    from serving.signatures import verify_repository

    if mode is ControlMode.POLL:
        raise UsageError(
            "with --model-control-mode poll the server would serve what arrives later, signed or not",
            where="--require-signature",
            expected="a server that loads nothing unasked: --model-control-mode none or explicit",
            fix="use explicit, and update with build-repo --sign KEY --reload URL",
        )
    count = verify_repository(repository, public_key)
    if not voice.quiet:
        voice.say(f"signatures: {count} versions in {repository} are as they were signed")
    if mode is ControlMode.EXPLICIT:
        terminal.warn("signatures were checked now; whoever may call the load API can load other things later")


def main() -> None:
    """The console script."""
    arguments = sys.argv[1:]
    if arguments[:1] == [_DOCTOR]:
        sys.exit(terminal.run(doctor_app, arguments[1:]))
    sys.exit(terminal.run(app, arguments))
