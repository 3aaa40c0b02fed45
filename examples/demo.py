"""Serve the examples, let each one's client ask over HTTP and gRPC, then measure: the second half of ``make demo``.

The first half is ``build-repo examples/*/models.yaml``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from perf import bench
from perf.report import to_text
from serving import Server
from serving.errors import TritonRepoError
from serving.progress import Progress

HERE = Path(__file__).parent
# Folder -> the models of its models.yaml that are called, or measured: of an ensemble, itself and its largest step.
EXAMPLES = {
    "digits": ("digits",),
    "minilm": ("minilm", "minilm_text"),
    "efficientnet": ("efficientnet", "efficientnet_jpeg"),
    "existing_onnx": ("magika",),
    "multimodal": ("scene",),
}
MODELS = [model for models in EXAMPLES.values() for model in models]
CLIENT_TIMEOUT_S = 120

console = Console(highlight=False, soft_wrap=True)


class DemoError(Exception):
    """A step of the demo did not do what it should."""


def check_built(repository: Path) -> None:
    """Say what is missing before a server is started for nothing."""
    missing = [model for model in MODELS if not (repository / model / "config.pbtxt").is_file()]
    if missing:
        raise DemoError(f"{', '.join(missing)} not in {repository}; build first: build-repo examples/*/models.yaml")


def call(example: str, server: Server) -> None:
    """Run an example's client as a user would, its output passed through."""
    command = [sys.executable, str(HERE / example / "client.py"), "--http", server.http_url, "--grpc", server.grpc_url]
    heading(f"python examples/{example}/client.py")
    status = subprocess.run(command, timeout=CLIENT_TIMEOUT_S, check=False).returncode
    if status != 0:
        raise DemoError(f"the client of {example} ended with exit status {status}; its message is above")


def measure(repository: Path, server: Server, *, short: bool) -> None:
    """Drive the server with perf_analyzer and print the table."""
    concurrency, seconds, rounds = ((4,), 1.0, 2) if short else ((1, 8), 2.0, 4)
    heading(f"bench-repo --concurrency {','.join(map(str, concurrency))} --seconds {seconds:.0f} --rounds {rounds}")
    result = bench(
        repository,
        url=server.http_url,
        models=MODELS,
        concurrency=concurrency,
        seconds=seconds,
        rounds=rounds,
        reporter=Progress(),
    )
    print(to_text(result, colours=console.is_terminal, width=console.width), end="")
    if not result.ok:
        raise DemoError("not everything was measured; the table says what and why")


def heading(text: str) -> None:
    """A rule across the terminal with the command that comes next."""
    console.print()
    console.rule(f"[bold]{text}[/bold]", align="left")
    sys.stdout.flush()


def run(repository: Path, *, short: bool) -> None:
    """The whole demo.

    Raises:
        DemoError: a step failed.
        TritonRepoError: no server could be started.
    """
    check_built(repository)
    started = time.monotonic()
    with Server(repository, model_control_mode="explicit", load=MODELS) as server:
        ready_s = time.monotonic() - started
        console.print(f"{len(MODELS)} models served on {server.http_url} (HTTP) and {server.grpc_url} (gRPC), ", end="")
        console.print(f"ready after {ready_s:.1f} s")
        for example in EXAMPLES:
            call(example, server)
        measure(repository, server, short=short)


def main(argv: Sequence[str] | None = None) -> int:
    """Arguments to exit status: 0 when every step worked, 1 when one did not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="measure for seconds only, as in continuous integration")
    parser.add_argument("--repository", type=Path, default=HERE.parent / "model_repository", help="what to serve")
    args = parser.parse_args(argv)
    try:
        run(args.repository, short=args.short)
    except (DemoError, TritonRepoError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.TimeoutExpired as error:
        print(f"error: {' '.join(map(str, error.cmd))} took longer than {error.timeout:.0f} s", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
